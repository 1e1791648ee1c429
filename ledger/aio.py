"""The class `AsyncLedger`: a store of pools for asyncio.

No call blocks the event loop: each runs on a thread of the loop's default executor.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from ledger.core.alerts import Alert
from ledger.core.errors import LeftOut
from ledger.ledger import Ledger
from ledger.managers.router import Choose
from ledger.managers.tasks import AsyncBudgetRouter, AsyncLedgerBudgetManager, in_thread

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Store = TypeVar("Store", bound="AsyncLedger")


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
            return construct(cls, await in_thread(open_store, *args, **kwargs))

        @functools.wraps(getattr(open_store, "__func__", open_store))
        def call(cls: type[Store], /, *args: P.args, **kwargs: P.kwargs) -> StoreOpening[Store]:
            return StoreOpening(opened(cls, *args, **kwargs))

        return call

    return decorate


def _same(answer: T) -> T:
    return answer


def _by_thread(
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
        return then(await in_thread(method, self.sync, *args, **kwargs))

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
        """Yield every threshold crossing after a cursor, as `Ledger.alerts` does.

        What that raises at once is raised when the first alert is asked for.
        """
        found = await in_thread(self.sync.alerts, after, pool=pool, left_out=left_out)
        while (alert := await asyncio.to_thread(next, found, None)) is not None:
            yield alert

    close = _by_thread(Ledger.close, _same)
    pool = _by_thread(Ledger.pool, AsyncLedgerBudgetManager)
    ensure = _by_thread(Ledger.ensure, AsyncLedgerBudgetManager)
    close_pool = _by_thread(Ledger.close_pool, _same)
    expire_due = _by_thread(Ledger.expire_due, _same)
    adjust = _by_thread(Ledger.adjust, _same)
    credit = _by_thread(Ledger.credit, _same)
