"""The replay: rebuilds a pool from its entries by the rules, up to the first impossible entry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros
from ledger.core.credit_book import CreditBook, book_from_json
from ledger.core.entries import (
    Balance,
    Direction,
    Entry,
    EntryFlag,
    LeaseAfter,
    LeaseState,
    Totals,
    WindowState,
    late_in,
    lost_in,
    requests_made,
    requests_of,
)
from ledger.core.kinds import (
    CHANGES_WINDOW,
    CHARGED,
    ENDS_LEASE,
    KINDS,
    EntryKind,
    LeasePhase,
)
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Usage, UsageDifference, UsageEstimate
from ledger.errors import (
    InvalidInputError,
    UncorrectableEntryError,
    UnknownLeaseError,
    UnknownRulesError,
)

_SHAPED = {"policy": "a policy", "estimate": "an estimate", "usage": "usage", "lease": "a lease"}


_UNREADABLE = (LookupError, TypeError, AttributeError, InvalidInputError)
"""What reading a part of a detail raises that is not what it should be."""

_BEGINNING = Micros(0)

_REFUSED = (UnknownLeaseError, UncorrectableEntryError, InvalidInputError, UnknownRulesError)


class Contradiction(Exception):  # noqa: N818 - an answer of the replay, not an error of a caller
    """An entry that the rules cannot have written."""


class Assumption(NamedTuple):
    """An expiry that is charged, and the usage that it assumes by now."""

    seq: int
    usage: Usage


class Owed(NamedTuple):
    """An entry that must be the next one.

    Attributes:
        kind: Its kind.
        lease: The lease that it is about.
        assumed: What was assumed of the lease before some of it was taken back.
        reached: The thresholds that were reached then: nothing is reported in between.
        moved: By how much that moved what is committed, if it was assumed in an earlier window.
        window: The window before that.
    """

    kind: str
    lease: int
    assumed: Usage
    reached: Collection[str]
    moved: Totals
    window: WindowState | None


@dataclass(slots=True)
class Replay:
    """A pool rebuilt from its entries, one at a time; it remembers open leases alone."""

    ceiling: int = I64_MAX
    entries: int = 0
    policy: SharedPoolBudgetOptions = field(default_factory=SharedPoolBudgetOptions)
    policy_seq: int = 0
    rules_version: int = 0
    """The version of the rules that the policy was set under."""
    window: WindowState | None = None
    window_seq: int | None = None
    window_began: int = 0
    """The entry that began the window; `window_seq` may be a correction that changed it since."""
    moved: dict[int, list[Totals]] = field(default_factory=dict)
    """By how much corrections in this window have moved each entry of earlier windows."""
    balance: Balance = field(default_factory=Balance)
    leases: dict[int, LeaseState] = field(default_factory=dict)
    assumed: dict[int, Assumption] = field(default_factory=dict)
    """What the expiries of these leases assumed, as it was corrected since."""
    begun: bool = False
    """Whether a session has begun, so that a reservation must follow."""
    owed: Owed | None = None
    """The late entry that must follow, since what it replaces was taken back."""
    closed: bool = False
    reported: set[tuple[str, Direction]] = field(default_factory=set)
    """The crossings that were reported in this window, under this policy."""
    unreported: list[rules.Crossing] = field(default_factory=list)
    """The crossings that the next entries must report."""
    history: rules.History = field(default_factory=rules.Track)
    """What its limits and credits count. If it is a `Track`, this replay adds every entry that is
    charged, and all of a prepaid pool."""
    book: CreditBook | None = None
    """The credits that the pool lists, None as long as it never was prepaid."""
    recorded_at: Micros = _BEGINNING
    """When the newest entry was recorded."""

    def apply(self, entry: Entry) -> rules.Effect | None:
        """Decide `entry` anew and move on; return its effect, None if it moved no amount.

        Raises:
            Contradiction: The rules cannot have written this entry at this place.
        """
        self._check_report(entry)
        before: Collection[str] = self._reached(self.recorded_at)
        if self.owed is not None:
            before = self.owed.reached
        try:
            effect = self._effect(entry)
            if entry.policy is not None:
                self.rules_version = rules.version_in(entry.detail)
        except _REFUSED as error:
            raise Contradiction(f"{entry.kind}: {error}") from error
        book = self._book_behind(entry)
        self.entries += 1
        self.recorded_at = entry.recorded_at
        self.closed |= entry.kind == EntryKind.CLOSING
        if effect is not None:
            self.balance = effect.balance
            if effect.lease.phase is LeasePhase.ENDED:
                self.leases.pop(effect.lease.lease, None)
                self.assumed.pop(effect.lease.lease, None)
            else:
                self.leases[effect.lease.lease] = effect.lease
        if isinstance(self.history, rules.Track):
            self._record(self.history, entry)
        self._note_assumed(entry, before)
        self._note_moved(entry)
        self._move_on(entry)
        self.book = book
        self._note_crossings(entry, before)
        return effect

    def credits(self, at: Micros, more: Sequence[rules.Move] = ()) -> rules.Credits | None:
        """Return the pool's credits at a time, None where it never was prepaid."""
        if self.book is None:
            return None
        return rules.Credits(self.policy, self.book, at, self.history, more)

    def _prepaid(self, at: Micros, more: Sequence[rules.Move] = ()) -> rules.Credits | None:
        """Return the credits that the pool may spend no more than, None where it is not prepaid."""
        return self.credits(at, more) if self.policy.prepaid else None

    def _reached(self, at: Micros, more: Sequence[rules.Move] = ()) -> Collection[str]:
        if not self.policy.thresholds:
            return ()
        return rules.reached(self.policy, self.balance, self.window, self._prepaid(at, more))

    def _book_behind(self, entry: Entry) -> CreditBook | None:
        """Return the credits that an entry leaves, as it must say them if it sets a policy."""
        if entry.policy is None:
            return self.book
        if entry.kind == EntryKind.OPENING:
            begun = CreditBook(entry.seq, entry.recorded_at, Totals())
            return begun if entry.policy.prepaid else None
        try:
            said = entry.detail.get("credits")
            stated = None if said is None else book_from_json(said)
        except _UNREADABLE as error:
            raise Contradiction(f"{entry.kind} whose credits cannot be read: {error}") from error
        credits = self.credits(entry.recorded_at)
        if entry.kind == EntryKind.CREDIT:
            if credits is None or stated is None or not stated.listed:
                raise Contradiction("credit of a pool that is not prepaid, or none at all")
            if entry.policy != self.policy:
                raise Contradiction("credit that sets another policy")
            given = stated.listed[-1].credit, entry.seq, entry.recorded_at
            try:
                expected: CreditBook | None = credits.with_credit(*given, self.balance)
            except InvalidInputError as error:
                raise Contradiction(f"{entry.kind}: {error}") from error
        else:
            policies, at = (self.policy, entry.policy), (entry.seq, entry.recorded_at)
            expected = rules.carried_on(self.book, credits, *policies, *at, self.balance)
        if stated != expected:
            raise Contradiction(f"credits should be {expected}, but are {stated}")
        return stated

    def _record(self, history: rules.Track, entry: Entry) -> None:
        """Add an entry to what limits and credits count; limits need no more than is charged."""
        if entry.kind in CHARGED or self.book is not None:
            point = rules.Point(entry.seq, entry.recorded_at, self.balance.committed)
            history.add(point, _move_of(entry))

    def _note_assumed(self, entry: Entry, reached: Collection[str]) -> None:
        """Note what an expiry assumes, and what a correction of it leaves."""
        self.owed = None
        if entry.lease is None or entry.usage is None:
            return
        lease = entry.lease.lease
        if entry.kind == EntryKind.EXPIRY and isinstance(entry.usage, Usage):
            self.assumed[lease] = Assumption(entry.seq, entry.usage)
        elif entry.kind == EntryKind.CORRECTION and lease in self.assumed:
            late, found = late_in(entry.detail), correction_of(entry)
            self.assumed[lease] = Assumption(found.corrects, found.after)
            if late is not None:
                moved = self._moved(entry, found.corrects)
                self.owed = Owed(late, lease, found.before, reached, moved, self.window)

    def _note_moved(self, entry: Entry) -> None:
        """Note by how much a correction moves an entry of an earlier window."""
        if entry.kind == EntryKind.CORRECTION and late_in(entry.detail) is None:
            corrects = correction_of(entry).corrects
            if self._is_of_earlier_window(corrects):
                self.moved.setdefault(corrects, []).append(self._moved(entry, corrects))

    def _is_of_earlier_window(self, seq: int) -> bool:
        return self.window is not None and seq < self.window_began

    def _moved(self, entry: Entry, corrects: int) -> Totals:
        """Return by how much a correction moves what is committed, nothing in the same window."""
        if not self._is_of_earlier_window(corrects) or not isinstance(entry.usage, UsageDifference):
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
            Contradiction: The last entry crossed a threshold, and no entry reports that. Or it took
                back what was assumed of a lease, and no entry replaces that.
        """
        if self.owed is not None:
            raise Contradiction(_unreplaced(self.owed))
        if self.unreported:
            raise Contradiction(_unreported(self.unreported[0]))
        if self.begun:
            raise Contradiction("a session began, and no call follows that began it")

    def _check_report(self, entry: Entry) -> None:
        if self.owed is not None:
            follows = None if entry.lease is None else (entry.kind, entry.lease.lease)
            if follows != (self.owed.kind, self.owed.lease):
                raise Contradiction(_unreplaced(self.owed))
            return
        if entry.kind != EntryKind.THRESHOLD:
            self.begun &= not _is_call(entry)
            self.end()
            return
        if not self.unreported:
            raise Contradiction("threshold, but none was crossed, or it was reported before")
        crossing = self.unreported.pop(0)
        if entry.detail != rules.crossing_detail(crossing):
            raise Contradiction(_unreported(crossing))

    def _note_crossings(self, entry: Entry, before: Collection[str]) -> None:
        """Find thresholds that an entry crossed and that are not reported yet in this window."""
        if entry.policy is not None or entry.kind == EntryKind.ROLLOVER:
            self.reported.clear()
        if entry.kind == EntryKind.OPENING or not self.policy.thresholds or self.owed is not None:
            return
        # A history that it adds to has the correction; one that is read ends before this entry.
        move = None if isinstance(self.history, rules.Track) else _move_of(entry)
        more = [] if move is None else [move]
        after = self._reached(entry.recorded_at, more)
        for crossing in rules.crossings(self.policy, before, after):
            key = crossing.name, crossing.direction
            if key not in self.reported:
                self.reported.add(key)
                self.unreported.append(crossing)

    def _effect(self, entry: Entry) -> rules.Effect | None:
        _check_shape(entry)
        kind = KINDS[EntryKind(entry.kind)]
        if self.closed and kind.is_new and not lost_in(entry.detail):
            raise Contradiction(f"{entry.kind} in a pool that is closed")
        self._check_window(entry)
        if kind.asks:
            return self._asked(entry)
        if "lease" in kind.has:
            return self._of_lease(entry)
        if "policy" in kind.has and (entry.kind == EntryKind.OPENING) != (self.entries == 0):
            raise Contradiction("a pool begins with its opening, and has no other")
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
        # Between two sessions all else goes on.
        if begun is not None and (_is_call(entry) if session else not ends_window):
            raise Contradiction(f"{entry.kind} in a window that had ended")

    def _asked(self, entry: Entry) -> rules.Effect | None:
        """Decide a reservation anew, or a denial."""
        assert entry.estimate is not None  # noqa: S101 - by its shape
        assert entry.request_budget is not None  # noqa: S101 - by its shape
        requests = requests_of(entry.detail)
        lost = lost_in(entry.detail)
        if lost and entry.estimate != UsageEstimate.zero():
            raise Contradiction(f"{entry.kind} for lease {lost}, which was lost, holds something")
        admit = rules.admission(self.rules_version)
        # A denial is decided in the session that it would have begun.
        stands = self.policy, self.window, self.balance, entry.recorded_at
        window = rules.begin_session(*stands) or self.window
        asked = self.policy, self.balance, entry.estimate, entry.request_budget, window
        limits = None
        if self.policy.limits:
            limits = rules.Limits(self.policy, entry.recorded_at, self.history)
        denial = None
        if not lost:
            credits = self._prepaid(entry.recorded_at)
            denial = admit(*asked, requests=requests, limits=limits, credits=credits)
        figures = entry.detail.get("denial", {})
        if denial is None and entry.kind == EntryKind.DENIAL and "pool" in figures:
            return None  # a pool above refused, whose balance this journal does not know
        if (denial is None) != (entry.kind == EntryKind.RESERVATION):
            raise Contradiction(f"{entry.kind}, but the rules say: {denial or 'admitted'}")
        if denial is not None:
            if figures != rules.denial_figures(denial):
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
        """Decide an entry about an existing lease anew."""
        assert entry.lease is not None  # noqa: S101 - by its shape
        lease_id = entry.lease.lease
        lease = self.leases.get(lease_id)
        if entry.kind == EntryKind.CORRECTION:
            return self._corrected(entry, entry.lease)
        if entry.kind == EntryKind.IMPORT:
            return self._imported(entry, lease_id)
        self._check_replaced(entry, lease_id)
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
        )

    def _imported(self, entry: Entry, lease_id: int) -> rules.Effect:
        """Decide an import anew."""
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
        """Refuse an import, or a correction of one, that counts in another window than its own.

        Returns the window that it changes, None where it counts in the present one.
        """
        if entry.occurred_at is None:
            raise Contradiction(f"{entry.kind} that does not say when the call was made")
        window = rules.with_import(self.policy, self.window, entry.occurred_at, _commits(entry))
        if entry.kind == EntryKind.IMPORT and entry.window != window:
            raise Contradiction(f"{entry.kind} whose window should be {window}, not {entry.window}")
        return window

    def _check_replaced(self, entry: Entry, lease_id: int) -> None:
        """Refuse late usage beside which an assumed charge stands: both would be counted."""
        assumption = self.assumed.get(lease_id)
        if assumption is None or entry.kind not in {*ENDS_LEASE, EntryKind.OBSERVATION}:
            return
        before = assumption.usage if self.owed is None else self.owed.assumed
        usage = entry.usage if isinstance(entry.usage, Usage) else None
        rest = rules.still_assumed(before, entry.kind, usage)
        if self.owed is not None:
            made = requests_made(entry.kind, entry.detail)
            replaced = Totals.of(usage or Usage.zero(), requests=made)
            taken = rules.taken_back(self.owed.moved.plus(replaced))
            _check_taken_back(self.owed.window, taken, self.window)
        taken_back = self.owed is not None or (
            entry.kind == EntryKind.OBSERVATION and rest == before
        )
        if not taken_back or rest != assumption.usage:
            raise Contradiction(
                f"{entry.kind} of lease {lease_id}, although entry {assumption.seq} still assumes "
                f"{assumption.usage} of it"
            )

    def _corrected(self, entry: Entry, stated: LeaseAfter) -> rules.Effect:
        """Decide a correction anew.

        Ended leases are not remembered. So the correction says what was estimated, and the lease's
        earlier usage is what it states less the difference. The verifier checks both against the
        journal.
        """
        found = correction_of(entry)
        moved = UsageDifference.between(found.before, found.after)
        if entry.usage != moved:
            raise Contradiction(f"correction of entry {found.corrects} by another difference")
        assumption = self.assumed.get(stated.lease)
        of_expiry = assumption is not None and assumption.seq == found.corrects
        if late_in(entry.detail) is not None and not of_expiry:
            raise Contradiction(f"correction of entry {found.corrects}, which assumes nothing")
        if of_expiry and assumption is not None and assumption.usage != found.before:
            raise Contradiction(f"correction from {found.before}, not {assumption.usage}")
        of_import = bool(entry.flags & EntryFlag.IMPORTED)
        if of_import and found.corrects != stated.lease:
            raise Contradiction(f"correction of entry {found.corrects}, which is no import")
        window = self._check_dated(entry) if of_import else None
        if window is not None:
            if entry.window != window:
                raise Contradiction(f"correction whose window should be {window}")
        elif late_in(entry.detail) is None:  # else the next entry decides
            earlier = self.moved.get(found.corrects, ())
            taken = rules.taken_back(self._moved(entry, found.corrects), earlier)
            _check_taken_back(self.window, taken, entry.window or self.window)
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
        )


class Correction(NamedTuple):
    """What a correction says: which entry, and what that said before and says now."""

    corrects: int
    before: Usage
    after: Usage


def correction_of(entry: Entry) -> Correction:
    """Return what a correction says.

    Raises:
        Contradiction: The entry's detail is incomplete, or cannot be right.
    """
    try:
        found = Correction(
            entry.detail["corrects"],
            Usage(**entry.detail["from"]),
            Usage(**entry.detail["to"]),
        )
    except (KeyError, TypeError, InvalidInputError) as error:
        raise Contradiction("correction that does not say of what, from what, to what") from error
    lease = entry.seq if entry.lease is None else entry.lease.lease
    # The entry of an import is its lease; others come behind the reservation of theirs.
    first = lease + (not entry.flags & EntryFlag.IMPORTED)
    if type(found.corrects) is not int or not first <= found.corrects < entry.seq:
        raise Contradiction(f"correction of entry {found.corrects}, which cannot be of its lease")
    if not isinstance(entry.detail.get("reason"), str):
        raise Contradiction(f"correction of entry {found.corrects} without a reason")
    return found


def _check_taken_back(before: WindowState | None, taken: Totals, after: WindowState | None) -> None:
    """Refuse a correction that changes the window in another way than by what it takes back."""
    expected = before
    if before is not None and any(taken):
        expected = rules.without(before, taken)
    if after != expected:
        raise Contradiction(f"correction whose window should be {expected}, but is {after}")


def _unreplaced(owed: Owed) -> str:
    return f"what was assumed of lease {owed.lease} was taken back, and no {owed.kind} follows"


def _commits(entry: Entry) -> Totals:
    """Return by how much an import, or a correction of one, moves what is committed."""
    assert entry.usage is not None  # noqa: S101 - by its shape
    return Totals.of(entry.usage, requests=requests_made(entry.kind, entry.detail))


def _move_of(entry: Entry) -> rules.Move | None:
    """Return how an entry moves what had been committed before it, None where it does not."""
    if entry.usage is None:
        return None
    dates = entry.occurred_at, None if entry.lease is None else entry.lease.expires_at
    return rules.move_of(entry.seq, entry.kind, entry.flags, entry.detail, entry.usage, dates)


def _is_call(entry: Entry) -> bool:
    """Tell whether a call was granted; spend of a lost lease is none."""
    return entry.kind == EntryKind.RESERVATION and not lost_in(entry.detail)


def _unreported(crossing: rules.Crossing) -> str:
    return f"threshold {crossing.name!r} was {crossing.direction}, and no entry reports it here"


def _check_shape(entry: Entry) -> None:
    if entry.kind not in list(EntryKind):
        raise Contradiction(f"this version of ledger knows no entry kind {entry.kind!r}")
    kind = KINDS[EntryKind(entry.kind)]
    for name, words in _SHAPED.items():
        if name in kind.may_have:
            continue
        if (getattr(entry, name) is not None) != (name in kind.has):
            raise Contradiction(f"{entry.kind} {'without' if name in kind.has else 'with'} {words}")
    differs = isinstance(entry.usage, UsageDifference)
    if entry.usage is not None and differs != kind.is_difference:
        raise Contradiction(f"{entry.kind} whose usage is a {type(entry.usage).__name__}")


def replay(entries: Iterable[Entry], *, ceiling: int = I64_MAX) -> Replay:
    """Fold a pool's entries, from the first on, and return the pool they make.

    Raises:
        Contradiction: The rules cannot have written one of them.
    """
    pool = Replay(ceiling=ceiling)
    for entry in entries:
        pool.apply(entry)
    pool.end()
    return pool
