"""The forecast report: when a pool runs out if it is spent on at its recent rate."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select

from ledger.core.axes import AXES, REQUESTS
from ledger.core.checks import Micros, check_type, from_micros, to_micros
from ledger.errors import InvalidInputError, JournalDamagedError
from ledger.ledger import Ledger
from ledger.reports.filters import Filter, Scope, Shape, TimeBasis, snapshot
from ledger.reports.leases import moment_of
from ledger.reports.position import Position, newest
from ledger.reports.sums import Sums, summed, whole
from ledger.store.journal import NO_OPENING
from ledger.store.schema import entries

WEEK = timedelta(days=7)
"""How far back spend is added up if the caller does not say."""

_DAY_US = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)
_LAST = to_micros("the end of the calendar", datetime.fromisoformat("9999-12-31T23:59:59Z"))


class Outlook(StrEnum):
    """What becomes of a pool on one axis."""

    RUNS_OUT = "runs_out"
    """It runs out at the time that is given."""

    OUT = "out"
    """It has run out: at most the stop threshold remains."""

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
        outlook: What becomes of it.
        runs_out_at: When, if it runs out.
        capacity: The capacity, None if it has no limit.
        remaining: What remains, None if the capacity has no limit.
        stop_threshold: What is kept back: at this much the pool has run out.
        held: What open leases hold.
        spent: What was spent in the window.
        per_day: The rate of `spent`, in 24 hours.
    """

    axis: str
    outlook: Outlook
    runs_out_at: datetime | None
    capacity: int | None
    remaining: int | None
    stop_threshold: int
    held: int
    spent: int
    per_day: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a pool runs out, and what is assumed.

    Attributes:
        pool: The pool's name.
        now: The moment of the forecast.
        window_begin: Spend is added up from this time on, until `now`.
        window_s: The length of this window in seconds.
        younger: Whether the pool is younger than the window that was asked for. The window is then
            the pool's life.
        basis: Which time of an entry puts it into the window.
        axes: One forecast an axis.
        steady: Assumed: spend goes on as in the window, evenly.
        held_is_spent: Assumed: what open leases hold is used, so it is not among what remains.
        capacity_stays: Assumed: the pool is not adjusted, and no new window restores its capacity.
    """

    pool: str
    now: datetime
    window_begin: datetime
    window_s: int
    younger: bool
    basis: TimeBasis
    axes: list[AxisForecast]
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
    """Return when a pool runs out at the rate at which it was spent of late.

    Spend that other pools passed on to this one uses its capacity, and is included.

    Args:
        book: The books.
        pool: The pool's name.
        window: How far back spend is added up; the pool's life if that is shorter.
        now: The moment of the forecast, which has a time zone; without it the present one, or with
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
    given = None if now is None else to_micros("now", now)
    where = Filter(pools=[pool], as_of=as_of, basis=basis)

    def query(connection: Connection, scope: Scope) -> Forecast:
        at = moment_of(connection, scope, given)
        last = newest(connection, scope)
        if last is None:
            raise JournalDamagedError(pool=pool, seq=1, reason=NO_OPENING)
        began = connection.execute(_began(scope.shape), {**scope.values, "now": at}).scalar()
        begin = max(at - window // _MICROSECOND, at if began is None else began)
        spent = _spent(connection, scope.between(begin, at))
        return Forecast(
            pool=pool,
            now=from_micros(at),
            window_begin=from_micros(begin),
            window_s=(at - begin) // 1_000_000,
            younger=at - begin < window // _MICROSECOND,
            basis=basis,
            axes=[_axis(name, last.at(at), spent[name], begin, at) for name in spent],
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

    Counting entries would be wrong: the one that settles a carved pool stands for all its calls.
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
"""Which axes each query adds up."""


def _axis(name: str, last: Position, spent: int, begin: int, now: Micros) -> AxisForecast:
    (axis,) = (axis for axis in AXES if axis.name == name)
    threshold = getattr(last.policy, axis.stop_threshold)
    left = axis.left(last.remaining)
    runs_out_at = None
    if left is None:
        outlook = Outlook.UNLIMITED
    elif left <= threshold:
        outlook = Outlook.OUT
    elif spent <= 0:  # corrections may have taken back more than was spent
        outlook = Outlook.NO_SPEND
    else:
        # Rounded up to the first microsecond at which the pool has run out.
        runs_out = now - (-(left - threshold) * (now - begin) // spent)
        outlook = Outlook.RUNS_OUT if runs_out <= _LAST else Outlook.BEYOND
        runs_out_at = from_micros(runs_out) if runs_out <= _LAST else None
    return AxisForecast(
        axis=name,
        outlook=outlook,
        runs_out_at=runs_out_at,
        capacity=axis.limit(last.policy),
        remaining=left,
        stop_threshold=threshold,
        held=getattr(last.balance.reserved, name),
        spent=spent,
        per_day=Fraction(spent * _DAY_US, now - begin) if now > begin else Fraction(0),
    )
