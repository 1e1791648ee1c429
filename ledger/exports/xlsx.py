"""Exports as XLSX workbooks: figures as numbers where a spreadsheet can hold them exactly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

from ledger.core.errors import InvalidInputError, MissingExtraError
from ledger.exports.columns import PLACES, ColumnType, ExportCell, ExportColumn, RowGroup
from ledger.exports.text import written

SHEET_ROWS = 1_048_576
"""How many rows a sheet may have, the header among them: the limit of Excel."""

CELL_MAX_CHARS = 32_767
"""How many characters a cell may hold: the limit of Excel."""

_EXACT = 10**15
"""Spreadsheets keep 15 digits; a number with more of them is written as text."""


def write_xlsx(
    columns: Sequence[ExportColumn],
    pages: Iterable[RowGroup],
    out: BinaryIO,
    as_of: datetime | None = None,
) -> None:
    """Write rows sheet by sheet, a row at a time; `as_of` becomes the workbook's time of creation.

    Raises:
        MissingExtraError: XlsxWriter is not installed.
        InvalidInputError: A text is longer than a cell can be.
    """
    xlsxwriter = _xlsxwriter()
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    try:
        # The library leaves its temporary files behind if the disk is full.
        with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
            book = xlsxwriter.Workbook(_Quiet(out), {**options, "tmpdir": folder})
            try:
                _fill(book, columns, pages, as_of)
            finally:
                book.close()
    except xlsxwriter.exceptions.FileCreateError as error:
        raise error.args[0] from error  # the OSError that caused it


def _fill(
    book: Any,  # noqa: ANN401 - the library has no types
    columns: Sequence[ExportColumn],
    pages: Iterable[RowGroup],
    as_of: datetime | None,
) -> None:
    book.use_zip64()
    # A fixed time, since the present time would make a different file from the same rows.
    book.set_properties({"created": (as_of or datetime(1980, 1, 1)).replace(tzinfo=None)})  # noqa: DTZ001
    formats = _Formats(
        head=book.add_format({"bold": True}),
        whole=book.add_format({"num_format": "0"}),
        dollars=book.add_format({"num_format": "0." + "0" * PLACES}),
    )
    sheet, line = _sheet(book, columns, formats), 1
    for row in chain.from_iterable(zip(*page, strict=True) for page in pages):
        if line == SHEET_ROWS:
            sheet, line = _sheet(book, columns, formats), 1
        for place, (column, value) in enumerate(zip(columns, row, strict=True)):
            _write(sheet, line, place, column, value, formats)
        line += 1


def read_xlsx(file: BinaryIO) -> tuple[list[str], Iterator[Sequence[Any]]]:
    """Return the header, and an iterator over the rows of all sheets.

    Raises:
        MissingExtraError: openpyxl is not installed.
    """
    try:
        import openpyxl  # noqa: PLC0415 - an optional extra
        from openpyxl.utils.escape import unescape  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingExtraError(what="openpyxl", extra="xlsx") from error
    sheets = openpyxl.load_workbook(file, read_only=True).worksheets
    header = next(sheets[0].iter_rows(max_row=1, values_only=True), ())
    return [str(name) for name in header], (
        # A workbook has escape sequences for characters that XML cannot hold.
        [unescape(cell) if isinstance(cell, str) else cell for cell in row]
        for sheet in sheets
        for row in sheet.iter_rows(min_row=2, max_col=len(header), values_only=True)
    )


class _Quiet:
    """A file that ignores writes after a failed one or after it was closed.

    A half-written ZIP archive is closed when it is garbage-collected, and writes once more then.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._failed = False
        self._at = 0

    def write(self, data: bytes) -> int:
        if self._done():
            self._at += len(data)
            return len(data)
        try:
            return self._file.write(data)
        except OSError:
            self._failed = True
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        if not self._done():
            return self._file.seek(offset, whence)
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at if self._done() else self._file.tell()

    def flush(self) -> None:
        if not self._done():
            self._file.flush()

    def _done(self) -> bool:
        return self._failed or self._file.closed


class _Formats(NamedTuple):
    """How cells look."""

    head: Any
    whole: Any
    dollars: Any


def _xlsxwriter() -> ModuleType:
    try:
        import xlsxwriter  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingExtraError(what="XlsxWriter", extra="xlsx") from error
    module: ModuleType = xlsxwriter
    return module


def _sheet(book: Any, columns: Sequence[ExportColumn], formats: _Formats) -> Any:  # noqa: ANN401 - the library has no types
    sheet = book.add_worksheet()
    sheet.freeze_panes(1, 0)
    for place, column in enumerate(columns):
        sheet.write_string(0, place, column.name, formats.head)
    return sheet


def _write(
    sheet: Any,  # noqa: ANN401 - the library has no types
    line: int,
    place: int,
    column: ExportColumn,
    value: ExportCell,
    formats: _Formats,
) -> None:
    if value is None:
        return
    if column.kind is ColumnType.INTEGER and isinstance(value, int) and abs(value) < _EXACT:
        sheet.write_number(line, place, value, formats.whole)
    elif column.kind is ColumnType.DECIMAL and isinstance(value, int) and abs(value) < _EXACT:
        sheet.write_number(line, place, Decimal(value).scaleb(-PLACES), formats.dollars)
    else:
        text = written(column.kind, value) or ""
        if len(text) > CELL_MAX_CHARS:
            raise InvalidInputError(
                column.name,
                f"row {line:,} has a text of {len(text):,} characters, and a cell of a workbook "
                f"holds {CELL_MAX_CHARS:,}; export to CSV, JSONL or Parquet",
            )
        sheet.write_string(line, place, text)
