"""Threshold crossings in a replay: those that are reported, and those that still must be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ledger.core import rules
from ledger.core.entries import Direction, Entry
from ledger.core.entry_shape import Contradiction
from ledger.core.policy import SharedPoolBudgetOptions


@dataclass(slots=True)
class Crossings:
    """The crossings of a pool's thresholds in its window, under its policy."""

    reported: set[tuple[str, Direction]] = field(default_factory=set)
    unreported: list[rules.Crossing] = field(default_factory=list)
    """The crossings that the next entries must report, in this order."""

    def note(
        self, policy: SharedPoolBudgetOptions, before: Collection[str], after: Collection[str]
    ) -> None:
        """Note the thresholds crossed between two states that are not reported yet."""
        for crossing in rules.crossings(policy, before, after):
            key = crossing.name, crossing.direction
            if key not in self.reported:
                self.reported.add(key)
                self.unreported.append(crossing)

    def check_report(self, entry: Entry) -> None:
        """Take an entry that reports a crossing.

        Raises:
            Contradiction: It is not the crossing that must be reported next.
        """
        if not self.unreported:
            raise Contradiction("threshold, but none was crossed, or it was reported before")
        if entry.detail != rules.crossing_detail(self.unreported[0]):
            self.require_none()
        del self.unreported[0]

    def require_none(self) -> None:
        """Refuse a journal that ends, or goes on, without a report that must follow.

        Raises:
            Contradiction: A crossing must be reported next.
        """
        if self.unreported:
            name, direction = self.unreported[0].name, self.unreported[0].direction
            raise Contradiction(f"threshold {name!r} was {direction}, and no entry reports it here")
