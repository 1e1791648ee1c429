"""The contract: the calls of every budget manager, and the extensions that a call carries.

`BudgetManager` is the minimum of three calls. `Budget` describes each call that the managers of
this library share: its parameters, their types, and what it promises. `awaited` turns such a
description into a call for asyncio tasks, so that nothing is described twice.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from typing_extensions import TypeVar as TypeVarWithDefault

from ledger.core.arguments import check_abandon as check_abandon  # noqa: PLC0414 - for managers of others
from ledger.core.arguments import check_lease as check_lease  # noqa: PLC0414 - as above
from ledger.core.arguments import check_lost as check_lost  # noqa: PLC0414 - as above
from ledger.core.arguments import check_record as check_record  # noqa: PLC0414 - as above
from ledger.core.arguments import check_reserve as check_reserve  # noqa: PLC0414 - as above
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.usage_reports import UsageReport
from ledger.core.values import BudgetLease, Remaining, RequestBudget, Usage, UsageEstimate

P = ParamSpec("P")
T = TypeVar("T")
Block_co = TypeVarWithDefault("Block_co", covariant=True, default=Any)
"""The type that `lease` returns: `LeaseBlock`, or `AsyncLeaseBlock`."""


@runtime_checkable
class BudgetManager(Protocol):
    """The minimum of a manager: reserve before a call, record after it, ask what remains."""

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
            AmountOutOfRangeError: The amount is more than this manager can hold.
        """
        ...

    def record_used(self, lease: BudgetLease, usage: Usage) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Raises:
            UnknownLeaseError: This manager granted no such lease, or it is already settled.
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
    """The call `lease`: the same for threads and tasks, except for the type of its block."""

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

        The block reserves when it is entered, not before; an object is good for one block. It has
        `observe`, `record`, `restate`, `renew` and `release`. If the block ends without `record` or
        `release` (by return, exception, cancellation or the closing of a generator), the lease is
        ended by the pool's settlement policy, as by `abandon`; or released, if nothing was observed
        and the exception says that the provider did not do the work (see `register_unbilled`).

        Args:
            estimate: What the call is expected to use at most.
            request_budget: The request's own limit; unlimited without it.
            attribution: Whom and what the call is for.
            extensions: What else the request carries; `attribution` wins over one in here.
            wait_s: How long to wait for capacity on entry, in seconds, as for `reserve`.
        """
        ...


class Budget(Leasing[Block_co], Protocol[Block_co]):
    """Every call that managers share, for threads.

    Each raises `InvalidInputError` for an argument of another type, and then writes nothing. In
    memory each call that changes something raises `PoisonedError` if an exception interrupted an
    earlier change. With a store each call may raise `ContentionError` (other writers kept the store
    busy until the deadline) and `LedgerUnavailableError` (the store cannot be reached; nothing was
    written). A call about a lease may raise `LostLeaseError`, which is an `UnknownLeaseError` (the
    store went back to before it; book its usage with `record_lost`). A call that writes may raise
    `OutcomeUnknownError` (the connection died in COMMIT; repeat the call with the error's key).
    Attribution, `OccurredAt`, reports and idempotency keys need a journal: in memory they have no
    effect.
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
            wait_s: How long to wait for capacity, in seconds. The waiting calls of this process
                are served in order of arrival. With 0, the default, the answer comes at once.

        Raises:
            InvalidInputError: An argument of another type, or a negative time.
            AmountOutOfRangeError: An amount, or the total held, is above 2^63-1, the most that a
                store holds.
            RequestBudgetExceededError: The estimate is over the request's own budget.
            ThresholdExceededError: The pool has not enough left; with `wait_s`, at the deadline.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Args:
            lease: The grant. Only its id, proof and pool are used; the rest is read from the store.
            usage: What the call really used.
            report: What is known only after the call: the model, the provider's request id.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
            UnknownLeaseError: No such lease in this pool, or already ended.
            RequestBudgetExceededError: The usage is over the lease's request budget. It is
                recorded all the same.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit a part of a lease's usage while it stays open: a streamed chunk, an attempt.

        The lease's hold shrinks by the part, to 0 at least; `record_used` adds the last part and
        closes the lease. Each part is an entry of its own, with its own provider request id.

        Args:
            lease: The grant. Only its id, proof and pool are used.
            usage: What was used since the previous part.
            report: What is known about this part.

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
        """Keep a lease's hold until `ttl` from now, and return the time at which it expires.

        Raises:
            InvalidInputError: An argument of another type, or a `ttl` that is not above 0 or is
                longer than ten years.
            UnknownLeaseError: No such lease in this pool, or ended, or expired.
            IdempotencyConflictError: The key was used with other arguments.
        """
        ...

    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close an unused lease: what it holds goes back to the pool.

        If the lease has expired, the usage that was assumed of it is taken back.

        A repeated call with the same idempotency key and lease changes nothing, without an error.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        ...

    def abandon(
        self,
        lease: BudgetLease,
        *,
        estimate: UsageEstimate | None = None,
        report: UsageReport | None = None,
    ) -> None:
        """End a lease whose usage was not recorded, as the pool's settlement policy says.

        By default it is settled at the larger of the observed and the estimated usage, and marked
        as estimated, since counting too much is safer than counting too little. The total covers
        the observed input and the assumed output. The same policy decides what is charged when a
        hold expires.

        Args:
            lease: The lease.
            estimate: The most that the call may have used, observed usage included, by what is
                known now. It replaces the reserved estimate.
            report: What is known of the call. Its `request_id`, `provider` and `model` are kept
                with the charge, and its other fields are not.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
            UnknownLeaseError: No such lease in this pool, or it has ended, or it has expired, when
                the policy was applied.
        """
        ...

    def record_lost(
        self,
        lease: BudgetLease | str,
        usage: Usage,
        *,
        estimate: UsageEstimate | None = None,
        attribution: Attribution | None = None,
        report: UsageReport | None = None,
    ) -> None:
        """Commit the usage of a lost lease's call exactly once, whatever it is.

        A call about a lease raises `LostLeaseError` if its reservation is not in the store any
        more. The usage is real nevertheless. It is recorded as a reservation that holds nothing,
        and its settlement. These are never refused, not even by a closed pool. The same call,
        repeated by any process, changes nothing more.

        Args:
            lease: The lost lease, or its token.
            usage: All usage of the call that this store does not have.
            estimate: The most that it may have used, if `usage` is only a part, or 0. The rest is
                charged by the pool's settlement policy, as by `abandon`.
            attribution: Whom and what the call was for, as in the lost reservation.
            report: What is known about the call. Its idempotency key is not used; the lease's token
                is the key.

        Raises:
            InvalidInputError: An argument of another type, or the lease is not lost.
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
            UnknownLeaseError: Another pool of the store granted it.
            RequestBudgetExceededError: The usage is over the lease's request budget. It is
                recorded all the same.
            IdempotencyConflictError: It was booked before, with other arguments.
        """
        ...

    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left: capacity minus what is committed and reserved.

        For a pool with ancestors it is, on each axis, the least that any of them has left. A due
        lease counts as expired, as in the next write. In memory it is (0, 0, True) once the manager
        is poisoned.

        Args:
            extensions: What the request carries.
            max_age_s: How old the answer may be, in seconds. With 0, the default, the newest entry
                is read. Otherwise an answer of this object that is young enough is reused.

        Raises:
            InvalidInputError: An argument of another type, or a negative time.
        """
        ...


def awaited(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[AsyncBudget[Any], P], Coroutine[Any, Any, T]]:
    """Return a coroutine function with the parameters and the docstring of `method`."""

    @functools.wraps(method)
    async def call(self: AsyncBudget[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call(method, *args, **kwargs)

    return call


class AsyncBudget(ABC, Leasing[Block_co]):
    """The calls of `Budget` for tasks: the same parameters, verdicts and errors, awaited.

    A call that is cancelled while it waits in the queue has no effect. A call that is cancelled
    after its batch has begun takes effect: usage stays recorded. A lease that was granted to a
    cancelled call is released.
    """

    reserve = awaited(Budget.reserve)
    record_used = awaited(Budget.record_used)
    observe = awaited(Budget.observe)
    renew = awaited(Budget.renew)
    release = awaited(Budget.release)
    abandon = awaited(Budget.abandon)
    record_lost = awaited(Budget.record_lost)
    remaining = awaited(Budget.remaining)

    @abstractmethod
    def _call(
        self, method: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """Make the call that `method` describes."""
