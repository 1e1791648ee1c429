"""The contract: what every budget manager does, and the extensions that calls carry."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from ledger.core.checks import check_type
from ledger.core.values import BudgetLease, Remaining, RequestBudget, Usage, UsageEstimate
from ledger.errors import InvalidInputError

T = TypeVar("T")


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


def check_reserve(extensions: object, estimate: object, request_budget: object) -> None:
    """Refuse arguments of `reserve` that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_type("extensions", extensions, RequestExtensions)
    check_type("estimate", estimate, UsageEstimate)
    check_type("request_budget", request_budget, RequestBudget)


def check_record(lease: object, usage: object) -> None:
    """Refuse arguments of `record_used` that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_lease(lease)
    check_type("usage", usage, Usage)


def check_lease(lease: object) -> None:
    """Refuse what is no lease.

    Raises:
        InvalidInputError: It is something else, or its id is no whole number.
    """
    check_type("lease", lease, BudgetLease)
    check_lease_id(getattr(lease, "id", None))


def check_lease_id(lease_id: object) -> None:
    """Refuse what is no whole number.

    Raises:
        InvalidInputError: It is something else.
    """
    if isinstance(lease_id, bool) or not isinstance(lease_id, int):
        raise InvalidInputError("lease.id", f"must be an int, not {type(lease_id).__name__}")
