"""A lease held for the length of a `with` block, so that it never stays open by mistake."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeAlias, TypeVar

from ledger.contract import RequestExtensions
from ledger.core.values import (
    Attribution,
    BudgetLease,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.errors import (
    BudgetError,
    InvalidInputError,
    LedgerError,
    RequestBudgetExceededError,
)

if TYPE_CHECKING:
    from ledger.aio import AsyncBudgetRouter, AsyncLedgerBudgetManager
    from ledger.manager import LedgerBudgetManager
    from ledger.memory import SharedPoolBudgetManager
    from ledger.router import BudgetRouter


_Budget: TypeAlias = "LedgerBudgetManager | SharedPoolBudgetManager | BudgetRouter"
_AsyncBudget: TypeAlias = "AsyncLedgerBudgetManager | AsyncBudgetRouter"
B = TypeVar("B")


class _Held(Generic[B]):
    """What both kinds share: what is reserved, and whether the lease has ended."""

    def __init__(
        self,
        budget: B,
        estimate: UsageEstimate,
        *,
        request_budget: RequestBudget | None,
        attribution: Attribution | None,
        extensions: RequestExtensions | None,
        wait_s: float,
    ) -> None:
        self._budget = budget
        asked = RequestExtensions() if attribution is None else RequestExtensions(attribution)
        if extensions is not None:
            asked.push_fallback(extensions)
        self._asked = asked, estimate, request_budget or RequestBudget.unlimited()
        self._wait_s = wait_s
        self._lease: BudgetLease | None = None
        self._ended = False

    @property
    def lease(self) -> BudgetLease:
        """The lease.

        Raises:
            InvalidInputError: The block was not entered, and there is none.
        """
        if self._lease is None:
            raise InvalidInputError("lease", "is there inside its with block alone; enter it first")
        return self._lease

    @property
    def id(self) -> int:
        """The lease's id."""
        return self.lease.id


class HeldLease(_Held[_Budget]):
    """A lease inside a `with` block; `LedgerBudgetManager.lease` makes it.

    Left without `record` or `release`, by whatever way, the lease is ended as the pool's
    settlement policy says, and the exception that left the block comes through.
    """

    def __enter__(self) -> Self:
        self._lease = self._budget.reserve(*self._asked, wait_s=self._wait_s)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        try:
            self._budget.abandon(self.lease)
        except BudgetError:
            pass  # it was ended elsewhere; or it is ended, and over its own budget
        except LedgerError as failure:
            _unended(self.lease, failure, error)

    def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `LedgerBudgetManager.observe`."""
        self._budget.observe(self.lease, usage, report=report)

    def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `LedgerBudgetManager.record_used`."""
        try:
            self._budget.record_used(self.lease, usage, report=report)
        except RequestBudgetExceededError:
            self._ended = True
            raise
        self._ended = True

    def renew(self, ttl: timedelta) -> datetime:
        """Hold what is held until so long from now; as `LedgerBudgetManager.renew`."""
        return self._budget.renew(self.lease, ttl)

    def release(self) -> None:
        """Close the lease unused; as `LedgerBudgetManager.release`."""
        self._budget.release(self.lease)
        self._ended = True


class AsyncHeldLease(_Held[_AsyncBudget]):
    """A lease inside an `async with` block; as `HeldLease`.

    The lease is ended before a cancellation goes on.
    """

    async def __aenter__(self) -> Self:
        self._lease = await self._budget.reserve(*self._asked, wait_s=self._wait_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        ending = asyncio.ensure_future(self._budget.abandon(self.lease))
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as again:
                cancelled = again
        failure = ending.exception()
        if isinstance(failure, LedgerError) and not isinstance(failure, BudgetError):
            _unended(self.lease, failure, error or cancelled)
        if cancelled is not None and error is None:
            raise cancelled

    async def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `LedgerBudgetManager.observe`."""
        await self._budget.observe(self.lease, usage, report=report)

    async def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `LedgerBudgetManager.record_used`."""
        try:
            await self._budget.record_used(self.lease, usage, report=report)
        except RequestBudgetExceededError:
            self._ended = True
            raise
        self._ended = True

    async def renew(self, ttl: timedelta) -> datetime:
        """Hold what is held until so long from now; as `LedgerBudgetManager.renew`."""
        return await self._budget.renew(self.lease, ttl)

    async def release(self) -> None:
        """Close the lease unused; as `LedgerBudgetManager.release`."""
        await self._budget.release(self.lease)
        self._ended = True


def _unended(lease: BudgetLease, failure: LedgerError, error: BaseException | None) -> None:
    """Tell of a lease that could not be ended, without hiding why its block was left."""
    if error is None:
        raise failure
    error.add_note(f"lease {lease.id} could not be ended: {failure}")
