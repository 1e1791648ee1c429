"""Rules of limits: what counts on each limit, what it admits, and when it frees up.

A hold counts from its reservation until it ends. Usage counts from when it is recorded, as long as
the limit's period holds that time. So a call counts without a gap from its reservation on. A
correction that adds usage counts like any other usage. A correction that takes usage back takes it
from the newest usage of that call, and frees nothing that no longer counts.

Some entries are dated: they count at another time than when they are recorded. An import counts
when the call was made. An expiry's charge counts when the hold ended, whenever the expiry is
written, and so does usage that comes later. A correction of a dated entry counts when that entry
counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ledger.core import calendar
from ledger.core.axes import AXES
from ledger.core.checks import Micros, from_micros
from ledger.core.entries import DATED_FLAGS, Balance, EntryFlag, Totals, requests_made
from ledger.core.kinds import EntryKind
from ledger.core.limits import Limit, Rolling
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.remainder import Three, capacities_of, left_of, overspent, too_little
from ledger.core.status import LimitStatus
from ledger.core.values import Usage, UsageDifference, UsageEstimate

_NOTHING = Totals()
_RUN, _FAN = 64, 16
"""How many entries a search reads at once: neighbours in the first step and in a short rest,
otherwise entries at even distances."""


class Point(NamedTuple):
    """An entry of a pool: its number, when it was recorded, and the committed totals after it."""

    seq: int
    at: Micros
    committed: Totals


class Moved(NamedTuple):
    """A correction: its number, the entry that it corrects, and by how much it moves the totals."""

    seq: int
    of: int
    by: Totals


class Dated(NamedTuple):
    """A dated entry: its number, when it counts, and what it commits."""

    seq: int
    at: Micros
    by: Totals


Charge = tuple[Micros, Totals]
"""When the hold of a due lease ended, and what its expiry will charge."""
Move = Moved | Dated
"""How an entry changes totals that were committed before it."""


def moved_by(seq: int, detail: Mapping[str, Any], usage: UsageDifference) -> Moved:
    """Return by how much a correction moves the totals of its pool."""
    requests = requests_made(EntryKind.CORRECTION, detail)
    return Moved(seq, detail["corrects"], Totals.of(usage, requests=requests))


def move_of(
    seq: int,
    kind: str,
    flags: EntryFlag,
    detail: Mapping[str, Any],
    usage: Usage | UsageDifference,
    dates: tuple[Micros | None, Micros | None],
) -> Move | None:
    """Return how an entry changes totals committed before it, None if it does not.

    A correction changes the usage of an earlier entry. A dated entry counts at another time than
    when it is recorded.

    Args:
        seq: Its number.
        kind: Its kind.
        flags: Its flags.
        detail: Its detail.
        usage: Its usage.
        dates: When the call was made, and when the hold of its lease ends, as the entry says.
    """
    occurred_at, expires_at = dates
    at = occurred_at if flags & EntryFlag.IMPORTED else expires_at
    if flags & DATED_FLAGS and at is not None:
        return Dated(seq, at, Totals.of(usage, requests=requests_made(kind, detail)))
    return moved_by(seq, detail, usage) if isinstance(usage, UsageDifference) else None


_BEFORE_ALL = Point(0, Micros(0), _NOTHING)


class History(ABC):
    """What a pool had committed at each of its entries.

    Entries are counted from 1. Entries that commit nothing may be left out and not counted.
    """

    first: int = 0
    """The number of an entry before every time that is asked for; 0 is before all entries."""

    @property
    @abstractmethod
    def last(self) -> int:
        """How many entries there are."""

    @abstractmethod
    def points(self, numbers: range) -> Sequence[Point]:
        """Return entries by their numbers, from `first` to `last`."""

    @abstractmethod
    def moved(self, after: int) -> Sequence[Moved]:
        """Return the corrections after the entry of a sequence number, oldest first.

        Corrections of dated entries are not among them.
        """

    @abstractmethod
    def dated(self, after: int, before: Micros) -> Totals:
        """Return what the dated entries after an entry that count before a time commit.

        Args:
            after: The sequence number of the entry.
            before: The time.
        """

    @abstractmethod
    def dates(self, after: int, first: Micros, last: Micros) -> Iterable[Micros]:
        """Return when dated entries after an entry count, strictly between two times."""

    def with_due(self, charges: Sequence[Charge]) -> History:
        """Return this history as it will be once due leases have expired."""
        return _WithDue(self, charges) if charges else self

    def before(self, since: Micros) -> int:
        """Return the number of the newest entry recorded before a time, `first` if none."""
        return self.search(self.near(since), lambda point: point.at >= since) - 1

    def newest_before(self, since: Micros) -> Point:
        """Return the newest entry recorded before a time, or the state before all entries."""
        return self.point(self.before(since))

    def near(self, since: Micros) -> int:  # noqa: ARG002 - subclasses use it
        """Return the number of an entry before a time, as new as is known without reading."""
        return self.first

    def search(self, low: int, holds: Callable[[Point], bool]) -> int:
        """Return the first number after `low` whose entry fits, or the last number plus 1.

        The number of steps grows as the logarithm of the number of entries.

        Args:
            low: The number after which to search.
            holds: Tells whether an entry fits. If one fits, all later ones do.
        """
        high, near = self.last + 1, True  # the answer is mostly near: little time has passed
        while high - low > 1:
            if near or high - low <= _RUN:
                numbers = range(low + 1, min(high, low + 1 + _RUN))
            else:
                step = (high - low) // _FAN
                numbers = range(low + step, high, step)
            at = bisect_left(self.points(numbers), True, key=holds)
            if at < len(numbers):
                high = numbers[at]
            if at > 0:
                low = numbers[at - 1]
            near = False
        return high

    def point(self, number: int) -> Point:
        """Return one entry by its number, or for 0 the state before all entries."""
        return self.points(range(number, number + 1))[0] if number else _BEFORE_ALL

    def base(self, point: Point, since: Micros, more: Sequence[Move] = ()) -> Totals:
        """Return the committed totals before a time, with later corrections applied.

        That is the totals at the entry `point`, minus what corrections took back of them since,
        plus what dated entries after it commit that count before that time. A correction takes
        usage from the newest usage of the corrected entry.

        Args:
            point: The newest entry recorded before the time.
            since: The time.
            more: The correction or dated entry that comes next, if there is one.
        """
        sums: dict[int, Totals] = {}
        lowest: dict[int, Totals] = {}
        moves = [*self.moved(point.seq), *(one for one in more if isinstance(one, Moved))]
        for _, of, by in moves:
            if of <= point.seq:
                sums[of] = moved = sums.get(of, _NOTHING).plus(by)
                lowest[of] = Totals(*map(min, lowest.get(of, _NOTHING), moved))
        known = Totals.sum(lowest.values(), point.committed)
        dated = (one.by for one in more if isinstance(one, Dated) and one.at < since)
        return Totals.sum(dated, known.plus(self.dated(point.seq, since)))


class _WithDue(History):
    """A history with the expiries of due leases added at its end.

    It keeps nothing itself: the history that it wraps remembers what is read.
    """

    def __init__(self, written: History, charges: Sequence[Charge]) -> None:
        self._written = written
        self._charges = charges
        self.first = written.first

    @property
    def last(self) -> int:
        """How many entries there are, without the expiries."""
        return self._written.last

    def points(self, numbers: range) -> Sequence[Point]:
        """Return entries by their numbers."""
        return self._written.points(numbers)

    def before(self, since: Micros) -> int:
        """Return the number of the newest entry recorded before a time."""
        return self._written.before(since)

    def newest_before(self, since: Micros) -> Point:
        """Return the newest entry recorded before a time."""
        return self._written.newest_before(since)

    def moved(self, after: int) -> Sequence[Moved]:
        """Return the corrections after an entry."""
        return self._written.moved(after)

    def dated(self, after: int, before: Micros) -> Totals:
        """Return what counts before a time, of the entries after one and of due leases."""
        due = (by for at, by in self._charges if at < before)
        return Totals.sum(due, self._written.dated(after, before))

    def dates(self, after: int, first: Micros, last: Micros) -> Iterable[Micros]:
        """Return when the entries after one, and due leases, count between two times."""
        due = (at for at, _ in self._charges if first < at < last)
        return [*self._written.dates(after, first, last), *due]


class Refusal(NamedTuple):
    """A capacity that refuses a reservation.

    Attributes:
        limit: The limit whose capacity it is, None for the pool's own.
        left: What was left of the capacity.
        frees_at: When it would admit the reservation if nothing else happened; None for never.
        too_large: Whether it would refuse the reservation even with nothing spent and nothing held.
        overspent: By how much the amount that counts exceeds the capacity, for each axis on which
            it does.
    """

    limit: Limit | None
    left: Three
    frees_at: Micros | None
    too_large: bool
    overspent: Mapping[str, int]


class Limits:
    """The limits of a pool's policy at one time."""

    def __init__(self, policy: SharedPoolBudgetOptions, at: Micros, history: History) -> None:
        self._policy = policy
        self._at = at
        self._history = history
        self._counted = [
            (limit, number, history.base(history.point(number), begin))
            for limit in policy.limits
            for begin in (since(limit, at),)
            for number in (history.before(begin),)
        ]

    def states(self, balance: Balance) -> Iterator[LimitStatus]:
        """Yield the status of each limit."""
        for limit, _, base in self._counted:
            counts = _counts(balance, base)
            yield LimitStatus(
                limit=limit,
                since=from_micros(since(limit, self._at)),
                until=until(limit, self._at),
                counted=counts,
                remaining=left_of(capacities_of(limit), counts, _NOTHING),
            )

    def ends(self, balance: Balance) -> Iterator[Micros]:
        """Yield for each limit when less counts on it first, if nothing is written until then.

        For a calendar period that is its end. For a rolling period on which only held amounts
        count, no such time is known.
        """
        for limit, number, base in self._counted:

            def differs(later: Totals, limit: Limit = limit, base: Totals = base) -> bool:
                pairs = zip(AXES, later, base, strict=True)
                return any(
                    one != other and not axis.is_unlimited(limit) for axis, one, other in pairs
                )

            if not isinstance(limit.period, Rolling) or differs(balance.committed):
                yield self._ceases(limit, number, differs)

    def refusals(
        self, balance: Balance, estimate: UsageEstimate, requests: int
    ) -> Iterator[Refusal]:
        """Yield each limit that refuses a reservation."""
        strict = self._policy.strict
        for limit, number, base in self._counted:

            def short(base: Totals, limit: Limit = limit) -> Three | None:
                counts = _counts(balance, base)
                return too_little(
                    capacities_of(limit), counts, _NOTHING, estimate, requests, strict
                )

            def fits(base: Totals, short: Callable[[Totals], Three | None] = short) -> bool:
                return short(base) is None

            left = short(base)
            if left is not None:
                frees_at = None
                if short(balance.committed) is None:  # once only held amounts count
                    frees_at = self._ceases(limit, number, fits)
                too_large = short(balance.committed.plus(balance.reserved)) is not None
                over = overspent(capacities_of(limit), _counts(balance, base))
                yield Refusal(limit, left, frees_at, too_large, over)

    def _ceases(self, limit: Limit, number: int, enough: Callable[[Totals], bool]) -> Micros:
        """Return when enough of what counts on a limit now will no longer count.

        Args:
            limit: The limit.
            number: The number of the newest entry that does not count on it.
            enough: Takes committed totals, and tells whether it is enough if these do not count.
                Those of all entries are enough.
        """
        if not isinstance(limit.period, Rolling):
            return _end(limit.period, self._at)
        history = self._history

        def fits(point: Point, last: int) -> bool:
            """Tell whether it is enough if nothing up to a last moment counts."""
            return enough(history.base(point, Micros(last + 1)))

        found = history.search(number, lambda point: fits(point, point.at))
        # If all entries so far are not enough, the usage that is about to be committed counts from
        # now on.
        last = history.point(found).at if found <= history.last else self._at
        # Dated entries stop counting at times of their own, between those of other entries.
        point = history.point(found - 1)
        first = Micros(max(point.at, since(limit, self._at) - 1))
        ordered = sorted({*history.dates(point.seq, first, last)})
        fitting = bisect_left(ordered, True, key=lambda moment: fits(point, moment))
        last = ordered[fitting] if fitting < len(ordered) else last
        return Micros(last + limit.period.length_us)


def since(limit: Limit, at: Micros) -> Micros:
    """Return the first moment that counts on a limit at a time."""
    if isinstance(limit.period, Rolling):
        return Micros(at - limit.period.length_us + 1)
    return calendar.begins(limit.period, calendar.number(limit.period, at))


def until(limit: Limit, at: Micros) -> Micros | None:
    """Return when the calendar period of a limit ends, None for a rolling one."""
    return None if isinstance(limit.period, Rolling) else _end(limit.period, at)


def _end(period: calendar.Window, at: Micros) -> Micros:
    return calendar.begins(period, calendar.number(period, at) + 1)


def _counts(balance: Balance, base: Totals) -> Totals:
    return balance.committed.minus(base).plus(balance.reserved)
