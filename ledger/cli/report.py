"""`ledger report`: reports from the rows, most of them about the entries of a filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from ledger import reports
from ledger.cli.balances import credits, forecast, statement
from ledger.cli.common import (
    URL_DEFAULT,
    Url,
    existing,
    tell_left_out,
)
from ledger.cli.filters import (
    Now,
    Zone,
    filtered,
    length_s,
    moment_in,
    tell_unmatched,
)
from ledger.cli.output import Output, printed
from ledger.cli.page import chart, page
from ledger.core.calendar import zone_named
from ledger.core.errors import LeftOut
from ledger.reports.charts import (
    ON_PAGE,
    estimates_picture,
    runs_picture,
    spend_picture,
)
from ledger.reports.render import (
    Sheet,
    denials_sheet,
    denied_groups_sheet,
    estimates_sheet,
    held_sheet,
    late_uses_sheet,
    lease_ages_sheet,
    run_trees_sheet,
    runs_sheet,
    spend_sheet,
    stale_leases_sheet,
    trend,
)
from ledger.simulate import parse_count, parse_usd

app = typer.Typer(help="Reports from the rows of the journal.", no_args_is_help=True)
app.command("page")(page)
app.command("chart")(chart)
app.command("statement")(statement)
app.command("credits")(credits)
app.command("forecast")(forecast)


@app.command("runs")
@printed
@filtered
def runs(
    *,
    tree: Annotated[
        bool,
        typer.Option(
            "--tree",
            help="Show each run with the total of its sub-runs, and the sub-runs below it.",
        ),
    ] = False,
    url: Url = URL_DEFAULT,
    output: Output,
    where: reports.Filter,
) -> None:
    """Print what each run cost: requests, denials, tokens, estimated against actual, cost.

    Example: ledger report runs --pool team --since 2024-02-01 --format csv
    """
    lost: LeftOut = []
    with existing(url) as book:
        tell_unmatched(book, where)
        if tree:
            trees = reports.run_trees(book, where, left_out=lost)
            output.give(
                trees,
                reports.RunTree,
                lambda: [run_trees_sheet(trees)],
                book=book,
                due=reports.due(book, where, left_out=[]),
            )
        else:
            rows = reports.runs(book, where, left_out=lost)
            output.give(
                rows,
                reports.RunCost,
                lambda: [runs_sheet(rows)],
                book=book,
                due=reports.due(book, where, left_out=[]),
                pictures=lambda: [runs_picture(rows, ON_PAGE)],
            )
    tell_left_out(lost)


@app.command("spend")
@printed
@filtered
def spend(
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="What to group by, with commas between, or given again: hour, day, week, month, "
            "model, provider, tenant, agent, operation, run, pool, tag:NAME.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=0, help="Only this many groups, by cost; the others become one row."),
    ] = None,
    zone: Zone = "UTC",
    url: Url = URL_DEFAULT,
    output: Output,
    where: reports.Filter,
) -> None:
    """Print spend grouped by time, model, tenant, tag and the like, in any combination.

    Example: ledger report spend --by month,model --zone Europe/Berlin --top 10
    """
    lost: LeftOut = []
    with existing(url) as book:
        tell_unmatched(book, where)
        found = reports.spend(
            book, where, by=_names(by or ["model"]), zone=zone, top=top, left_out=lost
        )
        by_day = {"day", "model"} == set(found.by)
        output.give(
            found.rows,
            reports.SpendRow,
            lambda: [spend_sheet(found)],
            book=book,
            notes=trend(found),
            due=reports.due(book, where, left_out=[]),
            pictures=lambda: [spend_picture(found, ON_PAGE)] if by_day else [],
            dimensions=found.by,
        )
    tell_left_out(lost)


@app.command("estimates")
@printed
@filtered
def estimates(
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="What to group by, with commas between, or given again: model, provider, tenant, "
            "agent, operation, run, pool, tag:NAME. By default model and operation.",
            show_default=False,
        ),
    ] = None,
    try_tokens: Annotated[
        str | None, typer.Option(help="Try this estimate for every call.", show_default=False)
    ] = None,
    try_usd: Annotated[
        str | None,
        typer.Option(help="Try this estimate for every call, in US dollars.", show_default=False),
    ] = None,
    url: Url = URL_DEFAULT,
    output: Output,
    where: reports.Filter,
) -> None:
    """Print how good estimates were, and what another estimate would have wasted or overrun.

    Example: ledger report estimates --by model --try-tokens 2000
    """
    names = _names(by or ["model", "operation"])
    fixed_tokens = None if try_tokens is None else parse_count("--try-tokens", try_tokens)
    fixed_usd = None if try_usd is None else parse_usd("--try-usd", try_usd)
    lost: LeftOut = []
    with existing(url) as book:
        tell_unmatched(book, where)
        rows = reports.estimates(
            book,
            where,
            by=names,
            fixed_tokens=fixed_tokens,
            fixed_cost_micros_usd=fixed_usd,
            left_out=lost,
        )
        output.give(
            rows,
            reports.EstimateQuality,
            lambda: [estimates_sheet(rows, names), held_sheet(rows, names)],
            book=book,
            pictures=lambda: [estimates_picture(rows, ON_PAGE)],
            dimensions=names,
        )
    tell_left_out(lost)


class LeaseList(StrEnum):
    """Which leases are printed for programs."""

    AGES = "ages"
    STALE = "stale"
    LATE = "late"


@app.command("leases")
@printed
@filtered
def leases(
    *,
    stale_after: Annotated[
        str, typer.Option(help="From what age on an open lease is stale: 90s, 10m, 1h, 7d.")
    ] = "1h",
    listed: Annotated[
        LeaseList,
        typer.Option("--list", help="Which list JSON and CSV hold; a table shows all three."),
    ] = LeaseList.AGES,
    now: Now = None,
    zone: Zone = "UTC",
    url: Url = URL_DEFAULT,
    output: Output,
    where: reports.Filter,
) -> None:
    """Print leases that have not ended by age, those that are stale, and those used after expiry.

    Example: ledger report leases --stale-after 10m --list stale --format csv
    """
    at = moment_in("--now", now, zone_named(zone))
    lost: LeftOut = []
    with existing(url) as book:
        tell_unmatched(book, where)
        found = reports.leases(
            book,
            where,
            now=at,
            stale_after_s=length_s("--stale-after", stale_after),
            left_out=lost,
        )

        def sheets() -> list[Sheet]:
            stale = [stale_leases_sheet(found)] if found.stale else []
            late = [late_uses_sheet(found)] if found.late else []
            return [lease_ages_sheet(found), *stale, *late]

        lists: dict[LeaseList, tuple[Sequence[Any], type[Any]]] = {
            LeaseList.AGES: (found.ages, reports.LeaseAge),
            LeaseList.STALE: (found.stale, reports.AgedLease),
            LeaseList.LATE: (found.late, reports.LateUse),
        }
        rows, kind = lists[listed]
        output.give(rows, kind, sheets, book=book)
    tell_left_out(lost)


@app.command("denials")
@printed
@filtered
def denials(
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="What to group by, with commas between, or given again: run, tenant, agent, "
            "model, provider, operation, reason. By default each denial is a line.",
            show_default=False,
        ),
    ] = None,
    url: Url = URL_DEFAULT,
    output: Output,
    where: reports.Filter,
) -> None:
    """Print denied calls, and how much more capacity would have admitted them.

    Example: ledger report denials --pool team --by agent,model
    """
    lost: LeftOut = []
    with existing(url) as book:
        tell_unmatched(book, where)
        if not by:
            found = reports.denials(book, where, left_out=lost)
            output.give(
                found,
                reports.Denied,
                lambda: [_kept(denials_sheet(found))],
                book=book,
            )
        else:
            names = _names(by)
            groups = reports.denials_by(book, where, by=names, left_out=lost)
            output.give(
                groups,
                reports.DeniedGroup,
                lambda: [_kept(denied_groups_sheet(groups, names))],
                book=book,
                dimensions=names,
            )
    tell_left_out(lost)


def _kept(sheet: Sheet) -> Sheet:
    """Say in an empty table's title which denials are kept: none there does not mean none was."""
    if sheet.rows:
        return sheet
    none = (
        "none (those of calls with an idempotency key are kept, and where books are opened with "
        "record_denials=True all of them)"
    )
    return replace(sheet, title=f"{sheet.title}: {none}")


def _names(texts: Sequence[str]) -> list[str]:
    return [name for text in texts for name in text.split(",") if name]
