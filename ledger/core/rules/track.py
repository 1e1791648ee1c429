"""The history that limits and credits count, kept in memory for a manager or a replay."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from ledger.core.checks import Micros
from ledger.core.credit_book import CreditBook
from ledger.core.entries import Totals
from ledger.core.limits import Limit
from ledger.core.rules.limits import Dated, History, Move, Moved, Point, since

_KEPT = 1_024
"""How many entries are kept before any is forgotten."""


class Track(History):
    """A history in memory, which forgets entries that no limit and no credit can count."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._moved: list[Moved] = []
        self._dated: list[Dated] = []
        self._recorded: dict[int, Micros] = {}
        """When dated entries were recorded, by their numbers."""
        self._most = _KEPT
        self._marks: dict[Micros, Point] = {}
        """The newest entry before each of some past times."""

    @property
    def last(self) -> int:
        """How many entries there are, forgotten ones included."""
        return self.first + len(self._points) - (self.first > 0)

    def points(self, numbers: range) -> Sequence[Point]:
        """Return entries by their numbers."""
        offset = self.first or 1
        return self._points[numbers.start - offset : numbers.stop - offset : numbers.step]

    def moved(self, after: int) -> Sequence[Moved]:
        """Return the corrections after an entry."""
        begin = bisect_left(self._moved, after + 1, key=lambda one: one.seq)
        return self._moved[begin:]

    def newest_before(self, since: Micros) -> Point:
        """Return the newest entry recorded before a time; remember it if the time has passed."""
        known = self._marks.get(since)
        if known is None:
            known = super().newest_before(since)
            if self._points and self._points[-1].at >= since:
                self._marks[since] = known
        return known

    def dated(self, after: int, before: Micros) -> Totals:
        """Return what the dated entries after an entry that count before a time commit."""
        begin = bisect_left(self._dated, after + 1, key=lambda one: one.seq)
        early = (one.by for one in self._dated[begin:] if one.at < before)
        return Totals.sum(early)

    def dates(self, after: int, first: Micros, last: Micros) -> Iterable[Micros]:
        """Return when dated entries after an entry count, between two times."""
        begin = bisect_left(self._dated, after + 1, key=lambda one: one.seq)
        return (one.at for one in self._dated[begin:] if first < one.at < last)

    def add(self, point: Point, move: Move | None = None) -> None:
        """Add the next entry, with what it corrects or when it counts."""
        self._points.append(point)
        if isinstance(move, Dated):
            self._dated.append(move)
            self._recorded[move.seq] = point.at
        elif move is not None:
            self._moved.append(move)

    def record(
        self,
        limits: Sequence[Limit],
        at: Micros,
        committed: Totals,
        dated: tuple[Micros, Totals] | None = None,
        book: CreditBook | None = None,
    ) -> None:
        """Add the next entry under the next number, and forget entries that cannot be reached.

        Args:
            limits: All limits that are ever asked for.
            at: When it is recorded.
            committed: What is committed by then.
            dated: For a dated entry, when it counts and what it commits.
            book: The credits, None without.
        """
        seq = self.last + 1
        self.add(Point(seq, at, committed), dated and Dated(seq, *dated))
        for one in () if book is None else book.listed:
            if one.ended is None and one.expires_at is not None and one.expires_at <= at:
                self.newest_before(one.expires_at)
        if len(self._points) >= self._most:
            reached = min((since(limit, at) for limit in limits), default=at)
            self.forget(reached, book)

    def forget(self, since: Micros, book: CreditBook | None = None) -> None:
        """Forget the entries before a time, except for the newest of them.

        Args:
            since: The time.
            book: The credits, None without: corrections after their beginning are kept, and dated
                entries that count before a credit expired and were recorded later.
        """
        number = self.before(since)
        if number > self.first:
            del self._points[: number - (self.first or 1)]
            self.first = number
            oldest = self._points[0].seq
            self._moved = list(self.moved(oldest if book is None else min(oldest, book.since)))
            ends: list[Micros | None] = []
            if book is not None:
                ends = [book.at]
                ends += [at for one in book.listed for at in (one.at, one.expires_at)]
            self._dated = [
                one
                for one in self._dated
                if one.seq > oldest
                or any(one.at < end <= self._recorded[one.seq] for end in ends if end is not None)
            ]
            self._recorded = {one.seq: self._recorded[one.seq] for one in self._dated}
        self._most = max(_KEPT, 2 * len(self._points))
