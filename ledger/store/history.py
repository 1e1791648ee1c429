"""What a pool had committed at its entries, of which a few are read, for limits and credits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal_column, select, text

from ledger.core import rules
from ledger.core.axes import AMOUNTS
from ledger.core.checks import I64_MAX, Micros
from ledger.core.credits import CREDITS_MAX
from ledger.core.entries import DATED_FLAGS, PoolInfo, Totals
from ledger.core.errors import JournalDamagedError
from ledger.core.kinds import ENDS_LEASE, MAKES_CALL, EntryKind, sql
from ledger.core.values import Usage, UsageDifference
from ledger.store import rows
from ledger.store.marks import DatedSum, KnownCounts
from ledger.store.rows import Row
from ledger.store.schema import DATED_AT, IS_DATED, entries
from ledger.store.statements import Prepared, ReadEach

KEPT_AT_ONCE = 1_000
"""How many corrections are read at once, and about how many entries are kept."""
_SUMS_KEPT = 128
"""How many sums of dated entries are kept: one for each limit, and those that a denial needs."""
_KEPT = 32
"""For how many moments the newest entry before each is kept."""
_ENDS_KEPT = 4 * CREDITS_MAX
"""The same, for moments that have passed, such as the expiries of credits."""

_POOL = entries.c.pool_id == bindparam("pool_id")
_COMMITTED = [entries.c[f"committed_{name}"] for name in Totals._fields]
_POINT = Prepared(
    select(entries.c.seq, entries.c.recorded_at, *_COMMITTED).where(
        _POOL, entries.c.seq == bindparam("seq")
    )
)
_POINTS = Prepared(
    select(entries.c.seq, entries.c.recorded_at, *_COMMITTED)
    .where(_POOL, entries.c.seq >= bindparam("first"), entries.c.seq < bindparam("end"))
    .order_by(entries.c.seq)
)
_NEWEST = Prepared(select(entries.c.seq).where(_POOL).order_by(entries.c.seq.desc()).limit(1))
_CORRECTIONS = Prepared(
    select(
        *(entries.c[name] for name in ("seq", "kind", "flags", "detail")),
        *(column for column in entries.c if column.name.startswith("usage_")),
    )
    .where(_POOL, entries.c.seq > bindparam("after"), text(sql([EntryKind.CORRECTION])))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_DATED = int(DATED_FLAGS)
_NEWEST_DATED = Prepared(
    select(entries.c.seq).where(_POOL, IS_DATED).order_by(entries.c.seq.desc()).limit(1)
)
_ENDED_LATE = " OR ".join(f'detail LIKE \'%"late":"{kind}"%\'' for kind in sorted(ENDS_LEASE))
_REQUESTS = (
    f"CASE WHEN {sql([EntryKind.CORRECTION])} THEN CASE WHEN {_ENDED_LATE} THEN -1 ELSE 0 END"
    f" WHEN {sql(MAKES_CALL)} THEN 1 ELSE 0 END"
)
"""How many calls a dated entry adds, as `requests_made` says."""


def _sums(*conditions: str) -> Prepared:
    """Return the query for the sum of what dated entries of a pool commit."""
    sums = {
        # The upper and the lower 32 bits are summed apart, since the sum of whole amounts may
        # overflow.
        **{f"{name}_upper": f"usage_{name} >> 32" for name in AMOUNTS},
        **{f"{name}_lower": f"usage_{name} & {2**32 - 1}" for name in AMOUNTS},
        "requests": _REQUESTS,
    }
    columns: list[ColumnElement[int]] = [
        literal_column(f"CAST(coalesce(sum({summed}), 0) AS BIGINT)").label(name)
        for name, summed in sums.items()
    ]
    given = (text(one) for one in conditions)
    return Prepared(select(*columns).select_from(entries).where(_POOL, IS_DATED, *given))


# A column with + 0 is not searched in an index, so each query searches by one column.
_BY_SEQ = _sums("seq > :after", "seq <= :upto", f"{DATED_AT} + 0 < :before")
_BY_TIME = _sums(
    f"{DATED_AT} >= :since", f"{DATED_AT} < :before", "seq + 0 > :after", "seq + 0 <= :upto"
)


_DATES = Prepared(
    select(literal_column(DATED_AT).label("at"))
    .select_from(entries)
    .where(
        _POOL,
        IS_DATED,
        text(f"{DATED_AT} > :first"),
        text(f"{DATED_AT} < :last"),
        text("seq + 0 > :after"),
        text("seq + 0 <= :upto"),
    )
)


class StoredHistory(rules.History):
    """The history of a pool in a store, up to one of its entries.

    Committed entries never change, so what was read is kept for a while.
    """

    def __init__(
        self,
        read: ReadEach,
        pool: PoolInfo,
        *,
        upto: int,
        counted: KnownCounts | None = None,
    ) -> None:
        self.upto = upto
        """The number of the newest entry that counts."""
        self._read = read
        self._info = pool
        self._pool = {"pool_id": pool.pool_id}
        kept = KnownCounts() if counted is None else counted
        self._boundaries, self._sums, self._ends = kept.boundaries, kept.sums, kept.ends
        self._points: dict[int, rules.Point] = {}
        self._before: dict[Micros, int] = {}
        self._moved: list[rules.Moved] = []
        self._dated_to = 0
        """The newest dated entry when corrections were last read."""
        self._moved_from = self._moved_to = I64_MAX
        """The corrections of the entries between these two numbers have been read."""

    @property
    def last(self) -> int:
        """The number of the newest entry."""
        return self.upto

    def before(self, since: Micros) -> int:
        """Return the number of the newest entry recorded before a time, 0 if there is none."""
        known = self._before.pop(since, None)
        self._before[since] = found = super().before(since) if known is None else known
        if len(self._before) > _KEPT:
            del self._before[next(iter(self._before))]
        if len(self._boundaries) > _KEPT:
            self._boundaries.clear()
        self._boundaries[since] = found
        return found

    def newest_before(self, since: Micros) -> rules.Point:
        """Return the newest entry recorded before a time; keep it if the time has passed.

        Raises:
            JournalDamagedError: An entry is missing.
        """
        found = self._ends.get(since)
        if found is None:
            found = super().newest_before(since)
            if found.seq < self.upto:  # a later entry is committed, and is not before that time
                if len(self._ends) >= _ENDS_KEPT:
                    self._ends.clear()
                self._ends[since] = found
        return found

    def near(self, since: Micros) -> int:
        """Return the number of an entry before a time, by what earlier calls have found."""
        known = (*self._before.items(), *self._boundaries.items())
        near = max((one for then, one in known if then <= since and one <= self.upto), default=0)
        # After the clock was put back, or a backup restored, an earlier finding may be wrong.
        return near if near and self.point(near).at < since else 0

    def points(self, numbers: range) -> Sequence[rules.Point]:
        """Return entries by their numbers.

        Raises:
            JournalDamagedError: One of them is missing.
        """
        missing = [one for one in numbers if one not in self._points]
        if missing:
            if len(self._points) > KEPT_AT_ONCE:
                self._points.clear()
                missing = list(numbers)
            self._points |= {row["seq"]: _point(row) for row in self._entries(missing, numbers)}
        try:
            return [self._points[one] for one in numbers]
        except KeyError as error:
            raise self._damaged(int(error.args[0]), "it is missing") from None

    def _entries(self, missing: Sequence[int], numbers: range) -> list[dict[str, Any]]:
        if numbers.step == 1:
            asked = {**self._pool, "first": missing[0], "end": missing[-1] + 1}
            return self._read([(_POINTS, asked)])[0]
        found = self._read([(_POINT, {**self._pool, "seq": seq}) for seq in missing])
        return [row for rows in found for row in rows]

    def moved(self, after: int) -> Sequence[rules.Moved]:
        """Return the corrections after an entry, oldest first.

        Raises:
            JournalDamagedError: One of them cannot be read.
        """
        if after < self._moved_from:
            self._moved, self._moved_from, self._moved_to = [], after, after
        while self._moved_to < self.upto:
            asked = {**self._pool, "after": self._moved_to, "page": KEPT_AT_ONCE}
            # The newest entry is read first, so what is written between the two reads is read
            # again.
            newest, page, dated = self._read(
                [(_NEWEST, self._pool), (_CORRECTIONS, asked), (_NEWEST_DATED, self._pool)]
            )
            self._moved += [self._correction(row) for row in page if not row["flags"] & _DATED]
            self._dated_to = dated[0]["seq"] if dated else 0
            full = len(page) == KEPT_AT_ONCE
            self._moved_to = page[-1]["seq"] if full else max(self.upto, newest[0]["seq"])
        begin = bisect_left(self._moved, after + 1, key=_seq)
        return self._moved[begin : bisect_left(self._moved, self.upto + 1, key=_seq)]

    def dated(self, after: int, before: Micros) -> Totals:
        """Return what the dated entries after an entry that count before a time commit.

        It is called after `moved`, which shows whether there are any.
        """
        if self._dated_to <= after:
            return Totals()
        upto = min(self.upto, self._dated_to)  # later entries that are not dated add nothing
        known = [
            one
            for one in [*self._sums.values()]
            if one.after <= after and one.before <= before and one.upto <= upto
        ]
        last = max(known, key=lambda one: (one.before, one.upto), default=None)
        found = DatedSum(after, before, upto, self._from_sum(last, after, before, upto))
        for used in (found,) if last is None else (last, found):
            self._sums.pop(used[:3], None)
            self._sums[used[:3]] = used
        for least_used in [*self._sums][:-_SUMS_KEPT]:
            self._sums.pop(least_used, None)
        return found.commits

    def _from_sum(self, known: DatedSum | None, after: int, before: Micros, upto: int) -> Totals:
        """Return a sum. If one is known, only the entries that differ from it are read.

        Without a known sum, all dated entries after the entry are read, at about 1 us each.
        """
        if known is None or after >= known.upto:
            asked = {"after": after, "upto": upto, "before": before}
            return _summed(self._read([(_BY_SEQ, self._pool | asked)])[0][0])
        if known[:3] == (after, before, upto):
            return known.commits
        seen = {"after": known.after, "upto": known.upto}
        rows = self._read(
            [
                (_BY_SEQ, self._pool | {"after": known.upto, "upto": upto, "before": before}),
                (_BY_TIME, self._pool | seen | {"since": known.before, "before": before}),
                (_BY_SEQ, self._pool | seen | {"upto": after, "before": before}),
            ]
        )
        newer, reached, passed = (_summed(found[0]) for found in rows)
        return known.commits.plus(newer).plus(reached).minus(passed)

    def dates(self, after: int, first: Micros, last: Micros) -> Iterable[Micros]:
        """Return when dated entries after an entry count, between two times.

        It is called after `moved`, like `dated`.
        """
        if self._dated_to <= after:
            return ()
        asked = {"after": after, "upto": self.upto, "first": first, "last": last}
        return [row["at"] for row in self._read([(_DATES, self._pool | asked)])[0]]

    def _correction(self, row: Row) -> rules.Moved:
        try:
            return correction_in(row)
        except rows.UNREADABLE as error:
            reason = f"what it corrects cannot be read: {error}"
            raise self._damaged(row["seq"], reason) from error

    def _damaged(self, seq: int, reason: str) -> JournalDamagedError:
        return JournalDamagedError(pool=self._info.name, seq=seq, reason=reason)


class StagedHistory(StoredHistory):
    """The history of a pool inside a transaction, with the entries that it has staged."""

    def __init__(
        self,
        read: ReadEach,
        pool: PoolInfo,
        *,
        upto: int,
        staged: Sequence[Row],
        counted: KnownCounts | None = None,
    ) -> None:
        super().__init__(read, pool, upto=upto, counted=counted)
        self._staged = staged
        self._corrected: list[rules.Moved] = []
        self._dated: list[rules.Dated] = []
        self._looked = 0
        """How many of the staged entries were searched for corrections and dated entries."""

    @property
    def last(self) -> int:
        """The number of the newest entry, staged ones included."""
        return self.upto + len(self._staged)

    def points(self, numbers: range) -> Sequence[rules.Point]:
        """Return entries by their numbers."""
        stored = range(numbers.start, min(numbers.stop, self.upto + 1), numbers.step)
        later = numbers[len(stored) :]
        staged = [_point(self._staged[one - self.upto - 1]) for one in later]
        return [*super().points(stored), *staged]

    def moved(self, after: int) -> Sequence[rules.Moved]:
        """Return the corrections after an entry, oldest first."""
        self._look()
        return [*super().moved(after), *(one for one in self._corrected if one.seq > after)]

    def dated(self, after: int, before: Micros) -> Totals:
        """Return what the dated entries after an entry that count before a time commit."""
        self._look()
        staged = (one.by for one in self._dated if one.seq > after and one.at < before)
        return Totals.sum(staged, super().dated(after, before))

    def dates(self, after: int, first: Micros, last: Micros) -> Iterable[Micros]:
        """Return when dated entries after an entry count, between two times."""
        self._look()
        staged = (one.at for one in self._dated if one.seq > after and first < one.at < last)
        return [*super().dates(after, first, last), *staged]

    def _look(self) -> None:
        for row in self._staged[self._looked :]:
            if row["flags"] & _DATED or row["kind"] == EntryKind.CORRECTION:
                said = row["flags"], rows.detail_of(row), rows.usage_of(row) or Usage.zero()
                dates = row["occurred_at"], row["expires_at"]
                move = rules.move_of(row["seq"], row["kind"], *said, dates)
                if isinstance(move, rules.Dated):
                    self._dated.append(move)
                elif move is not None:
                    self._corrected.append(move)
        self._looked = len(self._staged)


def correction_in(row: Row) -> rules.Moved:
    """Return what a stored correction moves. It raises one of `UNREADABLE` if it is damaged."""
    usage = rows.usage_of(row)
    if not isinstance(usage, UsageDifference):
        raise ValueError("it records no difference")  # noqa: TRY004 - of what is stored
    return rules.moved_by(row["seq"], rows.detail_of(row), usage)


def _summed(row: Row) -> Totals:
    tokens, cost = ((row[f"{name}_upper"] << 32) + row[f"{name}_lower"] for name in AMOUNTS)
    return Totals(tokens, cost, row["requests"])


def _point(row: Row) -> rules.Point:
    committed = Totals(*(row[f"committed_{name}"] for name in Totals._fields))
    return rules.Point(row["seq"], row["recorded_at"], committed)


def _seq(one: rules.Moved) -> int:
    return one.seq
