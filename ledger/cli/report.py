"""`ledger report`: reports from the rows."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import URL_DEFAULT, Format, OutputFormat, Url, existing, show_table
from ledger.reports.render import as_csv, as_json, runs_table

app = typer.Typer(help="Reports from the rows of the journal.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `runs` a command of its own while it is the only one."""


@app.command("runs")
def runs(
    pool: Annotated[
        str | None,
        typer.Option(help="Only this pool; all of them without it.", show_default=False),
    ] = None,
    url: Url = URL_DEFAULT,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Print what each run cost: requests, denials, tokens, estimated against actual, cost.

    Example: ledger report runs --pool team --format csv > runs.csv
    """
    with existing(url) as book:
        rows = reports.runs(book, pool=pool)
    if output_format is Format.JSON:
        as_json(rows, sys.stdout)
    elif output_format is Format.CSV:
        as_csv(rows, reports.RunCost, sys.stdout)
    else:
        show_table(runs_table(rows), title="Cost per run")
