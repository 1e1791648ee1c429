"""How good estimates are, and what others would have held: figures to tune reservations by.

A call is a lease that was settled; what it used is what it used altogether, over all its attempts.
Percentiles are by the nearest rank, so each is the figure of a call that was really made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy import ColumnElement, Connection, Subquery, case, func, or_, select, text

from ledger.book import Ledger
from ledger.checks import I64_MAX, check_amount
from ledger.records import EntryKind
from ledger.reports.dimensions import checked, label
from ledger.reports.filters import EVERYTHING, Scope, Where, snapshot
from ledger.reports.ranks import PERCENTS, rank
from ledger.reports.sums import halves, int64, whole
from ledger.schema import attributions, entries

_AXES = {"tokens": "total_tokens", "cost_micros_usd": "cost_micros_usd"}
_DIGIT = int64(2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What calls would have held with one estimate for all, or what they did hold.

    Attributes:
        estimate: The estimate; None for those that were given.
        overruns: How many calls used more than it.
        overrun: How much more they used, together.
        wasted: How much of it the other calls left unused, together.
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
        p90: Nine in ten of them did, and so on.
        p95: Likewise.
        p99: Likewise.
        max: All of them did.
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
        group: What the calls have in common, None where a call named none.
        axis: `tokens` or `cost_micros_usd`.
        calls: How many calls were settled that had an estimate above 0 on this axis.
        estimated: What was estimated for them together.
        used: What they used together.
        overrun_share: The part of the calls that used more than was estimated.
        ratio: What they used, divided by what was estimated.
        given: What the estimates that were given held.
        p50: What the 50th percentile of what calls used would have held, as the one estimate for
            all of them; and so on.
        p90: Likewise.
        p95: Likewise.
        p99: Likewise.
        max: Likewise.
        fixed: What an estimate of your choice would have held.
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


def estimates(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    by: Sequence[str] = ("model", "operation"),
    fixed_tokens: int | None = None,
    fixed_cost_micros_usd: int | None = None,
) -> list[EstimateQuality]:
    """Return how good estimates were, and what others would have held.

    Args:
        book: The books.
        where: Which entries, or the name of a pool.
        by: Any of model, provider, tenant, agent, operation, run, pool, and `tag:NAME`.
        fixed_tokens: An estimate to be tried: the same for every call.
        fixed_cost_micros_usd: The same in millionths of a US dollar.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: No such dimension; or `as_of` is an entry that the pool does not have
            yet.
        AmountOutOfRangeError: The estimate to be tried is no amount.
        LedgerUnavailableError: The store cannot be read.
    """
    chosen = checked(by, times=False)
    fixed = {"tokens": fixed_tokens, "cost_micros_usd": fixed_cost_micros_usd}
    for name, value in fixed.items():
        if value is not None:
            check_amount(f"fixed_{name}", value, ceiling=I64_MAX)

    def query(connection: Connection, scope: Scope) -> list[EstimateQuality]:
        found = [
            quality
            for axis in _AXES
            for quality in _on_axis(connection, scope, chosen, axis, fixed[axis])
        ]
        # Stable: the axes of a group stay side by side, tokens first.
        return sorted(
            found, key=lambda one: [(name is None, name or "") for name in one.group.values()]
        )

    return snapshot(book, where, query)


def _on_axis(
    connection: Connection, scope: Scope, by: tuple[str, ...], axis: str, fixed: int | None
) -> list[EstimateQuality]:
    calls = _calls(scope, by, _AXES[axis])
    totals = {_place(row, by): row for row in connection.execute(_totals(calls, len(by), fixed))}
    ratios = _ratios(connection, calls, by)
    ranked = _ranked(connection, calls, by)
    found = []
    for place, row in totals.items():
        group = dict(zip(by, place, strict=True))
        if "pool" in group:
            group["pool"] = scope.pools[group["pool"]]
        found.append(
            EstimateQuality(
                group=group,
                axis=axis,
                calls=int(row.calls),
                estimated=whole(row, "estimated"),
                used=whole(row, "used"),
                overrun_share=Fraction(int(row.overruns), int(row.calls)),
                ratio=Ratios(**ratios[place]),
                given=Held(
                    estimate=None,
                    overruns=int(row.overruns),
                    overrun=whole(row, "overrun"),
                    wasted=whole(row, "wasted"),
                ),
                **ranked[place],
                fixed=(
                    None
                    if fixed is None
                    else _held(fixed, row, whole(row, "used"), whole(row, "below"))
                ),
            )
        )
    return found


def _calls(scope: Scope, by: tuple[str, ...], amount: str) -> Subquery:
    """Return the calls in scope: their group, what was estimated, what was used."""
    e, a = entries.c, attributions.c
    return (
        select(
            *(label(name)(e).label(f"label_{number}") for number, name in enumerate(by)),
            e[f"estimate_{amount}"].label("estimate"),
            e[f"used_{amount}"].label("used"),
        )
        .select_from(
            entries.outerjoin(
                attributions, (a.pool_id == e.pool_id) & (a.attribution_id == e.attribution_id)
            )
        )
        .where(*scope.conditions, e.kind == EntryKind.SETTLEMENT, e[f"estimate_{amount}"] > 0)
        .subquery("calls")
    )


def _place(row: Any, by: tuple[str, ...]) -> tuple[Any, ...]:  # noqa: ANN401 - a row of any of them
    return tuple(getattr(row, f"label_{number}") for number in range(len(by)))


def _labels(calls: Subquery) -> list[ColumnElement[Any]]:
    return [column for column in calls.c if column.name.startswith("label_")]


def _totals(calls: Subquery, labels: int, fixed: int | None) -> Any:  # noqa: ANN401 - a select
    c = calls.c
    over = c.used > c.estimate
    below = c.used <= int64(fixed or 0)
    return (
        select(
            *_labels(calls),
            func.count().label("calls"),
            func.sum(case((over, 1), else_=0)).label("overruns"),
            func.sum(case((below, 1), else_=0)).label("at_most"),
            *halves("estimated", c.estimate),
            *halves("used", c.used),
            *halves("below", case((below, c.used), else_=0)),
            *halves("overrun", case((over, c.used - c.estimate), else_=0)),
            *halves("wasted", case((over, 0), else_=c.estimate - c.used)),
        )
        .group_by(*(text(f"label_{number}") for number in range(labels)))
        .having(func.count() > 0)
    )


def _at_ranks(ranked: Subquery) -> Any:  # noqa: ANN401 - a select
    """Return the rows at the ranks of the percentiles."""
    c = ranked.c
    return select(ranked).where(
        or_(*(c.place == (percent * c.calls + 99) // 100 for percent in PERCENTS.values()))
    )


def _ratios(
    connection: Connection, calls: Subquery, by: tuple[str, ...]
) -> dict[tuple[Any, ...], dict[str, Fraction]]:
    """Return percentiles of used / estimate.

    Databases have no exact fractions, so the quotient is worked out digit by digit, in whole
    numbers: two digits of 31 bits tell any two fractions apart whose estimates are below 2^31
    (2,147 US dollars, or two thousand million tokens, a call).
    """
    c = calls.c
    # A larger estimate is cut down first, and with it goes the last part in 2^31 of the order.
    scale = case((c.estimate < _DIGIT, int64(1)), else_=int64(2**32))
    rest, divisor = (c.used % c.estimate) // scale, (c.estimate - 1) // scale + 1
    first = rest * _DIGIT
    order = [c.used // c.estimate, first // divisor, (first % divisor) * _DIGIT // divisor]
    labels = _labels(calls)
    ranked = select(
        calls,
        func.count().over(partition_by=labels).label("calls"),
        func.row_number().over(partition_by=labels, order_by=order).label("place"),
    ).subquery("ranked")
    found: dict[tuple[Any, ...], dict[int, Fraction]] = {}
    counts: dict[tuple[Any, ...], int] = {}
    for row in connection.execute(_at_ranks(ranked)):
        place = _place(row, by)
        counts[place] = row.calls
        found.setdefault(place, {})[row.place] = Fraction(row.used, row.estimate)
    return {
        place: {name: at[rank(counts[place], percent)] for name, percent in PERCENTS.items()}
        for place, at in found.items()
    }


def _ranked(
    connection: Connection, calls: Subquery, by: tuple[str, ...]
) -> dict[tuple[Any, ...], dict[str, Held]]:
    """Return what each percentile of what was used would have held as the estimate for all."""
    c, labels = calls.c, _labels(calls)
    window: dict[str, Any] = {"partition_by": labels, "order_by": c.used}
    ranked = select(
        *labels,
        c.used,
        func.count().over(partition_by=labels).label("calls"),
        func.row_number().over(**window).label("place"),
        # Up to and with all that used the same.
        func.count().over(**window).label("at_most"),
        *(
            half.over(**options).label(f"{name}_{part}")
            for name, options in (("below", window), ("all", {"partition_by": labels}))
            for part, half in (
                ("upper", func.sum(c.used // int64(2**32))),
                ("lower", func.sum(c.used % int64(2**32))),
            )
        ),
    ).subquery("ranked")
    found: dict[tuple[Any, ...], dict[int, Held]] = {}
    counts: dict[tuple[Any, ...], int] = {}
    for row in connection.execute(_at_ranks(ranked)):
        place = _place(row, by)
        counts[place] = row.calls
        found.setdefault(place, {})[row.place] = _held(
            row.used, row, whole(row, "all"), whole(row, "below")
        )
    return {
        place: {name: at[rank(counts[place], percent)] for name, percent in PERCENTS.items()}
        for place, at in found.items()
    }


def _held(estimate: int, row: Any, used: int, below: int) -> Held:  # noqa: ANN401 - either query's
    """Return what one estimate would have held.

    Args:
        estimate: The estimate.
        row: Has how many calls there are, and how many used at most the estimate.
        used: What all calls used.
        below: What those that used at most the estimate used.
    """
    above = int(row.calls) - int(row.at_most)
    return Held(
        estimate=estimate,
        overruns=above,
        overrun=used - below - above * estimate,
        wasted=int(row.at_most) * estimate - below,
    )
