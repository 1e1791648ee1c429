"""The in-memory manager: the rules behind a lock, gone with the process."""

from __future__ import annotations

import threading

from ledger import rules
from ledger.budget import RequestExtensions, check_lease, check_record, check_reserve
from ledger.checks import U64_MAX, check_type
from ledger.errors import BudgetError, PoisonedError
from ledger.model import (
    BudgetLease,
    Remaining,
    RequestBudget,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)
from ledger.records import Balance, LeasePhase, LeaseState


class SharedPoolBudgetManager:
    """One pool shared by threads; the whole domain 0 .. 2^64-1; leases counted from 1."""

    # Every change of state runs between _begin and _end, inside the lock: poisoned until proven
    # whole, because an interrupt may land between any two steps. No context manager of our own
    # stands around it: an interrupt inside one could leave the lock held.

    def __init__(self, options: SharedPoolBudgetOptions) -> None:
        check_type("options", options, SharedPoolBudgetOptions)
        self._policy = options
        self._lock = threading.Lock()
        self._balance = Balance()
        self._leases: dict[int, LeaseState] = {}
        self._granted = 0
        self._poisoned = False

    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
    ) -> BudgetLease:
        """Hold `estimate` in the pool until the lease is settled.

        Raises:
            InvalidInputError: An argument of another type.
            RequestBudgetExceededError: The estimate is over the request's own budget.
            ThresholdExceededError: The pool has not enough left.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_reserve(extensions, estimate, request_budget)
        with self._lock:
            self._begin()
            denial = rules.admit(self._policy, self._balance, estimate, request_budget)
            if denial is not None:
                self._end()
                raise denial
            lease_id = self._granted + 1
            self._balance, lease, _ = rules.reserve(
                self._balance,
                lease_id=lease_id,
                estimate=estimate,
                request_budget=request_budget,
                ceiling=U64_MAX,
            )
            self._leases[lease_id] = lease
            self._granted = lease_id
            self._end()
        return BudgetLease(id=lease_id, reserved=estimate, request_budget=request_budget)

    def record_used(self, lease: BudgetLease, usage: Usage) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease here, or already settled.
            RequestBudgetExceededError: Over the lease's request budget; recorded all the same.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_record(lease, usage)
        with self._lock:
            self._begin()
            try:
                self._balance, ended, _ = rules.settle(
                    self._balance, self._known(lease), usage, lease_id=lease.id, ceiling=U64_MAX
                )
            except BudgetError:
                self._end()
                raise
            del self._leases[lease.id]
            self._end()
        excess = rules.over_request_budget(ended.request_budget, ended.used)
        if excess is not None:
            raise excess

    def release(self, lease: BudgetLease) -> None:
        """Close a lease unused: what it held goes back to the pool.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease here, or already ended.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_lease(lease)
        with self._lock:
            self._begin()
            try:
                self._balance, _, _ = rules.end_hold(
                    self._balance, self._known(lease), LeasePhase.ENDED, lease_id=lease.id
                )
            except BudgetError:
                self._end()
                raise
            del self._leases[lease.id]
            self._end()

    def remaining(self, extensions: RequestExtensions) -> Remaining:
        """Return what is left; (0, 0, True) once the manager is poisoned.

        Raises:
            InvalidInputError: An argument of another type.
        """
        check_type("extensions", extensions, RequestExtensions)
        with self._lock:
            if self._poisoned:
                return Remaining(0, 0, True)
            return rules.remaining(self._policy, self._balance)

    def _known(self, lease: BudgetLease) -> LeaseState | None:
        return self._leases.get(lease.id) if lease.pool is None else None

    def _begin(self) -> None:
        if self._poisoned:
            raise PoisonedError
        self._poisoned = True

    def _end(self) -> None:
        self._poisoned = False
