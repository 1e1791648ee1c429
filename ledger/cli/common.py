"""The parts that every command shares: options, consoles, opening the store."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypedDict, Unpack

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledger.cli.exit_codes import ExitCode
from ledger.core.errors import JournalDamagedError, LedgerError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.ledger import DEFAULT_TIMEOUT_S, DEFAULT_URL, Ledger
from ledger.reports.output_file import refuse_stream_into
from ledger.reports.render import Sheet, as_csv, as_json, behind, printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="LEDGER_URL",
        help="The store: sqlite:///ledger.db or postgresql://user@host/database.",
    ),
]
PoolName = Annotated[str, typer.Argument(help="The pool's name.", show_default=False)]
ActorOption = Annotated[
    str | None,
    typer.Option(
        "--actor",
        help="Who does this; the journal keeps it, with the database's role and your user name.",
        show_default=False,
    ),
]

URL_DEFAULT = DEFAULT_URL
NO_LIMITS = SharedPoolBudgetOptions()


class PrintFormat(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


OutputFormat = Annotated[
    PrintFormat, typer.Option("--format", help="A table for people, JSON or CSV for programs.")
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Show every column of the table, however wide it gets.")
]


class _Console(Console):
    """A console that raises an error if its pipe is closed; Rich would exit with 1 (damage)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def stdout() -> Console:
    """Return the console for results."""
    return _Console(highlight=False, emoji=False)


def stderr() -> Console:
    """Return the console for progress and errors."""
    return _Console(stderr=True, highlight=False, emoji=False)


def show(sheet: Sheet, *, wide: bool = False) -> None:
    """Print a table under its title, and a blank line after it.

    On a terminal that is too narrow the least important columns are left out. A file or a pipe gets
    all columns.
    """
    console = stdout()
    width = console.width if console.is_terminal else None
    table = sheet.fitted(width=width, wide=wide)
    # No figure is ever cut or folded: a terminal that is too narrow wraps the lines itself.
    console.width = max(console.width, table.width)
    if sheet.title is not None:
        console.print(printable(sheet.title), style="bold", markup=False, soft_wrap=True)
    console.print(table, crop=False)
    if not any(sheet.rows):
        console.print("none", style="dim")
    left_out = sheet.left_out(width=width, wide=wide)
    if left_out:
        said = printable(f"No room for: {', '.join(left_out)} (--wide)")
        console.print(said, style="dim", markup=False, soft_wrap=True)
    console.print()


def emit(
    rows: Iterable[DataclassInstance],
    kind: type[DataclassInstance],
    output_format: PrintFormat,
    people: Callable[[], object],
    *,
    dimensions: Sequence[str] = (),
    within: DataclassInstance | None = None,
) -> None:
    """Print rows in the format that was asked for.

    Args:
        rows: The rows, for programs.
        kind: The type of the rows.
        output_format: The format.
        people: Prints the rows for people.
        dimensions: The names of the dimensions that the rows are grouped by.
        within: The value whose lines the rows are; JSON writes it around them.
    """
    if output_format is PrintFormat.JSON:
        as_json(rows, sys.stdout, within=within)
    elif output_format is PrintFormat.CSV:
        as_csv(
            rows, kind, _Terminal() if sys.stdout.isatty() else sys.stdout, dimensions=dimensions
        )
    else:
        people()


class _Terminal(io.StringIO):
    """CSV on a terminal, with control characters shown as text; a pipe gets them unchanged."""

    def write(self, text: str) -> int:
        return sys.stdout.write("\n".join(map(printable, text.split("\n"))))


class _Acting(TypedDict, total=False):
    actor: str | None
    exact_costs: bool


def existing(
    url: str,
    *,
    writes: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    **acting: Unpack[_Acting],
) -> Ledger:
    """Open a store that must exist; print on standard error how far a standby is behind.

    Args:
        url: Its address.
        writes: Whether the command writes.
        timeout_s: How long each of its calls may wait.
        acting: The `actor` of a command that takes one, and whether it keeps exact costs; such a
            command writes.

    Raises:
        ExportError: Standard output is a file of the store itself (`>> ledger.db`).
    """
    read_only = not (writes or acting)
    book = Ledger.open(url, create=False, read_only=read_only, timeout_s=timeout_s, **acting)
    try:
        for stream in (sys.stdout, sys.stderr):
            refuse_stream_into(stream, book.files)
        if read_only and (said := behind(book.standby())):
            stderr().print(said, markup=False, soft_wrap=True)
    except LedgerError:
        book.close()
        raise
    return book


def tell_left_out(damaged: Iterable[JournalDamagedError]) -> None:
    """Print which damaged pools an answer leaves out, and why; the exit code is then 1.

    Raises:
        typer.Exit: At least one pool is left out.
    """
    lines = dict.fromkeys(f"left out: {error}" for error in damaged)
    for line in lines:
        stderr().print(printable(line), markup=False, soft_wrap=True)
    if lines:
        raise typer.Exit(ExitCode.FOUND)


def progress_bar() -> Progress:
    """Return a progress bar on standard error, which is silent if that is no terminal."""
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
