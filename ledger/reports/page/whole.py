"""The page about the books: the document of an overview."""

from __future__ import annotations

from dataclasses import replace

from ledger.reports.charts import (
    ON_PAGE,
    Picture,
    burn_down_pictures,
    estimates_picture,
    most_expensive,
    runs_picture,
    spend_picture,
)
from ledger.reports.filters import Filter
from ledger.reports.overview import Overview
from ledger.reports.page.document import Document, Section, Tile
from ledger.reports.render import (
    Column,
    Sheet,
    behind,
    counted,
    estimates_sheet,
    lease_ages_sheet,
    moment,
    not_yet_charged,
    pools_sheet,
    runs_sheet,
    spend_sheet,
    stale_leases_sheet,
    text,
    usd,
)

_RUNS, _LEASES = 20, 100
"""How many runs and leases are drawn or listed at most; the page states their number."""


def whole_page(found: Overview) -> Document:
    """Return the page of an overview.

    Raises:
        MissingExtraError: The extra `html` is not installed.
    """
    return Document(
        title="Budgets and spend",
        store=found.store,
        at=found.at,
        about=". ".join(filter(None, (described(found.where), behind(found.standby)))),
        tiles=_tiles(found),
        sections=[
            _pools(found),
            Section(
                title="Spend per day by model",
                notes=not_yet_charged(found.due),
                pictures=[spend_picture(found.spend, ON_PAGE)] if found.spend.rows else [],
                sheets=[spend_sheet(found.spend)],
            ),
            _runs(found),
            Section(
                title="Estimated against actual",
                notes=["Calls that were settled and had an estimate above 0, by model."],
                pictures=[estimates_picture(found.estimates, ON_PAGE)] if found.estimates else [],
                sheets=[estimates_sheet(found.estimates, ["model"])],
            ),
            _leases(found),
            _verification(found),
            *([_left_out(found)] if found.left_out else []),
        ],
    )


def described(where: Filter) -> str:
    """Return in words which entries a filter selects; an empty text for all of them."""
    parts = []
    if where.pools:
        below = " and the pools below" if where.descendants else ""
        parts.append(f"pools: {', '.join(where.pools)}{below}")
    parts += [
        f"{name.removesuffix('_id')}: {value}"
        for name in (
            *("parent", "matching", "state"),
            *("run_id", "tenant", "agent", "operation", "provider", "model"),
        )
        if (value := getattr(where, name)) is not None
    ]
    parts += [f"tag {name}={value}" for name, value in where.tags.items()]
    parts += [
        f"{name}: {at.isoformat()}"
        for name, at in (("since", where.since), ("until", where.until))
        if at is not None
    ]
    if where.as_of is not None:
        parts.append(f"as of entry {where.as_of:,}")
    return f"Only {'; '.join(parts)}" if parts else ""


def _pools_note(found: Overview, out: int) -> str:
    note = f"{out:,} at or below the stop threshold" if out else "all with budget left"
    lost = len({error.pool for error in found.left_out})
    return f"{note}; damaged and left out: {lost:,}" if lost else note


def _left_out(found: Overview) -> Section:
    return Section(
        title="Left out",
        notes=[
            "These pools are damaged; what is above is without them, or without what follows.",
            *(str(error) for error in found.left_out),
        ],
    )


def _tiles(found: Overview) -> list[Tile]:
    total = found.spend.total
    out = [one for one in found.pools if one.remaining.below_threshold]
    damaged = [one for one in found.verified or [] if not one.ok]
    checked = sum(one.entries for one in found.verified or [])
    return [
        Tile(
            name="Spent, USD",
            figure=usd(total.cost_micros_usd),
            note=f"{counted(total.total_tokens, 'token')}, {counted(total.requests, 'request')}"
            + (f", {total.unpriced:,} unpriced" if total.unpriced else "")
            + "".join(f"; {line}" for line in not_yet_charged(found.due)),
            bad=bool(total.unpriced or any(found.due.charged)),
        ),
        Tile(
            name="Pools",
            figure=f"{len(found.pools):,}",
            note=_pools_note(found, len(out)),
            bad=bool(out or found.left_out),
        ),
        Tile(
            name="Denied",
            figure=f"{total.denied:,}",
            note="of those that were kept",
        ),
        Tile(
            name="Open leases",
            figure=f"{sum(row.leases - row.expired for row in found.leases.ages):,}",
            note=f"{usd(sum(row.held.cost_micros_usd for row in found.leases.ages))} USD held; "
            f"{sum(row.expired for row in found.leases.ages):,} expired",
        ),
        Tile(
            name="Verification",
            figure="not asked" if found.verified is None else "DAMAGED" if damaged else "ok",
            note=""
            if found.verified is None
            else f"{counted(checked, 'entry', 'entries')} found good",
            bad=bool(damaged),
        ),
    ]


def _pools(found: Overview) -> Section:
    drawn = len(found.burn_downs)
    pictures: list[Picture] = [
        picture for one in found.burn_downs for picture in burn_down_pictures(one, ON_PAGE).values()
    ]
    notes = ["Spent is what was spent in the present window, without windows from the opening on."]
    if drawn < len(found.pools):
        notes.append(f"Drawn are the {drawn} of {len(found.pools):,} pools that have spent most.")
    if found.closed:
        notes.append(f"Not listed, and counted below: {counted(found.closed, 'closed pool')}.")
    listed = pools_sheet(found.pools, found.unpriced)
    sheet = replace(listed, title=counted(len(found.pools), "pool"))
    return Section(title="Pools", notes=notes, pictures=pictures, sheets=[sheet])


def _runs(found: Overview) -> Section:
    dearest = most_expensive(found.runs, _RUNS)
    title = f"{counted(len(dearest), 'run')} of {len(found.runs):,}, the most expensive first"
    return Section(
        title="The most expensive runs",
        pictures=[runs_picture(found.runs, ON_PAGE)] if dearest else [],
        sheets=[replace(runs_sheet(dearest), title=title)],
    )


def _leases(found: Overview) -> Section:
    aged = found.leases
    sheets = [lease_ages_sheet(aged)]
    notes = []
    if aged.stale:
        sheets.append(stale_leases_sheet(replace(aged, stale=aged.stale[:_LEASES])))
    if len(aged.stale) > _LEASES:
        notes.append(f"Listed are the {_LEASES} oldest of {len(aged.stale):,} stale leases.")
    return Section(title="Leases", notes=notes, sheets=sheets)


def _verification(found: Overview) -> Section:
    if found.verified is None:
        return Section(
            title="Verification",
            notes=["The journal was not verified: this page does not say that it is undamaged."],
        )
    sheet = Sheet(
        columns=[
            Column(heading="Pool"),
            Column(heading="Result", left=True),
            Column(heading="Good\nentries"),
            Column(heading="Hash of the last one", left=True),
        ],
        title=f"Every entry was checked by {moment(found.at)}",
    )
    for one in found.verified:
        damage = "ok"
        if one.damage is not None:
            at = f" at entry {one.damage.seq:,}" if one.damage.seq else ""
            damage = f"DAMAGED{at}: {one.damage.reason}"
        sheet.add(text(one.pool.name), text(damage), f"{one.entries:,}", one.hash.hex())
    indexes = "The store's indexes, too, as far as its database can check them."
    if found.where.pools or found.where.narrowed:
        indexes = "Not the store's indexes: 'ledger verify' of the whole store checks these, too."
    return Section(
        title="Verification",
        notes=[
            "Order, hashes, verdicts, totals and leases of every entry.",
            indexes,
            "Keep the hashes outside the store: a rewritten journal cannot have them again.",
        ],
        sheets=[sheet],
    )
