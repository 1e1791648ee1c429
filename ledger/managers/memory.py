"""The in-memory manager: one pool, protected by a lock. Its state is lost when the process ends."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from typing_extensions import override

from ledger.contract import Budget, check_reserve
from ledger.core import rules
from ledger.core.alerts import Alert
from ledger.core.arguments import (
    check_abandon,
    check_lease,
    check_lost,
    check_record,
    not_lost,
)
from ledger.core.calendar import Window, check_anchor
from ledger.core.checks import (
    Micros,
    check_clock,
    check_seconds,
    check_text,
    check_type,
    from_micros,
)
from ledger.core.credits import Credit
from ledger.core.errors import (
    BudgetError,
    ContentionError,
    IdempotencyConflictError,
    InvalidInputError,
    PoisonedError,
    ThresholdExceededError,
    UnknownLeaseError,
)
from ledger.core.extensions import Attribution, LeaseTtl, RequestExtensions
from ledger.core.kinds import EntryKind
from ledger.core.policy import SharedPoolBudgetOptions, Unpriced, check_ttl
from ledger.core.status import CreditStatus
from ledger.core.tokens import lost_key
from ledger.core.usage_reports import UsageReport
from ledger.core.values import (
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
)
from ledger.engine.announcements import Announcer, OnThreshold
from ledger.engine.capacity_queue import CapacityQueues, ThreadWaiter
from ledger.lease import LeaseBlock, leasing
from ledger.managers.memory_state import MemoryState

_Effect = TypeVar("_Effect", bound=rules.Effect | None)
"""The effect of a change on a lease and the balance; None for a credit, which changes neither."""


class SharedPoolBudgetManager(Budget[LeaseBlock]):
    """One pool shared by threads; amounts are 0 .. 2^64-1; leases are numbered from 1.

    `Budget` says what each call promises. Reports, attributions and idempotency keys are not kept:
    they need a store. A signal handler that makes a change in the middle of another change of its
    thread gets a `ContentionError`. A lease that is abandoned there (its block is garbage
    collected, say) is ended right after that change.
    """

    # Every change of state runs inside _change. It sets _poisoned first and clears it last, because
    # an interrupt (KeyboardInterrupt, a signal handler that raises) may come between any two steps:
    # a state that was changed in part then stays poisoned.

    def __init__(
        self,
        options: SharedPoolBudgetOptions,
        *,
        clock: Callable[[], int] | None = None,
        on_threshold: OnThreshold | None = None,
    ) -> None:
        check_type("options", options, SharedPoolBudgetOptions)
        check_anchor(options.window)
        for limit in options.limits:
            check_anchor(limit.period if isinstance(limit.period, Window) else None)
        self._policy = options
        self._clock = _system_clock if clock is None else check_clock(clock)
        # Reentrant, because a finaliser or a signal handler may run in the middle of a change of
        # its own thread: an ordinary lock would deadlock there.
        self._lock = threading.RLock()
        # Leases that were abandoned in the middle of a change; they are ended right after it.
        self._left: deque[tuple[BudgetLease, UsageEstimate | None]] = deque()
        self._proof = os.urandom(8)
        """The proof of all leases of this manager, since another manager grants the same
        numbers."""
        self._queues = CapacityQueues()
        free = partial(self._queues.free, [_THE_POOL])
        self._state = MemoryState(options, self._clock(), self._proof, free)
        self._poisoned = False
        self._announcer = Announcer(on_threshold)

    @override
    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        check_reserve(extensions, estimate, request_budget, wait_s)
        if wait_s == 0 or not request_budget.allows_estimate(estimate):
            return self._reserve(extensions, estimate, request_budget)
        self._require_priced(extensions, estimate)  # waiting would not help

        waiter = ThreadWaiter([_THE_POOL], wait_s)

        def ask() -> BudgetLease | None:
            try:
                return self._reserve(extensions, estimate, request_budget)
            except ThresholdExceededError as denial:
                retry_in_s = None
                if denial.retry_at is not None:
                    retry_in_s = (denial.retry_at - from_micros(self._clock())).total_seconds()
                waiter.note_refusal(retry_in_s, too_large=denial.too_large)
                return None

        return self._queues.wait(
            _THE_POOL,
            waiter,
            ask=ask,
            look=lambda: True,  # in memory, asking costs no more than a poll
            ask_last=lambda: self._reserve(extensions, estimate, request_budget),
        )

    def _require_priced(self, extensions: RequestExtensions, estimate: UsageEstimate) -> None:
        rules.require_priced(self._policy, estimate, extensions.get(Unpriced), None)

    def _reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
    ) -> BudgetLease:
        own = extensions.get(LeaseTtl)
        ttl = self._policy.lease_ttl if own is None else own.ttl
        ttl_us = None if ttl is None else check_ttl("lease_ttl", ttl)
        unpriced = extensions.get(Unpriced)
        granted = self._change(
            lambda now: self._state.reserve(now, estimate, request_budget, ttl_us, unpriced)
        ).lease.lease
        return BudgetLease(
            id=granted, reserved=estimate, request_budget=request_budget, ttl=ttl, proof=self._proof
        )

    @override
    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        self._record(lease, usage, report, EntryKind.SETTLEMENT)

    @override
    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        self._record(lease, usage, report, EntryKind.OBSERVATION)

    @override
    def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        check_lease(lease)
        ttl_us = check_ttl("ttl", ttl)
        _check_key(idempotency_key)
        effect = self._change(lambda now: self._state.renew(now, lease, ttl_us), spared=lease.id)
        return from_micros(effect.lease.expires_at or 0)

    @override
    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        check_lease(lease)
        _check_key(idempotency_key)
        self._change(lambda now: self._state.release(now, lease), spared=lease.id, late=True)

    @override
    def abandon(
        self,
        lease: BudgetLease,
        *,
        estimate: UsageEstimate | None = None,
        report: UsageReport | None = None,
    ) -> None:
        check_abandon(lease, estimate, report)
        if self._changes_here():  # a finaliser calls this; the interrupted change must end first
            self._left.append((lease, estimate))
            return
        self._change(lambda _now: self._state.abandon(lease, estimate), spared=lease.id)

    @override
    def record_lost(
        self,
        lease: BudgetLease | str,
        usage: Usage,
        *,
        estimate: UsageEstimate | None = None,
        attribution: Attribution | None = None,
        report: UsageReport | None = None,
    ) -> None:
        lost = check_lost(lease, usage, estimate, attribution, report)
        if lost.pool is not None:
            raise UnknownLeaseError(lost.id, "elsewhere")
        if lost.proof == self._proof:
            raise not_lost(lost)
        with self._lock:
            booked = self._state.booked.get(lost.token)
            if booked is None:
                self._change(lambda now: self._state.book_lost(now, lost, usage, estimate))
            elif booked != (usage, estimate):
                raise IdempotencyConflictError(lost_key(lost.token), seq=lost.id)
        excess = rules.over_request_budget(lost.request_budget, usage)
        if excess is not None and estimate is None:
            raise excess

    @override
    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        check_type("extensions", extensions, RequestExtensions)
        check_seconds("max_age_s", max_age_s)
        with self._lock:
            if self._poisoned:
                return Remaining(0, 0, True)
            return self._state.remaining(self._clock())

    lease = leasing(LeaseBlock)

    def credit(self, credit: Credit) -> None:
        """Add a prepaid amount, which may be spent until it expires; see `Ledger.credit`.

        Raises:
            InvalidInputError: The manager is not prepaid on an axis on which it gives something,
                or the credit has expired.
            PoisonedError: An exception broke into an earlier change.
        """
        check_type("credit", credit, Credit)

        self._change(lambda now: self._state.credit(now, credit))

    def credits(self) -> list[CreditStatus]:
        """Return how far each credit is used, in the order in which they were given."""
        with self._lock:
            return self._state.credits(self._clock())

    def alerts(self, after: str | None = None) -> list[Alert]:
        """Return every threshold crossing after a cursor, in order, as `Books.alerts` does.

        They end with the manager, which keeps the newest 10,000. A manager notices only with its
        next change that a lease is due or a window has ended.

        Args:
            after: The cursor of the last alert that was dealt with; None for all crossings.

        Raises:
            InvalidInputError: `after` is no cursor, or one of another manager.
        """
        with self._lock:
            return self._state.crossings.after(after)

    def _record(
        self, lease: BudgetLease, usage: Usage, report: UsageReport | None, kind: EntryKind
    ) -> None:
        check_record(lease, usage, report)
        spent = self._change(
            lambda now: self._state.spend(now, lease, usage, kind), spared=lease.id, late=True
        ).lease
        excess = rules.over_request_budget(spent.request_budget, spent.used)
        if excess is not None:
            raise excess

    def _change(
        self,
        decide: Callable[[Micros], _Effect],
        *,
        spared: int | None = None,
        late: bool = False,
    ) -> _Effect:
        """Expire due leases, then apply the effect of `decide`, or nothing if it refuses.

        Args:
            decide: Decides the change.
            spared: The lease that the change is about, which does not expire first.
            late: Whether that lease expires first if it was due in an earlier window.
        """
        try:
            return self._change_locked(decide, spared, late=late)
        finally:
            with contextlib.suppress(IndexError):  # another thread may take some of them
                while self._state.crossed:
                    self._announcer.tell([self._state.crossed.popleft()])
                while self._left:
                    with contextlib.suppress(BudgetError):  # another call ended the lease
                        left, estimate = self._left.popleft()
                        self.abandon(left, estimate=estimate)

    def _changes_here(self) -> bool:
        """Tell whether this call interrupts a change of its own thread."""
        return self._poisoned and self._lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001

    def _change_locked(
        self, decide: Callable[[Micros], _Effect], spared: int | None, *, late: bool
    ) -> _Effect:
        if self._changes_here():
            raise ContentionError.in_another_call()
        with self._lock:
            if self._poisoned:
                raise PoisonedError
            now = self._clock()  # before the state is poisoned: a caller's clock may raise
            self._poisoned = True
            try:
                self._state.catch_up(now, spared, late=late)
                effect = decide(now)
            except (BudgetError, InvalidInputError):
                # The rules refused. Expiries and the rollover are complete, nothing else changed.
                self._poisoned = False
                raise
            if effect is not None:
                self._state.apply(effect, now)
            self._poisoned = False
        return effect


_THE_POOL = 0
"""The key of the only capacity queue, since there is one pool."""


def _check_key(idempotency_key: object) -> None:
    """Refuse a key that a store would refuse. The key is not kept."""
    if idempotency_key is not None:
        check_text("idempotency_key", idempotency_key)


def _system_clock() -> Micros:
    return Micros(time.time_ns() // 1_000)
