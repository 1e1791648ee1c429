"""Where a report goes: to the terminal, to a program, or onto a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.cli.common import Format, emit, show, stdout
from ledger.reports.charts import Picture
from ledger.reports.page import Document, Section, write_page
from ledger.reports.render import Sheet, printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Html = Annotated[
    Path | None,
    typer.Option(
        "--html", help="Write a page into this file instead of printing.", show_default=False
    ),
]


def give(
    rows: Iterable[DataclassInstance],
    kind: type[DataclassInstance],
    output_format: Format,
    sheets: Callable[[], Sequence[Sheet]],
    *,
    url: str,
    html: Path | None = None,
    wide: bool = False,
    notes: Sequence[str] = (),
    pictures: Callable[[], Sequence[Picture]] = tuple,
    dimensions: Sequence[str] = (),
) -> None:
    """Print a report in the format that was asked for, or write it onto a page.

    Args:
        rows: The rows, for programs.
        kind: Their type.
        output_format: How they are printed.
        sheets: Makes the tables for people.
        url: The store's address, without its password.
        html: The file that a page goes into.
        wide: Whether tables show every column.
        notes: What is said below the tables.
        pictures: Draws what a page shows above the tables.
        dimensions: The names of the rows' own groups.

    Raises:
        InvalidInputError: The file cannot be written.
        MissingExtraError: The extra `html` is not installed.
    """
    if html is None:

        def people() -> None:
            for sheet in sheets():
                show(sheet, wide=wide)
            for note in notes:
                stdout().print(note, markup=False, soft_wrap=True)

        emit(rows, kind, output_format, people, dimensions=dimensions)
        return
    tables = sheets()
    title = tables[0].title or "Report"
    section = Section(title=title, notes=notes, pictures=pictures(), sheets=tables)
    page = Document(title=title, store=url, at=datetime.now(UTC), sections=[section])
    write_page(page, html)
    said_written(html)


def said_written(file: Path) -> None:
    """Say that a file was written."""
    stdout().print(printable(f"wrote {file}"), markup=False, soft_wrap=True)
