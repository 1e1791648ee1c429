"""Calls whose usage is known, many in a transaction: how a back-test writes a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ledger.core.arguments import check_reserve
from ledger.core.checks import check_amount, check_several, check_type
from ledger.core.errors import IdempotencyConflictError, InvalidInputError, LedgerError
from ledger.core.extensions import IdempotencyKey, RequestExtensions
from ledger.core.kinds import EntryKind
from ledger.core.values import BudgetLease, RequestBudget, Usage, UsageEstimate
from ledger.engine.group_commit import BATCH_MAX, Writer
from ledger.engine.operations import NotReservedError, OtherCallError, Replayed
from ledger.engine.operations.base import Operation
from ledger.store.journal import PoolJournal

KnownCall = tuple[RequestExtensions, UsageEstimate, Usage]
"""A call: its extensions, with an idempotency key; its estimate; and its usage."""
Known = KnownCall | Replayed
"""A call, or its operations, which a back-test makes from rows that it has checked."""

AT_ONCE_MAX = BATCH_MAX // 2


def checked(calls: Sequence[Known], at_once: int) -> list[Replayed]:
    """Return the operations of calls.

    Raises:
        InvalidInputError: An argument of another type or out of range.
        AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
    """
    check_several("calls", calls)
    if not 1 <= check_amount("at_once", at_once) <= AT_ONCE_MAX:
        raise InvalidInputError("at_once", f"must be 1 to {AT_ONCE_MAX}")
    asked = []
    for call in calls:
        if isinstance(call, Replayed):
            asked.append(call)
            continue
        extensions, estimate, usage = call
        check_reserve(extensions, estimate, RequestBudget.unlimited())
        check_type("usage", usage, Usage)
        if extensions.get(IdempotencyKey) is None:
            raise InvalidInputError("calls", "a call has no idempotency key")
        asked.append(Replayed.of(extensions, estimate, usage))
    return asked


def reserve_and_settle(
    writer: Writer, pool: PoolJournal, asked: Sequence[Replayed], at_once: int
) -> Iterator[BudgetLease | None]:
    """Reserve and settle calls, `AT_ONCE_MAX` of them in a transaction, and yield their leases.

    Raises:
        IdempotencyConflictError: A key belongs to another call.
        LedgerError: The reason why a call was not done.
    """
    for begin in range(0, len(asked), AT_ONCE_MAX):
        calls = asked[begin : begin + AT_ONCE_MAX]
        operations = [*_in_order(calls, at_once)]
        try:
            outcomes = dict(zip(map(id, operations), writer.run_all(pool, operations), strict=True))
        except OtherCallError as error:
            raise IdempotencyConflictError(error.key, seq=error.seq) from None
        for call in calls:
            row, settled = outcomes[id(call.reserve)], outcomes[id(call.settle)]
            if isinstance(row, LedgerError):
                raise row
            if row["kind"] == EntryKind.DENIAL:
                yield None
                continue
            if isinstance(settled, NotReservedError):
                # The lease was granted only in a later transaction, after other leases had expired.
                _reserved, settled = writer.run_all(pool, call)
            if isinstance(settled, LedgerError):
                raise settled
            yield call.reserve.answer(row, pool.info)


def _in_order(calls: Sequence[Replayed], at_once: int) -> Iterator[Operation[Any]]:
    """Yield the operations of calls. A call is settled when `at_once` calls are reserved."""
    for number, call in enumerate(calls):
        yield call.reserve
        if number >= at_once - 1:
            yield calls[number - at_once + 1].settle
    for call in calls[max(0, len(calls) - at_once + 1) :]:
        yield call.settle
