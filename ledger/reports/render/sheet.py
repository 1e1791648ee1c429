"""Tables for people: they fit their columns to the terminal and never cut a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ledger.reports.render.text_formats import printable

Cell = str | Text

_GAP = 2
"""How many spaces separate two columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        heading: Its heading, on one line or two.
        rank: 0 if it is always shown. If the terminal is too narrow, columns with the highest rank
            are left out first.
        wide: Whether it is shown only if every column is asked for.
        left: Whether it is aligned to the left, because it holds words and not figures.
    """

    heading: str
    rank: int = 0
    wide: bool = False
    left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table's columns and rows, before it is fitted to a width.

    Attributes:
        columns: Its columns.
        rows: Its lines, a cell for each column; None is a gap between sections.
        title: The text above it.
    """

    columns: Sequence[Column]
    rows: list[Sequence[Cell] | None] = field(default_factory=list)
    title: str | None = None

    def add(self, *cells: Cell) -> None:
        """Add a line."""
        self.rows.append(cells)

    def add_section(self) -> None:
        """Add a gap between sections."""
        self.rows.append(None)

    def shown(self, *, width: int | None = None, wide: bool = False) -> list[int]:
        """Return which columns are shown.

        Args:
            width: How many characters a line may have; None is no limit.
            wide: Show every column, whatever the width.
        """
        everything = range(len(self.columns))
        if wide:
            return list(everything)
        kept = [number for number in everything if not self.columns[number].wide]
        widths = {number: self._width(number) + _GAP for number in kept}
        while width is not None and sum(widths.values()) - 1 > width:
            # Of two columns of the same rank, the one on the right is left out first.
            last = max(widths, key=lambda number: (self.columns[number].rank, number))
            if self.columns[last].rank == 0:
                break
            del widths[last]
        return list(widths)

    def table(self, *, width: int | None = None, wide: bool = False) -> Table:
        """Return the table with the columns for which there is room."""
        shown = self.shown(width=width, wide=wide)
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for number in shown:
            column = self.columns[number]
            left = number == 0 or column.left
            table.add_column(
                _heading(column.heading), justify="left" if left else "right", no_wrap=True
            )
        for row in self.rows:
            if row is None:
                table.add_section()
            else:
                table.add_row(*(row[number] for number in shown))
        return table

    def left_out(self, *, width: int | None = None, wide: bool = False) -> list[str]:
        """Return the headings of the columns for which there is no room."""
        shown = set(self.shown(width=width, wide=wide))
        return [
            " ".join(column.heading.split("\n"))
            for number, column in enumerate(self.columns)
            if number not in shown and not column.wide
        ]

    def _width(self, number: int) -> int:
        cells = [row[number] for row in self.rows if row is not None]
        lines = self.columns[number].heading.split("\n")
        return max(
            cell.cell_len if isinstance(cell, Text) else cell_len(cell) for cell in [*lines, *cells]
        )


def _heading(heading: str) -> Text:
    """Return a heading in which a tag's name is text, without markup or control characters."""
    return Text("\n".join(map(printable, heading.split("\n"))))


def columns(first: str, *others: str) -> list[Column]:
    """Return columns that are all always shown: the first names the lines."""
    return [Column(heading=heading) for heading in (first, *others)]
