"""The output of a report: to the terminal, to a program, or into a page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger import reports
from ledger.cli.common import OutputFormat, PrintFormat, Wide, emit, show, stderr, stdout
from ledger.cli.gathered import gathered
from ledger.ledger import Ledger
from ledger.reports.charts import Picture
from ledger.reports.output_file import Target
from ledger.reports.page import Document, Section, write_page
from ledger.reports.render import Sheet, behind, not_yet_charged, printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Write a page into this file instead of printing; - for standard output.",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace a file that ledger did not write. Databases are never replaced."
    ),
]
_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


@dataclass(frozen=True)
class Output:
    """What was asked of a report's output.

    Attributes:
        format: How it is printed.
        wide: Whether tables show every column.
        html: The file that a page goes into instead.
        force: Whether the page may replace a file that this library did not write.
    """

    format: PrintFormat
    wide: bool
    html: Path | None
    force: bool

    def give(
        self,
        rows: Iterable[DataclassInstance],
        kind: type[DataclassInstance],
        sheets: Callable[[], Sequence[Sheet]],
        *,
        book: Ledger,
        notes: Sequence[str] = (),
        due: reports.DueLeases | None = None,
        pictures: Callable[[], Sequence[Picture]] = tuple,
        dimensions: Sequence[str] = (),
        within: DataclassInstance | None = None,
    ) -> None:
        """Print a report in the format that was asked for, or write it onto a page.

        Args:
            rows: The rows, for programs.
            kind: The type of the rows.
            sheets: Makes the tables for people.
            book: The store that the report is about.
            notes: The notes below the tables.
            due: The leases that the report would count once they expire; said on standard error
                where programs read the report.
            pictures: Draws the pictures that a page shows above the tables.
            dimensions: The names of the dimensions that the rows are grouped by.
            within: What the rows are the lines of, which JSON says around them.

        Raises:
            ExportError: The file cannot be written, or must not be replaced.
            MissingExtraError: The extra `html` is not installed.
        """
        waiting = [] if due is None else not_yet_charged(due)
        notes = [*notes, *waiting]
        if self.html is None:
            if self.format is not PrintFormat.TABLE:
                for line in waiting:
                    stderr().print(line, markup=False, soft_wrap=True)

            def people() -> None:
                for sheet in sheets():
                    show(sheet, wide=self.wide)
                for note in notes:
                    stdout().print(printable(note), markup=False, soft_wrap=True)

            emit(rows, kind, self.format, people, dimensions=dimensions, within=within)
            return
        tables = sheets()
        title = tables[0].title or "Report"
        section = Section(title=title, notes=notes, pictures=pictures(), sheets=tables)
        page = Document(
            title=title,
            store=book.url,
            at=datetime.now(UTC),
            about=behind(book.standby()),
            sections=[section],
        )
        write_page(page, target(self.html), force=self.force, keep=book.files)
        said_written(self.html)


def chosen(
    output_format: OutputFormat = PrintFormat.TABLE,
    wide: Wide = False,
    html: Html = None,
    force: Force = False,
) -> Output:
    """Return the output that a command's options make."""
    return Output(format=output_format, wide=wide, html=html, force=force)


printed = gathered("output", chosen)
"""Gives a command the options of a report's output; it gets them as `output`."""


def target(file: str | Path) -> Target:
    """Return the target to write to: a stream for each name of standard output, else the file."""
    return sys.stdout.buffer if str(file) in _STDOUT else file


def said_written(file: Path) -> None:
    """Print that a file was written, unless the file is standard output."""
    if str(file) not in _STDOUT:
        stdout().print(printable(f"wrote {file}"), markup=False, soft_wrap=True)
