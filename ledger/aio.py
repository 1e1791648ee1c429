"""The asyncio face: it awaits the queue that threads use, so there is no second copy of anything.

Nothing here blocks the loop. What is written goes through the group-commit queue, whose batches
run on one thread of an executor; what is only read runs on the loop's own executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar, overload
from uuid import UUID

from ledger.announcements import OnThreshold
from ledger.contract import RequestExtensions, check_lease
from ledger.core.checks import check_seconds
from ledger.core.entries import Entry, PoolStatus
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import (
    Attribution,
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
    UsageReport,
)
from ledger.engine.group_commit import Clock
from ledger.engine.operations import Operation
from ledger.errors import JournalDamagedError
from ledger.lease import AsyncHeldLease
from ledger.ledger import DEFAULT_TIMEOUT_S, Ledger
from ledger.manager import LedgerBudgetManager
from ledger.router import BudgetRouter, Choose

T = TypeVar("T")


class AsyncLedgerBudgetManager:
    """The budget of one pool, for tasks; `LedgerBudgetManager` says what each call promises.

    A call that is cancelled while it waits in the queue is not done. One that is cancelled while
    it is being done is done: usage stays recorded, and a lease that nobody received is released.
    """

    def __init__(self, budget: LedgerBudgetManager) -> None:
        self._budget = budget

    def __repr__(self) -> str:
        return f"<Async{repr(self._budget)[1:]}"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._budget.name

    @property
    def identity(self) -> UUID:
        """The pool's identity, which its leases carry."""
        return self._budget.identity

    async def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        """Hold `estimate` in the pool; as `LedgerBudgetManager.reserve`.

        A call that is cancelled while it waits for capacity leaves the line.
        """
        operation = self._budget.reserving(extensions, estimate, request_budget)
        check_seconds("wait_s", wait_s)
        return await self._budget.waiting.reserve_async(self._budget.journal, operation, wait_s)

    async def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit the actual usage, whatever it is; as `LedgerBudgetManager.record_used`."""
        await self._do(self._budget.recording(lease, usage, report, closes=True))

    async def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit a part of a lease's usage; as `LedgerBudgetManager.observe`."""
        await self._do(self._budget.recording(lease, usage, report, closes=False))

    async def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        """Let a lease hold what it holds for longer; as `LedgerBudgetManager.renew`."""
        return await self._do(self._budget.renewing(lease, ttl, idempotency_key))

    async def abandon(self, lease: BudgetLease) -> None:
        """End a lease whose usage nobody recorded; as `LedgerBudgetManager.abandon`."""
        await self._do(self._budget.abandoning(lease))

    async def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close a lease unused; as `LedgerBudgetManager.release`."""
        await self._do(self._budget.releasing(lease, idempotency_key))

    async def correct(
        self,
        entry: Entry | int,
        usage: Usage,
        reason: str,
        *,
        idempotency_key: str | None = None,
    ) -> UsageDifference:
        """Say what an earlier entry's usage really was; as `LedgerBudgetManager.correct`."""
        return await self._do(self._budget.correcting(entry, usage, reason, idempotency_key))

    async def usage_of(self, entry: Entry | int) -> Usage:
        """Return what an entry says by now; as `LedgerBudgetManager.usage_of`."""
        return await asyncio.to_thread(self._budget.usage_of, entry)

    async def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left; as `LedgerBudgetManager.remaining`."""
        return await asyncio.to_thread(self._budget.remaining, extensions, max_age_s=max_age_s)

    async def status(self) -> PoolStatus:
        """Return the pool at its newest entry: policy, balance and what remains."""
        return await asyncio.to_thread(self._budget.status)

    @overload
    def lease(self, lease: int) -> Awaitable[BudgetLease]: ...

    @overload
    def lease(
        self,
        lease: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> AsyncHeldLease: ...

    def lease(
        self,
        lease: int | UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> Awaitable[BudgetLease] | AsyncHeldLease:
        """Await an open lease by its id, or hold one in an `async with` block.

        As `LedgerBudgetManager.lease`.
        """
        if isinstance(lease, UsageEstimate):
            return AsyncHeldLease(
                self,
                lease,
                request_budget=request_budget,
                attribution=attribution,
                extensions=extensions,
                wait_s=wait_s,
            )
        return asyncio.to_thread(self._budget.lease, lease)

    async def _do(self, operation: Operation[T]) -> T:
        return await self._budget.writer.run_async(self._budget.journal, operation)


class AsyncBudgetRouter:
    """An `AsyncBudgetManager` over many pools; as `BudgetRouter`."""

    def __init__(self, router: BudgetRouter) -> None:
        self._router = router

    async def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        """Hold `estimate` in the chosen pool; as `LedgerBudgetManager.reserve`."""
        budget = await self._chosen(extensions)
        return await budget.reserve(extensions, estimate, request_budget, wait_s=wait_s)

    async def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit the actual usage, whatever it is; as `LedgerBudgetManager.record_used`."""
        await (await self._granted(lease)).record_used(lease, usage, report=report)

    async def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit a part of a lease's usage; as `LedgerBudgetManager.observe`."""
        await (await self._granted(lease)).observe(lease, usage, report=report)

    async def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        """Let a lease hold what it holds for longer; as `LedgerBudgetManager.renew`."""
        return await (await self._granted(lease)).renew(lease, ttl, idempotency_key=idempotency_key)

    async def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close a lease unused; as `LedgerBudgetManager.release`."""
        await (await self._granted(lease)).release(lease, idempotency_key=idempotency_key)

    async def abandon(self, lease: BudgetLease) -> None:
        """End a lease whose usage nobody recorded; as `LedgerBudgetManager.abandon`."""
        await (await self._granted(lease)).abandon(lease)

    async def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left of the chosen pool; as `LedgerBudgetManager.remaining`."""
        return await (await self._chosen(extensions)).remaining(extensions, max_age_s=max_age_s)

    def lease(
        self,
        estimate: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> AsyncHeldLease:
        """Hold a lease of the chosen pool in an `async with` block."""
        return AsyncHeldLease(
            self,
            estimate,
            request_budget=request_budget,
            attribution=attribution,
            extensions=extensions,
            wait_s=wait_s,
        )

    # Both read the store the first time that a pool is met, and only then.

    async def _chosen(self, extensions: RequestExtensions) -> AsyncLedgerBudgetManager:
        name = self._router.name(extensions)
        if name not in self._router.by_name:
            await asyncio.to_thread(self._router.named, name)
        return AsyncLedgerBudgetManager(self._router.named(name))

    async def _granted(self, lease: BudgetLease) -> AsyncLedgerBudgetManager:
        check_lease(lease)
        if lease.pool not in self._router.by_identity:
            await asyncio.to_thread(self._router.granted, lease)
        return AsyncLedgerBudgetManager(self._router.granted(lease))


class AsyncLedger:
    """A store of pools, for tasks. `sync` is the same store for threads, and for reports."""

    def __init__(self, book: Ledger) -> None:
        self.sync = book

    @classmethod
    async def open(
        cls,
        url: str | None = None,
        *,
        create: bool = True,
        record_denials: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        clock: Clock | None = None,
        on_threshold: OnThreshold | None = None,
    ) -> Self:
        """Open the store at `url`; arguments and errors are those of `Ledger.open`.

        `on_threshold` is a plain function that runs on a thread of its own, not on the loop.
        """
        return cls(
            await asyncio.to_thread(
                Ledger.open,
                url,
                create=create,
                record_denials=record_denials,
                timeout_s=timeout_s,
                clock=clock,
                on_threshold=on_threshold,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the store's connections. Leases stay as they are."""
        await asyncio.to_thread(self.sync.close)

    async def pool(
        self,
        name: str,
        options: SharedPoolBudgetOptions | None = None,
        *,
        parent: str | None = None,
        carved: bool = False,
    ) -> AsyncLedgerBudgetManager:
        """Open the pool of this name, or make it; as `Ledger.pool`."""
        return AsyncLedgerBudgetManager(
            await asyncio.to_thread(self.sync.pool, name, options, parent=parent, carved=carved)
        )

    def router(self, choose: Choose) -> AsyncBudgetRouter:
        """Return one budget manager for many pools; as `Ledger.router`."""
        return AsyncBudgetRouter(self.sync.router(choose))

    async def close_pool(
        self, name: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> None:
        """Close a pool for good; as `Ledger.close_pool`."""
        await asyncio.to_thread(
            self.sync.close_pool, name, reason=reason, idempotency_key=idempotency_key
        )

    async def expire_due(
        self, pool: str | None = None, *, left_out: list[JournalDamagedError] | None = None
    ) -> int:
        """Expire the leases whose time is over; as `Ledger.expire_due`."""
        return await asyncio.to_thread(self.sync.expire_due, pool, left_out=left_out)

    async def adjust(
        self,
        name: str,
        options: SharedPoolBudgetOptions,
        *,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Replace a pool's whole policy by an appended entry; as `Ledger.adjust`."""
        await asyncio.to_thread(
            self.sync.adjust, name, options, reason=reason, idempotency_key=idempotency_key
        )
