"""One budget manager for a whole service: it picks the pool from what a request carries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from ledger.contract import RequestExtensions, check_lease
from ledger.core.checks import check_text, check_type
from ledger.core.values import (
    Attribution,
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.errors import InvalidInputError, UnknownLeaseError
from ledger.lease import HeldLease
from ledger.manager import LedgerBudgetManager

Choose = Callable[[RequestExtensions], str]
"""Returns the name of the pool that a request is paid from."""


class BudgetRouter:
    """A `BudgetManager` over many pools; `Ledger.router` makes it.

    A reservation goes to the pool that is chosen for it; what follows goes by the lease's own
    pool, whatever would be chosen by then. Every method promises what that of the pool's own
    `LedgerBudgetManager` does, and raises `UnknownPoolError` where the chosen pool is not there.
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
        self.by_name: dict[str, LedgerBudgetManager] = {}
        """The budgets that were asked for before; to ask for another one reads the store."""
        self.by_identity: dict[UUID | None, LedgerBudgetManager] = {}
        """Those that granted the leases that were asked about before."""

    def name(self, extensions: RequestExtensions) -> str:
        """Return the name of the pool that a request is paid from.

        Raises:
            InvalidInputError: The extensions are none, or what was chosen is no name.
        """
        check_type("extensions", extensions, RequestExtensions)
        return check_text("the chosen pool", self._choose(extensions))

    def named(self, name: str) -> LedgerBudgetManager:
        """Return the budget of this name.

        Raises:
            UnknownPoolError: There is no such pool.
        """
        if name not in self.by_name:
            self.by_name[name] = self._named(name)
        return self.by_name[name]

    def granted(self, lease: BudgetLease) -> LedgerBudgetManager:
        """Return the budget that granted a lease.

        Raises:
            InvalidInputError: It is no lease.
            UnknownLeaseError: No pool of this store granted it.
        """
        check_lease(lease)
        if lease.pool not in self.by_identity:
            found = None if lease.pool is None else self._granting(lease.pool)
            if found is None:
                raise UnknownLeaseError(lease.id)
            self.by_identity[lease.pool] = found
        return self.by_identity[lease.pool]

    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        """Hold `estimate` in the chosen pool; as `LedgerBudgetManager.reserve`."""
        budget = self.named(self.name(extensions))
        return budget.reserve(extensions, estimate, request_budget, wait_s=wait_s)

    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit the actual usage, whatever it is; as `LedgerBudgetManager.record_used`."""
        self.granted(lease).record_used(lease, usage, report=report)

    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit a part of a lease's usage; as `LedgerBudgetManager.observe`."""
        self.granted(lease).observe(lease, usage, report=report)

    def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        """Let a lease hold what it holds for longer; as `LedgerBudgetManager.renew`."""
        return self.granted(lease).renew(lease, ttl, idempotency_key=idempotency_key)

    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close a lease unused; as `LedgerBudgetManager.release`."""
        self.granted(lease).release(lease, idempotency_key=idempotency_key)

    def abandon(self, lease: BudgetLease) -> None:
        """End a lease whose usage nobody recorded; as `LedgerBudgetManager.abandon`."""
        self.granted(lease).abandon(lease)

    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left of the chosen pool; as `LedgerBudgetManager.remaining`."""
        return self.named(self.name(extensions)).remaining(extensions, max_age_s=max_age_s)

    def lease(
        self,
        estimate: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> HeldLease:
        """Hold a lease of the chosen pool in a `with` block; as `LedgerBudgetManager.lease`."""
        return HeldLease(
            self,
            estimate,
            request_budget=request_budget,
            attribution=attribution,
            extensions=extensions,
            wait_s=wait_s,
        )
