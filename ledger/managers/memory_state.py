"""The state of a pool in memory, and its changes. The manager calls it under its lock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from ledger.core import rules
from ledger.core.alerts import NewestCrossings
from ledger.core.checks import U64_MAX, Micros, from_micros
from ledger.core.credit_book import CreditBook
from ledger.core.credits import Credit
from ledger.core.entries import Balance, Direction, LeaseState, Totals, WindowState, requests_made
from ledger.core.errors import InvalidInputError, LostLeaseError
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.core.policy import SharedPoolBudgetOptions, Unpriced
from ledger.core.status import CreditStatus, ThresholdCrossing
from ledger.core.tokens import is_proof
from ledger.core.values import (
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)

_NOTHING_DUE = rules.Due()


class MemoryState:
    """The balance, window and leases of a pool, and the history that limits and credits count.

    A method decides each call and returns an effect, and `apply` changes the state by it. An
    exception that interrupts a method may leave the state changed in part.
    """

    def __init__(
        self, policy: SharedPoolBudgetOptions, now: Micros, proof: bytes, free: Callable[[], None]
    ) -> None:
        """Begin at `now` with nothing spent. `free` is called when capacity has come back."""
        self._policy = policy
        self._proof = proof
        self._free = free
        self._balance = Balance()
        self._recorded_at = now
        self._window = rules.begin_window(policy, now, Totals())
        self._leases: dict[int, LeaseState] = {}
        # The usage assumed of expired leases, unless the policy gave their holds back.
        self._assumed: dict[int, Usage] = {}
        # The windows in which they expired.
        self._charged_in: dict[int, WindowState | None] = {}
        # The window after the present change, None if the change does not affect it.
        self._window_after: WindowState | None = None
        # The thresholds that were reached before the change took back an assumed charge.
        self._reached_before: set[str] | None = None
        # A heap of (expires_at, lease id). A renewal adds an item; the old one is skipped.
        self._due: list[tuple[int, int]] = []
        self._granted = 0
        # The history that limits and credits count, if there are any.
        self._history = rules.Track()
        self._credit_book = CreditBook(0, now, Totals())
        """The credits; those of a manager that is not prepaid are none."""
        self._counts_back = bool(policy.limits or policy.prepaid)
        self._reported: set[tuple[str, Direction]] = set()
        self.booked: dict[str, tuple[Usage, UsageEstimate | None]] = {}
        """The booked calls of lost leases, by their tokens."""
        self.crossed: deque[ThresholdCrossing] = deque()
        """Crossings that were not reported yet."""
        self.crossings = NewestCrossings(proof)

    # What a call decides.

    def reserve(
        self,
        now: Micros,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        ttl_us: int | None,
        unpriced: Unpriced | None,
    ) -> rules.Effect:
        """Return the effect of a reservation. A session begins with it.

        Raises:
            ThresholdExceededError: It does not fit.
            UnpricedCallError: It has no price, and the policy asks for one.
        """
        at = max(now, self._recorded_at)
        session = rules.begin_session(self._policy, self._window, self._balance, at)
        denial = rules.RELEASED[rules.current()].admit(
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
        rules.require_priced(self._policy, estimate, unpriced, None)
        effect = rules.reserve(
            self._balance,
            lease_id=self._granted + 1,
            estimate=estimate,
            request_budget=request_budget,
            ceiling=U64_MAX,
            expires_at=None if ttl_us is None else self._after(now, ttl_us),
        )
        self._granted += 1
        self._roll_over(at, rules.begin_session)
        return effect

    def spend(self, now: Micros, lease: BudgetLease, usage: Usage, kind: EntryKind) -> rules.Effect:
        """Return the effect of recording usage of a lease: a settlement, or an observation."""
        balance, known = self._make_room(now, lease, kind, usage)
        spend = rules.settle if kind is EntryKind.SETTLEMENT else rules.observe
        return spend(balance, known, usage, lease_id=lease.id, ceiling=U64_MAX)

    def renew(self, now: Micros, lease: BudgetLease, ttl_us: int) -> rules.Effect:
        """Return the effect of a renewal."""
        known = self._known(lease)
        return rules.renew(self._balance, known, self._after(now, ttl_us), lease_id=lease.id)

    def release(self, now: Micros, lease: BudgetLease) -> rules.Effect:
        """Return the effect of a release."""
        balance, known = self._make_room(now, lease, EntryKind.RELEASE)
        return rules.release(balance, known, lease_id=lease.id)

    def abandon(self, lease: BudgetLease, estimate: UsageEstimate | None) -> rules.Effect:
        """Return the effect of the end of a lease whose usage was not recorded."""
        return rules.abandon(
            self._policy.settlement,
            self._balance,
            self._known(lease),
            lease_id=lease.id,
            ceiling=U64_MAX,
            estimate=estimate,
        )[0]

    def book_lost(
        self, now: Micros, lost: BudgetLease, usage: Usage, estimate: UsageEstimate | None
    ) -> rules.Effect:
        """Return the effect of a lost lease's usage, after a reservation that holds nothing."""
        self._granted += 1
        about: Any = {"lease_id": self._granted, "ceiling": U64_MAX}
        nothing = UsageEstimate.zero()
        balance, lease, _ = granted = rules.reserve(
            self._balance, estimate=nothing, request_budget=lost.request_budget, **about
        )
        self.apply(granted, now)
        self.booked[lost.token] = usage, estimate
        if estimate is None:
            return rules.settle(balance, lease, usage, **about)
        if usage != Usage():
            balance, lease, _ = part = rules.observe(balance, lease, usage, **about)
            self.apply(part, now)
        by = self._policy.settlement
        return rules.abandon(by, balance, lease, **about, estimate=estimate)[0]

    def credit(self, now: Micros, credit: Credit) -> None:
        """Add a prepaid amount. It changes no lease and no balance, so there is no effect.

        Raises:
            InvalidInputError: The pool is not prepaid on an axis on which the credit gives
                something, or the credit has expired.
        """
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
        self._free()

    # What a change does before it decides, and after.

    def catch_up(self, now: Micros, spared: int | None, *, late: bool) -> None:
        """Expire due leases, and begin the current window.

        Args:
            now: The time by the manager's clock.
            spared: The lease that the change is about, which does not expire.
            late: Whether that lease expires if it was due in an earlier window.
        """
        begun = rules.roll_over(self._policy, self._window, self._balance, now)
        if begun is not None:
            self._expire(now, None if late else spared, before=begun.start)
            self._roll_over(now)
        self._expire(now, spared)

    def apply(self, effect: rules.Effect, now: Micros) -> None:
        """Change the state by an effect."""
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
            self._free()
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

    # Reads, which change nothing.

    def remaining(self, now: Micros) -> Remaining:
        """Return what remains, as the next change would find it."""
        due = self._due_by(now)
        bounds = self._limits(now, due), self._credits(now, due)
        return rules.remaining(self._policy, *self._stands(now, due), *bounds)

    def credits(self, now: Micros) -> list[CreditStatus]:
        """Return how far each credit is used, in the order in which they were given."""
        due = self._due_by(now)
        credits = self._credits(now, due)
        return [] if credits is None else [*credits.states(self._stands(now, due).balance)]

    def _due_by(self, now: Micros) -> rules.Due:
        """Return the sums of due leases, which the next change lets expire."""
        if not self._due or self._due[0][0] > now:
            return _NOTHING_DUE
        numbers = {lease_id for expires_at, lease_id in self._due if expires_at <= now}
        found = (self._leases.get(lease_id) for lease_id in sorted(numbers))
        holds = [(_ends(one), one.held) for one in found if one is not None and rules.due(one, now)]
        return rules.overdue(rules.current(), self._policy.settlement, holds)

    def _stands(self, now: Micros, due: rules.Due) -> rules.Standing:
        """Return the balance and the window as the next change will find them."""
        return rules.stand(
            self._policy,
            self._balance,
            self._window,
            now,
            recorded_at=self._recorded_at,
            due=due,
            ceiling=U64_MAX,
        )

    def _limits(self, now: Micros, due: rules.Due = _NOTHING_DUE) -> rules.Limits | None:
        """Return the policy's limits at present, None if it has none."""
        if not self._policy.limits:
            return None
        return rules.Limits(
            self._policy, max(now, self._recorded_at), self._history.with_due(due.dated)
        )

    def _credits(
        self, now: Micros | None = None, due: rules.Due = _NOTHING_DUE
    ) -> rules.Credits | None:
        """Return the credits at present, or after the newest change; None if not prepaid."""
        if not self._policy.prepaid:
            return None
        at = self._recorded_at if now is None else max(now, self._recorded_at)
        return rules.Credits(self._policy, self._credit_book, at, self._history.with_due(due.dated))

    def _roll_over(self, now: Micros, begin: Callable[..., Any] = rules.roll_over) -> None:
        """Begin the window that is current at `now`. No threshold is reported in it yet."""
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
            self.apply(effect, now)
        for due in kept:
            heapq.heappush(self._due, due)

    def _make_room(
        self, now: Micros, lease: BudgetLease, kind: EntryKind, usage: Usage | None = None
    ) -> tuple[Balance, LeaseState | None]:
        """Take back the assumed usage of an expired lease, as far as `usage` replaces it.

        Returns the balance and the lease on which the record of the usage builds. Such a record is
        never refused.
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
            self._balance = effect.balance  # the committed usage is counted from here
        return effect.balance, effect.lease

    def _take_back(
        self, lease_id: int, moved: UsageDifference, kind: EntryKind, usage: Usage | None
    ) -> None:
        """Keep a charge of an earlier window from freeing capacity in this one."""
        charged_in = self._charged_in[lease_id]
        if self._window is None or charged_in is None or charged_in.start == self._window.start:
            return
        requests = requests_made(EntryKind.CORRECTION, {"late": kind}) + requests_made(kind, None)
        by = Totals.of(moved, requests=requests).plus(Totals.of(usage or Usage.zero(), requests=0))
        self._window_after = rules.without(self._window, rules.taken_back(by))

    def _dated(self, effect: rules.Effect, now: Micros) -> rules.Charge | None:
        """Return when a dated entry counts, and what it commits; None if it counts now."""
        if not rules.has_ended(effect.lease, max(now, self._recorded_at)):
            return None
        return _ends(effect.lease), effect.balance.committed.minus(self._balance.committed)

    def _note_committed(
        self, now: Micros, balance: Balance, dated: rules.Charge | None = None
    ) -> None:
        at = max(now, self._recorded_at)
        book = self._credit_book if self._policy.prepaid else None
        self._history.record(self._policy.limits, at, balance.committed, dated, book)

    def _note_crossings(self, before: set[str]) -> None:
        """Keep crossings for `on_threshold`: each threshold once in each direction per window."""
        for name, percent, direction in rules.crossings(self._policy, before, self._reached()):
            if (name, direction) in self._reported:
                continue
            self._reported.add((name, direction))
            left = rules.remaining(self._policy, self._balance, self._window, None, self._credits())
            crossing = ThresholdCrossing(
                pool=None,
                threshold=name,
                percent=percent,
                direction=direction,
                seq=None,
                remaining=left,
                recorded_at=from_micros(self._recorded_at),
            )
            self.crossed.append(crossing)
            self.crossings.add(crossing)

    def _after(self, now: Micros, ttl_us: int) -> Micros:
        """Return the time `ttl_us` after now, or after the newest change if the clock went back."""
        return Micros(max(now, self._recorded_at) + ttl_us)

    def _known(self, lease: BudgetLease) -> LeaseState | None:
        if lease.pool is not None or not is_proof(lease.proof):
            return None
        if lease.proof != self._proof:
            raise LostLeaseError(lease.id)
        return self._leases.get(lease.id)


def _ends(lease: LeaseState) -> Micros:
    """Return when the hold of a due or expired lease ended."""
    assert lease.expires_at is not None  # noqa: S101 - other leases are never due
    return lease.expires_at
