"""Tables of workbooks (`.xlsx`) and of Parquet files, each read by a library that is an extra."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from itertools import islice
from typing import Any

from ledger.core.errors import LedgerError, MissingExtraError
from ledger.files.objects import names_of, text_at
from ledger.files.rows import COLUMNS_MAX, LIST, FileRow, FileRows, cell_of, digest_of, together
from ledger.files.source import SourceFile

_SAMPLE_ROWS = 50
_BATCH_ROWS = 1_000


class WorkbookTable:
    """A sheet of a workbook, below the row that has its header.

    Attributes:
        columns: The names of the columns.
        looks: What the file looks like, for people.
        unread: How many rows each other sheet has that is not empty.
    """

    has_rows = True

    def __init__(self, source: SourceFile, sheet: str, skip: int, header: Sequence[str]) -> None:
        self._source = source
        self._sheet = sheet
        self._skip = skip
        self.columns = [*header]
        self.looks = f"a workbook, its header in row {skip + 1} of sheet {sheet!r}"

    @property
    def unread(self) -> Counter[str]:
        """Return how many rows the other sheets have."""
        with _workbook(self._source) as book:
            counts = {
                one.title: sum(any(cell is not None for cell in row) for row in _values(one))
                for one in book.worksheets
                if one.title != self._sheet
            }
        return Counter({f"sheet {name!r}": count for name, count in counts.items() if count})

    def require_sound(self) -> None:
        """Refuse a header that has a name twice, or too many.

        Raises:
            LedgerError: It has.
        """
        _require_sound(self._source, self._skip + 1, self.columns)

    def rows(
        self, asked: Collection[str], *, hashed: bool = True
    ) -> Generator[FileRows, None, None]:
        """Yield the rows that are not empty, some at a time."""
        yield from together(self._rows(asked, hashed=hashed), asked)

    def _rows(self, asked: Collection[str], *, hashed: bool) -> Iterator[FileRow]:
        places = [(name, place) for place, name in enumerate(self.columns) if name in asked]
        with _workbook(self._source) as book:
            values = enumerate(_values(book[self._sheet]), start=1)
            for line, row in islice(values, self._skip + 1, None):
                cells = [cell_of(value) for value in row]
                if not any(cells):
                    continue
                if any(cells[len(self.columns) :]):
                    reason = f"more cells than the header has, {len(self.columns)}"
                    raise self._source.refuse(line, reason)
                found = {name: cells[place] for name, place in places if place < len(cells)}
                yield FileRow(line, found, digest_of(repr(cells)) if hashed else b"")


def workbook(source: SourceFile, *, skip: int | None) -> Iterator[WorkbookTable]:
    """Yield the tables that a workbook may have: each sheet, below each of its first rows.

    Raises:
        MissingExtraError: openpyxl is not installed.
        LedgerError: It cannot be read.
    """
    with _workbook(source) as book:
        found = [
            (sheet.title, [*islice(_values(sheet), (skip or 0) + _SAMPLE_ROWS)])
            for sheet in book.worksheets
        ]
    for title, sample in found:
        for start, row in enumerate(sample):
            header = [cell_of(value) for value in row]
            while header and not header[-1]:
                header.pop()
            if len(header) > 1 and skip in {None, start}:
                yield WorkbookTable(source, title, start, header)


@contextmanager
def _workbook(source: SourceFile) -> Iterator[Any]:
    try:
        import openpyxl  # noqa: PLC0415 - an optional package, imported where it is used
    except ImportError as error:
        raise MissingExtraError(what="openpyxl", extra="xlsx") from error
    with _reading(source, "a workbook"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and links, which are not read
        book = openpyxl.load_workbook(source.raw(), read_only=True, data_only=True)
        yield book


def _values(sheet: Any) -> Iterator[Sequence[Any]]:  # noqa: ANN401 - openpyxl has no types
    sheet.reset_dimensions()  # some programs write a wrong size of the sheet
    rows: Iterator[Sequence[Any]] = sheet.iter_rows(values_only=True)
    return rows


class ParquetTable:
    """The table of a Parquet file.

    Attributes:
        columns: The names of the columns, with dots between those of nested fields.
        looks: What the file looks like, for people.
        unread: How many values each list within the rows has, by the full name of its column.
    """

    looks = "Parquet"
    has_rows = True

    def __init__(self, source: SourceFile, asked: Collection[str]) -> None:
        """Read the schema; for maps and lists, whose keys are not in the schema, the rows.

        Raises:
            MissingExtraError: pyarrow is not installed.
            LedgerError: The file cannot be read.
        """
        self._source = source
        self.unread: Counter[str] = Counter()
        with self._open() as file:
            schema = file.schema_arrow
            self._plain = [field.name for field in schema if not field.type.num_fields]
            nested = [field.name for field in schema if field.type.num_fields]
            names = dict.fromkeys(self._plain)
            for value in _batches(file, nested) if nested else ():
                for name in names_of(value, ""):
                    if LIST in name:
                        self.unread[name] += 1
                    if name in asked or len(names) < COLUMNS_MAX:
                        names[name] = None
        self.columns = [*names]

    def require_sound(self) -> None:
        """Refuse a schema that has a name twice, or too many names.

        Raises:
            LedgerError: It has.
        """
        _require_sound(self._source, None, self.columns)

    def rows(
        self, asked: Collection[str], *, hashed: bool = True
    ) -> Generator[FileRows, None, None]:
        """Yield the rows, some at a time."""
        yield from together(self._rows(asked, hashed=hashed), asked)

    def _rows(self, asked: Collection[str], *, hashed: bool) -> Iterator[FileRow]:
        paths = [(name, name.split(".")) for name in asked]
        with self._open() as file:
            for line, value in enumerate(_batches(file, None), start=1):
                cells = {
                    name: text for name, path in paths if (text := text_at(value, path)) is not None
                }
                yield FileRow(line, cells, digest_of(repr(value)) if hashed else b"")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            from pyarrow import parquet  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise MissingExtraError(what="pyarrow", extra="parquet") from error
        with _reading(self._source, "Parquet"):
            yield parquet.ParquetFile(_Kept(self._source.raw()))


def _batches(file: Any, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - pyarrow has no types
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
        yield from batch.to_pylist(maps_as_pydicts="lossy")


class _Kept:
    """A file that a library reads and must not close."""

    closed = False

    def __init__(self, file: BufferedIOBase) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def close(self) -> None:
        """Leave the file open."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False


@contextmanager
def _reading(source: SourceFile, what: str) -> Iterator[None]:
    """Turn any error that a library raises about a damaged file into one of ours."""
    try:
        yield
    except (LedgerError, GeneratorExit):
        raise
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise source.refuse(None, f"not {what} that can be read: {said}") from error


def _require_sound(source: SourceFile, line: int | None, columns: Sequence[str]) -> None:
    if len(columns) > COLUMNS_MAX:
        raise source.refuse(line, f"{len(columns):,} columns; at most {COLUMNS_MAX:,} are read")
    for name, count in Counter(columns).items():
        if name and count > 1:
            raise source.refuse(line, f"two columns are called {name!r}")
