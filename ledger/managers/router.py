"""A budget manager over many pools: it chooses the pool from the extensions of a request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from ledger.contract import Budget
from ledger.core.arguments import check_lease
from ledger.core.checks import check_text, check_type
from ledger.core.errors import InvalidInputError, UnknownLeaseError
from ledger.core.extensions import RequestExtensions
from ledger.core.values import BudgetLease
from ledger.lease import LeaseBlock, leasing
from ledger.managers.pool import LedgerBudgetManager

P = ParamSpec("P")
T = TypeVar("T")

Choose = Callable[[RequestExtensions], str]
"""Takes a request's extensions, and returns the name of the pool that pays for it."""


def _routed(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[BudgetRouter, P], T]:
    """Return a router's call: it has the signature of `method`, and calls it on the right pool."""

    @functools.wraps(method)
    def call(self: BudgetRouter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        _, find = self._route(method, *args, **kwargs)
        answer: T = getattr(find(), method.__name__)(*args, **kwargs)
        return answer

    return call


@functools.cache
def _first_parameter(method: Callable[..., object]) -> str:
    """Return the name of the parameter that decides the pool: `extensions` or `lease`."""
    _, first, *_ = inspect.signature(method).parameters
    return first


class BudgetRouter(Budget[LeaseBlock]):
    """A `BudgetManager` over many pools; `Ledger.router` makes it.

    `choose` decides the pool of a reservation. Later calls about its lease go to the pool that
    granted it, even if `choose` would return another one by then. Every call promises what
    `Budget` says, and raises `UnknownPoolError` if the chosen pool does not exist.
    """

    def __init__(
        self,
        choose: Choose,
        *,
        named: Callable[[str], LedgerBudgetManager],
        granting: Callable[[UUID], LedgerBudgetManager | None],
    ) -> None:
        if not callable(choose):
            raise InvalidInputError("choose", "must be a function of RequestExtensions to a name")
        self._choose = choose
        self._named = named
        self._granting = granting
        # Only the first call about a pool reads the store.
        self._by_name: dict[str, LedgerBudgetManager] = {}
        self._by_identity: dict[UUID | None, LedgerBudgetManager] = {}

    reserve = _routed(Budget.reserve)
    record_used = _routed(Budget.record_used)
    observe = _routed(Budget.observe)
    renew = _routed(Budget.renew)
    release = _routed(Budget.release)
    abandon = _routed(Budget.abandon)
    record_lost = _routed(Budget.record_lost)
    remaining = _routed(Budget.remaining)
    lease = leasing(LeaseBlock)

    def _route(
        self, method: Callable[Concatenate[Any, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[str | UUID | None, Callable[[], LedgerBudgetManager]]:
        """Return the name or the identity of a call's pool, and a function that finds its budget.

        This method never reads the store. The returned function does, but only once for each pool.

        Raises:
            InvalidInputError: The lease or the extensions are of another type, or `choose` did not
                return a name.
        """
        first = _first_parameter(method)
        given: Any = args[0] if args else kwargs.get(first)
        if first == "lease":
            if isinstance(given, str):
                raise InvalidInputError(
                    "lease",
                    "a token does not say which pool granted it: give the lease, or call "
                    "record_lost of its pool",
                )
            check_lease(given)
            return given.pool, functools.partial(self._granted, given)
        name = self.name(given)
        return name, functools.partial(self._of_name, name)

    def name(self, extensions: RequestExtensions) -> str:
        """Return the name of the pool that pays for a request.

        Raises:
            InvalidInputError: The extensions are of another type, or `choose` returned no name.
        """
        check_type("extensions", extensions, RequestExtensions)
        return check_text("the chosen pool", self._choose(extensions))

    def pool_of(self, lease: BudgetLease) -> str:
        """Return the name of the pool that granted a lease.

        Raises:
            InvalidInputError: `lease` is no `BudgetLease`.
            UnknownLeaseError: No pool of this store granted it.
        """
        return self._granted(lease).name

    def _of_name(self, name: str) -> LedgerBudgetManager:
        """Return the budget of the pool with this name.

        Raises:
            UnknownPoolError: There is no such pool.
        """
        if name not in self._by_name:
            found = self._by_name[name] = self._named(name)
            # So that a lease can be settled, or its usage kept, while the store is unavailable.
            self._by_identity[found.identity] = found
        return self._by_name[name]

    def _granted(self, lease: BudgetLease) -> LedgerBudgetManager:
        """Return the budget that granted a lease.

        Raises:
            InvalidInputError: `lease` is no `BudgetLease`.
            UnknownLeaseError: No pool of this store granted it.
        """
        check_lease(lease)
        if lease.pool not in self._by_identity:
            found = None if lease.pool is None else self._granting(lease.pool)
            if found is None:
                raise UnknownLeaseError(lease.id, "elsewhere")
            self._by_identity[lease.pool] = found
        return self._by_identity[lease.pool]
