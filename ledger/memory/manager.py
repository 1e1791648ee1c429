"""The in-memory manager: one pool behind a lock. Its state is lost when the process ends."""

from __future__ import annotations

import contextlib
import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from typing_extensions import override

from ledger.contract import Budget, check_reserve
from ledger.core import rules
from ledger.core.alerts import Alert, NewestCrossings
from ledger.core.arguments import (
    check_abandon,
    check_lease,
    check_lost,
    check_record,
    not_lost,
)
from ledger.core.calendar import Window, check_anchor
from ledger.core.checks import (
    U64_MAX,
    Micros,
    check_clock,
    check_seconds,
    check_text,
    check_type,
    from_micros,
)
from ledger.core.credit_book import CreditBook
from ledger.core.credits import Credit
from ledger.core.entries import Balance, Direction, LeaseState, Totals, WindowState, requests_made
from ledger.core.extensions import Attribution, LeaseTtl, RequestExtensions
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.core.policy import SharedPoolBudgetOptions, Unpriced, check_ttl
from ledger.core.status import CreditStatus, ThresholdCrossing
from ledger.core.tokens import is_proof
from ledger.core.usage_reports import UsageReport
from ledger.core.values import (
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)
from ledger.engine.announcements import Announcer, OnThreshold
from ledger.engine.capacity_queue import CapacityQueues, ThreadWaiter
from ledger.errors import (
    BudgetError,
    ContentionError,
    IdempotencyConflictError,
    InvalidInputError,
    LostLeaseError,
    PoisonedError,
    ThresholdExceededError,
    UnknownLeaseError,
)
from ledger.lease import LeaseBlock, leasing

_NOTHING_DUE = rules.Due()

_Effect = TypeVar("_Effect", bound=rules.Effect | None)
"""What a change does to a lease and the balance; a credit does nothing to either."""


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
        self._balance = Balance()
        self._recorded_at = self._clock()
        self._window = rules.begin_window(options, self._recorded_at, Totals())
        self._leases: dict[int, LeaseState] = {}
        # What is assumed of the leases that have expired, unless the policy gave their holds back.
        self._assumed: dict[int, Usage] = {}
        # The windows in which they expired.
        self._charged_in: dict[int, WindowState | None] = {}
        # The window as the change at hand leaves it, None where it does not touch it.
        self._window_after: WindowState | None = None
        # The thresholds that were reached before what the change replaces was taken back.
        self._reached_before: set[str] | None = None
        # A heap of (expires_at, lease id). A renewal adds a second item; the old one is skipped.
        self._due: list[tuple[int, int]] = []
        self._granted = 0
        # What limits and credits count, where there are any.
        self._history = rules.Track()
        self._credit_book = CreditBook(0, self._recorded_at, Totals())
        """The credits; those of a manager that is not prepaid are none."""
        self._counts_back = bool(options.limits or options.prepaid)
        self._proof = os.urandom(8)
        """What all leases of this manager have: another manager grants the same numbers."""
        self._booked: dict[str, Usage] = {}
        """What was booked of lost leases, by their tokens."""
        self._poisoned = False
        self._queues = CapacityQueues()
        self._announcer = Announcer(on_threshold)
        self._reported: set[tuple[str, Direction]] = set()
        self._crossed: deque[ThresholdCrossing] = deque()
        self._crossings = NewestCrossings(self._proof)

    @override
    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        check_reserve(extensions, estimate, request_budget)
        check_seconds("wait_s", wait_s)
        if wait_s == 0 or not request_budget.allows_estimate(estimate):
            return self._reserve(extensions, estimate, request_budget)
        self._require_priced(extensions, estimate)  # no capacity that comes back would help

        waiter = ThreadWaiter([_THE_POOL], wait_s)

        def ask() -> BudgetLease | None:
            try:
                return self._reserve(extensions, estimate, request_budget)
            except ThresholdExceededError as denial:
                if denial.retry_at is not None:
                    now = from_micros(self._clock())
                    waiter.ask_in((denial.retry_at - now).total_seconds())
                return None

        return self._queues.wait(
            _THE_POOL,
            waiter,
            ask=ask,
            look=lambda: True,  # in memory, asking costs no more than looking first
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

        def change(now: Micros) -> rules.Effect:
            at = max(now, self._recorded_at)
            session = rules.begin_session(self._policy, self._window, self._balance, at)
            denial = rules.admission()(
                self._policy,
                self._balance,
                estimate,
                request_budget,
                session or self._window,
                limits=self._limits(now),
                credits=self._credits(now),
            )
            if denial is not None:
                raise denial
            self._require_priced(extensions, estimate)
            effect = rules.reserve(
                self._balance,
                lease_id=self._granted + 1,
                estimate=estimate,
                request_budget=request_budget,
                ceiling=U64_MAX,
                expires_at=None if ttl is None else self._after(now, check_ttl("lease_ttl", ttl)),
            )
            self._granted += 1
            self._roll_over(at, rules.begin_session)
            return effect

        granted = self._change(change).lease.lease
        return BudgetLease(
            id=granted, reserved=estimate, request_budget=request_budget, ttl=ttl, proof=self._proof
        )

    @override
    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        self._record(lease, usage, report, closes=True)

    @override
    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        self._record(lease, usage, report, closes=False)

    @override
    def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        check_lease(lease)
        ttl_us = check_ttl("ttl", ttl)
        _check_key(idempotency_key)
        effect = self._change(
            lambda now: rules.renew(
                self._balance, self._known(lease), self._after(now, ttl_us), lease_id=lease.id
            ),
            spared=lease.id,
        )
        return from_micros(effect.lease.expires_at or 0)

    @override
    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        check_lease(lease)
        _check_key(idempotency_key)

        def change(now: Micros) -> rules.Effect:
            balance, known = self._make_room(now, lease, EntryKind.RELEASE)
            return rules.release(balance, known, lease_id=lease.id)

        self._change(change, spared=lease.id, late=True)

    @override
    def abandon(
        self,
        lease: BudgetLease,
        *,
        estimate: UsageEstimate | None = None,
        report: UsageReport | None = None,
    ) -> None:
        check_abandon(lease, estimate, report)
        if self._changes_here():  # called by a finaliser: the change it interrupted comes first
            self._left.append((lease, estimate))
            return
        self._change(
            lambda _now: rules.abandon(
                self._policy.settlement,
                self._balance,
                self._known(lease),
                lease_id=lease.id,
                ceiling=U64_MAX,
                estimate=estimate,
            )[0],
            spared=lease.id,
        )

    @override
    def record_lost(
        self,
        lease: BudgetLease | str,
        usage: Usage,
        *,
        attribution: Attribution | None = None,
        report: UsageReport | None = None,
    ) -> None:
        lost = check_lost(lease, usage, attribution, report)
        if lost.pool is not None:
            raise UnknownLeaseError(lost.id, "elsewhere")
        if lost.proof == self._proof:
            raise not_lost(lost)
        with self._lock:
            booked = self._booked.get(lost.token)
            if booked is None:
                self._change(lambda now: self._book(lost, usage, now))
            elif booked != usage:
                raise IdempotencyConflictError(f"lost:{lost.token}", seq=lost.id)
        excess = rules.over_request_budget(lost.request_budget, usage)
        if excess is not None:
            raise excess

    def _book(self, lost: BudgetLease, usage: Usage, now: Micros) -> rules.Effect:
        """Return the effect of a lost lease's usage, behind a grant that holds nothing."""
        self._granted += 1
        balance, lease, _ = granted = rules.reserve(
            self._balance,
            lease_id=self._granted,
            estimate=UsageEstimate.zero(),
            request_budget=lost.request_budget,
            ceiling=U64_MAX,
        )
        self._apply(granted, now)
        self._booked[lost.token] = usage
        return rules.settle(balance, lease, usage, lease_id=lease.lease, ceiling=U64_MAX)

    @override
    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        check_type("extensions", extensions, RequestExtensions)
        check_seconds("max_age_s", max_age_s)
        with self._lock:
            if self._poisoned:
                return Remaining(0, 0, True)
            now = self._clock()
            due = self._due_by(now)
            bounds = self._limits(now, due), self._credits(now, due)
            return rules.remaining(self._policy, *self._stands(now, due), *bounds)

    lease = leasing(LeaseBlock)

    def credit(self, credit: Credit) -> None:
        """Add a prepaid amount, which may be spent until it expires; see `Ledger.credit`.

        Raises:
            InvalidInputError: The manager is not prepaid on an axis on which it gives something,
                or the credit has expired.
            PoisonedError: An exception broke into an earlier change.
        """
        check_type("credit", credit, Credit)

        def change(now: Micros) -> None:
            at = max(now, self._recorded_at)
            credits = self._credits(now)
            if credits is None:
                raise InvalidInputError("credit", "the manager is not prepaid")
            reached = self._reached()
            seq = self._history.last + 1
            self._credit_book = credits.with_credit(credit, seq, at, self._balance)
            self._note_committed(now, self._balance)
            self._recorded_at = at
            self._reported.clear()
            self._note_crossings(reached)
            self._queues.free([_THE_POOL])

        self._change(change)

    def credits(self) -> list[CreditStatus]:
        """Return how far each credit is used by now, in the order in which they were given."""
        with self._lock:
            now = self._clock()
            due = self._due_by(now)
            credits = self._credits(now, due)
            return [] if credits is None else [*credits.states(self._stands(now, due).balance)]

    def alerts(self, after: str | None = None) -> list[Alert]:
        """Return every threshold crossing behind a cursor, in order, as `Books.alerts` does.

        They end with the manager, which keeps the newest 10,000. Until its next change a manager
        does not see that a lease is due, or that a window has ended.

        Args:
            after: The cursor of the last alert that was dealt with; None for all crossings.

        Raises:
            InvalidInputError: `after` is no cursor, or one of another manager.
        """
        with self._lock:
            return self._crossings.after(after)

    def _record(
        self, lease: BudgetLease, usage: Usage, report: UsageReport | None, *, closes: bool
    ) -> None:
        check_record(lease, usage, report)
        spend = rules.settle if closes else rules.observe
        kind = EntryKind.SETTLEMENT if closes else EntryKind.OBSERVATION

        def change(now: Micros) -> rules.Effect:
            balance, known = self._make_room(now, lease, kind, usage)
            return spend(balance, known, usage, lease_id=lease.id, ceiling=U64_MAX)

        spent = self._change(change, spared=lease.id, late=True).lease
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
            spared: A lease that it is about, and that does not expire before.
            late: Whether it expires all the same if it was due in an earlier window.
        """
        try:
            return self._change_locked(decide, spared, late=late)
        finally:
            with contextlib.suppress(IndexError):  # another thread may take some of them
                while self._crossed:
                    self._announcer.tell([self._crossed.popleft()])
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
                begun = rules.roll_over(self._policy, self._window, self._balance, now)
                if begun is not None:
                    self._expire(now, None if late else spared, before=begun.start)
                    self._roll_over(now)
                self._expire(now, spared)
                effect = decide(now)
            except (BudgetError, InvalidInputError):
                # The rules refused. Expiries and the rollover are complete, nothing else changed.
                self._poisoned = False
                raise
            if effect is not None:
                self._apply(effect, now)
            self._poisoned = False
        return effect

    def _after(self, now: Micros, ttl_us: int) -> Micros:
        """Return `ttl_us` after now, or after the newest change if the clock went back."""
        return Micros(max(now, self._recorded_at) + ttl_us)

    def _limits(self, now: Micros, due: rules.Due = _NOTHING_DUE) -> rules.Limits | None:
        """Return the policy's limits by now, None where it has none."""
        if not self._policy.limits:
            return None
        return rules.Limits(
            self._policy, max(now, self._recorded_at), self._history.with_due(due.dated)
        )

    def _credits(
        self, now: Micros | None = None, due: rules.Due = _NOTHING_DUE
    ) -> rules.Credits | None:
        """Return the credits by now, or as the newest change left them; None if not prepaid."""
        if not self._policy.prepaid:
            return None
        at = self._recorded_at if now is None else max(now, self._recorded_at)
        return rules.Credits(self._policy, self._credit_book, at, self._history.with_due(due.dated))

    def _note_committed(
        self, now: Micros, balance: Balance, dated: rules.Charge | None = None
    ) -> None:
        at = max(now, self._recorded_at)
        book = self._credit_book if self._policy.prepaid else None
        self._history.record(self._policy.limits, at, balance.committed, dated, book)

    def _due_by(self, now: Micros) -> rules.Due:
        """Return what leases that are due come to, which the next change lets expire."""
        if not self._due or self._due[0][0] > now:
            return _NOTHING_DUE
        numbers = {lease_id for expires_at, lease_id in self._due if expires_at <= now}
        found = (self._leases.get(lease_id) for lease_id in sorted(numbers))
        holds = [(_ends(one), one.held) for one in found if one is not None and rules.due(one, now)]
        return rules.overdue(rules.current(), self._policy.settlement, holds)

    def _stands(self, now: Micros, due: rules.Due) -> rules.Standing:
        """Return the balance and the window as the next change finds them."""
        return rules.stand(
            self._policy,
            self._balance,
            self._window,
            now,
            recorded_at=self._recorded_at,
            due=due,
            ceiling=U64_MAX,
        )

    def _roll_over(self, now: Micros, begin: Callable[..., Any] = rules.roll_over) -> None:
        """Begin the window that is current at `now`; no threshold was reported in it yet."""
        window = begin(self._policy, self._window, self._balance, now)
        if window is not None:
            reached, self._window = self._reached(), window
            self._recorded_at = max(self._recorded_at, now)
            self._reported.clear()
            self._note_crossings(reached)

    def _reached(self) -> set[str]:
        if not self._policy.thresholds:
            return set()
        return rules.reached(self._policy, self._balance, self._window, self._credits())

    def _expire(self, now: Micros, spared: int | None, *, before: Micros | None = None) -> None:
        kept = []
        while self._due and self._due[0][0] <= now and (before is None or self._due[0][0] < before):
            due = heapq.heappop(self._due)
            lease = self._leases.get(due[1])
            # A lease that has ended, or was renewed and has a later item in the heap.
            if lease is None or not rules.due(lease, now) or lease.expires_at != due[0]:
                continue
            if lease.lease == spared:
                kept.append(due)
                continue
            assumed = rules.assumed(self._policy.settlement, lease)
            if assumed is not None:
                self._assumed[lease.lease] = assumed.usage
                self._charged_in[lease.lease] = self._window
            effect = rules.expire(
                self._balance,
                lease,
                None if assumed is None else assumed.usage,
                lease_id=lease.lease,
                ceiling=U64_MAX,
            )
            self._apply(effect, now)
        for due in kept:
            heapq.heappush(self._due, due)

    def _make_room(
        self, now: Micros, lease: BudgetLease, kind: EntryKind, usage: Usage | None = None
    ) -> tuple[Balance, LeaseState | None]:
        """Take back what was assumed of an expired lease, as far as `usage` takes its place.

        Returns the balance and the lease that the record of the usage builds on. No such record is
        refused.
        """
        known = self._known(lease)
        if known is None or lease.id not in self._assumed:
            return self._balance, known
        before = self._assumed[lease.id]
        effect = rules.make_room(
            self._balance, known, before, kind, usage, seq=lease.id, ceiling=U64_MAX
        )
        self._assumed[lease.id] = after = rules.still_assumed(before, kind, usage)
        if effect is None:
            return self._balance, known
        self._take_back(lease.id, UsageDifference.between(before, after), kind, usage)
        if self._counts_back:
            self._reached_before = self._reached()
            self._note_committed(now, effect.balance, self._dated(effect, now))
            self._balance = effect.balance  # what the usage commits is counted from here
        return effect.balance, effect.lease

    def _take_back(
        self, lease_id: int, moved: UsageDifference, kind: EntryKind, usage: Usage | None
    ) -> None:
        """Let what an earlier window was charged for a lease free nothing in this one."""
        charged_in = self._charged_in[lease_id]
        if self._window is None or charged_in is None or charged_in.start == self._window.start:
            return
        requests = requests_made(EntryKind.CORRECTION, {"late": kind}) + requests_made(kind, None)
        by = Totals.of(moved, requests=requests).plus(Totals.of(usage or Usage.zero(), requests=0))
        self._window_after = rules.without(self._window, rules.taken_back(by))

    def _dated(self, effect: rules.Effect, now: Micros) -> rules.Charge | None:
        """Return when else an entry counts than now, and what it commits; None if it is now."""
        if not rules.has_ended(effect.lease, max(now, self._recorded_at)):
            return None
        return _ends(effect.lease), effect.balance.committed.minus(self._balance.committed)

    def _apply(self, effect: rules.Effect, now: Micros) -> None:
        lease, before = effect.lease, self._leases.get(effect.lease.lease)
        reached, self._reached_before = self._reached_before, None
        if reached is None:
            reached = self._reached()
        if self._window_after is not None:
            self._window, self._window_after = self._window_after, None
        if self._counts_back and effect.balance.committed != self._balance.committed:
            self._note_committed(now, effect.balance, self._dated(effect, now))
        self._balance = effect.balance
        self._recorded_at = max(self._recorded_at, now)
        self._note_crossings(reached)
        if lease.phase is not LeasePhase.OPEN:
            self._queues.free([_THE_POOL])
        if lease.phase is LeasePhase.ENDED:
            del self._leases[lease.lease]
            self._assumed.pop(lease.lease, None)
            self._charged_in.pop(lease.lease, None)
            return
        self._leases[lease.lease] = lease
        if lease.expires_at is not None and (
            before is None or before.expires_at != lease.expires_at
        ):
            heapq.heappush(self._due, (lease.expires_at, lease.lease))

    def _note_crossings(self, before: set[str]) -> None:
        """Keep crossings for `on_threshold`: each threshold once in each direction per window."""
        for name, percent, direction in rules.crossings(self._policy, before, self._reached()):
            if (name, direction) in self._reported:
                continue
            self._reported.add((name, direction))
            crossing = ThresholdCrossing(
                pool=None,
                threshold=name,
                percent=percent,
                direction=direction,
                seq=None,
                remaining=rules.remaining(
                    *(self._policy, self._balance, self._window, None, self._credits())
                ),
                recorded_at=from_micros(self._recorded_at),
            )
            self._crossed.append(crossing)
            self._crossings.add(crossing)

    def _known(self, lease: BudgetLease) -> LeaseState | None:
        if lease.pool is not None or not is_proof(lease.proof):
            return None
        if lease.proof != self._proof:
            raise LostLeaseError(lease.id)
        return self._leases.get(lease.id)


def _ends(lease: LeaseState) -> Micros:
    """Return when the hold of a lease that is due, or has expired, ended."""
    assert lease.expires_at is not None  # noqa: S101 - others are never due
    return lease.expires_at


_THE_POOL = 0
"""The key of the only capacity queue: there is one pool."""


def _check_key(idempotency_key: object) -> None:
    """Refuse a key that a store would refuse. The key is not kept."""
    if idempotency_key is not None:
        check_text("idempotency_key", idempotency_key)


def _system_clock() -> Micros:
    return Micros(time.time_ns() // 1_000)
