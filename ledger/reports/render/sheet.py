"""Tables for people: they fit their columns to the terminal and never cut a figure.

Lines are put together here: Rich's own tables measure and fold each cell several times over, which
took 1.5 s for 1,500 pools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style
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
        # Of two columns of the same rank, the one on the right is left out first.
        kept.sort(key=lambda number: self.columns[number].rank)
        shown, taken = [], -1
        for number in kept:
            more = self._width(number) + _GAP
            # A column that is too wide leaves its room to those that matter less.
            if self.columns[number].rank == 0 or width is None or taken + more <= width:
                shown.append(number)
                taken += more
        return sorted(shown)

    def fitted(self, *, width: int | None = None, wide: bool = False) -> FittedSheet:
        """Return the lines with the columns for which there is room."""
        shown = self.shown(width=width, wide=wide)
        return FittedSheet(
            headings=[self.columns[number].heading.split("\n") for number in shown],
            left=[number == 0 or self.columns[number].left for number in shown],
            widths=[self._width(number) for number in shown],
            rows=[row and [row[number] for number in shown] for row in self.rows],
        )

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
        return max(map(_length, [*map(printable, lines), *cells]))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSheet:
    """The lines of a sheet, for Rich to print; none of them is folded.

    Attributes:
        headings: The lines of each column's heading.
        left: Whether each column is aligned to the left.
        widths: How wide each column is.
        rows: Its lines, a cell for each column; None is a gap between sections.
    """

    headings: Sequence[Sequence[str]]
    left: Sequence[bool]
    widths: Sequence[int]
    rows: Sequence[Sequence[Cell] | None]

    @property
    def width(self) -> int:
        """How many characters a line has, with the space behind it."""
        return sum(self.widths) + _GAP * (len(self.widths) - 1) + 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield the lines: headings stand at the bottom of theirs, above a rule."""
        heads = zip_longest(*(reversed(lines) for lines in self.headings), fillvalue="")
        for cells in reversed(list(heads)):
            # A tag's name is text there, without markup or control characters.
            yield from self._line([printable(cell) for cell in cells], console, Style(bold=True))
        yield Segment("\u2500" * self.width + "\n")
        gap, drawn = False, False
        for row in self.rows:
            if row is None:
                gap = drawn
            else:
                if gap:
                    yield Segment.line()
                yield from self._line(row, console)
                gap, drawn = False, True

    def _line(
        self, cells: Sequence[Cell], console: Console, style: Style | None = None
    ) -> Iterator[Segment]:
        plain = ""
        for cell, width, left in zip(cells, self.widths, self.left, strict=True):
            pad = " " * (width - _length(cell))
            plain += "" if left else pad
            if isinstance(cell, str):
                plain += cell
            elif not cell.spans and not cell.style:
                plain += cell.plain
            else:
                yield Segment(plain, style)
                yield from Text.assemble(cell).render(console)
                plain = ""
            plain += f"{pad if left else ''}{' ' * _GAP}"
        yield Segment(plain.rstrip(" "), style)
        yield Segment.line()


def _length(cell: Cell) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)


def columns(first: str, *others: str) -> list[Column]:
    """Return columns that are all always shown: the first names the lines."""
    return [Column(heading=heading) for heading in (first, *others)]
