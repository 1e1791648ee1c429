"""What every command shares: options, consoles, opening the store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ledger.book import DEFAULT_URL, Ledger
from ledger.checks import U64_MAX
from ledger.model import SharedPoolBudgetOptions
from ledger.simulate import parse_usd

_PIPED_WIDTH = 200

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="LEDGER_URL",
        help="The store: sqlite:///ledger.db or postgresql://user@host/database.",
    ),
]
PoolName = Annotated[str, typer.Argument(help="The pool's name.", show_default=False)]
CapacityTokens = Annotated[
    int | None,
    typer.Option(min=0, help="Capacity in tokens; unlimited without it.", show_default=False),
]
CapacityUsd = Annotated[
    str | None,
    typer.Option(help="Capacity in US dollars; unlimited without it.", show_default=False),
]
StopTokens = Annotated[
    int, typer.Option("--stop-threshold-tokens", min=0, help="Tokens that are kept back.")
]
StopUsd = Annotated[
    str, typer.Option("--stop-threshold-usd", help="US dollars that are kept back.")
]

URL_DEFAULT = DEFAULT_URL


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


OutputFormat = Annotated[
    Format, typer.Option("--format", help="A table for people, JSON or CSV for programs.")
]


def stdout() -> Console:
    """Return the console for results; when piped it is wide, so that no figure is cut."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def stderr() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, highlight=False)


def show_table(table: Table, *, title: str | None = None) -> None:
    """Print a table under its title, and a blank line after it."""
    console = stdout()
    if title is not None:
        console.print(title, style="bold", markup=False)
    console.print(table)
    console.print()


def existing(url: str) -> Ledger:
    """Open a store that must be there already: reading makes nothing."""
    return Ledger.open(url, create=False)


def progress_bar() -> Progress:
    """Return a progress bar on standard error, silent where that is no terminal."""
    console = stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def policy(
    capacity_tokens: int | None, capacity_usd: str | None, stop_tokens: int, stop_usd: str
) -> SharedPoolBudgetOptions:
    """Return the policy that a command's options ask for."""
    return SharedPoolBudgetOptions(
        capacity_tokens=U64_MAX if capacity_tokens is None else capacity_tokens,
        capacity_cost_micros_usd=(
            U64_MAX if capacity_usd is None else parse_usd("--capacity-usd", capacity_usd)
        ),
        stop_threshold_tokens=stop_tokens,
        stop_threshold_cost_micros_usd=parse_usd("--stop-threshold-usd", stop_usd),
    )
