"""The spend report: spend by time, model, tenant, tag and the like, in any combination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from ledger.core.calendar import zone_named
from ledger.core.checks import I64_MAX, check_amount
from ledger.core.errors import LeftOut
from ledger.ledger import Ledger
from ledger.reports.buckets import Unit, bucket, fits, grains_us, place
from ledger.reports.dimensions import UNITS, checked, label
from ledger.reports.figures import Figures, Label, added, aggregate, figures_in
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.scopes import Scope, snapshot

OTHER = "other"
"""The name of the row that stands for all groups that are not among the most expensive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRow(Figures):
    """One group.

    Attributes:
        group: The group's value in each dimension, None if a call named none.
        groups: How many groups the row stands for: 1, or for the row `other` the number of groups
            that are not among the most expensive.
    """

    group: Mapping[str, str | None]
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Spend by some dimensions: the rows add up to the total.

    Attributes:
        by: The dimensions.
        zone: The time zone of hours, days, weeks and months.
        rows: By time where time is a dimension, then the most expensive first.
        total: All of them together.
    """

    by: tuple[str, ...]
    zone: str
    rows: list[SpendRow]
    total: Figures


def spend(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    by: Sequence[str] = ("model",),
    zone: str = "UTC",
    top: int | None = None,
    left_out: LeftOut | None = None,
) -> Spend:
    """Return spend by one or more dimensions.

    A call that has ended counts, with its estimate and all its usage, under the attribution of its
    end, so under the model that answered. An open call counts under its reservation, and its
    observed usage under the observations.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        by: Any of hour, day, week, month, model, provider, tenant, agent, operation, run, pool,
            and `tag:NAME`.
        zone: The time zone of hours, days, weeks and months, by its IANA name.
        top: How many groups to return, the most expensive ones; the others become one row.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: No such dimension or time zone; or `as_of` is an entry that the pool
            does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    chosen = checked(by, times=True)
    if top is not None:
        check_amount("top", top, ceiling=I64_MAX)
    clock = zone_named(zone)
    groups = snapshot(
        book,
        where,
        lambda connection, scope: _groups(connection, scope, chosen, clock),
        left_out=left_out,
    )
    rows = [
        SpendRow(group=dict(zip(chosen, group, strict=True)), **added(parts))
        for group, parts in groups.items()
    ]
    rows.sort(key=_dearest)
    if top is not None and len(rows) > top:
        rest = SpendRow(
            group=dict.fromkeys(chosen, OTHER), groups=len(rows) - top, **added(rows[top:])
        )
        rows = [*_in_order(rows[:top], chosen), rest]
    else:
        rows = _in_order(rows, chosen)
    return Spend(by=chosen, zone=zone, rows=rows, total=Figures(**added(rows)))


def _groups(
    connection: Connection, scope: Scope, by: tuple[str, ...], zone: ZoneInfo
) -> dict[tuple[str | None, ...], list[Figures]]:
    units = [Unit(name) for name in by if name in UNITS]
    others = [name for name in by if name not in UNITS]
    rows, buckets = _cut(connection, scope, [label(name) for name in others], units, zone)
    found: dict[tuple[str | None, ...], list[Figures]] = defaultdict(list)
    for row in rows:
        place: dict[str, Any] = {
            name: getattr(row, f"label_{number}") for number, name in enumerate(others)
        }
        if "pool" in place:
            place["pool"] = scope.name(place["pool"])
        if units:
            place |= zip(units, buckets[row.grain], strict=True)
        found[tuple(place[name] for name in by)].append(Figures(**figures_in(row)))
    return found


def _cut(
    connection: Connection,
    scope: Scope,
    labels: Sequence[Label],
    units: Sequence[Unit],
    zone: ZoneInfo,
) -> tuple[list[Any], dict[int, list[str]]]:
    """Return rows by pieces of time that each lie in one bucket, with the buckets of each piece.

    Most zones are whole hours from UTC, so pieces of an hour are enough. If a piece does not lie
    in one bucket, the next smaller length is tried.
    """
    if not units:
        rows = aggregate(connection, scope, labels)
        return [row for row in rows if row.first_at is not None], {}
    around = [at for at in (scope.where.since, scope.where.until) if at is not None]
    pieces: set[int] = set()
    for grain_us in grains_us(units, zone, [*around, datetime.now(UTC)]):
        rows = aggregate(connection, scope, labels, grain_us=grain_us)
        pieces = {row.grain for row in rows}
        if all(fits(at, grain_us, units, zone) for at in pieces):
            break
    return rows, {at: [bucket(unit, at, zone) for unit in units] for at in pieces}


def _dearest(row: SpendRow) -> tuple[object, ...]:
    names = [(name is None, name or "") for name in row.group.values()]
    return (-row.cost_micros_usd, -row.total_tokens, names)


def _in_order(rows: list[SpendRow], by: tuple[str, ...]) -> list[SpendRow]:
    # The sort is stable: rows of the same time stay in the order of cost.
    times = [Unit(name) for name in by if name in UNITS]
    return sorted(rows, key=lambda row: [place(unit, str(row.group[unit])) for unit in times])
