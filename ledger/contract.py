"""The contract: what every budget manager does, and the extensions that calls carry.

`BudgetManager` is the least: three calls. `Budget` describes every call that the managers share,
once: its parameters, their types, and what it promises. `awaited` makes a call for tasks of it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from typing_extensions import TypeVar as TypeVarWithDefault

from ledger.core.checks import check_type
from ledger.core.values import (
    Attribution,
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.errors import InvalidInputError

P = ParamSpec("P")
T = TypeVar("T")
Block_co = TypeVarWithDefault("Block_co", covariant=True, default=Any)
"""What `lease` gives: `LeaseBlock`, or `AsyncLeaseBlock`."""


class RequestExtensions:
    """A map keyed by type, in layers: what a caller attaches to a request.

    Reads look in the newest layer first; changes touch only the newest layer.
    """

    __slots__ = ("_layers",)

    def __init__(self, *values: object) -> None:
        self._layers: list[dict[type, Any]] = [{type(value): value for value in values}]

    def __repr__(self) -> str:
        seen: dict[type, object] = {}
        for layer in reversed(self._layers):
            seen.update(layer)
        return f"RequestExtensions({', '.join(map(repr, seen.values()))})"

    def insert(self, value: T) -> T | None:
        """Put `value` into the newest layer under its own type; return what it replaced there."""
        newest = self._layers[0]
        previous = newest.get(type(value))
        newest[type(value)] = value
        return cast("T | None", previous)

    def get(self, kind: type[T]) -> T | None:
        """Return the newest value of exactly this type, or None."""
        for layer in self._layers:
            if kind in layer:
                return cast("T", layer[kind])
        return None

    def remove(self, kind: type[T]) -> T | None:
        """Take the value of this type out of the newest layer; an older one shows again."""
        return cast("T | None", self._layers[0].pop(kind, None))

    def contains(self, kind: type) -> bool:
        """Tell whether any layer holds a value of exactly this type."""
        return any(kind in layer for layer in self._layers)

    def extend(self, other: RequestExtensions) -> None:
        """Lay a copy of `other` on top: its values win, the ones here stay readable below."""
        check_type("other", other, RequestExtensions)
        self._layers[:0] = [dict(layer) for layer in other._layers]

    def push_fallback(self, older: RequestExtensions) -> None:
        """Lay a copy of `older` underneath, to be read where nothing newer answers."""
        check_type("older", older, RequestExtensions)
        self._layers += [dict(layer) for layer in older._layers]

    def is_empty(self) -> bool:
        """Tell whether no layer holds anything."""
        return not any(self._layers)


@runtime_checkable
class BudgetManager(Protocol):
    """Asks before a call, records after it, and tells what is left."""

    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
    ) -> BudgetLease:
        """Hold `estimate` in the pool until the lease is settled.

        Raises:
            RequestBudgetExceededError: The estimate is over the request's own budget.
            ThresholdExceededError: More than what remains, or less than the stop threshold
                would remain. A denied call changes no balance.
            AmountOutOfRangeError: More than this manager can hold.
        """
        ...

    def record_used(self, lease: BudgetLease, usage: Usage) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Raises:
            UnknownLeaseError: No such lease here, or already settled.
            RequestBudgetExceededError: The usage is over the lease's request budget; it is
                recorded all the same, and the lease is closed.
        """
        ...

    def remaining(self, extensions: RequestExtensions) -> Remaining:
        """Return what is left: capacity minus what is committed and reserved."""
        ...


@runtime_checkable
class AsyncBudgetManager(Protocol):
    """The same contract for asyncio: the same verdicts and errors, awaited."""

    async def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
    ) -> BudgetLease:
        """Hold `estimate` in the pool until the lease is settled; as `BudgetManager.reserve`."""
        ...

    async def record_used(self, lease: BudgetLease, usage: Usage) -> None:
        """Commit the actual usage, whatever it is; as `BudgetManager.record_used`."""
        ...

    async def remaining(self, extensions: RequestExtensions) -> Remaining:
        """Return what is left; as `BudgetManager.remaining`."""
        ...


class Leasing(Protocol[Block_co]):
    """The one call that is the same for threads and tasks, but for the block that it gives."""

    def lease(
        self,
        estimate: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> Block_co:
        """Return a lease for the length of a `with` block, or of an `async with` block.

        It reserves on entry and has `observe`, `record`, `renew` and `release`. Left without a
        record, by return, exception, cancellation or the closing of a generator, it follows the
        pool's settlement policy, as `abandon` does. Nothing is reserved before the block is
        entered, and one object is good for one block.

        Args:
            estimate: What the call is expected to use at most.
            request_budget: The request's own limit; unlimited without it.
            attribution: Whom and what the call is for.
            extensions: What else the request carries; the attribution above wins.
            wait_s: How long to wait for capacity on entry, in seconds; as `reserve`.
        """
        ...


class Budget(Leasing[Block_co], Protocol[Block_co]):
    """Every call that managers share, for threads.

    Any of them raises `InvalidInputError` for an argument of another type, and writes nothing. In
    memory any call that changes something raises `PoisonedError` if an exception broke into an
    earlier change. From a store any call may raise `ContentionError` (others kept the store busy
    until the deadline), `LedgerUnavailableError` (the store cannot be reached; nothing was written)
    and, when it writes, `OutcomeUnknownError` (the connection died in COMMIT; repeat with the
    error's key). What needs a journal has no effect in memory: attribution, `OccurredAt`, reports
    and idempotency keys.
    """

    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        """Hold `estimate` in the pool until the lease is settled.

        An `Attribution`, an `OccurredAt` and an `IdempotencyKey` in the extensions are kept with
        the reservation. The same key with the same arguments gives the first answer again.

        Args:
            extensions: What the request carries.
            estimate: What the call is expected to use at most.
            request_budget: The request's own limit.
            wait_s: How long to wait for capacity, in seconds, first come first served among those
                who wait in this process. With 0, the default, the answer comes at once.

        Raises:
            InvalidInputError: An argument of another type, or a negative time.
            AmountOutOfRangeError: An amount, or the total held, is above 2^63-1, the most that a
                store holds.
            RequestBudgetExceededError: The estimate is over the request's own budget.
            ThresholdExceededError: The pool has not enough left, or had not until the end.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Args:
            lease: The grant; only its id and pool matter, the stored values win.
            usage: What the call really used.
            report: What is known only now: the model that answered, the provider's request id.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
            UnknownLeaseError: No such lease in this pool, or already ended.
            RequestBudgetExceededError: Over the lease's request budget; recorded all the same.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit a part of a lease's usage while it stays open: a streamed chunk, an attempt.

        The lease holds as much less, down to nothing; `record_used` adds the last part and closes.
        Each part is an entry of its own, with its own provider request id.

        Args:
            lease: The grant; only its id and pool matter.
            usage: What was used since the last time.
            report: What is known of this part.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
            UnknownLeaseError: No such lease in this pool, or already ended.
            RequestBudgetExceededError: All parts together are over the lease's request budget;
                this one is recorded all the same, and the lease stays open.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        """Let a lease hold what it holds until `ttl` from now, and return when that is.

        Raises:
            InvalidInputError: An argument of another type, or a time not above 0 and at most ten
                years.
            UnknownLeaseError: No such lease in this pool, or ended, or expired.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close a lease unused: what it held goes back to the pool.

        The same idempotency key with the same lease releases once, and repeats without an error.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease in this pool, or already ended, or expired.
        """
        ...

    def abandon(self, lease: BudgetLease) -> None:
        """End a lease whose usage was not recorded, as the pool's settlement policy says.

        By default it is settled at the larger of what was observed and what was estimated, and
        marked as estimated: spend is rather counted too high than not at all.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        ...

    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left: capacity minus what is committed and reserved.

        Below other pools it is the least, on each axis, of what this one and those above have left.
        In memory it is (0, 0, True) once the manager is poisoned.

        Args:
            extensions: What the request carries.
            max_age_s: How old the answer may be, in seconds. With 0, the default, the newest entry
                is read; otherwise an answer that this object read so lately is given again.

        Raises:
            InvalidInputError: An argument of another type, or a negative time.
        """
        ...


def awaited(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[AsyncBudget[Any], P], Coroutine[Any, Any, T]]:
    """Return a call for tasks: the parameters and the docstring of `method`, its answer awaited."""

    @functools.wraps(method)
    async def call(self: AsyncBudget[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call(method, *args, **kwargs)

    return call


class AsyncBudget(ABC, Leasing[Block_co]):
    """The calls of `Budget` for tasks: the same parameters, verdicts and errors, awaited.

    A call that is cancelled while it waits in the queue is not done. One that is cancelled while
    it is being done is done: usage stays recorded, and a lease that nobody received is released.
    """

    reserve = awaited(Budget.reserve)
    record_used = awaited(Budget.record_used)
    observe = awaited(Budget.observe)
    renew = awaited(Budget.renew)
    release = awaited(Budget.release)
    abandon = awaited(Budget.abandon)
    remaining = awaited(Budget.remaining)

    @abstractmethod
    def _call(
        self, method: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """Do a call, of which `method` is the description."""


def check_reserve(extensions: object, estimate: object, request_budget: object) -> None:
    """Refuse arguments of `reserve` that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_type("extensions", extensions, RequestExtensions)
    check_type("estimate", estimate, UsageEstimate)
    check_type("request_budget", request_budget, RequestBudget)


def check_record(lease: object, usage: object, report: object) -> None:
    """Refuse arguments of `record_used` and `observe` that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_lease(lease)
    check_type("usage", usage, Usage)
    if report is not None:
        check_type("report", report, UsageReport)


def check_lease(lease: object) -> None:
    """Refuse what is no lease.

    Raises:
        InvalidInputError: It is something else, or its id is no whole number.
    """
    # A block has its lease by this name, and says itself where it has none yet.
    if not isinstance(lease, BudgetLease) and isinstance(
        getattr(lease, "lease", None), BudgetLease
    ):
        raise InvalidInputError(
            "lease",
            f"must be a BudgetLease, not {type(lease).__name__}; call record(), observe(), renew() "
            "or release() of the block itself, or pass its .lease",
        )
    check_type("lease", lease, BudgetLease)
    check_lease_id(getattr(lease, "id", None))


def check_lease_id(lease_id: object) -> None:
    """Refuse what is no whole number.

    Raises:
        InvalidInputError: It is something else.
    """
    if isinstance(lease_id, bool) or not isinstance(lease_id, int):
        raise InvalidInputError("lease.id", f"must be an int, not {type(lease_id).__name__}")
