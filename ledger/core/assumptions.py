"""What expiries assumed that their leases used, until the real usage is recorded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger.core import rules
from ledger.core.entries import Entry, Totals, WindowState, late_in, requests_made
from ledger.core.entry_shape import Contradiction, Correction, correction_of
from ledger.core.kinds import ENDS_LEASE, EntryKind
from ledger.core.values import Usage


class Assumption(NamedTuple):
    """An expiry that is charged, and the usage that it assumes by now."""

    seq: int
    usage: Usage


class Owed(NamedTuple):
    """An entry that must be the next one.

    Attributes:
        kind: Its kind.
        lease: The lease that it is about.
        assumed: The usage that was assumed before some of it was taken back.
        reached: The thresholds that were reached before that; a crossing is reported only after
            this entry.
        moved: By how much taking back moved the committed totals, if the usage was assumed in an
            earlier window.
        window: The window before the correction that took it back.
    """

    kind: str
    lease: int
    assumed: Usage
    reached: Collection[str]
    moved: Totals
    window: WindowState | None


@dataclass(slots=True)
class Assumptions:
    """The charges that expiries of open leases assumed."""

    charges: dict[int, Assumption] = field(default_factory=dict)
    """By lease number; later corrections are included."""
    owed: Owed | None = None
    """The late entry that must follow, since the assumed usage that it replaces was taken back."""

    def require_none_owed(self) -> None:
        """Refuse a journal that ends, or goes on, without the entry that must follow.

        Raises:
            Contradiction: An entry must follow, and there is none.
        """
        if self.owed is not None:
            raise Contradiction(
                f"what was assumed of lease {self.owed.lease} was taken back, "
                f"and no {self.owed.kind} follows"
            )

    def is_owed(self, entry: Entry) -> bool:
        """Tell whether an entry is the one that must follow, False where none must.

        Raises:
            Contradiction: An entry must follow, and it is another one.
        """
        if self.owed is None:
            return False
        if entry.lease is None or (entry.kind, entry.lease.lease) != self.owed[:2]:
            self.require_none_owed()
        return True

    def note(
        self, entry: Entry, reached: Collection[str], moved: Totals, window: WindowState | None
    ) -> None:
        """Note what an expiry assumes, and what a correction of it leaves.

        Args:
            entry: The entry.
            reached: The thresholds that were reached before it.
            moved: By how much it moves what was committed in an earlier window.
            window: The window that it was written in.
        """
        self.owed = None
        if entry.lease is None or entry.usage is None:
            return
        lease = entry.lease.lease
        if entry.kind == EntryKind.EXPIRY and isinstance(entry.usage, Usage):
            self.charges[lease] = Assumption(entry.seq, entry.usage)
        elif entry.kind == EntryKind.CORRECTION and lease in self.charges:
            late, found = late_in(entry.detail), correction_of(entry)
            self.charges[lease] = Assumption(found.corrects, found.after)
            if late is not None:
                self.owed = Owed(late, lease, found.before, reached, moved, window)

    def forget(self, lease: int) -> None:
        """Forget a lease that has ended."""
        self.charges.pop(lease, None)

    def is_corrected(self, entry: Entry, lease: int, found: Correction) -> bool:
        """Tell whether a correction is of what an expiry assumed.

        Raises:
            Contradiction: It says that it is one, but the expiry assumes nothing, or something
                else.
        """
        assumption = self.charges.get(lease)
        if assumption is None or assumption.seq != found.corrects:
            if late_in(entry.detail) is not None:
                raise Contradiction(f"correction of entry {found.corrects}, which assumes nothing")
            return False
        if assumption.usage != found.before:
            raise Contradiction(f"correction from {found.before}, not {assumption.usage}")
        return True

    def check_replaced(self, entry: Entry, lease: int, window: WindowState | None) -> None:
        """Refuse late usage beside which an assumed charge stands: both would be counted.

        Args:
            entry: The entry.
            lease: The lease that it is about.
            window: The window after the correction before it.

        Raises:
            Contradiction: An assumed charge of the lease stands.
        """
        assumption = self.charges.get(lease)
        if assumption is None or entry.kind not in {*ENDS_LEASE, EntryKind.OBSERVATION}:
            return
        before = assumption.usage if self.owed is None else self.owed.assumed
        usage = entry.usage if isinstance(entry.usage, Usage) else None
        rest = rules.still_assumed(before, entry.kind, usage)
        if self.owed is not None:
            made = requests_made(entry.kind, entry.detail)
            replaced = Totals.of(usage or Usage.zero(), requests=made)
            taken = rules.taken_back(self.owed.moved.plus(replaced))
            check_taken_back(self.owed.window, taken, window)
        taken_back = self.owed is not None or (
            entry.kind == EntryKind.OBSERVATION and rest == before
        )
        if not taken_back or rest != assumption.usage:
            raise Contradiction(
                f"{entry.kind} of lease {lease}, although entry {assumption.seq} still assumes "
                f"{assumption.usage} of it"
            )


def check_taken_back(before: WindowState | None, taken: Totals, after: WindowState | None) -> None:
    """Refuse a correction unless it changes the window by exactly what it takes back.

    Raises:
        Contradiction: The correction's window is another one.
    """
    expected = before
    if before is not None and any(taken):
        expected = rules.without(before, taken)
    if after != expected:
        raise Contradiction(f"correction whose window should be {expected}, but is {after}")
