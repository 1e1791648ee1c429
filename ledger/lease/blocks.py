"""Lease blocks: a lease for the length of a `with` block, which always ends with the block."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ledger.contract import Budget
from ledger.core import rules
from ledger.core.checks import I64_MAX, check_type
from ledger.core.errors import (
    BudgetError,
    IdempotencyConflictError,
    InvalidInputError,
    LedgerError,
    LostLeaseError,
    RequestBudgetExceededError,
)
from ledger.core.extensions import Attribution, OccurredAt, RequestExtensions, for_whom
from ledger.core.lost_calls import BookedIfLost, LostCall
from ledger.core.unbilled import is_unbilled
from ledger.core.usage_reports import UsageReport
from ledger.core.values import NOTHING_USED, BudgetLease, RequestBudget, Usage, UsageEstimate
from ledger.lease.renewal import renewer

B = TypeVar("B")

_log = logging.getLogger(__name__)


class AnyBlock(Generic[B]):
    """The common base of both kinds of block: the reservation to make, and the lease's state."""

    _with = "with"
    _unused = False
    """Whether the block was made and not entered yet; False if `__init__` raised."""

    def __init__(
        self,
        budget: B,
        /,
        estimate: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> None:
        self._budget = budget
        asked = RequestExtensions() if attribution is None else RequestExtensions(attribution)
        if extensions is not None:
            asked.push_fallback(extensions)
        self._asked = asked, estimate, request_budget or RequestBudget.unlimited()
        self._wait_s = wait_s
        self._lease: BudgetLease | None = None
        self._ended = False
        self._observed = False
        self._sent: bool | None = None
        self._parts: dict[object, Usage] = {}
        """The observed parts of the usage, by idempotency key, or by a new object for parts without
        one."""
        self._known: UsageEstimate | None = None
        """The most that the call may have used, by what is known now."""
        self._report: UsageReport | None = None
        """What else is known of the call now."""
        self._entry = threading.Lock()
        self._unused = True

    def __del__(self) -> None:
        if self._unused:
            # This is a mistake like a coroutine that is never awaited: the program believes that it
            # holds a lease, but nothing was reserved.
            warnings.warn(self._nothing_reserved(), RuntimeWarning, stacklevel=2, source=self)

    @property
    def lease(self) -> BudgetLease:
        """The lease.

        Raises:
            InvalidInputError: The block was not entered, so there is no lease.
        """
        if self._lease is None:
            raise InvalidInputError("lease", self._nothing_reserved())
        return self._lease

    @property
    def id(self) -> int:
        """The lease's id."""
        return self.lease.id

    def restate(self, estimate: UsageEstimate, *, report: UsageReport | None = None) -> None:
        """State the most that the call may have used, once more is known, such as its input.

        Nothing is written. If the block ends without `record` or `release`, the pool's settlement
        policy uses this estimate in place of the reserved one, and the report's model and
        provider's id are kept; see `Budget.abandon`.

        Raises:
            InvalidInputError: The estimate or the report is of another type.
        """
        check_type("estimate", estimate, UsageEstimate)
        if report is not None:
            check_type("report", report, UsageReport)
        self._known, self._report = estimate, report

    def say_sent(self, sent: bool) -> None:  # noqa: FBT001 - it is the whole of what is said
        """Say whether the call was sent, where the error that ends the block does not know.

        One that was not sent is released, and one that was is not, whatever the error says. It is
        not said in a block that observes usage.
        """
        self._sent = sent

    def _enter(self) -> None:
        """Mark the block as entered; a second entry would lose the lease of the first.

        Raises:
            InvalidInputError: The block was entered before, by any thread or task.
        """
        self._unused = False
        self._process = os.getpid()
        # The lock is never released. It decides which of two entries at once is the first.
        if not self._entry.acquire(blocking=False):
            raise InvalidInputError(
                "lease",
                "this block was entered before, and one object is good for one block; "
                f"call lease() again for each: '{self._with} budget.lease(...) as lease:'",
            )

    @contextlib.contextmanager
    def _observing(self, usage: Usage, report: UsageReport | None) -> Iterator[None]:
        """Keep an observed part. If the lease is lost, all parts are booked once, at the end.

        Raises:
            RequestBudgetExceededError: All parts together are over the request's own budget.
        """
        self._observed = True
        lost, excess = False, None
        try:
            yield
        except LostLeaseError:
            lost = True
        except RequestBudgetExceededError as recorded:
            excess = recorded
        key = None if report is None else report.idempotency_key
        self._parts.setdefault(object() if key is None else key, usage)  # in one step
        if lost:
            excess = rules.over_request_budget(self.lease.request_budget, self._used())
        if excess is not None:
            raise excess

    def _used(self, last: Usage = NOTHING_USED) -> Usage:
        """Return the sum of the observed parts and a last part, each amount at most 2^63-1."""
        used = NOTHING_USED
        for part in [*self._parts.values(), last]:
            used = used.saturating_add(part, ceiling=I64_MAX)
        return used

    def _ending(self, last: Usage | None, report: UsageReport | None) -> BookedIfLost:
        """Return a block in which to end the lease; see `core.lost_calls`."""
        return BookedIfLost(lambda: self._lost_call(last, report))

    def _left(self, *, unbilled: bool) -> contextlib.AbstractContextManager[None]:
        """Return the same for the end of the block; an unbilled call is not booked."""
        return contextlib.nullcontext() if unbilled else self._ending(None, self._report)

    def _lost_call(self, last: Usage | None, report: UsageReport | None) -> LostCall:
        """Return what to book of the call if its lease is lost, and the store has no part of it.

        Args:
            last: The last part of the usage; None to let the pool's policy assume it.
            report: What is known of the call.
        """
        asked, occurred = self._asked[0], self._asked[0].get(OccurredAt)
        if occurred is not None and (report is None or report.occurred_at is None):
            report = replace(report or UsageReport(), occurred_at=occurred.at)
        estimate = self._known or self.lease.reserved if last is None else None
        whom = asked.get(Attribution)
        return LostCall(self.lease, self._used(last or NOTHING_USED), estimate, whom, report)

    def _book(self, lost: LostLeaseError, call: LostCall) -> Any:  # noqa: ANN401 - None, or what a task awaits
        """Book the usage of a call whose lease is lost."""
        _log.warning(
            "lease %s of pool %r is lost in a restore: what its call used is booked anew%s",
            self.lease.token,
            lost.pool,
            for_whom(call.attribution),
        )
        budget: Any = self._budget
        return budget.record_lost(**call._asdict())

    def _is_inherited(self) -> bool:
        """Tell whether this is a forked child, whose parent entered the block and will leave it.

        What the child does itself with the lease (`record`, `release`) takes effect.
        """
        # In memory the child has its own copy of the manager and of the lease.
        return self.lease.pool is not None and self._process != os.getpid()

    def _end(self, *, unbilled: bool) -> Any:  # noqa: ANN401 - None, or what a task awaits
        """End the lease of a block: release it if nothing was used, else by the pool's policy."""
        budget: Any = self._budget
        if unbilled:
            return budget.release(self.lease)
        return budget.abandon(self.lease, estimate=self._known, report=self._report)

    def _is_unbilled(self, error: BaseException | None) -> bool:
        """Tell whether the error that ends a block says that nothing was used."""
        if error is None or self._observed:
            return False
        return is_unbilled(error) if self._sent is None else not self._sent

    def _nothing_reserved(self) -> str:
        return (
            "lease(estimate) reserves when its block is entered, and this one was not: nothing is "
            f"reserved; write '{self._with} budget.lease(...) as lease:', or call reserve()"
        )


class LeaseBlock(AnyBlock[Budget]):
    """A lease inside a `with` block; a budget's `lease` makes it.

    If the block ends in any way without `record` or `release`, the lease is ended by the pool's
    settlement policy. It is released if nothing was observed, and the error that ends the block
    says that the provider did not do the work (`is_unbilled`). An exception that ends the block is
    not swallowed. After the block `id` and `lease` can still be read; other calls answer as for any
    lease that has ended.

    A lease with a time to live is renewed while the block runs, at half of that time, by a thread
    of the process. If that fails, it is logged, and the block goes on.
    """

    _kept: int | None = None
    """The number by which the renewer knows the block."""

    def __enter__(self) -> Self:
        self._enter()
        self._lease = self._budget.reserve(*self._asked, wait_s=self._wait_s)
        if self._lease.ttl is not None:
            self._kept = renewer().keep(self._lease.id, self._lease.ttl, self._renew)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        renewer().let_go(self._kept)
        if self._ended or self._is_inherited():
            return
        unbilled = self._is_unbilled(error)
        try:
            try:
                with self._left(unbilled=unbilled):
                    self._end(unbilled=unbilled)
            except LostLeaseError as lost:
                if not unbilled:
                    self._book(lost, self._lost_call(None, self._report))
        except (BudgetError, IdempotencyConflictError):
            pass  # another call ended or booked the lease, or this one is over its own budget
        except LedgerError as failure:
            report_unended(self.lease, failure, error)

    def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `Budget.observe`."""
        with self._observing(usage, report):
            self._budget.observe(self.lease, usage, report=report)

    def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `Budget.record_used`."""
        try:
            try:
                with self._ending(usage, report):
                    self._budget.record_used(self.lease, usage, report=report)
            except LostLeaseError as lost:
                self._book(lost, self._lost_call(usage, report))
        except RequestBudgetExceededError:
            self._close()
            raise
        self._close()

    def renew(self, ttl: timedelta) -> datetime:
        """Keep the lease's hold until `ttl` from now, and by as long at each later renewal."""
        expires_at = self._renew(ttl)
        renewer().let_go(self._kept)
        self._kept = renewer().keep(self.id, ttl, self._renew)
        return expires_at

    def release(self) -> None:
        """Close the lease unused; as `Budget.release`."""
        try:
            self._budget.release(self.lease)
        except LostLeaseError as lost:
            if self._used() != NOTHING_USED:
                self._book(lost, self._lost_call(NOTHING_USED, None))
        self._close()

    def _renew(self, ttl: timedelta) -> datetime:
        return self._budget.renew(self.lease, ttl)

    def _close(self) -> None:
        """Note that the lease has ended."""
        self._ended = True
        renewer().let_go(self._kept)


def report_unended(lease: BudgetLease, failure: LedgerError, error: BaseException | None) -> None:
    """Report a lease that could not be ended, without hiding the error that ended its block."""
    if error is None:
        raise failure
    error.add_note(f"lease {lease.id} could not be ended: {failure}")
