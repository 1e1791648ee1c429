"""The replay: rebuilds a pool from its entries by the rules, up to the first impossible entry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ledger.core import rules
from ledger.core.assumptions import Assumptions, Owed, check_taken_back
from ledger.core.book_checks import book_behind
from ledger.core.checks import I64_MAX, Micros
from ledger.core.credit_book import CreditBook
from ledger.core.crossings import Crossings
from ledger.core.entries import (
    Balance,
    Entry,
    EntryFlag,
    LeaseAfter,
    LeaseState,
    Totals,
    WindowState,
    funds_pool,
    late_in,
    lost_in,
    requests_made,
    requests_of,
)
from ledger.core.entry_shape import (
    Contradiction,
    check_shape,
    committed_by,
    correction_of,
    is_call,
    move_of,
)
from ledger.core.errors import (
    InvalidInputError,
    UncorrectableEntryError,
    UnknownLeaseError,
    UnknownRulesError,
)
from ledger.core.kinds import CHANGES_WINDOW, CHARGED, KINDS, EntryKind, LeasePhase
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Usage, UsageDifference, UsageEstimate

_BEGINNING = Micros(0)

_REFUSED = (UnknownLeaseError, UncorrectableEntryError, InvalidInputError, UnknownRulesError)


@dataclass(slots=True)
class Replay:
    """A pool rebuilt from its entries, one at a time; of leases it keeps only the open ones."""

    ceiling: int = I64_MAX
    entries: int = 0
    policy: SharedPoolBudgetOptions = field(default_factory=SharedPoolBudgetOptions)
    policy_seq: int = 0
    rules_version: int = 0
    """The version of the rules that the policy was set under."""
    window: WindowState | None = None
    window_seq: int | None = None
    window_began: int = 0
    """The number of the entry that began the window; `window_seq` may be a later correction that
    changed the window."""
    moved: dict[int, list[Totals]] = field(default_factory=dict)
    """By how much corrections in this window have moved each entry of earlier windows. Late usage
    that replaced an assumed charge of an earlier window begins with its excess over that charge."""
    balance: Balance = field(default_factory=Balance)
    leases: dict[int, LeaseState] = field(default_factory=dict)
    assumed: Assumptions = field(default_factory=Assumptions)
    begun: bool = False
    """Whether a session has begun and the reservation that began it must follow."""
    closed: bool = False
    crossings: Crossings = field(default_factory=Crossings)
    history: rules.History = field(default_factory=rules.Track)
    """The history that its limits and credits count. If it is a `Track`, this replay adds every
    charged entry to it, and of a prepaid pool every entry."""
    book: CreditBook | None = None
    """The credits that the pool lists; None if it was never prepaid."""
    recorded_at: Micros = _BEGINNING
    """When the newest entry was recorded."""

    def apply(self, entry: Entry) -> rules.Effect | None:
        """Decide `entry` again and apply it; return its effect, None if it moved no amount.

        Raises:
            Contradiction: The rules cannot have led to this entry here.
        """
        self._check_report(entry)
        owed = self.assumed.owed
        before: Collection[str] = self._reached(self.recorded_at) if owed is None else owed.reached
        try:
            effect = self._effect(entry)
            if entry.policy is not None:
                self.rules_version = rules.version_in(entry.detail)
        except _REFUSED as error:
            raise Contradiction(f"{entry.kind}: {error}") from error
        credits = None if entry.policy is None else self.credits(entry.recorded_at)
        book = book_behind(entry, self.policy, self.book, credits, self.balance)
        self.entries += 1
        self.recorded_at = entry.recorded_at
        self.closed |= entry.kind == EntryKind.CLOSING
        if effect is not None:
            self.balance = effect.balance
            if effect.lease.phase is LeasePhase.ENDED:
                self.leases.pop(effect.lease.lease, None)
                self.assumed.forget(effect.lease.lease)
            else:
                self.leases[effect.lease.lease] = effect.lease
        if isinstance(self.history, rules.Track):
            self._record(self.history, entry)
        self.assumed.note(entry, before, self._moved(entry), self.window)
        self._note_moved(entry, owed)
        self._move_on(entry)
        self.book = book
        self._note_crossings(entry, before)
        return effect

    def credits(self, at: Micros, more: Sequence[rules.Move] = ()) -> rules.Credits | None:
        """Return the pool's credits at a time, None if it was never prepaid."""
        if self.book is None:
            return None
        return rules.Credits(self.policy, self.book, at, self.history, more)

    def _prepaid(self, at: Micros, more: Sequence[rules.Move] = ()) -> rules.Credits | None:
        """Return the credits that bound what the pool may spend, None if it is not prepaid."""
        return self.credits(at, more) if self.policy.prepaid else None

    def _reached(self, at: Micros, more: Sequence[rules.Move] = ()) -> Collection[str]:
        if not self.policy.thresholds:
            return ()
        return rules.reached(self.policy, self.balance, self.window, self._prepaid(at, more))

    def _record(self, history: rules.Track, entry: Entry) -> None:
        """Add an entry to what limits and credits count; limits need only charged entries."""
        if entry.kind in CHARGED or self.book is not None:
            point = rules.Point(entry.seq, entry.recorded_at, self.balance.committed)
            history.add(point, move_of(entry))

    def _note_moved(self, entry: Entry, owed: Owed | None) -> None:
        """Note by how much a correction moves an entry of an earlier window."""
        if owed is not None and any(owed.moved) and entry.usage is not None:
            self.moved[entry.seq] = [owed.moved.plus(committed_by(entry))]
        elif entry.kind == EntryKind.CORRECTION and late_in(entry.detail) is None:
            corrects = correction_of(entry).corrects
            if self._is_of_earlier_window(corrects):
                self.moved.setdefault(corrects, []).append(self._moved(entry))

    def _is_of_earlier_window(self, seq: int) -> bool:
        return self.window is not None and (seq < self.window_began or seq in self.moved)

    def _moved(self, entry: Entry) -> Totals:
        """Return by how much a correction moves what was committed in an earlier window."""
        if (
            entry.kind != EntryKind.CORRECTION
            or not isinstance(entry.usage, UsageDifference)
            or not self._is_of_earlier_window(correction_of(entry).corrects)
        ):
            return Totals()
        return rules.moved_by(entry.seq, entry.detail, entry.usage).by

    def _move_on(self, entry: Entry) -> None:
        """Take over the policy that an entry sets, and the window that it begins."""
        window = entry.window
        if entry.policy is not None:
            window = rules.adjust_window(
                self.policy, entry.policy, entry.recorded_at, self.balance.committed
            )
            self.policy, self.policy_seq = entry.policy, entry.seq
        if window is not None or entry.kind == EntryKind.OPENING:
            self.window_seq = entry.seq
            if entry.kind not in CHANGES_WINDOW:
                self.window_began = entry.seq
                self.moved.clear()
        if self.policy.window is None:
            self.window, self.window_seq = None, None
        else:
            self.window = window or self.window

    def end(self) -> None:
        """Check that no entry is missing after the last one.

        Raises:
            Contradiction: The last entry crossed a threshold that no entry reports, or it took back
                an assumed charge that no entry replaces.
        """
        self.assumed.require_none_owed()
        self.crossings.require_none()
        if self.begun:
            raise Contradiction("a session began, and no call follows that began it")

    def _check_report(self, entry: Entry) -> None:
        if self.assumed.is_owed(entry):
            return
        if entry.kind != EntryKind.THRESHOLD:
            self.begun &= not is_call(entry)
            self.end()
            return
        self.crossings.check_report(entry)

    def _note_crossings(self, entry: Entry, before: Collection[str]) -> None:
        """Find thresholds that an entry crossed and that are not reported yet in this window."""
        if entry.policy is not None or entry.kind == EntryKind.ROLLOVER:
            self.crossings.reported.clear()
        owed = self.assumed.owed is not None
        if entry.kind == EntryKind.OPENING or not self.policy.thresholds or owed:
            return
        # A `Track` already has this correction. A history that is read from a store ends before it.
        move = None if isinstance(self.history, rules.Track) else move_of(entry)
        more = [] if move is None else [move]
        self.crossings.note(self.policy, before, self._reached(entry.recorded_at, more))

    def _effect(self, entry: Entry) -> rules.Effect | None:
        check_shape(entry)
        if (entry.kind == EntryKind.OPENING) != (self.entries == 0):
            raise Contradiction("a pool begins with its opening, and has no other")
        kind = KINDS[EntryKind(entry.kind)]
        if self.closed and kind.is_new and not lost_in(entry.detail):
            raise Contradiction(f"{entry.kind} in a pool that is closed")
        self._check_window(entry)
        if kind.asks:
            return self._asked(entry)
        if "lease" in kind.has:
            return self._of_lease(entry)
        return None

    def _check_window(self, entry: Entry) -> None:
        """Refuse an entry that was written in a window that had ended.

        Expiries come before the rollover, and so do reports of what they cross.
        """
        stands = self.policy, self.window, self.balance, entry.recorded_at
        session = rules.begin_session(*stands)
        begun = session or rules.roll_over(*stands)
        if entry.kind == EntryKind.ROLLOVER:
            if begun is None:
                raise Contradiction("rollover, although the window had not ended")
            if entry.window != begun:
                raise Contradiction(f"window should be {begun}, but is {entry.window}")
            self.begun = session is not None
            return
        ends_window = KINDS[EntryKind(entry.kind)].ends_window
        # Other entries may come between two sessions.
        if begun is not None and (is_call(entry) if session else not ends_window):
            raise Contradiction(f"{entry.kind} in a window that had ended")

    def _asked(self, entry: Entry) -> rules.Effect | None:
        """Decide a reservation or a denial again."""
        assert entry.estimate is not None  # noqa: S101 - by its shape
        assert entry.request_budget is not None  # noqa: S101 - by its shape
        requests = requests_of(entry.detail)
        lost = lost_in(entry.detail)
        if lost and entry.estimate != UsageEstimate.zero():
            raise Contradiction(f"{entry.kind} for lease {lost}, which was lost, holds something")
        admit = rules.RELEASED[self.rules_version].admit
        # A denial is decided in the session that it would have begun.
        now = entry.recorded_at
        window = rules.begin_session(self.policy, self.window, self.balance, now) or self.window
        asked = self.policy, self.balance, entry.estimate, entry.request_budget, window
        limits = rules.Limits(self.policy, now, self.history) if self.policy.limits else None
        denial = None
        if not lost:
            credits = self._prepaid(now)
            denial = admit(*asked, requests=requests, limits=limits, credits=credits)
        figures = entry.detail.get("denial", {})
        if denial is None and entry.kind == EntryKind.DENIAL and "pool" in figures:
            return None  # a pool above refused, and this journal does not know its balance
        if (denial is None) != (entry.kind == EntryKind.RESERVATION):
            raise Contradiction(f"{entry.kind}, but the rules say: {denial or 'admitted'}")
        if denial is not None:
            if not rules.says(figures, denial):
                raise Contradiction(f"denial whose figures should be of: {denial}")
            return None
        return rules.reserve(
            self.balance,
            lease_id=entry.seq,
            estimate=entry.estimate,
            request_budget=entry.request_budget,
            ceiling=self.ceiling,
            expires_at=None if entry.lease is None else entry.lease.expires_at,
            requests=requests,
        )

    def _of_lease(self, entry: Entry) -> rules.Effect:
        """Decide an entry about an existing lease again."""
        assert entry.lease is not None  # noqa: S101 - by its shape
        lease_id = entry.lease.lease
        lease = self.leases.get(lease_id)
        if entry.kind == EntryKind.CORRECTION:
            return self._corrected(entry, entry.lease)
        if entry.kind == EntryKind.IMPORT:
            return self._imported(entry, lease_id)
        self.assumed.check_replaced(entry, lease_id, self.window)
        if entry.kind == EntryKind.RENEWAL and entry.lease.expires_at is None:
            raise Contradiction(f"renewal of lease {lease_id} without an end")
        if (
            entry.kind == EntryKind.EXPIRY
            and lease is not None
            and lease.phase is LeasePhase.OPEN
            and not rules.due(lease, entry.recorded_at)
        ):
            raise Contradiction(f"expiry of lease {lease_id}, which was not due")
        return rules.follow(
            entry.kind,
            self.balance,
            lease,
            entry.usage if isinstance(entry.usage, Usage) else None,
            lease_id=lease_id,
            expires_at=entry.lease.expires_at,
            ceiling=self.ceiling,
            requests=requests_of(entry.detail),
            funds=funds_pool(entry.detail),
        )

    def _imported(self, entry: Entry, lease_id: int) -> rules.Effect:
        """Decide an import again."""
        if lease_id != entry.seq or entry.estimate != UsageEstimate.zero():
            raise Contradiction(f"{entry.kind} of lease {lease_id}, or of an estimate")
        assert isinstance(entry.usage, Usage)  # noqa: S101 - by its shape
        self._check_dated(entry)
        effect = rules.record_import(
            self.balance, entry.usage, lease_id=lease_id, ceiling=self.ceiling
        )
        if entry.request_budget != effect.lease.request_budget:
            raise Contradiction(f"{entry.kind} with a request budget")
        return effect

    def _check_dated(self, entry: Entry) -> WindowState | None:
        """Refuse an import, or a correction of one, that counts in the wrong window.

        Returns the window that it changes, None if it counts in the present window.
        """
        if entry.occurred_at is None:
            raise Contradiction(f"{entry.kind} that does not say when the call was made")
        window = rules.with_import(self.policy, self.window, entry.occurred_at, committed_by(entry))
        if entry.kind == EntryKind.IMPORT and entry.window != window:
            raise Contradiction(f"{entry.kind} whose window should be {window}, not {entry.window}")
        return window

    def _corrected(self, entry: Entry, stated: LeaseAfter) -> rules.Effect:
        """Decide a correction again.

        Ended leases are not kept. So the estimate is read from the correction, and the lease's
        earlier usage is the usage that it states minus the difference. The verifier checks both
        against the journal.
        """
        found = correction_of(entry)
        moved = UsageDifference.between(found.before, found.after)
        if entry.usage != moved:
            raise Contradiction(f"correction of entry {found.corrects} by another difference")
        of_expiry = self.assumed.is_corrected(entry, stated.lease, found)
        of_import = bool(entry.flags & EntryFlag.IMPORTED)
        if of_import and found.corrects != stated.lease:
            raise Contradiction(f"correction of entry {found.corrects}, which is no import")
        window = self._check_dated(entry) if of_import else None
        if window is not None:
            if entry.window != window:
                raise Contradiction(f"correction whose window should be {window}")
        elif late_in(entry.detail) is None:  # else the next entry shows whether the window is right
            earlier = self.moved.get(found.corrects, ())
            taken = rules.taken_back(self._moved(entry), earlier)
            check_taken_back(self.window, taken, entry.window or self.window)
        back = UsageDifference.between(found.after, found.before)
        assert entry.estimate is not None  # noqa: S101 - by its shape
        assert entry.request_budget is not None  # noqa: S101 - by its shape
        ended = LeaseState(
            lease=stated.lease,
            estimate=entry.estimate,
            request_budget=entry.request_budget,
            phase=LeasePhase.ENDED,
            held=Totals(),
            used=back.added_to(stated.used, ceiling=self.ceiling),
        )
        return rules.correct(
            self.balance,
            self.leases.get(stated.lease, ended),
            found.before,
            found.after,
            seq=found.corrects,
            ceiling=self.ceiling,
            requests=requests_made(entry.kind, entry.detail),
            of_expiry=of_expiry,
            of_import=of_import,
            funds=funds_pool(entry.detail),
        )


def replay(entries: Iterable[Entry], *, ceiling: int = I64_MAX) -> Replay:
    """Apply a pool's entries, from the first on, and return the pool that they lead to.

    Raises:
        Contradiction: The rules cannot have written one of them.
    """
    pool = Replay(ceiling=ceiling)
    for entry in entries:
        pool.apply(entry)
    pool.end()
    return pool
