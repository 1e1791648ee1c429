"""The in-memory manager: the rules behind a lock, gone with the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ledger import rules
from ledger.budget import RequestExtensions, check_record, check_reserve
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

    def __init__(self, options: SharedPoolBudgetOptions) -> None:
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
        with self._state_change():
            denial = rules.admit(self._policy, self._balance, estimate, request_budget)
            if denial is not None:
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
        with self._state_change():
            known = self._leases.get(lease.id) if lease.pool is None else None
            self._balance, ended, _ = rules.settle(
                self._balance, known, usage, lease_id=lease.id, ceiling=U64_MAX
            )
            del self._leases[lease.id]
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
        check_type("lease", lease, BudgetLease)
        with self._state_change():
            known = self._leases.get(lease.id) if lease.pool is None else None
            self._balance, _, _ = rules.end_hold(
                self._balance, known, LeasePhase.ENDED, lease_id=lease.id
            )
            del self._leases[lease.id]

    def remaining(self, extensions: RequestExtensions) -> Remaining:  # noqa: ARG002 - the contract's
        """Return what is left; (0, 0, True) once the manager is poisoned."""
        with self._lock:
            if self._poisoned:
                return Remaining(0, 0, True)
            return rules.remaining(self._policy, self._balance)

    @contextmanager
    def _state_change(self) -> Iterator[None]:
        with self._lock:
            if self._poisoned:
                raise PoisonedError
            # Poisoned until proven whole: an interrupt may land between any two steps.
            self._poisoned = True
            try:
                yield
            except BudgetError:
                self._poisoned = False  # a verdict; it is given before anything changes
                raise
            self._poisoned = False
