"""Run a trace through a pool: every row is reserved and settled with its recorded usage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ledger.core.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    TraceAlreadyRunError,
)
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.engine.replaying import AT_ONCE_MAX
from ledger.files.bill import Bill
from ledger.files.lines import BillLine
from ledger.files.rows import digest_of
from ledger.ledger import Ledger
from ledger.simulate.backtest import Backtest
from ledger.simulate.resuming import finished

_DENIALS_KEPT = 10


class Verdict(StrEnum):
    """The outcome of a row."""

    ADMITTED = "admitted"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of running a trace.

    Attributes:
        admitted: Rows that were reserved and settled.
        denied: Rows that were refused.
        denied_keys: The idempotency keys of the first rows that were refused, 10 at most.
    """

    admitted: int
    denied: int
    denied_keys: Sequence[str]


def run(
    book: Ledger,
    pool: str,
    options: SharedPoolBudgetOptions,
    backtest: Backtest,
    *,
    again: bool = False,
    resume: bool = False,
    progress: Callable[[Verdict], object] | None = None,
) -> Result:
    """Reserve and settle every row of a trace, and return the result.

    Every row has idempotency keys made from its request id, or else from the file's hash and the
    row's line. So a second or resumed run, and one of a log that has grown, never counts a row
    twice.

    Args:
        book: The store, which is searched for an earlier run of the same trace.
        pool: The pool that is charged; it is opened if it does not exist.
        options: The pool's policy.
        backtest: How the trace is run.
        again: Run a trace that was run before, and count its rows once more.
        resume: Continue the newest run of this trace in this pool: where it was interrupted, or
            with the calls that were logged since.
        progress: Called with the outcome of each row, once it is in the books.

    Raises:
        TraceAlreadyRunError: The trace was run into this store, and neither flag is given.
        InvalidInputError: Both flags are given; or there is no run to continue, or it was begun
            with other prices or estimates; or a row has no cost, and the pool limits cost.
        BillingFileError: A row is dated more than a day ahead of the store's clock.
        PoolConflictError: The pool exists under another policy.
    """
    if again and resume:
        raise InvalidInputError(
            "resume", "cannot be combined with again: again counts the whole trace once more"
        )
    backtest.check_priced(options)
    backtest.check_not_ahead(book.now())
    take = _take(book, pool, backtest.trace, again=again, resume=resume)
    budget = book.pool(pool, options)
    admitted = denied = 0
    denied_keys: list[str] = []
    rows = enumerate(backtest.trace.lines)
    try:
        while batch := [*itertools.islice(rows, AT_ONCE_MAX)]:
            keys = [_key(backtest.trace, row, take) for _position, row in batch]
            asked = [(row, position, key) for (position, row), key in zip(batch, keys, strict=True)]
            outlines = [backtest.outline(*one) for one in asked]
            done = finished(book, budget, outlines) if resume else None
            if done is None:
                calls = [outline.call() for outline in outlines]
                leases = budget.reserve_and_settle(calls, at_once=backtest.workers)
                done = [lease is not None for lease in leases]
            for key, was_admitted in zip(keys, done, strict=True):
                if was_admitted:
                    admitted += 1
                else:
                    denied += 1
                    denied_keys += [key] if denied <= _DENIALS_KEPT else []
                if progress is not None:
                    progress(Verdict.ADMITTED if was_admitted else Verdict.DENIED)
    except IdempotencyConflictError as error:
        raise InvalidInputError(
            "resume",
            "the run was begun with other prices or estimates, or a request id is that of another "
            "call; give the same again, or count all anew with again (--again)",
        ) from error
    return Result(admitted=admitted, denied=denied, denied_keys=denied_keys)


def _take(book: Ledger, pool: str, trace: Bill, *, again: bool, resume: bool) -> int:
    """Return the number of this run of the trace in the pool, from 1."""
    first = trace.lines[0]

    def was_run(name: str, take: int) -> bool:
        return book.entry_with_key(name, _key(trace, first, take)) is not None

    holders = [info.name for info in book.pools(left_out=[]) if was_run(info.name, 1)]
    if holders and not again and not (resume and pool in holders):
        raise TraceAlreadyRunError(trace.file, pool=holders[0])
    if pool not in holders:
        if resume:
            raise InvalidInputError("resume", f"{trace.file} was not begun in this store")
        return 1
    free = next(take for take in itertools.count(1) if not was_run(pool, take))
    return free - 1 if resume else free


def _key(trace: Bill, row: BillLine, take: int) -> str:
    """Return the idempotency key of a row's reservation."""
    if row.request_id is not None:
        return f"trace:{take}:{digest_of(row.request_id).hex()}"
    return f"trace:{take}:{trace.sha256[:32]}:{row.line}"
