"""The tables that a file may hold, whatever its form is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from ledger.files.columnar import ParquetTable, workbook
from ledger.files.delimited import delimited
from ledger.files.objects import Objects
from ledger.files.rows import FileTable
from ledger.files.source import Form, SourceFile


def tables(
    source: SourceFile,
    *,
    lists: Sequence[str],
    asked: Collection[str],
    delimiter: str | None = None,
    skip: int | None = None,
) -> Iterator[FileTable]:
    """Yield the tables that a file may hold, the likeliest first.

    A text that begins with `[` or `{` is JSON, and has one table. Any other text is CSV, and may
    have its header on any of its first lines.

    Args:
        source: The file.
        lists: In JSON, the keys of the lists that hold rows, from the outermost on.
        asked: The columns that any reader may ask for.
        delimiter: In CSV, the sign between cells; None to detect it.
        skip: In CSV and workbooks, how many lines are above the header; None to detect it.

    Raises:
        LedgerError: The file cannot be read.
        MissingExtraError: A library that reads it is not installed.
    """
    if source.form is Form.PARQUET:
        yield ParquetTable(source, asked)
    elif source.form is Form.WORKBOOK:
        yield from workbook(source, skip=skip)
    elif _is_json(source):
        yield Objects(source, lists=lists, asked=asked)
    else:
        yield from delimited(source, delimiter=delimiter, skip=skip)


def _is_json(source: SourceFile) -> bool:
    with source.text() as text:
        head = text.read(1 << 12).lstrip()
    # A list of JSON holds objects or lists; "[section]" and the like do not.
    return head.startswith("{") or re.match(r"\[\s*(?:[\[{\]]|$)", head) is not None
