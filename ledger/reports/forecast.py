"""The forecast report: when a pool runs out if spend continues at its recent rate."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, select

from ledger.core import rules
from ledger.core.axes import AXES, REQUESTS, Axis
from ledger.core.checks import Micros, check_type, from_micros, to_micros
from ledger.core.credits import order_of_use
from ledger.core.errors import InvalidInputError
from ledger.core.limits import Rolling
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.status import PoolStatus
from ledger.ledger import Ledger
from ledger.reports.due import DueLeases, due_of_each
from ledger.reports.filters import Filter, TimeBasis
from ledger.reports.position import asked_moment, moment_of, unpriced_in
from ledger.reports.rolling import Pace, used_up_at
from ledger.reports.scopes import Scope, Shape, snapshot
from ledger.reports.standing import lineage_in
from ledger.reports.sums import Sums, summed, whole
from ledger.store.schema import entries

WEEK = timedelta(days=7)
"""The default length of the window in which spend is summed."""

_DAY_US = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)
_LAST = to_micros("the end of the calendar", datetime.fromisoformat("9999-12-31T23:59:59Z"))


class Outlook(StrEnum):
    """The outlook of a pool on one axis."""

    RUNS_OUT = "runs_out"
    """It runs out at the stated time."""

    OUT = "out"
    """It has run out: what remains is at or below the stop threshold."""

    REFILLS = "refills"
    """Not in this window, since its capacity is restored before; or for a rolling limit, never at
    this rate."""

    UNLIMITED = "unlimited"
    """Never: the capacity has no limit."""

    NO_SPEND = "no_spend"
    """Never: nothing was spent in the window."""

    BEYOND = "beyond"
    """Not before the end of the calendar, the year 9999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisForecast:
    """A pool on one axis.

    Attributes:
        axis: `tokens`, `cost_micros_usd` or `requests`.
        outlook: Whether it runs out.
        runs_out_at: When it runs out, None if it does not.
        refills_at: When the window or period of the capacity that runs out first ends; None without
            windows, and for a rolling limit.
        decided_by: The pool whose capacity runs out first: this one, or one above that shares it.
        limit: The limit of that pool that runs out first; None for its own capacity or credits.
        capacity: The pool's own capacity, None if it has no limit.
        remaining: The answer of `remaining`: the least that the capacity, the limits, the credits
            and the pools above have left, whichever runs out first. None if nothing bounds the
            axis.
        stop_threshold: What is kept back. The pool has run out when this much remains.
        held: What open leases hold.
        spent: What was spent in the window, with what due leases will be charged.
        per_day: The rate of `spent` per 24 hours.
    """

    axis: str
    outlook: Outlook
    runs_out_at: datetime | None
    refills_at: datetime | None
    decided_by: str
    limit: str | None
    capacity: int | None
    remaining: int | None
    stop_threshold: int
    held: int
    spent: int
    per_day: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a pool runs out, and the assumptions.

    Attributes:
        pool: The pool's name.
        now: The moment of the forecast.
        window_begin: Spend is added up from this time on, until `now`.
        window_s: The length of this window in seconds.
        younger: Whether the pool's first entry is younger than the window that was asked for. The
            window then begins at that entry's time by `basis`.
        basis: Which time of an entry puts it into the window.
        policy: The policy in force.
        axes: One forecast an axis.
        unpriced: How many records of spend in the window leave out a figure that the pool limits,
            so that the rate may be higher.
        due: The due leases here, and in the pools below that share with this one.
        steady: Assumed: spend continues evenly, at the rate of the window.
        held_is_spent: Assumed: what open leases hold is spent, so it does not count as remaining.
        capacity_stays: Assumed: the pool is not adjusted.
    """

    pool: str
    now: datetime
    window_begin: datetime
    window_s: int
    younger: bool
    basis: TimeBasis
    policy: SharedPoolBudgetOptions
    axes: list[AxisForecast]
    unpriced: int = 0
    due: DueLeases = field(default_factory=DueLeases)
    steady: bool = True
    held_is_spent: bool = True
    capacity_stays: bool = True


def forecast(
    book: Ledger,
    pool: str,
    *,
    window: timedelta = WEEK,
    now: datetime | None = None,
    as_of: int | None = None,
    basis: TimeBasis = TimeBasis.OCCURRED,
) -> Forecast:
    """Return when a pool runs out at its recent rate of spend.

    Spend of pools below that share its capacity is included. The pools above count, too: this pool
    has run out once one of them has.

    Args:
        book: The store.
        pool: The pool's name.
        window: The length of time in which spend is summed; at most that since the first entry.
        now: The moment of the forecast, which has a time zone; by default the present, or with
            `as_of` when that entry was recorded.
        as_of: As the pool stood at this entry.
        basis: Which time of an entry puts it into the window.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: The window is empty; a moment without a zone; or `as_of` is an entry
            that the pool does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("window", window, timedelta)
    if window <= timedelta(0):
        raise InvalidInputError("window", "must be longer than nothing")
    where = Filter(pools=[pool], as_of=as_of, basis=basis)
    asked = asked_moment(book, where, now)

    def query(connection: Connection, scope: Scope) -> Forecast:
        at = moment_of(connection, scope, asked)
        began = connection.execute(_began(scope.shape), {**scope.values, "now": at}).scalar()
        begin = Micros(max(at - window // _MICROSECOND, at if began is None else began))
        lineage = lineage_in(connection, scope, at)
        due = due_of_each(connection, scope, at, [one.pool.pool_id for one in lineage])
        line = []
        for one in lineage:
            of_pool = scope.of(one.pool.pool_id, one.pool.name).between(begin, at)
            charged = due[one.pool.pool_id].charged._asdict()
            spent = _spent(connection, of_pool)
            line.append((one, {axis: spent[axis] + charged[axis] for axis in spent}))
        return Forecast(
            pool=pool,
            now=from_micros(at),
            window_begin=from_micros(begin),
            window_s=(at - begin) // 1_000_000,
            younger=at - begin < window // _MICROSECOND,
            basis=basis,
            policy=line[0][0].policy,
            axes=[_axis(connection, axis, line, begin, at) for axis in AXES],
            unpriced=unpriced_in(connection, scope.between(begin, at)),
            due=due[scope.pool],
        )

    return snapshot(book, where, query, mirrors=True)


@functools.lru_cache(maxsize=32)
def _began(shape: Shape) -> Select[Any]:
    return select(func.min(shape.at)).where(*shape.conditions(), shape.at < bindparam("now"))


def _spent(connection: Connection, scope: Scope) -> dict[str, int]:
    spent: dict[str, int] = {}
    for query in (_sums_of_usage, _sums_of_calls):
        (row,) = summed(connection, functools.partial(query, scope.shape), scope.values)
        spent |= {name: whole(row, name) for name in _SPENT[query]}
    return spent


@functools.lru_cache(maxsize=32)
def _sums_of_usage(shape: Shape, sums: Sums) -> Select[Any]:
    return select(
        *(
            part
            for axis in AXES
            if axis.amount is not None
            for part in sums.of(axis.name, entries.c[f"usage_{axis.amount}"])
        )
    ).where(*shape.conditions())


@functools.lru_cache(maxsize=32)
def _sums_of_calls(shape: Shape, sums: Sums) -> Select[Any]:
    """Return the query that counts settled calls, by how much each entry moved the running count.

    Counting entries would be wrong, since the settlement of a carved pool stands for all its calls.
    """
    before = entries.alias("before")
    name = f"committed_{REQUESTS.name}"
    return (
        select(*sums.of(REQUESTS.name, entries.c[name] - before.c[name]))
        .select_from(
            entries.join(
                before,
                (before.c.pool_id == entries.c.pool_id) & (before.c.seq == entries.c.seq - 1),
            )
        )
        .where(*shape.conditions(), entries.c.usage_total_tokens.is_not(None))
    )


_SPENT = {
    _sums_of_usage: [axis.name for axis in AXES if axis.amount is not None],
    _sums_of_calls: [axis.name for axis in AXES if axis.amount is None],
}
"""The axes that each query sums."""


_Line = Sequence[tuple[PoolStatus, Mapping[str, int]]]
"""A pool and those above that share its capacity, each with what was spent of it."""


class _End(NamedTuple):
    """The outlook of one capacity, of a pool or one of its limits."""

    outlook: Outlook
    at: Micros
    """When it runs out, if it does."""
    refills_at: Micros | None
    pool: str
    limit: str | None


_URGENCY = {
    outlook: place
    for place, outlook in enumerate(
        (
            *(Outlook.OUT, Outlook.RUNS_OUT, Outlook.REFILLS),
            *(Outlook.BEYOND, Outlook.NO_SPEND, Outlook.UNLIMITED),
        )
    )
}


def _axis(
    connection: Connection, axis: Axis, line: _Line, begin: Micros, now: Micros
) -> AxisForecast:
    ends = [
        end
        for one, spent in line
        for pace in (Pace(spent[axis.name], begin, now),)
        for end in (*_ends(axis, one, pace), *_rolling(connection, axis, one, pace))
    ]
    # The capacity that runs out first decides; of several at the same time, that of the lowest
    # pool.
    first = min(ends, key=lambda end: (_URGENCY[end.outlook], end.at))
    stands, all_spent = line[0]
    spent = all_spent[axis.name]
    return AxisForecast(
        axis=axis.name,
        outlook=first.outlook,
        runs_out_at=from_micros(first.at) if first.outlook is Outlook.RUNS_OUT else None,
        refills_at=None if first.refills_at is None else from_micros(first.refills_at),
        decided_by=first.pool,
        limit=first.limit,
        capacity=axis.limit(stands.policy),
        remaining=axis.left(stands.reservable),
        stop_threshold=getattr(stands.policy, axis.stop_threshold),
        held=getattr(stands.balance.reserved, axis.name),
        spent=spent,
        per_day=Fraction(spent * _DAY_US, now - begin) if now > begin else Fraction(0),
    )


def _ends(axis: Axis, one: PoolStatus, pace: Pace) -> Iterator[_End]:
    """Yield the outlook of a pool's credits, of its own capacity, and of its calendar limits."""

    def end(left: int | None, kept: int, until: Micros | None, limit: str | None) -> _End:
        outlook, at = _outlook(left, kept, pace)
        if outlook is Outlook.RUNS_OUT and until is not None and at > until:
            outlook = Outlook.REFILLS
        if outlook is Outlook.RUNS_OUT and at > _LAST:
            outlook = Outlook.BEYOND
        return _End(outlook, at, until, one.pool.name, limit)

    if one.closed:
        yield _End(Outlook.OUT, pace.now, None, one.pool.name, None)
        return
    left = axis.left(rules.remaining(one.policy, one.balance, one.window))
    kept = getattr(one.policy, axis.stop_threshold)
    if axis.name in one.policy.prepaid:
        outlook, at = _prepaid(axis, one, kept, pace)
        outlook = Outlook.BEYOND if outlook is Outlook.RUNS_OUT and at > _LAST else outlook
        yield _End(outlook, at, None, one.pool.name, None)
    until = None if one.window is None else one.window.end
    yield end(left, kept, until, None)
    for each in one.limits:
        if each.until is not None:
            yield end(axis.left(each.remaining), 0, each.until, each.limit.name)


def _rolling(connection: Connection, axis: Axis, one: PoolStatus, pace: Pace) -> Iterator[_End]:
    """Yield the outlook of each rolling limit of a pool, whose capacity is restored gradually."""
    for each in one.limits:
        if isinstance(each.limit.period, Rolling):
            outlook, at = _outlook(axis.left(each.remaining), 0, pace)
            if outlook is Outlook.RUNS_OUT:
                found = used_up_at(connection, one, each, axis, pace)
                # Of several that refill, those with a known time come first.
                outlook, at = (Outlook.REFILLS, _LAST) if found is None else (outlook, found)
            yield _End(outlook, at, None, one.pool.name, each.limit.name)


def _prepaid(axis: Axis, one: PoolStatus, kept: int, pace: Pace) -> tuple[Outlook, Micros]:
    """Return the outlook of credits that are spent evenly and expire one by one."""
    left = None if one.prepaid is None else axis.left(one.prepaid)
    held = getattr(one.balance.reserved, axis.name)
    credits = sorted(one.credits, key=lambda each: order_of_use(each.credit, each.seq))
    pots = [(Fraction(getattr(each.left, axis.name)), each.credit.expires_at) for each in credits]
    pots = _spend(pots, held)
    outlook, at = _outlook(left, kept, pace)
    if outlook in {Outlook.OUT, Outlook.UNLIMITED}:
        return outlook, at
    now = pace.now
    # Where no time has passed, a microsecond stands for it: the pool may be as new as that.
    rate, since = Fraction(max(0, pace.spent), max(1, now - pace.begin)), now
    for end in sorted({to_micros("expires_at", end) for amount, end in pots if amount and end}):
        whole = sum(amount for amount, _ in pots)
        if rate and whole - kept <= rate * (end - since):
            break
        pots = _spend(pots, rate * (end - since))
        pots = [pot for pot in pots if pot[1] is None or to_micros("expires_at", pot[1]) > end]
        since = end
        if sum(amount for amount, _ in pots) <= kept:
            return Outlook.RUNS_OUT, end
    if not rate:
        return Outlook.NO_SPEND, now
    # Rounded up to the first microsecond at which it has run out.
    return Outlook.RUNS_OUT, Micros(since + ceil((sum(pot[0] for pot in pots) - kept) / rate))


def _spend(
    pots: Sequence[tuple[Fraction, datetime | None]], amount: Fraction | int
) -> list[tuple[Fraction, datetime | None]]:
    """Return what is left of credits, in the order of their use, after an amount was spent."""
    found = []
    for left, end in pots:
        taken = min(left, amount)
        found.append((left - taken, end))
        amount -= taken
    return found


def _outlook(left: int | None, kept: int, pace: Pace) -> tuple[Outlook, Micros]:
    """Return the outlook of an amount that is spent evenly, and when it has run out."""
    if left is None:
        return Outlook.UNLIMITED, pace.now
    if left <= kept:
        return Outlook.OUT, pace.now
    if pace.spent <= 0:  # corrections may have taken back more than was spent
        return Outlook.NO_SPEND, pace.now
    return Outlook.RUNS_OUT, pace.lasts_until(left - kept)
