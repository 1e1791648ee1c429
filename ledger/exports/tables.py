"""What can be exported, and the kinds of files it can be written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ledger.errors import InvalidInputError
from ledger.exports.accounting import BEANCOUNT, HLEDGER, write_accounting
from ledger.exports.columns import ENTRY_COLUMNS, Column, Page
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
    """Charges under the FinOps Open Cost and Usage Specification; the file's ending says how."""
    BEANCOUNT = "beancount"
    """Charges as transactions in double entry."""
    HLEDGER = "hledger"
    """The same, in hledger's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What can be exported.

    Attributes:
        name: Its name.
        columns: Its columns.
        pool: The column that names a row's pool.
        seq: The column that holds the number of a row's entry.
        charges: Whether its rows are charges; else they are all entries.
    """

    name: str
    columns: Sequence[Column]
    pool: str
    seq: str
    charges: bool

    def place(self, column: str) -> int:
        """Return the position of a column in a row, from 0."""
        return [found.name for found in self.columns].index(column)


ENTRIES = Table(name="entries", columns=ENTRY_COLUMNS, pool="pool", seq="seq", charges=False)
FOCUS = {
    version: Table(
        name=f"FOCUS {version}",
        columns=focus_columns(version),
        pool="x_PoolName",
        seq="x_EntrySequence",
        charges=True,
    )
    for version in FocusVersion
}
TABLES = (ENTRIES, *FOCUS.values())


Write = Callable[[Sequence[Column], Iterable[Page], BinaryIO, datetime | None], None]


class Container(NamedTuple):
    """A kind of file.

    Attributes:
        write: Writes rows, and the time of the newest one if the kind of file has a place for it.
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

ACCOUNTING: dict[Format, Write] = {
    Format.BEANCOUNT: partial(write_accounting, BEANCOUNT),
    Format.HLEDGER: partial(write_accounting, HLEDGER),
}
"""What writes transactions of charges, which are not read back."""

_ENDINGS = {f".{found}": found for found in CONTAINERS}


def container_of(path: Path | None, wanted: Format | None) -> Container:
    """Return the kind of file that a format, or else a file's ending, asks for.

    Args:
        path: The file, None for a stream.
        wanted: The format, None to go by the ending.

    Raises:
        InvalidInputError: Neither of them names a kind of file.
    """
    if wanted in CONTAINERS:
        return CONTAINERS[wanted]
    if wanted in ACCOUNTING:
        raise InvalidInputError("format", f"a file for {wanted} is checked by {wanted} itself")
    ending = None if path is None else _ENDINGS.get(path.suffix.lower())
    if ending is None and wanted is Format.FOCUS:
        ending = Format.CSV
    if ending is None:
        known = ", ".join(_ENDINGS)
        raise InvalidInputError("format", f"say which, or name a file that ends in {known}")
    return CONTAINERS[ending]
