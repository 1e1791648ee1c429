"""Run a trace through a pool: every row is reserved and settled with its recorded usage."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import StrEnum

from ledger.contract import RequestExtensions
from ledger.core.checks import I64_MAX, check_amount
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.usage_reports import UsageReport
from ledger.core.values import (
    Attribution,
    IdempotencyKey,
    OccurredAt,
    RequestBudget,
    Usage,
    UsageEstimate,
)
from ledger.errors import (
    BudgetError,
    IdempotencyConflictError,
    InvalidInputError,
    TraceAlreadyRunError,
    TraceError,
    UnpricedCallError,
)
from ledger.ledger import Ledger
from ledger.manager import LedgerBudgetManager
from ledger.simulate.pricing import Prices
from ledger.simulate.runs import RunRule
from ledger.simulate.trace import Trace, TraceRow


class Outcome(StrEnum):
    """What became of a row."""

    ADMITTED = "admitted"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a trace.

    Attributes:
        admitted: Rows that were reserved and settled.
        denied: Rows that were refused.
        key_prefix: The beginning of all idempotency keys of this run.
    """

    admitted: int
    denied: int
    key_prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """How a trace is run.

    Attributes:
        trace: The recorded calls.
        runs: How rows are cut into runs.
        prices: What tokens cost, where a row does not say what the call cost.
        estimate_output_tokens: The output tokens that every call is estimated at. With None, each
            call is estimated at its recorded output.
        workers: How many threads run rows at once, 1 or more. With one, rows are run in order.
    """

    trace: Trace
    runs: RunRule
    prices: Prices = field(default_factory=Prices)
    estimate_output_tokens: int | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if self.estimate_output_tokens is not None:
            check_amount("estimate_output_tokens", self.estimate_output_tokens, ceiling=I64_MAX)
        if self.workers < 1:
            raise InvalidInputError("workers", "must be 1 or more")

    def estimate(self, row: TraceRow) -> UsageEstimate:
        """Return what is held for a row before it is run.

        A row that carries its own cost is estimated at that cost unless prices are given.
        """
        output = row.output_tokens
        if self.estimate_output_tokens is not None:
            output = self.estimate_output_tokens
        cost = self.prices.cost_micros_usd(row.input_tokens, output)
        if self.prices == Prices() and row.cost_micros_usd is not None:
            cost = row.cost_micros_usd
        return UsageEstimate(
            input_tokens=row.input_tokens,
            output_tokens=output,
            total_tokens=row.input_tokens + output,
            cost_micros_usd=cost,
        )

    def usage(self, row: TraceRow) -> Usage:
        """Return what a row really used; its own cost wins over one computed from prices."""
        cost = row.cost_micros_usd
        if cost is None:
            cost = self.prices.cost_micros_usd(row.input_tokens, row.output_tokens)
        return Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            total_tokens=row.input_tokens + row.output_tokens,
            cost_micros_usd=cost,
        )

    def check(self) -> int:
        """Read every row once, so that a bad row is found before anything is written.

        Returns:
            How many rows there are.

        Raises:
            TraceError: A row cannot be read, its amounts cannot be stored, or there are no rows.
        """
        count = 0
        for row in self.trace.rows():
            count += 1
            for amounts in (self.estimate(row), self.usage(row)):
                if max(amounts.total_tokens, amounts.cost_micros_usd) > I64_MAX:
                    raise TraceError(
                        str(self.trace.path), line=row.line, reason="the amounts are above 2^63-1"
                    )
        if count == 0:
            raise TraceError(str(self.trace.path), line=2, reason="the trace has no rows")
        return count


def run(
    book: Ledger,
    pool: str,
    options: SharedPoolBudgetOptions,
    backtest: Backtest,
    *,
    again: bool = False,
    resume: bool = False,
    progress: Callable[[Outcome], object] | None = None,
) -> Result:
    """Reserve and settle every row of a trace, and return what became of them.

    Every row has idempotency keys made from the file's digest and the row's line. A second run or
    a resumed one therefore never counts a row twice by accident.

    Args:
        book: The store, which is searched for an earlier run of the same trace.
        pool: The pool that is charged; it is opened if it does not exist.
        options: The pool's policy.
        backtest: How the trace is run.
        again: Run a trace that was run before, and count its rows once more.
        resume: Continue the newest run of this trace in this pool where it was interrupted.
        progress: Called with the outcome of each row, in the worker's thread.

    Raises:
        TraceError: A row cannot be read; nothing was written.
        TraceAlreadyRunError: The trace was run into this store, and neither flag is given.
        InvalidInputError: Both flags are given; or there is no run to continue, or it was begun
            with other prices or estimates.
        PoolConflictError: The pool exists under another policy.
    """
    if again and resume:
        raise InvalidInputError(
            "resume", "cannot be combined with again: again counts the whole trace once more"
        )
    backtest.check()
    digest = backtest.trace.digest()[:32]
    take = _take(book, pool, backtest.trace, digest, again=again, resume=resume)
    budget = book.pool(pool, options)
    prefix = _prefix(digest, take)
    counts = dict.fromkeys(Outcome, 0)
    counting = threading.Lock()

    def work(position: int, row: TraceRow) -> None:
        outcome = _run_row(budget, backtest, row, position, prefix=prefix)
        with counting:
            counts[outcome] += 1
        if progress is not None:
            progress(outcome)

    try:
        rows = enumerate(backtest.trace.rows())
        # The first row runs before all others: `_take` looks for its key to find earlier runs.
        work(*next(rows))
        _in_threads(backtest.workers, rows, work)
    except IdempotencyConflictError as error:
        raise InvalidInputError(
            "resume", "the run was begun with other prices or estimates; give the same again"
        ) from error
    return Result(
        admitted=counts[Outcome.ADMITTED], denied=counts[Outcome.DENIED], key_prefix=prefix
    )


def _run_row(
    budget: LedgerBudgetManager, backtest: Backtest, row: TraceRow, position: int, *, prefix: str
) -> Outcome:
    key = f"{prefix}{row.line}"
    extensions = RequestExtensions(
        Attribution(
            run_id=backtest.runs.run_id(row, position),
            model=row.model,
            provider=row.provider,
            tenant=row.tenant,
            agent=row.agent,
            request_id=row.request_id,
        ),
        OccurredAt(row.at),
        IdempotencyKey(key),
    )
    try:
        lease = budget.reserve(extensions, backtest.estimate(row), RequestBudget.unlimited())
    except UnpricedCallError:
        raise  # no verdict on the row: the back-test was asked without prices
    except BudgetError:
        return Outcome.DENIED
    budget.record_used(
        lease, backtest.usage(row), report=UsageReport(idempotency_key=f"{key}:used")
    )
    return Outcome.ADMITTED


def _take(book: Ledger, pool: str, trace: Trace, digest: str, *, again: bool, resume: bool) -> int:
    """Return the number of this run of the trace in the pool, from 1."""
    line = next(trace.rows()).line

    def was_run(name: str, take: int) -> bool:
        return book.entry_with_key(name, f"{_prefix(digest, take)}{line}") is not None

    holders = [info.name for info in book.pools(left_out=[]) if was_run(info.name, 1)]
    if holders and not again and not (resume and pool in holders):
        raise TraceAlreadyRunError(str(trace.path), pool=holders[0])
    if pool not in holders:
        if resume:
            raise InvalidInputError("resume", f"{trace.path} was not begun in this store")
        return 1
    free = next(take for take in itertools.count(1) if not was_run(pool, take))
    return free - 1 if resume else free


def _prefix(digest: str, take: int) -> str:
    return f"trace:{digest}:{take}:"


def _in_threads(
    workers: int,
    rows: Iterator[tuple[int, TraceRow]],
    work: Callable[[int, TraceRow], None],
) -> None:
    """Run rows in threads, at most two per thread submitted at a time, up to the first error."""
    with ThreadPoolExecutor(workers) as threads:
        pending: set[Future[None]] = set()
        for position, row in rows:
            pending.add(threads.submit(work, position, row))
            if len(pending) >= 2 * workers:
                # No time-out here: a row is a few calls of the budget, and each has its own.
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for finished in done:
                    finished.result()
        for unfinished in pending:
            unfinished.result()
