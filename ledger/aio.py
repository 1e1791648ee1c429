"""The budget managers and the store for asyncio; they use the same queue as threads.

No call blocks the event loop. Writes go through the group-commit queue, whose batches run on one
thread of an executor. Reads run on the loop's default executor.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

from typing_extensions import override

from ledger.contract import AsyncBudget, awaited
from ledger.core.alerts import Alert
from ledger.core.values import BudgetLease
from ledger.engine.operations import Operation, Reserve
from ledger.lease import AsyncLeaseBlock, PoolLeases, leasing
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.managers.router import BudgetRouter, Choose
from ledger.store.database import begun
from ledger.store.pools import LeftOut

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Store = TypeVar("Store", bound="AsyncLedger")


async def _soon(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call on a thread of the loop's executor, in the time that it has from now on."""
    return await asyncio.to_thread(
        begun, time.monotonic(), functools.partial(call, *args, **kwargs)
    )


class _TaskCalls(LedgerBudgetManager):
    """The calls of one pool, each of which returns an awaitable instead of its answer.

    Each call of `LedgerBudgetManager` checks its arguments and returns the answer of `_reserve`,
    `_do` or `_read`. These return awaitables here, so every call becomes one for tasks and is
    written once. The inherited return types are wrong for a type checker, so only
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
        return asyncio.to_thread(begun, time.monotonic(), read)


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
    """A budget manager over many pools, for tasks; otherwise like `BudgetRouter`."""

    def __init__(self, router: BudgetRouter) -> None:
        self._router = router
        self._budgets: dict[str | UUID | None, AsyncLedgerBudgetManager] = {}

    lease = leasing(AsyncLeaseBlock)

    def pool_of(self, lease: BudgetLease) -> str:
        """Return the name of the pool that granted a lease; as `BudgetRouter.pool_of`."""
        return self._router.pool_of(lease)

    @override
    async def _call(
        self, method: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        key, find = self._router._route(method, *args, **kwargs)  # noqa: SLF001 - no call of users
        if key not in self._budgets:  # find() may read the store, which would block the loop
            self._budgets[key] = AsyncLedgerBudgetManager(await _soon(find))
        answer: T = await getattr(self._budgets[key], method.__name__)(*args, **kwargs)
        return answer


class StoreOpening(Coroutine[Any, Any, Store]):
    """The opening of a store: `await` it, or enter it with `async with`."""

    def __init__(self, opening: Coroutine[Any, Any, Store]) -> None:
        self._opening = opening
        self._opened: Store | None = None

    def __await__(self) -> Generator[Any, Any, Store]:
        return self._opening.__await__()

    def send(self, value: Any) -> Any:  # noqa: ANN401 - as a coroutine
        """Run the opening to its next suspension; `asyncio.run` and tasks call this."""
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - as a coroutine
        """Raise an exception inside the opening, at its suspension."""
        return self._opening.throw(*error)

    def close(self) -> None:
        """End the opening without opening the store."""
        self._opening.close()

    async def __aenter__(self) -> Store:
        self._opened = await self
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, traceback)


def _opening(
    open_store: Callable[P, Ledger],
) -> Callable[
    [Callable[[type[Store], Ledger], Store]],
    Callable[Concatenate[type[Store], P], StoreOpening[Store]],
]:
    """Return a decorator that turns a constructor from an open store into a class method.

    The class method opens the store in a thread first. It has the parameters and the docstring of
    `open_store`.
    """

    def decorate(
        construct: Callable[[type[Store], Ledger], Store],
    ) -> Callable[Concatenate[type[Store], P], StoreOpening[Store]]:
        async def opened(cls: type[Store], *args: P.args, **kwargs: P.kwargs) -> Store:
            return construct(cls, await _soon(open_store, *args, **kwargs))

        @functools.wraps(getattr(open_store, "__func__", open_store))
        def call(cls: type[Store], /, *args: P.args, **kwargs: P.kwargs) -> StoreOpening[Store]:
            return StoreOpening(opened(cls, *args, **kwargs))

        return call

    return decorate


def _same(answer: T) -> T:
    return answer


def _in_thread(
    method: Callable[Concatenate[Ledger, P], T], then: Callable[[T], R]
) -> Callable[Concatenate[AsyncLedger, P], Coroutine[Any, Any, R]]:
    """Return a coroutine function that runs `method` in a thread.

    It has the parameters and the docstring of `method`.

    Args:
        method: The method of `Ledger` to run.
        then: Converts the method's answer.
    """

    @functools.wraps(method)
    async def call(self: AsyncLedger, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return then(await _soon(method, self.sync, *args, **kwargs))

    return call


class AsyncLedger:
    """A store of pools, for tasks. `sync` is the same store as a `Ledger`, for all other calls.

    `Ledger` says what each call promises. `on_threshold` is a plain function here too: it runs on
    a thread of its own, not on the event loop.
    """

    def __init__(self, book: Ledger) -> None:
        self.sync = book

    @classmethod
    @_opening(Ledger.open)
    def open(cls, book: Ledger) -> Self:  # noqa: D102 - it gets the docstring of Ledger.open
        return cls(book)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def router(self, choose: Choose) -> AsyncBudgetRouter:
        """Return one budget manager for many pools.

        Args:
            choose: Takes a request's extensions, and returns the name of the pool that pays.
        """
        return AsyncBudgetRouter(self.sync.router(choose))

    async def alerts(
        self, after: str | None = None, *, pool: str | None = None, left_out: LeftOut | None = None
    ) -> AsyncIterator[Alert]:
        """Yield every threshold crossing behind a cursor, as `Ledger.alerts` does.

        What that raises at once is raised when the first alert is asked for.
        """
        found = await _soon(self.sync.alerts, after, pool=pool, left_out=left_out)
        while (alert := await asyncio.to_thread(next, found, None)) is not None:
            yield alert

    close = _in_thread(Ledger.close, _same)
    pool = _in_thread(Ledger.pool, AsyncLedgerBudgetManager)
    ensure = _in_thread(Ledger.ensure, AsyncLedgerBudgetManager)
    close_pool = _in_thread(Ledger.close_pool, _same)
    expire_due = _in_thread(Ledger.expire_due, _same)
    adjust = _in_thread(Ledger.adjust, _same)
    credit = _in_thread(Ledger.credit, _same)
