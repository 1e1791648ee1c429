"""The operations for the rows of a trace, and which of them the store already has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from ledger.core import hashing
from ledger.core.checks import Micros
from ledger.core.kinds import EntryKind
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS, RequestBudget, Usage, UsageEstimate
from ledger.engine.operations.base import NO_REPORT
from ledger.engine.operations.record import arguments_of as recording
from ledger.engine.operations.replayed import Replayed, ReserveReplayed, used_key
from ledger.engine.operations.reserve import arguments_of as reservation
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.store.amounts import BUDGET_FIELDS, USAGE
from ledger.store.schema import entries, pools

_UNLIMITED = RequestBudget.unlimited()
_NO_BUDGET = (None,) * len(BUDGET_FIELDS)
_KEYED = select(
    entries.c.idempotency_key, entries.c.payload_digest, entries.c.seq, entries.c.kind
).where(
    entries.c.pool_id == bindparam("pool_id"),
    entries.c.payload_digest.is_not(None),
    entries.c.idempotency_key.in_(bindparam("keys", expanding=True)),
)
_POOL = select(pools.c.pool_id).where(pools.c.identity == bindparam("identity"))


class Outline(NamedTuple):
    """The operations for a row, whose values were checked when it was read.

    Attributes:
        key: The idempotency key of its reservation.
        estimate: What is held, in the order of `ESTIMATE_FIELDS`.
        usage: What it used, in the order of `USAGE_FIELDS`.
        attribution: The content of its attribution.
        request_id: Its request id.
        occurred_at: When it was made.
    """

    key: str
    estimate: tuple[int, ...]
    usage: tuple[int, ...]
    attribution: str
    request_id: str | None
    occurred_at: Micros

    def call(self) -> Replayed:
        """Return the operations."""
        reserve = ReserveReplayed(
            key=self.key,
            key_given=True,
            estimate=UsageEstimate(**dict(zip(ESTIMATE_FIELDS, self.estimate, strict=True))),
            request_budget=_UNLIMITED,
            attribution=self.attribution,
            request_id=self.request_id,
            occurred_at=self.occurred_at,
            ttl_us=None,
            unpriced=None,
            keep_denial=True,
        )
        usage = Usage(**dict(zip(USAGE_FIELDS, self.usage, strict=True)))
        return Replayed.settled(reserve, usage)


def finished(
    book: Ledger, budget: LedgerBudgetManager, rows: Sequence[Outline]
) -> list[bool] | None:
    """Return for each row whether it was admitted; None unless the store has every row as given.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    keys = [key for row in rows for key in (row.key, used_key(row.key))]

    def look(connection: Connection) -> dict[str, tuple[bytes, int, str]]:
        pool_id = connection.execute(_POOL, {"identity": budget.identity.bytes}).scalar_one()
        asked = {"pool_id": pool_id, "keys": keys}
        found: Any = connection.execute(_KEYED, asked)
        return {key: (digest, seq, kind) for key, digest, seq, kind in found}

    there = book.read(look)
    admitted = []
    for row in rows:
        digest, lease, kind = there.get(row.key, _NOTHING)
        told = (row.attribution, row.request_id, row.occurred_at, None)
        if digest != hashing.digest(reservation(row.estimate, _NO_BUDGET, *told)):
            return None
        if kind == EntryKind.RESERVATION:
            usage = USAGE.stored_as(*row.usage)
            settled, *_ = there.get(used_key(row.key), _NOTHING)
            if settled != hashing.digest(recording("settle", lease, usage, NO_REPORT)):
                return None
        admitted.append(kind == EntryKind.RESERVATION)
    return admitted


_NOTHING = (b"", 0, "")
