"""Lease blocks for tasks, which end their leases even if a task is cancelled or dropped."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Coroutine
from datetime import datetime, timedelta
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ledger.contract import AsyncBudget
from ledger.core.errors import (
    BudgetError,
    IdempotencyConflictError,
    InvalidInputError,
    LedgerError,
    LostLeaseError,
    RequestBudgetExceededError,
)
from ledger.core.usage_reports import UsageReport
from ledger.core.values import NOTHING_USED, Usage
from ledger.lease.blocks import AnyBlock, report_unended
from ledger.lease.renewal import TaskRenewer


class AsyncLeaseBlock(AnyBlock[AsyncBudget]):
    """A lease inside an `async with` block; otherwise like `LeaseBlock`.

    If the task is cancelled, the lease is ended before the cancellation goes on. If the coroutine
    is garbage collected, it cannot await anything, and the lease is ended soon afterwards. A timer
    of the loop renews the lease; a loop that is blocked renews nothing.
    """

    _with = "async with"
    _kept: TaskRenewer | None = None
    """The renewer of the lease, None as long as it has no time to live."""

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
        unbilled = self._is_unbilled(error)
        if kind is GeneratorExit and not _may_await(sys._getframe(1)):  # noqa: SLF001 - there is no other way to know
            _leave(self._do_end(unbilled=unbilled))
            return
        failure, cancelled = await finished(self._do_end(unbilled=unbilled))
        if isinstance(failure, asyncio.CancelledError):
            # The loop is being shut down, and has cancelled every task, that of this end too,
            # perhaps before it began. If it had begun, it is completed, and this second end changes
            # nothing.
            _leave(self._do_end(unbilled=unbilled))
            cancelled = cancelled or failure
        if isinstance(failure, LedgerError) and not isinstance(
            failure, BudgetError | IdempotencyConflictError
        ):
            report_unended(self.lease, failure, error or cancelled)
        if cancelled is not None and error is None:
            raise cancelled

    async def _do_end(self, *, unbilled: bool) -> None:
        try:
            with self._left(unbilled=unbilled):
                await self._end(unbilled=unbilled)
        except LostLeaseError as lost:
            if not unbilled:
                await self._book(lost, self._lost_call(None, self._report))

    if not TYPE_CHECKING:  # hidden from type checkers, so that they refuse `await lease(...)`

        def __await__(self) -> NoReturn:
            self._unused = False
            raise InvalidInputError("lease", self._nothing_reserved())

    async def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `Budget.observe`."""
        with self._observing(usage, report):
            await self._budget.observe(self.lease, usage, report=report)

    async def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `Budget.record_used`."""
        try:
            try:
                with self._ending(usage, report):
                    await self._budget.record_used(self.lease, usage, report=report)
            except LostLeaseError as lost:
                await self._book(lost, self._lost_call(usage, report))
        except RequestBudgetExceededError:
            self._close()
            raise
        self._close()

    async def renew(self, ttl: timedelta) -> datetime:
        """Keep the lease's hold until `ttl` from now, and by as long at each later renewal."""
        expires_at = await self._renew(ttl)
        self._keep(ttl)
        return expires_at

    async def release(self) -> None:
        """Close the lease unused; as `Budget.release`."""
        try:
            await self._budget.release(self.lease)
        except LostLeaseError as lost:
            if self._used() != NOTHING_USED:
                await self._book(lost, self._lost_call(NOTHING_USED, None))
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

    A cancellation must not leave the lease open; the caller raises it again afterwards. The end
    itself is cancelled only with all tasks of its loop, and then the cancellation is its failure.
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

    An asynchronous generator is closed by a task of the loop, which awaits the closing. A coroutine
    that is closed or garbage-collected must end at once.
    """
    if not block.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return False
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - None is no error here


def _leave(ending: Coroutine[Any, Any, None]) -> None:
    """Queue the end of a lease without awaiting it; the next batch does it."""
    with contextlib.suppress(StopIteration):
        ending.send(None)  # runs until the operation is in the queue, where it stays after close()
    ending.close()
