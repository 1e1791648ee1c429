"""The history that credits count on, read entry by entry: no search, and nothing forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import Totals
from ledger.core import rules
from ledger.core.checks import Micros


class PlainHistory(rules.History):
    """What a pool had committed at each of its entries."""

    def __init__(self, points: Sequence[rules.Point], moves: Sequence[rules.Move]) -> None:
        self.all = points
        self.moves = moves

    @property
    def last(self) -> int:
        """How many entries there are."""
        return len(self.all)

    def points(self, numbers: range) -> Sequence[rules.Point]:
        """Return entries by their numbers."""
        return [self.all[number - 1] for number in numbers]

    def moved(self, after: int) -> Sequence[rules.Moved]:
        """Return the corrections behind an entry."""
        return [one for one in self.moves if isinstance(one, rules.Moved) and one.seq > after]

    def dated(self, after: int, before: Micros) -> Totals:
        """Return what counts before a time, and was recorded behind an entry."""
        found = Totals()
        for one in self.moves:
            if isinstance(one, rules.Dated) and one.seq > after and one.at < before:
                found = found.plus(one.by)
        return found

    def dates(self, after: int, first: Micros, last: Micros) -> list[Micros]:
        """Return when entries count that were recorded behind an entry, between two times."""
        dated = (one for one in self.moves if isinstance(one, rules.Dated) and one.seq > after)
        return [one.at for one in dated if first < one.at < last]

    def before(self, since: Micros) -> int:
        """Return the number of the newest entry recorded before a time."""
        return sum(point.at < since for point in self.all)
