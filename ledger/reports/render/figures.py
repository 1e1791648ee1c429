"""Tables of figures: by run, and by the dimensions of spend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.reports.dimensions import UNITS
from ledger.reports.figures import PROVENANCES, Figures, added
from ledger.reports.render.sheet import Cell, Column, Sheet
from ledger.reports.render.values import moment, sparkline, text, usd
from ledger.reports.runs import RunCost, RunTree
from ledger.reports.spend import OTHER, Spend

_COUNTS = (
    ("Requests", "requests", 2),
    ("Denied", "denied", 3),
    ("Input\ntokens", "input_tokens", 1),
    ("Output\ntokens", "output_tokens", 1),
    ("Total\ntokens", "total_tokens", 0),
    ("Estimated\ntokens", "estimated_total_tokens", 5),
)
_WHERE_ANY = (("Unpriced", "unpriced", 1), ("Expired", "expiries", 2), ("Imported", "imports", 2))
"""Columns of tables in which there are any. What was spent is not, or not yet, known of the first
two, and what was imported is no request."""
_WIDE_COUNTS = (
    ("Open", "open_leases"),
    ("Attempts", "attempts"),
    ("Released", "releases"),
    ("Late", "late"),
    ("Corrections", "corrections"),
    ("Cache written\ntokens", "cache_creation_tokens"),
    ("Cache read\ntokens", "cache_read_tokens"),
    ("Reasoning\ntokens", "reasoning_tokens"),
)


def runs_sheet(rows: Sequence[RunCost]) -> Sheet:
    """Return per-run costs as a table, with a line of totals."""
    counts = _counts(rows)
    sheet = Sheet(columns=[Column(heading="Run"), *_columns(counts)], title="Cost per run")
    _fill(
        sheet, counts, (([text(row.run_id)], row) for row in rows), total=1 if len(rows) > 1 else 0
    )
    return sheet


def run_trees_sheet(rows: Sequence[RunTree]) -> Sheet:
    """Return runs with their sub-runs as a table: each is indented below its parent."""
    counts = _counts([row.with_subruns for row in rows])
    sheet = Sheet(
        columns=[
            Column(heading="Run"),
            Column(heading="Own\ntokens", rank=4),
            Column(heading="Own\nUSD", rank=4),
            *_columns(counts),
        ],
        title="Cost per run, sub-runs included",
    )
    nothing = Figures()
    for row in rows:
        name = text(row.run_id)
        name.pad_left(2 * row.depth)
        own = row.own or nothing
        sheet.add(
            name,
            f"{own.total_tokens:,}",
            usd(own.cost_micros_usd),
            *_cells(counts, row.with_subruns),
        )
    return sheet


def spend_sheet(found: Spend) -> Sheet:
    """Return spend by its dimensions as a table, with a line of the total."""
    names = [name.removeprefix("tag:").capitalize() for name in found.by] or ["Spend"]
    counts = _counts(found.rows)
    by = ", ".join(f"{name} ({found.zone})" if name in UNITS else name for name in found.by)
    sheet = Sheet(
        columns=[*(Column(heading=name, left=True) for name in names), *_columns(counts)],
        title=f"Spend by {by}" if by else "Spend",
    )
    lines = (
        (
            [
                text(f"{value} ({row.groups:,})" if row.groups > 1 and value else value)
                for value in row.group.values()
            ]
            or [text("Total")],
            row,
        )
        for row in found.rows
    )
    _fill(sheet, counts, lines, total=len(names) if len(found.rows) > 1 else 0)
    return sheet


def trend(found: Spend) -> list[str]:
    """Return the cost by time as a line of bars, where time is a dimension of spend."""
    unit = next((name for name in found.by if name in UNITS), None)
    if unit is None:
        return []
    costs: dict[str, int] = {}
    for row in found.rows:
        at = str(row.group[unit])
        if at != OTHER:
            costs[at] = costs.get(at, 0) + row.cost_micros_usd
    if len(costs) < 2:  # noqa: PLR2004 - one bar is no trend
        return []
    times = list(costs)  # the rows come in order of time
    bars = sparkline([costs[at] for at in times])
    return [f"USD by {unit}, {times[0]} to {times[-1]} (those with entries): {bars}"]


_Counts = Sequence[tuple[str, str, int]]


def _counts(rows: Iterable[Figures]) -> _Counts:
    """Return the counts that a table shows: heading, figure and rank of each."""
    known = list(rows)
    found = (one for one in _WHERE_ANY if any(getattr(row, one[1]) for row in known))
    return (*_COUNTS, *found)


def _fill(
    sheet: Sheet,
    counts: _Counts,
    lines: Iterable[tuple[Sequence[Cell], Figures]],
    *,
    total: int,
) -> None:
    parts = []
    for names, row in lines:
        sheet.add(*names, *_cells(counts, row))
        parts.append(row)
    if total:
        sheet.add_section()
        sheet.add("Total", *[""] * (total - 1), *_cells(counts, Figures(**added(parts))))


def _columns(counts: _Counts) -> list[Column]:
    return [
        *(Column(heading=heading, rank=rank) for heading, _name, rank in counts),
        Column(heading="Cost\nUSD"),
        Column(heading="Estimated\nUSD", rank=5),
        Column(heading="First", rank=7),
        Column(heading="Last", rank=6),
        *(Column(heading=heading, wide=True) for heading, _name in _WIDE_COUNTS),
        *(Column(heading=f"{part.capitalize()}\nUSD", wide=True) for part in PROVENANCES),
    ]


def _cells(counts: _Counts, row: Figures) -> list[str]:
    return [
        *(f"{getattr(row, name):,}" for _heading, name, _rank in counts),
        usd(row.cost_micros_usd),
        usd(row.estimated_cost_micros_usd),
        moment(row.first_at),
        moment(row.last_at),
        *(f"{getattr(row, name):,}" for _heading, name in _WIDE_COUNTS),
        *(usd(getattr(row, f"cost_micros_usd_{part}")) for part in PROVENANCES),
    ]
