"""A pool as the rules alone make it, whoever is asked and wherever it is kept.

Every verdict, balance, lease, window and crossing is computed by `ledger.core.rules`; what is
added here is which entries a call leads to, in the pool and in those above it. It knows nothing
of stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ledger import (
    Balance,
    BudgetLease,
    Credit,
    CreditStatus,
    EntryFlag,
    EntryKind,
    InvalidInputError,
    LeasePhase,
    LeaseState,
    OpenLeasesError,
    PoolClosedError,
    Remaining,
    RequestBudget,
    SharedPoolBudgetOptions,
    ThresholdCrossing,
    ThresholdExceededError,
    Totals,
    Unpriced,
    Usage,
    UsageDifference,
    UsageEstimate,
    WindowState,
    from_micros,
)
from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.credit_book import CreditBook
from ledger.core.policy import check_ttl
from tests.stateful.credits import PlainHistory
from tests.stateful.limits import PlainLimits

if TYPE_CHECKING:
    from tests.stateful.books import Books


class Pool:
    """One pool, and every entry that was written to it."""

    def __init__(
        self,
        books: Books,
        policy: SharedPoolBudgetOptions,
        now: Micros,
        *,
        ceiling: int,
        name: str | None = None,
        parent: Pool | None = None,
        carved: bool = False,
    ) -> None:
        self.books = books
        self.policy = self.opening = policy
        self.ceiling = ceiling
        self.name = name
        self.parent = parent
        self.identity: UUID | None = None
        self.lineage: list[Pool] = [self]
        if parent is not None and not carved:
            self.lineage += parent.lineage
        self.balance = Balance()
        self.window = rules.begin_window(policy, now, Totals())
        self.began = 1
        """The entry that began the window."""
        self.refunds: list[rules.Moved] = []
        """What corrections that somebody asked for moved."""
        self.recorded_at = now
        self.closed = False
        self.leases: dict[int, LeaseState] = {}
        self.granted: list[int] = []
        """The leases that were granted here; the others repeat leases of pools below."""
        self.mirrors: dict[tuple[Pool, int], int] = {}
        self.assumed: dict[int, int] = {}
        """The entries by which leases granted here expired, if they were charged."""
        self.spends: dict[int, tuple[int, Usage]] = {}
        """Entries that record usage: of which lease, and what they say by now."""
        self.entries: list[tuple[EntryKind, EntryFlag]] = [(EntryKind.OPENING, EntryFlag.NONE)]
        self.points = [rules.Point(1, now, Totals())]
        """What was committed at each entry."""
        self.moves: list[rules.Move] = []
        """What corrections moved, and what counts at another time than it was recorded."""
        self.repeats: dict[tuple[Pool, int], int] = {}
        """The entries here that entries of the pools below led to, and those of this pool."""
        self.reported: set[object] = set()
        self.reached_before: set[str] | None = None
        """The thresholds that were reached before what the next entry replaces was taken back."""
        self.crossed: list[ThresholdCrossing] = []
        self.funding: int | None = None
        """The lease in the parent that this pool was carved out by."""
        self.passed_on: int | None = None
        """The entry in the parent that settled it."""
        self.book = CreditBook(1, now, Totals()) if policy.prepaid else None
        """The credits, None as long as the pool never was prepaid."""
        books.pools.append(self)

    def saved(self) -> dict[str, Any]:
        """Return what a write may change, as it is."""
        return {
            name: value.copy() if isinstance(value, (dict, list, set)) else value
            for name, value in vars(self).items()
        }

    # What is asked

    def window_at(self, now: Micros) -> WindowState | None:
        """Return the window that it is by then, although nothing may be written in it yet."""
        return rules.current_window(
            self.policy, self.window, self.balance_at(now), now, recorded_at=self.recorded_at
        )

    def session(self) -> WindowState | None:
        """Return the session that a reservation would begin, None without one."""
        at = max(self.books.now, self.recorded_at)
        return rules.begin_session(self.policy, self.window, self.balance, at)

    def remaining(self, now: Micros) -> Remaining:
        """Return what this pool and those above have left, once all that is due has expired."""
        return rules.least(one.left(now) for one in self.lineage)

    def left(self, now: Micros) -> Remaining:
        """Return what this pool alone has left, once all that is due has expired."""
        stands, due = (self.balance_at(now), self.window_at(now)), self.due(now)
        bounds = self.limits(now, due), self.credits(now, due)
        return rules.remaining(self.policy, *stands, *bounds)

    def due(self, now: Micros) -> list[rules.Move]:
        """Return what leases that are due are charged, here and below, when their holds ended."""
        return [
            rules.Dated(
                len(self.entries) + 1, lease.expires_at or now, Totals.of(usage, requests=1)
            )
            for below in self.books.pools
            if self in below.lineage
            for lease in (below.leases[number] for number in below.granted)
            if rules.due(lease, now) and (usage := below.assumes(lease.lease)) is not None
        ]

    def limits(self, now: Micros, due: Sequence[rules.Move] = ()) -> PlainLimits | None:
        """Return the limits of the policy at a time."""
        if not self.policy.limits:
            return None
        moves = [*self.moves, *due]
        return PlainLimits(self.policy, max(now, self.recorded_at), self.points, moves)

    def credits(
        self, now: Micros, more: Sequence[rules.Move] = (), *, always: bool = False
    ) -> rules.Credits | None:
        """Return the credits at a time, None where they do not matter or there never were any."""
        if self.book is None or not (self.policy.prepaid or always):
            return None
        history = PlainHistory(self.points, self.moves)
        return rules.Credits(self.policy, self.book, max(now, self.recorded_at), history, more)

    def credit_states(self, now: Micros) -> list[CreditStatus]:
        """Return how far each credit is used at a time, once all that is due has expired."""
        credits = self.credits(now, self.due(now))
        return [] if credits is None else [*credits.states(self.balance_at(now))]

    def balance_at(self, now: Micros) -> Balance:
        """Return the balance once all that is due has expired."""
        balance = self.balance
        for below in self.books.pools:
            if self not in below.lineage:
                continue
            for lease in below.granted:
                if rules.due(below.leases[lease], now):
                    here = lease if below is self else self.mirrors[below, lease]
                    balance = rules.expire(
                        balance,
                        self.leases[here],
                        below.assumes(lease),
                        lease_id=here,
                        ceiling=self.ceiling,
                    ).balance
        return balance

    def assumes(self, lease: int) -> Usage | None:
        """Return what is assumed of a lease that expires now, None if its hold is given back."""
        found = rules.assumed(self.policy.settlement, self.leases[lease])
        return None if found is None else found.usage

    def outcome_seq(self) -> int:
        """Return the number of the newest entry that is a call's outcome."""
        return max(
            seq for seq, (kind, _) in enumerate(self.entries, 1) if kind is not EntryKind.THRESHOLD
        )

    # What is written

    def expire(self, *, spared: int | None = None) -> int:
        """Expire the leases that were granted here and are due, in the order of their times."""
        due = [
            self.leases[lease]
            for lease in self.granted
            if lease != spared and rules.due(self.leases[lease], self.books.now)
        ]
        for lease in sorted(due, key=lambda one: (one.expires_at, one.lease)):
            usage = self.assumes(lease.lease)
            seq = self.follow(EntryKind.EXPIRY, lease.lease, usage)
            if usage is not None:
                self.assumed[lease.lease] = seq
        return len(due)

    def roll_over(self) -> None:
        """Begin the window that it is by now."""
        window = rules.roll_over(self.policy, self.window, self.balance, self.books.now)
        if window is not None:
            self.move(EntryKind.ROLLOVER, self.balance, window=window)

    def reserve(
        self,
        estimate: UsageEstimate,
        budget: RequestBudget,
        ttl: timedelta | None = None,
        says: Unpriced | None = None,
        *,
        keeps_denials: bool = False,
    ) -> BudgetLease:
        """Grant a lease, or raise why not."""
        denial = self.refusal(estimate, budget)
        if denial is not None:
            if keeps_denials:
                self.move(EntryKind.DENIAL, self.balance)
            raise denial
        for one in self.lineage:
            rules.require_priced(one.policy, estimate, says, one.name)
        ttl = self.policy.lease_ttl if ttl is None else ttl
        until = None if ttl is None else self.after(ttl)
        lease = self.hold(estimate, budget, until, flag=self.unpriced(estimate))
        self.granted.append(lease)
        return BudgetLease(id=lease, reserved=estimate, request_budget=budget, pool=self.identity)

    def refusal(
        self, estimate: UsageEstimate, budget: RequestBudget, requests: int = 1
    ) -> rules.Denial | None:
        """Return why this pool, or one above it, denies a reservation."""
        for one in self.lineage:
            one.require_open()
            denial = rules.admit(
                one.policy,
                one.balance,
                estimate,
                budget,
                one.session() or one.window,
                requests=requests,
                limits=one.limits(self.books.now),
                credits=one.credits(self.books.now),
            )
            if isinstance(denial, ThresholdExceededError):
                self.books.sweep_below(one)
                return denial if one.name is None else denial.of_pool(one.name)
            if denial is not None:
                return denial
        return None

    def hold(
        self,
        estimate: UsageEstimate,
        budget: RequestBudget,
        expires_at: Micros | None,
        requests: int = 1,
        *,
        flag: EntryFlag = EntryFlag.NONE,
    ) -> int:
        """Hold an estimate here and in every pool above, or in none of them.

        Where the last session has ended, this begins one, once what is due has expired.
        """

        def granted() -> list[rules.Effect]:
            return [
                rules.reserve(
                    one.balance,
                    lease_id=one.next_lease(),
                    estimate=estimate,
                    request_budget=budget,
                    ceiling=self.ceiling,
                    expires_at=expires_at,
                    requests=requests,
                )
                for one in self.lineage
            ]

        begun = [one for one in self.lineage if one.session() is not None]
        for one in begun:
            self.books.sweep_below(one)
        granted()  # raises before anything is written
        for one in begun:
            one.move(EntryKind.ROLLOVER, one.balance, window=one.session())
        effects = granted()
        lease = effects[0].lease.lease
        for one, effect in zip(self.lineage, effects, strict=True):
            one.mirrors[self, lease] = effect.lease.lease
            one.append(EntryKind.RESERVATION, effect, flag)
        return lease

    def spend(
        self, kind: EntryKind, lease: int, usage: Usage, flag: EntryFlag = EntryFlag.NONE
    ) -> None:
        """Commit usage, whatever it is, and then raise if it is over the request's own budget."""
        self.make_room(kind, lease, usage)
        self.follow(kind, lease, usage, flag=flag)
        state = self.leases[lease]
        excess = rules.over_request_budget(state.request_budget, state.used)
        if excess is not None:
            raise excess

    def release(self, lease: int) -> None:
        """End a lease unused; what was assumed of it is taken back."""
        self.make_room(EntryKind.RELEASE, lease)
        self.follow(EntryKind.RELEASE, lease)

    def make_room(self, kind: EntryKind, lease: int, usage: Usage | None = None) -> None:
        """Take back what was assumed of an expired lease, as far as it is replaced."""
        state = self.leases.get(lease)
        if lease not in self.assumed or state is None or state.phase is not LeasePhase.EXPIRED:
            return
        seq = self.assumed[lease]
        _, before = self.spends[seq]
        after = rules.still_assumed(before, kind, usage)
        requests = 0 if kind is EntryKind.OBSERVATION else -1
        if before != after or requests:
            used = Totals.of(usage or Usage.zero(), requests=int(kind is EntryKind.SETTLEMENT))
            self.correct(seq, after, requests=requests, late=used)

    def abandon(self, lease: int) -> None:
        """End a lease by the policy for those whose usage was not recorded."""
        _, found = rules.abandon(
            self.policy.settlement,
            self.balance,
            self.leases.get(lease),
            lease_id=lease,
            ceiling=self.ceiling,
        )
        if found is None:
            self.follow(EntryKind.RELEASE, lease)
        else:
            self.follow(EntryKind.SETTLEMENT, lease, found.usage)

    def renew(self, lease: int, ttl: timedelta) -> datetime:
        """Hold what is held until so long from now."""
        for one in self.lineage:
            one.require_open()
        expires_at = self.after(ttl)
        self.follow(EntryKind.RENEWAL, lease, expires_at=expires_at)
        return from_micros(expires_at)

    def follow(
        self,
        kind: EntryKind,
        lease: int,
        usage: Usage | None = None,
        *,
        expires_at: Micros | None = None,
        requests: int = 1,
        funds: bool = False,
        flag: EntryFlag = EntryFlag.NONE,
    ) -> int:
        """Write what becomes of a lease, here and in every pool above; return the entry here.

        Only a pool that is carved out of this one ends the lease that `funds` it.
        """

        def decide(one: Pool, here: int) -> rules.Effect:
            known = one is not self or funds or here in self.granted
            return rules.follow(
                kind,
                one.balance,
                one.leases.get(here) if known else None,
                usage,
                lease_id=here,
                expires_at=expires_at,
                ceiling=self.ceiling,
                requests=requests,
            )

        flag |= EntryFlag.NONE if funds else self.unpriced(usage)
        seq = self.post(kind, lease, decide, usage, flag)
        if usage is not None:
            self.spends[seq] = lease, usage
        return seq

    def correct(
        self, seq: int, after: Usage, *, requests: int = 0, late: Totals | None = None
    ) -> UsageDifference:
        """Say what an entry's usage really was; `late` usage follows, and replaces that."""
        lease, before = self.spends[seq]

        def decide(one: Pool, here: int) -> rules.Effect:
            return rules.correct(
                one.balance,
                one.leases[here],
                before,
                after,
                seq=seq,
                ceiling=self.ceiling,
                requests=requests,
                of_expiry=self.assumed.get(lease) == seq,
            )

        moved = UsageDifference.between(before, after)
        by = Totals.of(moved, requests=requests)
        windows = [one.window_after(one.repeats[self, seq], by, late) for one in self.lineage]
        moves = [one.move_of(one.repeats[self, seq], by) for one in self.lineage]
        here = self.post(
            EntryKind.CORRECTION,
            lease,
            decide,
            moved,
            requests=requests,
            late=late is not None,
            windows=windows,
            moves=moves,
        )
        for one, move in zip(self.lineage, moves, strict=True):
            assert one.repeats[self, here] == move.seq
            refund = rules.Moved(move.seq, one.repeats[self, seq], by)
            one.refunds += [refund] if late is None else []
        self.spends[seq] = lease, after
        return moved

    def move_of(self, seq: int, by: Totals) -> rules.Move:
        """Return how the next entry moves totals which corrects one: it counts when that does."""
        at = {one.seq: one.at for one in self.moves if isinstance(one, rules.Dated)}.get(seq)
        number = len(self.entries) + 1
        return rules.Moved(number, seq, by) if at is None else rules.Dated(number, at, by)

    def window_after(self, seq: int, by: Totals, late: Totals | None) -> WindowState | None:
        """Return the window once a correction has moved an entry: it is not refunded for others."""
        if self.window is None or seq > self.began:
            return self.window
        least = total = Totals()
        moved = [one.by for one in self.refunds if one.of == seq and one.seq > self.began]
        for one in moved if late is None else ():
            total = total.plus(one)
            least = Totals(*map(min, least, total))
        total = total.plus(by if late is None else by.plus(late))
        lost = least.minus(Totals(*map(min, least, total)))
        return self.window._replace(base=self.window.base.minus(lost))

    def adjust(self, policy: SharedPoolBudgetOptions) -> None:
        """Replace the policy, perhaps by one below what is spent."""
        self.require_open()
        if policy.prepaid != self.policy.prepaid:
            self.books.sweep_below(self)
        at = max(self.books.now, self.recorded_at)
        window = rules.adjust_window(self.policy, policy, at, self.balance.committed)
        book = rules.carried_on(
            self.book,
            self.credits(self.books.now, always=True),
            self.policy,
            policy,
            len(self.entries) + 1,
            at,
            self.balance,
        )
        self.move(EntryKind.ADJUSTMENT, self.balance, policy=policy, window=window, book=book)

    def give(self, credit: Credit) -> None:
        """Add a credit."""
        self.require_open()
        self.books.sweep_below(self)
        credits = self.credits(self.books.now)
        if credits is None:
            raise InvalidInputError("credit", "")
        at = max(self.books.now, self.recorded_at)
        book = credits.with_credit(credit, len(self.entries) + 1, at, self.balance)
        self.move(EntryKind.CREDIT, self.balance, policy=self.policy, book=book)

    def carve(self, child: Callable[[], Pool], options: SharedPoolBudgetOptions) -> None:
        """Set a new pool's capacity aside here, for good."""
        estimate = UsageEstimate(
            total_tokens=options.capacity_tokens, cost_micros_usd=options.capacity_cost_micros_usd
        )
        requests = options.capacity_requests or 1
        denial = self.refusal(estimate, RequestBudget.unlimited(), requests)
        if denial is not None:
            raise denial
        funding = self.hold(estimate, RequestBudget.unlimited(), None, requests)
        child().funding = funding

    def close(self) -> None:
        """Take nothing new any more; what a carved pool did not spend goes back."""
        self.require_open()
        open_leases = self.balance.reserved.requests
        if self.funding is not None and open_leases:
            raise OpenLeasesError(self.name or "", open_leases=open_leases)
        if self.funding is not None and self.parent is not None:
            self.books.require(self.parent.lineage)
            spent = self.balance.committed
            usage = Usage(total_tokens=spent.tokens, cost_micros_usd=spent.cost_micros_usd)
            self.passed_on = self.parent.follow(
                EntryKind.SETTLEMENT, self.funding, usage, requests=spent.requests, funds=True
            )
        self.closed = True
        self.move(EntryKind.CLOSING, self.balance)

    # How it is written

    def post(  # noqa: PLR0913 - what an entry may do
        self,
        kind: EntryKind,
        lease: int,
        decide: Callable[[Pool, int], rules.Effect],
        usage: Usage | UsageDifference | None,
        flag: EntryFlag = EntryFlag.NONE,
        *,
        requests: int = 0,
        late: bool = False,
        windows: Sequence[WindowState | None] = (),
        moves: Sequence[rules.Move] = (),
    ) -> int:
        """Append an entry about a lease here, and what repeats it above: all of them, or none."""
        decided = [
            (one, decide(one, lease if one is self else one.mirrors.get((self, lease), 0)))
            for one in self.lineage
        ]
        if self.closed and usage is not None:
            self._pass_on(kind, usage, requests)
        found = windows or [None] * len(decided)
        at = max(self.books.now, self.recorded_at)  # decided here for the pools above, too
        moved: Sequence[rules.Move | None] = moves or [
            one.late_move(kind, effect, usage, at) for one, effect in decided
        ]
        seqs = [
            one.append(kind, effect, flag, late=late, window=window, moved=by)
            for (one, effect), window, by in zip(decided, found, moved, strict=True)
        ]
        for one, seq in zip(self.lineage, seqs, strict=True):
            one.repeats[self, seqs[0]] = seq
        return seqs[0]

    def late_move(
        self,
        kind: EntryKind,
        effect: rules.Effect,
        usage: Usage | UsageDifference | None,
        at: Micros,
    ) -> rules.Dated | None:
        """Return when usage counts that is recorded once a hold has ended; None for all else."""
        ends = effect.lease.expires_at
        if usage is None or ends is None or ends > at:
            return None
        calls = int(kind is not EntryKind.OBSERVATION)
        by = Totals.of(usage, requests=calls)
        if self.name is None:  # memory keeps no more than what is committed
            by = effect.balance.committed.minus(self.balance.committed)
        return rules.Dated(len(self.entries) + 1, Micros(effect.lease.expires_at or 0), by)

    def _pass_on(self, kind: EntryKind, late: Usage | UsageDifference, requests: int) -> None:
        """Spend in the parent what comes late to a carved pool that is closed."""
        if self.parent is None or self.passed_on is None:
            return
        moved = UsageDifference(
            total_tokens=late.total_tokens, cost_micros_usd=late.cost_micros_usd
        )
        _, before = self.parent.spends[self.passed_on]
        after = moved.added_to(before, ceiling=self.ceiling)
        if kind is EntryKind.SETTLEMENT:
            requests = 1
        self.books.require(self.parent.lineage)
        if before != after or requests:
            self.parent.correct(self.passed_on, after, requests=requests)

    def unpriced(self, amounts: UsageEstimate | Usage | None) -> EntryFlag:
        """Return the flag of amounts that leave out what this pool, or one above, limits."""
        return rules.unpriced_flag([one.policy for one in self.lineage], amounts)

    def append(
        self,
        kind: EntryKind,
        effect: rules.Effect,
        flag: EntryFlag,
        *,
        late: bool = False,
        window: WindowState | None = None,
        moved: rules.Move | None = None,
    ) -> int:
        """Append an entry about a lease, and return its number."""
        self.leases[effect.lease.lease] = effect.lease
        flags = effect.flags | flag
        flags |= EntryFlag.AT_EXPIRY if isinstance(moved, rules.Dated) else EntryFlag.NONE
        return self.move(kind, effect.balance, flags=flags, late=late, window=window, moved=moved)

    def move(
        self,
        kind: EntryKind,
        balance: Balance,
        *,
        flags: EntryFlag = EntryFlag.NONE,
        policy: SharedPoolBudgetOptions | None = None,
        window: WindowState | None = None,
        late: bool = False,
        book: CreditBook | None = None,
        moved: rules.Move | None = None,
    ) -> int:
        """Append an entry, and behind it a report of each threshold that it crosses.

        What is taken back for `late` usage crosses nothing: the entry that follows does.
        """
        before = self.reached()
        if self.reached_before is not None:
            before = self.reached_before
        self.balance, self.policy = balance, policy or self.policy
        self.book = self.book if policy is None else book
        self.window = None if self.policy.window is None else window or self.window
        seq = self.note(kind, flags)
        if window is not None and kind is not EntryKind.CORRECTION:
            self.began = seq
        self.reached_before = before if late else None
        self.moves += [] if moved is None else [moved]
        if late:
            return seq
        if policy is not None or kind is EntryKind.ROLLOVER:
            self.reported.clear()
        after = self.reached()
        for crossing in rules.crossings(self.policy, before, after):
            if (crossing.name, crossing.direction) not in self.reported:
                self.reported.add((crossing.name, crossing.direction))
                self._report(crossing)
        return seq

    def reached(self) -> set[str]:
        """Return the thresholds that were reached when the newest entry was recorded."""
        credits = self.credits(self.recorded_at)
        return rules.reached(self.policy, self.balance, self.window, credits)

    def _report(self, crossing: rules.Crossing) -> None:
        seq: Any = self.note(EntryKind.THRESHOLD, EntryFlag.NONE)
        self.crossed.append(
            ThresholdCrossing(
                pool=self.name,
                threshold=crossing.name,
                percent=crossing.percent,
                direction=crossing.direction,
                seq=None if self.name is None else seq,
                remaining=rules.remaining(
                    *(self.policy, self.balance, self.window, None, self.credits(self.recorded_at))
                ),
                recorded_at=from_micros(self.recorded_at),
            )
        )

    def note(self, kind: EntryKind, flags: EntryFlag) -> int:
        """Write an entry down, and return its number."""
        self.entries.append((kind, flags | EntryFlag.CLOSED if self.closed else flags))
        self.recorded_at = max(self.recorded_at, self.books.now)
        point = rules.Point(len(self.entries), self.recorded_at, self.balance.committed)
        self.points.append(point)
        return len(self.entries)

    def next_lease(self) -> int:
        """Return the id of the next lease: its entry's number, or in memory just the next one."""
        return len(self.leases) + 1 if self.name is None else len(self.entries) + 1

    def after(self, ttl: timedelta) -> Micros:
        """Return the time so long from now, or from the newest entry if that is later."""
        return Micros(max(self.books.now, self.recorded_at) + check_ttl("ttl", ttl))

    def require_open(self) -> None:
        """Refuse what a closed pool does not take."""
        if self.closed:
            raise PoolClosedError(self.name or "")
