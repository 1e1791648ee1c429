"""A lease for the length of a `with` block, so that it never stays open by mistake."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from types import FrameType, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NoReturn,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

from ledger.contract import AsyncBudget, Budget, Leasing, RequestExtensions
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

P = ParamSpec("P")
B = TypeVar("B")
Found = TypeVar("Found")
Block = TypeVar("Block")


class _Block(Generic[B]):
    """What both kinds share: what is reserved on entry, and whether the lease has ended."""

    _with = "with"
    _unused = False
    """Whether it could be entered, and was not."""

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
        self._entry = threading.Lock()
        self._unused = True

    def __del__(self) -> None:
        if self._unused:
            # As for a coroutine that is never awaited: the program believes that it holds a lease.
            warnings.warn(self._nothing_reserved(), RuntimeWarning, stacklevel=2, source=self)

    @property
    def lease(self) -> BudgetLease:
        """The lease.

        Raises:
            InvalidInputError: The block was not entered, and there is none.
        """
        if self._lease is None:
            raise InvalidInputError("lease", self._nothing_reserved())
        return self._lease

    @property
    def id(self) -> int:
        """The lease's id."""
        return self.lease.id

    def _enter(self) -> None:
        """Take the one entry that an object is good for: a second one would forget the first lease.

        Raises:
            InvalidInputError: It was taken before, by this thread or task or by another.
        """
        self._unused = False
        if not self._entry.acquire(blocking=False):
            raise InvalidInputError(
                "lease",
                "this block was entered before, and one object is good for one block; "
                f"call lease() again for each: '{self._with} budget.lease(...) as lease:'",
            )

    def _nothing_reserved(self) -> str:
        return (
            "lease(estimate) reserves when its block is entered, and this one was not: nothing is "
            f"reserved; write '{self._with} budget.lease(...) as lease:', or call reserve()"
        )


class LeaseBlock(_Block[Budget]):
    """A lease inside a `with` block; `lease` of a budget makes it.

    Left without `record` or `release`, by whatever way, the lease is ended as the pool's
    settlement policy says, and the exception that left the block comes through. After the block
    `id` and `lease` can still be read; calls answer as they do for any lease that has ended.
    """

    def __enter__(self) -> Self:
        self._enter()
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
        """Record a part of the usage; as `Budget.observe`."""
        self._budget.observe(self.lease, usage, report=report)

    def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `Budget.record_used`."""
        try:
            self._budget.record_used(self.lease, usage, report=report)
        except RequestBudgetExceededError:
            self._ended = True
            raise
        self._ended = True

    def renew(self, ttl: timedelta) -> datetime:
        """Hold what is held until so long from now; as `Budget.renew`."""
        return self._budget.renew(self.lease, ttl)

    def release(self) -> None:
        """Close the lease unused; as `Budget.release`."""
        self._budget.release(self.lease)
        self._ended = True


class AsyncLeaseBlock(_Block[AsyncBudget]):
    """A lease inside an `async with` block; as `LeaseBlock`.

    The lease is ended before a cancellation goes on; where the coroutine is collected, and can
    await nothing any more, soon afterwards.
    """

    _with = "async with"

    async def __aenter__(self) -> Self:
        self._enter()
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
        if kind is GeneratorExit and not _may_await(sys._getframe(1)):  # noqa: SLF001 - there is no other way to know
            _leave(self._budget.abandon(self.lease))
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

    if not TYPE_CHECKING:  # a type checker refuses to await it, and says so earlier

        def __await__(self) -> NoReturn:
            self._unused = False
            raise InvalidInputError("lease", self._nothing_reserved())

    async def observe(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record a part of the usage; as `Budget.observe`."""
        await self._budget.observe(self.lease, usage, report=report)

    async def record(self, usage: Usage, *, report: UsageReport | None = None) -> None:
        """Record the last part of the usage; as `Budget.record_used`."""
        try:
            await self._budget.record_used(self.lease, usage, report=report)
        except RequestBudgetExceededError:
            self._ended = True
            raise
        self._ended = True

    async def renew(self, ttl: timedelta) -> datetime:
        """Hold what is held until so long from now; as `Budget.renew`."""
        return await self._budget.renew(self.lease, ttl)

    async def release(self) -> None:
        """Close the lease unused; as `Budget.release`."""
        await self._budget.release(self.lease)
        self._ended = True


def _may_await(block: FrameType) -> bool:
    """Tell whether a block that is left by GeneratorExit can still await something.

    An asynchronous generator is closed by a task of its loop. A coroutine is collected, or closed,
    and has to end at once.
    """
    if not block.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return False
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - None is no error here


def _leave(ending: Coroutine[Any, Any, None]) -> None:
    """Have a lease ended by whoever leads next, without awaiting it."""
    with contextlib.suppress(StopIteration):
        ending.send(None)  # so far that it is in the queue, where it stays
    ending.close()


def _unended(lease: BudgetLease, failure: LedgerError, error: BaseException | None) -> None:
    """Tell of a lease that could not be ended, without hiding why its block was left."""
    if error is None:
        raise failure
    error.add_note(f"lease {lease.id} could not be ended: {failure}")


def leasing(block: Callable[Concatenate[Any, P], Block]) -> Callable[Concatenate[Any, P], Block]:
    """Return the call `lease` of budgets whose blocks are of this class."""

    @functools.wraps(Leasing.lease)
    def lease(self: object, /, *args: P.args, **kwargs: P.kwargs) -> Block:
        return block(self, *args, **kwargs)

    return lease


class PoolLeases(ABC, Generic[Found, Block]):
    """The call `lease` of one pool's budget, where an id is enough to find a lease."""

    _block: Callable[..., Block]

    @overload
    def lease(self, lease: int) -> Found: ...

    @overload
    def lease(
        self,
        lease: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> Block: ...

    def lease(
        self,
        lease: int | UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> Found | Block:
        """Return an open lease by its id, or one for the length of a `with` block.

        In asyncio an open lease is awaited, and the block is an `async with` block. An estimate
        gives a block: it reserves on entry and has `observe`, `record`, `renew` and `release`. Left
        without a record, by return, exception, cancellation or the closing of a generator, it
        follows the pool's settlement policy, as `abandon` does. Nothing is reserved before the
        block is entered, and one object is good for one block.

        Args:
            lease: The id of a lease, whichever process was granted it; or an estimate.
            request_budget: The request's own limit; unlimited without it.
            attribution: Whom and what the call is for.
            extensions: What else the request carries; the attribution above wins.
            wait_s: How long to wait for capacity on entry, in seconds; as `reserve`.

        Raises:
            InvalidInputError: Neither an id nor an estimate.
            UnknownLeaseError: No lease of this id in this pool, or already ended.
        """
        if not isinstance(lease, UsageEstimate):
            return self._open_lease(lease)
        return self._block(
            lease,
            request_budget=request_budget,
            attribution=attribution,
            extensions=extensions,
            wait_s=wait_s,
        )

    @abstractmethod
    def _open_lease(self, lease: int) -> Found: ...
