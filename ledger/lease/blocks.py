"""Lease blocks: a lease for the length of a `with` block, which never stays open by mistake."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
import threading
import warnings
from collections.abc import Coroutine
from datetime import datetime, timedelta
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from ledger.contract import AsyncBudget, Budget
from ledger.core.checks import check_type
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.unbilled import is_unbilled
from ledger.core.usage_reports import UsageReport
from ledger.core.values import BudgetLease, RequestBudget, Usage, UsageEstimate
from ledger.errors import (
    BudgetError,
    InvalidInputError,
    LedgerError,
    LostLeaseError,
    RequestBudgetExceededError,
)
from ledger.lease.renewal import TaskRenewer, renewer

B = TypeVar("B")


class _Block(Generic[B]):
    """What both kinds of block share: the reservation to make, and whether the lease has ended."""

    _with = "with"
    _unused = False
    """Whether `__init__` is done and the block was not entered; False if `__init__` raised."""

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
        self._known: UsageEstimate | None = None
        """What the call used at most, as far as that is known by now."""
        self._report: UsageReport | None = None
        """What else is known of it by now."""
        self._entry = threading.Lock()
        self._unused = True

    def __del__(self) -> None:
        if self._unused:
            # A mistake like a coroutine that is never awaited: the program believes that it holds
            # a lease, but nothing was reserved.
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
        """Say what the call used at most, now that more is known: its input, or its attempts.

        Nothing is written. The pool's settlement policy takes it in place of the estimate that was
        reserved, if the block ends without `record` or `release`, with the model and the provider's
        id of the report; see `Budget.abandon`.

        Raises:
            InvalidInputError: It is no estimate, or the report is none.
        """
        check_type("estimate", estimate, UsageEstimate)
        if report is not None:
            check_type("report", report, UsageReport)
        self._known, self._report = estimate, report

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

    def _is_inherited(self) -> bool:
        """Tell whether this is a child process, whose parent entered the block and will leave it.

        What a child does with the lease itself (`record`, `release`) is its own wish, and counts.
        """
        # In memory the child has a lease of its own, in its copy of the manager.
        return self.lease.pool is not None and self._process != os.getpid()

    def _end(self, error: BaseException | None) -> Any:  # noqa: ANN401 - None, or what a task awaits
        """End the lease of a block that is left by this error, or by none.

        It is released if the error says that nothing was used, or else left to the pool's policy.
        """
        budget: Any = self._budget
        if error is not None and not self._observed and is_unbilled(error):
            return budget.release(self.lease)
        return budget.abandon(self.lease, estimate=self._known, report=self._report)

    def _nothing_reserved(self) -> str:
        return (
            "lease(estimate) reserves when its block is entered, and this one was not: nothing is "
            f"reserved; write '{self._with} budget.lease(...) as lease:', or call reserve()"
        )


class LeaseBlock(_Block[Budget]):
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
    """By what the renewer knows the block."""

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
        try:
            self._end(error)
        except LostLeaseError as failure:
            _unended(self.lease, failure, error)
        except BudgetError:
            pass  # another call ended the lease, or this one did and reports it over its own budget
        except LedgerError as failure:
            _unended(self.lease, failure, error)

    def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `Budget.observe`."""
        self._observed = True
        self._budget.observe(self.lease, usage, report=report)

    def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `Budget.record_used`."""
        try:
            self._budget.record_used(self.lease, usage, report=report)
        except (RequestBudgetExceededError, LostLeaseError):
            self._close()
            raise
        self._close()

    def renew(self, ttl: timedelta) -> datetime:
        """Keep the lease's hold until `ttl` from now, and for as long from each renewal on."""
        expires_at = self._renew(ttl)
        renewer().let_go(self._kept)
        self._kept = renewer().keep(self.id, ttl, self._renew)
        return expires_at

    def release(self) -> None:
        """Close the lease unused; as `Budget.release`."""
        self._budget.release(self.lease)
        self._close()

    def _renew(self, ttl: timedelta) -> datetime:
        return self._budget.renew(self.lease, ttl)

    def _close(self) -> None:
        """Note that the lease has ended."""
        self._ended = True
        renewer().let_go(self._kept)


class AsyncLeaseBlock(_Block[AsyncBudget]):
    """A lease inside an `async with` block; otherwise like `LeaseBlock`.

    If the task is cancelled, the lease is ended before the cancellation goes on. If the coroutine
    is garbage collected, it cannot await anything, and the lease is ended soon afterwards. A timer
    of the loop renews the lease; a loop that is blocked renews nothing.
    """

    _with = "async with"
    _kept: TaskRenewer | None = None
    """What renews the lease."""

    async def __aenter__(self) -> Self:
        self._enter()
        self._lease = await self._budget.reserve(*self._asked, wait_s=self._wait_s)
        if self._lease.ttl is not None:
            self._keep(self._lease.ttl)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go()
        if self._ended or self._is_inherited():
            return
        if kind is GeneratorExit and not _may_await(sys._getframe(1)):  # noqa: SLF001 - there is no other way to know
            _leave(self._end(error))
            return
        failure, cancelled = await finished(self._end(error))
        if isinstance(failure, asyncio.CancelledError):
            # The loop is shut down, and has cancelled every task, the end's too, perhaps before it
            # began. If it did begin, it is done, and this second one changes nothing.
            _leave(self._end(error))
            cancelled = cancelled or failure
        if isinstance(failure, LedgerError) and not isinstance(failure, BudgetError):
            _unended(self.lease, failure, error or cancelled)
        if isinstance(failure, LostLeaseError):
            _unended(self.lease, failure, error or cancelled)
        if cancelled is not None and error is None:
            raise cancelled

    if not TYPE_CHECKING:  # without it a type checker refuses `await lease(...)` before it runs

        def __await__(self) -> NoReturn:
            self._unused = False
            raise InvalidInputError("lease", self._nothing_reserved())

    async def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `Budget.observe`."""
        self._observed = True
        await self._budget.observe(self.lease, usage, report=report)

    async def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `Budget.record_used`."""
        try:
            await self._budget.record_used(self.lease, usage, report=report)
        except (RequestBudgetExceededError, LostLeaseError):
            self._close()
            raise
        self._close()

    async def renew(self, ttl: timedelta) -> datetime:
        """Keep the lease's hold until `ttl` from now, and for as long from each renewal on."""
        expires_at = await self._renew(ttl)
        self._keep(ttl)
        return expires_at

    async def release(self) -> None:
        """Close the lease unused; as `Budget.release`."""
        await self._budget.release(self.lease)
        self._close()

    async def _renew(self, ttl: timedelta) -> datetime:
        return await self._budget.renew(self.lease, ttl)

    def _keep(self, ttl: timedelta) -> None:
        self._let_go()
        self._kept = TaskRenewer(self.id, ttl, self._renew)

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.stop()

    def _close(self) -> None:
        """Note that the lease has ended."""
        self._ended = True
        self._let_go()


async def finished(
    ending: Coroutine[Any, Any, object],
) -> tuple[BaseException | None, asyncio.CancelledError | None]:
    """Await the end of a lease; return its failure, and a cancellation that came meanwhile.

    A cancellation must not leave the lease open: it is to be raised again after that. The end
    itself is cancelled only with all tasks of its loop; that is its failure, then.
    """
    task = asyncio.ensure_future(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as again:
            cancelled = again
    if task.cancelled():
        return asyncio.CancelledError(), cancelled
    return task.exception(), cancelled


def _may_await(block: FrameType) -> bool:
    """Tell whether a block that GeneratorExit ends can still await something.

    A task of the loop closes an asynchronous generator and awaits it. A coroutine that is closed
    or garbage collected has to end at once.
    """
    if not block.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return False
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - None is no error here


def _leave(ending: Coroutine[Any, Any, None]) -> None:
    """Queue the end of a lease without awaiting it; the next batch does it."""
    with contextlib.suppress(StopIteration):
        ending.send(None)  # runs until the operation is in the queue, where it stays after close()
    ending.close()


def _unended(lease: BudgetLease, failure: LedgerError, error: BaseException | None) -> None:
    """Report a lease that could not be ended, without hiding the error that ended its block."""
    if error is None:
        raise failure
    error.add_note(f"lease {lease.id} could not be ended: {failure}")
