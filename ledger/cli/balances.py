"""`ledger report statement`, `credits`, `forecast`: reports about the balance of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from ledger import reports
from ledger.cli.common import URL_DEFAULT, PoolName, PrintFormat, Url, existing, tell_left_out
from ledger.cli.filters import (
    AsOfOption,
    Now,
    RecordedOption,
    Since,
    Until,
    Zone,
    basis_of,
    length_s,
    moment_in,
)
from ledger.cli.output import Output, printed
from ledger.core.calendar import zone_named
from ledger.core.errors import LeftOut
from ledger.reports.charts import ON_PAGE, burn_down_pictures
from ledger.reports.render import (
    assumptions,
    burned,
    credits_sheet,
    forecast_sheet,
    statement_lines_sheet,
)


@printed
def statement(
    *,
    pool: PoolName,
    since: Since = None,
    until: Until = None,
    zone: Zone = "UTC",
    as_of: AsOfOption = None,
    url: Url = URL_DEFAULT,
    output: Output,
) -> None:
    """Print a pool's statement: opening balance, a line for each entry, closing balance.

    Times are those at which entries were recorded: balances exist only in that order.

    Example: ledger report statement team --since 2024-02-01 --until 2024-03-01
    """
    clock = zone_named(zone)
    with existing(url) as book:
        found = reports.statement(
            book,
            pool,
            since=moment_in("--since", since, clock),
            until=moment_in("--until", until, clock),
            as_of=as_of,
        )
        lines = reports.statement_lines(book, found)
        output.give(
            lines,
            reports.StatementLine,
            lambda: [statement_lines_sheet(found, lines)],
            book=book,
            due=found.due,
            within=found,
        )


@printed
def credits(
    *,
    pool: Annotated[
        str | None,
        typer.Argument(help="Only this pool; by default all pools.", show_default=False),
    ] = None,
    now: Now = None,
    zone: Zone = "UTC",
    as_of: AsOfOption = None,
    url: Url = URL_DEFAULT,
    output: Output,
) -> None:
    """Print the credits of prepaid pools: what is used, left, and lost since they expired.

    Example: ledger report credits team --format csv
    """
    lost: LeftOut = []
    at = moment_in("--now", now, zone_named(zone))
    where = reports.Filter(pools=[] if pool is None else [pool], as_of=as_of)
    with existing(url) as book:
        found = reports.credits(book, where, now=at, left_out=lost)
        output.give(found, reports.PoolCredit, lambda: [credits_sheet(found)], book=book)
    tell_left_out(lost)


@printed
def forecast(
    *,
    pool: PoolName,
    window: Annotated[
        str,
        typer.Option(help="The length of past time that gives the rate of spend: 12h, 7d, 30d."),
    ] = "7d",
    now: Now = None,
    zone: Zone = "UTC",
    as_of: AsOfOption = None,
    recorded: RecordedOption = False,
    url: Url = URL_DEFAULT,
    output: Output,
) -> None:
    """Print when a pool runs out if spend goes on at its recent rate.

    Example: ledger report forecast team --window 30d
    """
    with existing(url) as book:
        found = reports.forecast(
            book,
            pool,
            window=timedelta(seconds=length_s("--window", window)),
            now=moment_in("--now", now, zone_named(zone)),
            as_of=as_of,
            basis=basis_of(recorded=recorded),
        )
        history = reports.burn_down(book, pool, as_of=as_of, basis=found.basis)
        rows: Sequence[Any] = found.axes if output.format is PrintFormat.CSV else [found]
        output.give(
            rows,
            reports.AxisForecast,
            lambda: [forecast_sheet(found)],
            book=book,
            notes=[assumptions(found), *burned(history)],
            due=found.due,
            pictures=lambda: list(burn_down_pictures(history, ON_PAGE).values()),
        )
