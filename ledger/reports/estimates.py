"""The report on estimates: how good they were, and what other estimates would have held.

A call is a lease that was settled; its usage is the sum over all its attempts. Percentiles are by
the nearest rank, so each is the figure of an actual call.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, exists, func, or_, select, text

from ledger.core.axes import AXES
from ledger.core.checks import I64_MAX, check_amount
from ledger.core.errors import LeftOut
from ledger.core.kinds import FOLLOWS_UP, EntryKind, sql
from ledger.ledger import Ledger
from ledger.reports.dimensions import checked, label
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.leases import with_newest_of_lease
from ledger.reports.missing_figures import is_unpriced
from ledger.reports.ranks import PERCENTS, percentile
from ledger.reports.scopes import Scope, snapshot
from ledger.store.schema import IS_OF_ENTRY, attributions, entries

_AXES = {axis.name: axis.amount for axis in AXES if axis.amount is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What calls would have held with the same estimate for all, or what they did hold.

    Attributes:
        estimate: The estimate; None if each call has its own.
        overruns: How many calls used more than the estimate.
        overrun: By how much those calls exceeded the estimate, together.
        wasted: How much of the estimate the other calls left unused, together.
    """

    estimate: int | None
    overruns: int
    overrun: int
    wasted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Percentiles of what calls used, divided by what was estimated for them.

    Attributes:
        p50: Half of the calls used at most this part of their estimate.
        p90: 90 % of the calls used at most this part.
        p95: 95 % of the calls used at most this part.
        p99: 99 % of the calls used at most this part.
        max: No call used more than this part.
    """

    p50: Fraction
    p90: Fraction
    p95: Fraction
    p99: Fraction
    max: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateQuality:
    """How good the estimates of a group of calls were, on one axis.

    Attributes:
        group: What the calls have in common, None if a call named none.
        axis: `tokens` or `cost_micros_usd`.
        calls: How many calls were settled that had an estimate above 0 on this axis.
        estimated: What was estimated for them together.
        used: What they used together.
        overrun_share: The part of the calls that used more than was estimated.
        ratio: What they used, divided by what was estimated.
        given: What the actual estimates held.
        p50: What one estimate for all calls would have held, the 50th percentile of their usage.
        p90: The same with the 90th percentile as the estimate.
        p95: The same with the 95th percentile as the estimate.
        p99: The same with the 99th percentile as the estimate.
        max: The same with the largest usage as the estimate.
        fixed: The same with the estimate to be tried, None without one.
        unpriced: How many of the calls left out a figure that their pool limits, so that they may
            have used more.
    """

    group: Mapping[str, str | None]
    axis: str
    calls: int
    estimated: int
    used: int
    overrun_share: Fraction
    ratio: Ratios
    given: Held
    p50: Held
    p90: Held
    p95: Held
    p99: Held
    max: Held
    fixed: Held | None
    unpriced: int = 0


def estimates(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    by: Sequence[str] = ("model", "operation"),
    fixed_tokens: int | None = None,
    fixed_cost_micros_usd: int | None = None,
    left_out: LeftOut | None = None,
) -> list[EstimateQuality]:
    """Return how good estimates were, and what others would have held.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        by: Any of model, provider, tenant, agent, operation, run, pool, and `tag:NAME`.
        fixed_tokens: An estimate to be tried: the same for every call.
        fixed_cost_micros_usd: The same in millionths of a US dollar.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: No such dimension; or `as_of` is an entry that the pool does not have
            yet.
        AmountOutOfRangeError: The estimate to be tried is out of range.
        LedgerUnavailableError: The store cannot be read.
    """
    chosen = checked(by, times=False)
    fixed = {"tokens": fixed_tokens, "cost_micros_usd": fixed_cost_micros_usd}
    for name, value in fixed.items():
        if value is not None:
            check_amount(f"fixed_{name}", value, ceiling=I64_MAX)

    def query(connection: Connection, scope: Scope) -> list[EstimateQuality]:
        found = []
        for place, axes in _calls(connection, scope, chosen).items():
            group = dict(zip(chosen, place, strict=True))
            if "pool" in group:
                group["pool"] = scope.name(group["pool"])
            found += [
                _quality(group, axis, calls, fixed[axis])
                for axis, calls in axes.items()
                if calls.used
            ]
        # The sort is stable, so the axes of a group stay together, tokens first.
        return sorted(
            found, key=lambda one: [(name is None, name or "") for name in one.group.values()]
        )

    return snapshot(book, where, query, left_out=left_out)


def _calls(
    connection: Connection, scope: Scope, by: tuple[str, ...]
) -> dict[tuple[Any, ...], dict[str, _Calls]]:
    """Return the calls in scope with an estimate, by group and axis."""
    e = entries.c
    # The usage of a call may have been corrected since.
    last, joined = with_newest_of_lease(e.lease, scope.where.as_of)
    granted = entries.alias("granted")
    of_lease = (granted.c.pool_id == e.pool_id) & (granted.c.seq == e.lease)
    amounts = [
        column
        for name in _AXES.values()
        for column in (
            granted.c[f"estimate_{name}"],
            func.coalesce(last.c[f"used_{name}"], last.c[f"usage_{name}"]),
        )
    ]
    part = entries.alias("part")
    unpriced = is_unpriced(scope.shape, value=scope.value) | exists().where(
        part.c.pool_id == e.pool_id,
        part.c.lease == e.lease,
        text(sql(FOLLOWS_UP, "part.kind")),
        is_unpriced(scope.shape, part, scope.value),
    )
    query = (
        select(*(label(name)(e) for name in by), case((unpriced, 1), else_=0), *amounts)
        .select_from(joined.join(granted, of_lease).outerjoin(attributions, IS_OF_ENTRY))
        .where(
            *scope.conditions,
            e.kind == EntryKind.SETTLEMENT,
            or_(*(granted.c[f"estimate_{name}"] > 0 for name in _AXES.values())),
        )
    )
    found: dict[tuple[Any, ...], dict[str, _Calls]] = defaultdict(
        lambda: {axis: _Calls(array("q"), array("q"), array("b")) for axis in _AXES}
    )
    for row in connection.execute(query):
        is_short, *of_axes = row[len(by) :]
        pairs = iter(of_axes)
        group = found[tuple(row[: len(by)])]
        for axis, estimated, used in zip(_AXES, pairs, pairs, strict=True):
            if estimated:
                group[axis].add(estimated, used, is_short)
    return found


class _Calls(NamedTuple):
    """The estimates of calls, their usage, and whether that leaves out a figure.

    Three arrays, 17 bytes a call.
    """

    estimated: array[int]
    used: array[int]
    unpriced: array[int]

    def add(self, estimated: int, used: int, unpriced: int) -> None:
        self.estimated.append(estimated)
        self.used.append(used)
        self.unpriced.append(unpriced)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield what was estimated and what was used, call by call."""
        return zip(self.estimated, self.used, strict=True)


def _quality(
    group: Mapping[str, str | None], axis: str, calls: _Calls, fixed: int | None
) -> EstimateQuality:
    ascending = sorted(calls.used)
    sums = list(accumulate(ascending, initial=0))

    def held(estimate: int) -> Held:
        at_most = bisect_right(ascending, estimate)
        above = len(ascending) - at_most
        return Held(
            estimate=estimate,
            overruns=above,
            overrun=sums[-1] - sums[at_most] - above * estimate,
            wasted=at_most * estimate - sums[at_most],
        )

    over = [used - given for given, used in calls.pairs() if used > given]
    estimated, overrun = sum(calls.estimated), sum(over)
    return EstimateQuality(
        group=group,
        axis=axis,
        calls=len(ascending),
        estimated=estimated,
        used=sums[-1],
        overrun_share=Fraction(len(over), len(ascending)),
        ratio=_ratios(calls),
        given=Held(
            estimate=None,
            overruns=len(over),
            overrun=overrun,
            wasted=estimated - (sums[-1] - overrun),
        ),
        **{name: held(percentile(ascending, percent)) for name, percent in PERCENTS.items()},
        fixed=None if fixed is None else held(fixed),
        unpriced=sum(calls.unpriced),
    )


def _ratios(calls: _Calls) -> Ratios:
    """Return percentiles of used / estimated.

    The quotients are sorted as integers, each cut off after 2 b binary places, where b is the bit
    length of the largest estimate. The order is exact: two different fractions with denominators
    of at most b bits differ by more than 1 / 2^(2 b).
    """
    bits = 2 * max(calls.estimated).bit_length()
    cut = [(used << bits) // given for given, used in calls.pairs()]
    ascending = sorted(range(len(cut)), key=cut.__getitem__)
    return Ratios(
        **{
            name: Fraction(calls.used[place], calls.estimated[place])
            for name, percent in PERCENTS.items()
            for place in [percentile(ascending, percent)]
        }
    )
