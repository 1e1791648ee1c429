"""Verify an export against the journal, cell by cell, up to the first difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ledger.core.axes import AMOUNTS
from ledger.core.checks import check_path, check_type
from ledger.core.errors import ExportError, LedgerError
from ledger.exports.columns import ColumnType, ExportCell, is_redacted
from ledger.exports.source import Extract, source
from ledger.exports.tables import TABLES, Container, ExportTable, Format, container_of
from ledger.exports.text import parsed, written
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.store.rows import Row

_FILTER = "; if the file was exported with a filter, verify it with the same filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first row of a file that differs from the journal.

    Attributes:
        row: Its number in the file, counted from 1 without the header. For a row that is missing at
            the end of the file, the number after the last row.
        pool: Its pool.
        seq: Its entry.
        reason: What differs.
    """

    row: int
    pool: str
    seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChecked:
    """What a file holds of one pool.

    Attributes:
        pool: The pool's name.
        rows: How many of the pool's rows are what the journal says.
        last_seq: The entry of the last of these rows, 0 if there is none.
        later: How many later entries the journal has that are not in the file.
    """

    pool: str
    rows: int
    last_seq: int
    later: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What verifying a file against the journal found.

    Attributes:
        table: What the file holds: `entries`, `FOCUS 1.2` or `FOCUS 1.4`.
        rows: How many rows, from the first on, agree with the journal.
        total_tokens: The tokens that these rows used, each counted in the pool where it was made.
        cost_micros_usd: What they cost, in millionths of a US dollar.
        pools: What the file holds of each pool.
        redacted: How many of these rows had an attribution that was erased from the journal since
            and could not be compared.
        difference: The first row that differs, None if there is none.
    """

    table: str
    rows: int
    total_tokens: int
    cost_micros_usd: int
    pools: Sequence[PoolChecked]
    redacted: int
    difference: Difference | None

    @property
    def ok(self) -> bool:
        """Tell whether every row agrees with the journal."""
        return self.difference is None


def verify(
    book: Ledger,
    path: str | Path,
    where: Where = EVERYTHING,
    *,
    format: Format | None = None,  # noqa: A002 - what it is called everywhere
    up_to: Mapping[str, int] | None = None,
) -> Checked:
    """Verify an export against the journal, in memory that does not grow with it.

    For each pool, every entry up to the last one in the file must be there, in order, and each cell
    must equal what would be exported now. Later entries of the journal are counted. They are a
    difference only if `up_to` or the filter names an end that includes them. `Ledger.verify` checks
    the journal itself.

    Args:
        book: The store.
        path: The file.
        where: The filter that the export was made with.
        format: The format of the file; by default by its ending.
        up_to: The `up_to` that the export was made with.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: The format cannot be told.
        MissingExtraError: The format's library is not installed.
        ExportError: The file cannot be read, or is no export.
        LedgerUnavailableError: The store cannot be read.
    """
    if format is not None:
        check_type("format", format, Format)
    file_path = check_path("path", path)
    container = container_of(file_path, format)
    try:
        with file_path.open("rb") as file:
            table, cells = _opened(container, file)
            found = source(book, where, table.columns, charges=table.charges, up_to=up_to)
            ends = {} if isinstance(where, str) or where.as_of is None else found.ends
            check = _Check(table, found, {**ends, **(up_to or {})})
            return check.run(cells)
    except LedgerError:
        raise
    except OSError as error:
        raise ExportError(path, error.strerror or str(error)) from error
    except Exception as error:  # a format's library may raise any error on other bytes
        raise ExportError(path, f"it is no export of these formats, or damaged: {error}") from error


def _opened(container: Container, file: BinaryIO) -> tuple[ExportTable, Iterator[Sequence[Any]]]:
    header, cells = container.read(file)
    for table in TABLES:
        # An empty JSON Lines file names no columns. It has no rows, so it is read as any table.
        if not header or header == [column.name for column in table.columns]:
            return table, cells
    raise ValueError(f"its columns are those of no export: {', '.join(header)[:80]}")


class _DiffersError(Exception):
    """A row differs from the journal."""


class _Check:
    """Compares a file with the journal, row by row."""

    def __init__(self, table: ExportTable, found: Extract, ends: Mapping[str, int]) -> None:
        self._table = table
        self._source = found
        self._ends = ends
        self._pool, self._seq = table.place(table.pool), table.place(table.seq)
        self._last: dict[str, int] = {}
        self._rows: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._redacted = 0
        self._at = ("", 0)

    def run(self, cells: Iterator[Sequence[Any]]) -> Checked:
        difference = None
        try:
            self._compare(_Ahead(self._table, cells))
        except _DiffersError as differs:
            pool, seq = self._at
            row = self._rows.total() + 1
            difference = Difference(row=row, pool=pool, seq=seq, reason=str(differs))
        return Checked(
            table=self._table.name,
            rows=self._rows.total(),
            total_tokens=self._sums["total_tokens"],
            cost_micros_usd=self._sums["cost_micros_usd"],
            pools=[
                PoolChecked(
                    pool=name,
                    rows=self._rows[name],
                    last_seq=self._last.get(name, 0),
                    later=self._source.count(name, self._last.get(name, 0)),
                )
                for name in self._source.ends
            ],
            redacted=self._redacted,
            difference=difference,
        )

    def _compare(self, file: _Ahead) -> None:
        for name in self._source.ends:
            for row in self._source.entries(name):
                if file.row is None or file.row[self._pool] != name:
                    self._missing(name, row["seq"])
                    break
                self._at = (name, row["seq"])
                self._compare_row(name, row, file.row)
                file.move()
        if file.row is not None:
            pool, seq = file.row[self._pool], file.row[self._seq]
            self._at = (str(pool), seq if isinstance(seq, int) else 0)
            raise _DiffersError(f"the journal has no such row here{_FILTER}")

    def _missing(self, name: str, seq: int) -> None:
        """Raise if the file should have entry `seq`, and it was not appended after the export."""
        if seq <= self._ends.get(name, 0):
            self._at = (name, seq)
            raise _DiffersError(f"it is missing in the file{_FILTER}")

    def _compare_row(self, name: str, row: Row, cells: Sequence[ExportCell]) -> None:
        if cells[self._seq] != row["seq"]:
            found = cells[self._seq]
            raise _DiffersError(
                f"it is missing in the file, which goes on with entry {found}{_FILTER}"
            )
        redacted = is_redacted(row)
        expected = self._source.row_of(name, row)
        for column, journal, cell in zip(self._table.columns, expected, cells, strict=True):
            if cell != journal and not (redacted and column.personal):
                raise _DiffersError(
                    f"{column.name} is {_shown(column.kind, cell)} in the file, and "
                    f"{_shown(column.kind, journal)} "
                    "in the journal"
                )
        self._redacted += redacted
        self._rows[name] += 1
        self._last[name] = row["seq"]
        if row["origin_seq"] is None:
            for amount in AMOUNTS:
                self._sums[amount] += row[f"usage_{amount}"] or 0


class _Ahead:
    """Reads a file's rows, one ahead: `row` is the next one to compare."""

    def __init__(self, table: ExportTable, cells: Iterator[Sequence[Any]]) -> None:
        self._kinds = [column.kind for column in table.columns]
        self._cells = cells
        self.row: list[ExportCell] | None = None
        self.move()

    def move(self) -> None:
        """Read the next row into `row`; None after the last one."""
        cells = next(self._cells, None)
        self.row = None
        if cells is not None:
            self.row = [parsed(kind, cell) for kind, cell in zip(self._kinds, cells, strict=True)]


def _shown(kind: ColumnType, value: ExportCell) -> str:
    return "empty" if value is None else repr(written(kind, value))
