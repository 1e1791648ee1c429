"""Do a batch of operations on one pool inside one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ledger import journal, rows
from ledger.checks import Micros
from ledger.errors import IdempotencyConflictError, LedgerError
from ledger.journal import PoolJournal
from ledger.operations.base import Desk, Operation
from ledger.rows import LeaseRow, Memo, Row

Outcome = Row | LedgerError
"""What became of an operation: its entry, or why it has none."""


def perform(
    connection: Connection,
    pool: PoolJournal,
    operations: Sequence[Operation[Any]],
    *,
    now: Micros,
    look_up: bool,
) -> tuple[list[Outcome], Memo]:
    """Do the operations in order, in the transaction that is open, and return their outcomes.

    The newest entry is read once; each operation is decided on what the one before it left
    behind; one operation's refusal does not touch another. `look_up` asks whether an earlier
    try of the same batch may have taken effect.

    Returns:
        The outcomes, and what the pool's journal may remember once they are committed.
    """
    head = pool.head(connection)
    known = pool.by_keys(connection, {op.key for op in operations if op.key_given or look_up})
    wanted = {op.lease_id for op in operations if op.lease_id is not None and op.key not in known}
    leases = pool.leases(connection, wanted, head=head)
    desk = Desk(connection, pool, leases, head)
    outcomes: list[Outcome] = []
    staged: list[Row] = []
    for operation in operations:
        try:
            if operation.key in known:
                outcomes.append(_first_outcome(operation, known[operation.key]))
                continue
            draft = operation.decide(desk)
        except LedgerError as refusal:
            outcomes.append(refusal)
            continue
        row = rows.to_row(
            draft, pool_id=pool.info.pool_id, head=desk.head, genesis=pool.genesis, now=now
        )
        staged.append(row)
        known[operation.key] = row
        desk.head = rows.head_of(row, draft.policy or desk.head.policy)
        if draft.lease is not None:
            desk.leases[draft.lease.lease] = LeaseRow(
                draft.lease, draft.attribution, draft.request_id, draft.occurred_at
            )
        outcomes.append(row)
    journal.append(connection, staged)
    return outcomes, Memo(head.hash, desk.head.hash, desk.leases)


def _first_outcome(operation: Operation[Any], row: Row) -> Row:
    if row["payload_digest"] != operation.payload_digest():
        raise IdempotencyConflictError(operation.key, seq=row["seq"])
    return row
