"""The in-memory manager: the rules behind a lock, gone with the process."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from ledger import rollover, rules
from ledger.budget import RequestExtensions, check_lease, check_record, check_reserve
from ledger.checks import U64_MAX, Micros, check_type, from_micros
from ledger.errors import BudgetError, PoisonedError
from ledger.held import HeldLease
from ledger.model import (
    Attribution,
    BudgetLease,
    LeaseTtl,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.policy import SharedPoolBudgetOptions, check_ttl
from ledger.records import Balance, LeasePhase, LeaseState, Totals, WindowState


class SharedPoolBudgetManager:
    """One pool shared by threads; the whole domain 0 .. 2^64-1; leases counted from 1.

    Nothing is kept of who used what: reports, attributions and idempotency keys are for stores.
    """

    # Every change of state runs inside _change: poisoned until proven whole, because an interrupt
    # may land between any two steps.

    def __init__(
        self, options: SharedPoolBudgetOptions, *, clock: Callable[[], int] | None = None
    ) -> None:
        check_type("options", options, SharedPoolBudgetOptions)
        self._policy = options
        self._clock = clock or _system_clock
        self._lock = threading.Lock()
        self._balance = Balance()
        self._window = rollover.begin_window(options, Micros(self._clock()), Totals())
        self._leases: dict[int, LeaseState] = {}
        self._due: list[tuple[int, int]] = []
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
        own = extensions.get(LeaseTtl)
        ttl = self._policy.lease_ttl if own is None else own.ttl

        def change(now: int) -> rules.Effect:
            denial = rules.admit(
                self._policy, self._balance, estimate, request_budget, self._window
            )
            if denial is not None:
                raise denial
            effect = rules.reserve(
                self._balance,
                lease_id=self._granted + 1,
                estimate=estimate,
                request_budget=request_budget,
                ceiling=U64_MAX,
                expires_at=None if ttl is None else Micros(now + check_ttl("lease_ttl", ttl)),
            )
            self._granted += 1
            return effect

        granted = self._change(change).lease.lease
        return BudgetLease(id=granted, reserved=estimate, request_budget=request_budget)

    def observe(
        self,
        lease: BudgetLease,
        usage: Usage,
        *,
        report: UsageReport | None = None,  # noqa: ARG002 - as with a store, where it is kept
    ) -> None:
        """Commit a part of a lease's usage while it stays open.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease here, or already ended.
            RequestBudgetExceededError: All parts together are over the lease's request budget;
                this one is recorded all the same.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_record(lease, usage)
        self._spend(
            lease,
            lambda _now: rules.observe(
                self._balance, self._known(lease), usage, lease_id=lease.id, ceiling=U64_MAX
            ),
        )

    def record_used(
        self,
        lease: BudgetLease,
        usage: Usage,
        *,
        report: UsageReport | None = None,  # noqa: ARG002 - likewise
    ) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease here, or already settled.
            RequestBudgetExceededError: Over the lease's request budget; recorded all the same.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_record(lease, usage)
        self._spend(
            lease,
            lambda _now: rules.settle(
                self._balance, self._known(lease), usage, lease_id=lease.id, ceiling=U64_MAX
            ),
        )

    def renew(self, lease: BudgetLease, ttl: timedelta) -> datetime:
        """Let a lease hold what it holds until `ttl` from now, and return when that is.

        Raises:
            InvalidInputError: An argument of another type, or a time out of range.
            UnknownLeaseError: No such lease here, or ended, or expired.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_lease(lease)
        ttl_us = check_ttl("ttl", ttl)
        effect = self._change(
            lambda now: rules.renew(
                self._balance, self._known(lease), Micros(now + ttl_us), lease_id=lease.id
            ),
            spared=lease.id,
        )
        return from_micros(effect.lease.expires_at or 0)

    def release(self, lease: BudgetLease) -> None:
        """Close a lease unused: what it held goes back to the pool.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease here, or already ended, or expired.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_lease(lease)
        self._change(
            lambda _now: rules.end_hold(
                self._balance, self._known(lease), LeasePhase.ENDED, lease_id=lease.id
            ),
            spared=lease.id,
        )

    def abandon(self, lease: BudgetLease) -> None:
        """End a lease whose usage nobody recorded, as the pool's settlement policy says.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease here, or already ended.
            PoisonedError: An exception broke into an earlier state change.
        """
        check_lease(lease)
        self._change(
            lambda _now: rules.abandon(
                self._policy.settlement,
                self._balance,
                self._known(lease),
                lease_id=lease.id,
                ceiling=U64_MAX,
            )[0],
            spared=lease.id,
        )

    def lease(
        self,
        estimate: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
    ) -> HeldLease:
        """Return a lease to be held for the length of a `with` block.

        Left without a record, it follows the pool's settlement policy, as `abandon` does.
        """
        return HeldLease(
            self,
            estimate,
            request_budget=request_budget,
            attribution=attribution,
            extensions=extensions,
        )

    def remaining(self, extensions: RequestExtensions) -> Remaining:
        """Return what is left; (0, 0, True) once the manager is poisoned.

        Raises:
            InvalidInputError: An argument of another type.
        """
        check_type("extensions", extensions, RequestExtensions)
        with self._lock:
            if self._poisoned:
                return Remaining(0, 0, True)
            return rules.remaining(self._policy, self._balance, self._rolled(self._now()))

    def _spend(self, lease: BudgetLease, decide: Callable[[int], rules.Effect]) -> None:
        spent = self._change(decide, spared=lease.id).lease
        excess = rules.over_request_budget(spent.request_budget, spent.used)
        if excess is not None:
            raise excess

    def _change(
        self, decide: Callable[[int], rules.Effect], *, spared: int | None = None
    ) -> rules.Effect:
        """Expire what is due, then do what the rules say, or nothing where they refuse."""
        with self._lock:
            if self._poisoned:
                raise PoisonedError
            self._poisoned = True
            try:
                now = self._now()
                self._expire(now, spared)
                self._window = self._rolled(now)
                effect = decide(now)
            except BudgetError:
                self._poisoned = False
                raise
            self._apply(effect)
            self._poisoned = False
        return effect

    def _now(self) -> Micros:
        return Micros(self._clock())

    def _rolled(self, now: Micros) -> WindowState | None:
        """Return the window that it is by now."""
        rolled = rollover.roll_over(self._policy, self._window, self._balance, now)
        return rolled or self._window

    def _expire(self, now: int, spared: int | None) -> None:
        kept = []
        while self._due and self._due[0][0] <= now:
            due = heapq.heappop(self._due)
            lease = self._leases.get(due[1])
            if lease is None or not rules.due(lease, Micros(now)):
                continue
            if lease.lease == spared:
                kept.append(due)
                continue
            expired = LeasePhase.EXPIRED
            self._apply(rules.end_hold(self._balance, lease, expired, lease_id=lease.lease))
        for due in kept:
            heapq.heappush(self._due, due)

    def _apply(self, effect: rules.Effect) -> None:
        lease, before = effect.lease, self._leases.get(effect.lease.lease)
        self._balance = effect.balance
        if lease.phase is LeasePhase.ENDED:
            del self._leases[lease.lease]
            return
        self._leases[lease.lease] = lease
        if lease.expires_at is not None and (before is None or before != lease):
            heapq.heappush(self._due, (lease.expires_at, lease.lease))

    def _known(self, lease: BudgetLease) -> LeaseState | None:
        return self._leases.get(lease.id) if lease.pool is None else None


def _system_clock() -> int:
    return time.time_ns() // 1_000
