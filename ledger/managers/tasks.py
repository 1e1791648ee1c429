"""The budget managers for asyncio: of one pool and of many; they use the same queue as threads.

No call blocks the event loop. Writes go through the group-commit queue, whose batches run on one
thread of an executor. Reads run on the loop's default executor.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from typing_extensions import override

from ledger.contract import AsyncBudget, awaited
from ledger.core.values import BudgetLease
from ledger.engine.operations import Operation, Reserve
from ledger.lease import AsyncLeaseBlock, PoolLeases, leasing
from ledger.managers.pool import LedgerBudgetManager
from ledger.managers.router import BudgetRouter
from ledger.store.database import begun

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call on a thread of the loop's executor; its time-out counts from now."""
    return await asyncio.to_thread(
        begun, time.monotonic(), functools.partial(call, *args, **kwargs)
    )


class _TaskCalls(LedgerBudgetManager):
    """The calls of one pool, each of which returns an awaitable instead of its answer.

    Each call of `LedgerBudgetManager` checks its arguments and returns the answer of `_reserve`,
    `_do` or `_read`. These return awaitables here, so each call serves tasks, too, and is written
    once. The inherited return types are wrong for a type checker, so only
    `AsyncLedgerBudgetManager` uses this class.
    """

    def __init__(self, budget: LedgerBudgetManager) -> None:
        vars(self).update(vars(budget))  # the same pool, and the same queue

    @override
    def _reserve(self, operation: Reserve, wait_s: float) -> Any:
        return self._waiting.reserve_async(self._journal, operation, wait_s)

    @override
    def _do(self, operation: Operation[Any]) -> Any:
        return self._writer.run_async(self._journal, operation)

    @override
    def _read(self, read: Callable[[], Any]) -> Any:
        return in_thread(read)


class AsyncLedgerBudgetManager(
    PoolLeases[Awaitable[BudgetLease], AsyncLeaseBlock], AsyncBudget[AsyncLeaseBlock]
):
    """The budget of one pool, for tasks; `Budget` says what each call promises."""

    def __init__(self, budget: LedgerBudgetManager) -> None:
        self._budget = _TaskCalls(budget)

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

    correct = awaited(LedgerBudgetManager.correct)
    import_calls = awaited(LedgerBudgetManager.import_calls)
    reserve_and_settle = awaited(LedgerBudgetManager.reserve_and_settle)
    usage_of = awaited(LedgerBudgetManager.usage_of)
    status = awaited(LedgerBudgetManager.status)
    _block = leasing(AsyncLeaseBlock)

    @override
    async def _open_lease(self, lease: str) -> BudgetLease:
        return await self._call(LedgerBudgetManager.lease, lease)

    @override
    def _call(
        self, method: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        answer: Awaitable[T] = getattr(self._budget, method.__name__)(*args, **kwargs)
        return answer


class AsyncBudgetRouter(AsyncBudget[AsyncLeaseBlock]):
    """A budget manager over many pools, for tasks; otherwise like `BudgetRouter`.

    `sync` is the same router for threads.
    """

    def __init__(self, router: BudgetRouter) -> None:
        self.sync = router
        self._budgets: dict[str | UUID | None, AsyncLedgerBudgetManager] = {}

    lease = leasing(AsyncLeaseBlock)

    async def pool_of(self, lease: BudgetLease) -> str:
        """Return the name of the pool that granted a lease; as `BudgetRouter.pool_of`."""
        return await in_thread(self.sync.pool_of, lease)

    @override
    async def _call(
        self, method: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        key, find = self.sync._route(method, *args, **kwargs)  # noqa: SLF001 - no call of users
        if key not in self._budgets:  # find() may read the store, which would block the loop
            self._budgets[key] = AsyncLedgerBudgetManager(await in_thread(find))
        answer: T = await getattr(self._budgets[key], method.__name__)(*args, **kwargs)
        return answer
