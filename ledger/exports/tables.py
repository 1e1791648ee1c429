"""What can be exported, and the kinds of files it can be written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ledger.core.errors import InvalidInputError
from ledger.exports.accounting import (
    BEANCOUNT,
    BEANCOUNT_PART,
    HLEDGER,
    HLEDGER_PART,
    write_accounting,
)
from ledger.exports.columns import EXPORT_COLUMNS, ExportColumn, RowGroup
from ledger.exports.focus import FocusVersion, focus_columns
from ledger.exports.parquet import read_parquet, write_parquet
from ledger.exports.text import read_csv, read_jsonl, write_csv, write_jsonl
from ledger.exports.xlsx import read_xlsx, write_xlsx


class Format(StrEnum):
    """What is exported, and how it is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    XLSX = "xlsx"
    FOCUS = "focus"
    """Charges by the FinOps Open Cost and Usage Specification; the file's ending gives the
    format."""
    BEANCOUNT = "beancount"
    """Charges as transactions in double entry."""
    HLEDGER = "hledger"
    """The same, in the syntax of hledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTable:
    """What can be exported.

    Attributes:
        name: Its name.
        columns: Its columns.
        pool: The column that names a row's pool.
        seq: The column that holds the number of a row's entry.
        charges: Whether its rows are only charges, or all entries.
    """

    name: str
    columns: Sequence[ExportColumn]
    pool: str
    seq: str
    charges: bool

    def place(self, column: str) -> int:
        """Return the position of a column in a row, from 0."""
        return [found.name for found in self.columns].index(column)


ENTRIES = ExportTable(name="entries", columns=EXPORT_COLUMNS, pool="pool", seq="seq", charges=False)
FOCUS = {
    version: ExportTable(
        name=f"FOCUS {version}",
        columns=focus_columns(version),
        pool="x_PoolName",
        seq="x_EntrySequence",
        charges=True,
    )
    for version in FocusVersion
}
TABLES = (ENTRIES, *FOCUS.values())


Write = Callable[[Sequence[ExportColumn], Iterable[RowGroup], BinaryIO, datetime | None], None]


class Container(NamedTuple):
    """A kind of file.

    Attributes:
        write: Writes rows, and the time of the newest one if the format has a field for it.
        read: Returns the header, and an iterator over the rows.
        piped: Whether it can be written to a pipe.
    """

    write: Write
    read: Callable[[BinaryIO], tuple[list[str], Iterator[Sequence[Any]]]]
    piped: bool = False


CONTAINERS = {
    Format.CSV: Container(write_csv, read_csv, piped=True),
    Format.JSONL: Container(write_jsonl, read_jsonl, piped=True),
    Format.PARQUET: Container(write_parquet, read_parquet),
    Format.XLSX: Container(write_xlsx, read_xlsx),
}


class Accounting(NamedTuple):
    """The functions that write charges as transactions, which are not read back.

    Attributes:
        whole: Writes all charges of some pools, with the sum of each pool.
        part: Writes some of them.
    """

    whole: Write
    part: Write


ACCOUNTING = {
    Format.BEANCOUNT: Accounting(
        partial(write_accounting, BEANCOUNT), partial(write_accounting, BEANCOUNT_PART)
    ),
    Format.HLEDGER: Accounting(
        partial(write_accounting, HLEDGER), partial(write_accounting, HLEDGER_PART)
    ),
}

_ENDINGS = {f".{found}": found for found in (*CONTAINERS, *ACCOUNTING)}


def format_of(path: Path | None, wanted: Format | None) -> Format | None:
    """Return the wanted format, or else the one that a file's ending names."""
    if wanted is not None or path is None:
        return wanted
    return _ENDINGS.get(path.suffix.lower())


def container_of(path: Path | None, wanted: Format | None) -> Container:
    """Return the kind of file for a format, or else for a file's ending.

    Args:
        path: The file, None for a stream.
        wanted: The format; None to decide by the ending.

    Raises:
        InvalidInputError: Neither of them names a kind of file.
    """
    if wanted is Format.FOCUS:
        ending = format_of(path, None)
        return CONTAINERS[Format.CSV if ending not in CONTAINERS else ending]
    found = format_of(path, wanted)
    if found in ACCOUNTING:
        raise InvalidInputError("format", f"a file for {found} is checked by {found} itself")
    if found is None:
        known = ", ".join(_ENDINGS)
        raise InvalidInputError(
            "format",
            f"say which, or name a file that ends in {known}; charges for FOCUS have no ending of "
            "their own: --format focus",
        )
    return CONTAINERS[found]
