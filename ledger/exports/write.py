"""Write an export to a file, which appears as a whole or not at all, or to a stream."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ledger.core.checks import check_type
from ledger.core.columns import each_once
from ledger.core.entries import EntryFlag
from ledger.core.errors import InvalidInputError
from ledger.exports.accounting import HEADER as ACCOUNTED
from ledger.exports.columns import ExportCell, RowGroup
from ledger.exports.focus import FocusVersion
from ledger.exports.source import source
from ledger.exports.tables import (
    ACCOUNTING,
    CONTAINERS,
    ENTRIES,
    FOCUS,
    TABLES,
    Format,
    container_of,
    format_of,
)
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.output_file import Target, check_target, is_special, output_file

_HEAD_BYTES = 1 << 20
"""How many bytes of a file are read to find an export's first line: a mebibyte."""

_FLAGS = {"flags", "x_EntryFlags"}
"""The possible names of the column of flags, one of which every table has."""
_WHICH_POOLS = ("pools", "descendants", "parent", "matching", "state", "as_of", "basis")
"""The fields of a filter that leave out no charge of a pool, except charges after an entry."""
_UNPRICED = str(EntryFlag.UNPRICED.name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export holds.

    Attributes:
        rows: How many rows it has.
        up_to: The last entry of each pool that is in the export. With these as `up_to` of `write`,
            the same export can be made again later, to the byte.
        unpriced: How many rows are flagged as leaving out a figure that their pool limits.
    """

    rows: int
    up_to: Mapping[str, int]
    unpriced: int = 0


def write(
    book: Ledger,
    where: Where,
    to: Target,
    *,
    format: Format | None = None,  # noqa: A002 - what it is called everywhere
    focus_version: FocusVersion = FocusVersion.V1_2,
    up_to: Mapping[str, int] | None = None,
    force: bool = False,
) -> Exported:
    """Export entries, or charges in FOCUS columns, in memory that does not grow with them.

    Entries appended meanwhile are not in the export. The file appears only once it is complete. It
    replaces an older export or an empty file, and any other file only with `force`.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        to: A file's name, or an open binary stream for CSV and JSONL.
        format: What is exported; by default what the file's ending names.
        focus_version: The version of FOCUS.
        up_to: The last entry of some pools, by their names; other pools are exported up to their
            newest entry.
        force: Replace a file that is no export. A database is never replaced.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: A format that is not known or cannot be piped; an entry that a pool does
            not have yet; a text that the format cannot hold; an argument of another type.
        MissingExtraError: The format's library is not installed.
        ExportError: The file or stream cannot be written, or must not be replaced.
        JournalDamagedError: An entry cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    if format is not None:
        check_type("format", format, Format)
    check_type("focus_version", focus_version, FocusVersion)
    check_target(to)
    path = Path(to) if isinstance(to, str | Path) else None
    format = format_of(path, format)  # noqa: A001 - what it is called everywhere
    if format in ACCOUNTING:
        write_rows = ACCOUNTING[format].whole if _is_whole(where) else ACCOUNTING[format].part
    else:
        container = container_of(path, format)
        if not container.piped and (path is None or is_special(path)):
            raise InvalidInputError("format", "only CSV and JSONL can be written to a stream")
        write_rows = container.write
    charges = format is Format.FOCUS or format in ACCOUNTING
    table = FOCUS[focus_version] if charges else ENTRIES
    found = source(book, where, table.columns, charges=table.charges, up_to=up_to)
    (flags,) = (place for place, one in enumerate(table.columns) if one.name in _FLAGS)
    counted = _Counted(found.pages(), flags)
    with output_file(to, force=force, keep=book.files, recognises=_is_export) as out:
        write_rows(table.columns, counted, out, found.as_of)
    return Exported(rows=counted.rows, up_to=found.ends, unpriced=counted.unpriced)


def _is_whole(where: Where) -> bool:
    """Tell whether all charges of each pool are asked for, possibly up to an entry."""
    if isinstance(where, str):
        return True
    same = {name: getattr(EVERYTHING, name) for name in _WHICH_POOLS}
    return replace(where, **same) == EVERYTHING


class _Counted:
    """Passes pages on and counts their rows."""

    def __init__(self, pages: Iterator[RowGroup], flags: int) -> None:
        self._waiting = pages
        self._flags = flags
        self.rows = self.unpriced = 0

    def __iter__(self) -> Iterator[RowGroup]:
        for page in self._waiting:
            flags = page[self._flags]
            self.rows += len(flags)
            self.unpriced += sum(each_once(_is_unpriced, flags))
            yield page


def _is_unpriced(flags: ExportCell) -> bool:
    return flags is not None and _UNPRICED in str(flags)


def _is_export(file: BinaryIO) -> bool:
    """Tell whether a file has the columns of an export, in any of the formats."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(ACCOUNTED.encode()):
        return True
    for container in CONTAINERS.values():
        try:
            header, _rows = container.read(io.BytesIO(head) if container.piped else file)
        except Exception:  # noqa: BLE001, S112 - a format's library may raise any error on other bytes
            continue
        if any(header == [column.name for column in table.columns] for table in TABLES):
            return True
    return False
