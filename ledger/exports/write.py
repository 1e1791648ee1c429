"""Write an export: to a file, which is there as a whole or not at all, or to a stream."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ledger.core.checks import check_type
from ledger.errors import ExportError, InvalidInputError
from ledger.exports.columns import Value
from ledger.exports.focus import FocusVersion
from ledger.exports.source import source
from ledger.exports.tables import ENTRIES, FOCUS, Format, container_of
from ledger.ledger import Ledger
from ledger.reports.filters import Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export holds.

    Attributes:
        rows: How many rows.
        up_to: The last entry of each pool that the export takes in: with these, the same export
            can be made again later, to the byte.
    """

    rows: int
    up_to: Mapping[str, int]


def write(
    book: Ledger,
    where: Where,
    to: str | Path | BinaryIO,
    *,
    format: Format | None = None,  # noqa: A002 - what it is called everywhere
    focus_version: FocusVersion = FocusVersion.V1_2,
    up_to: Mapping[str, int] | None = None,
) -> Exported:
    """Export entries, or charges as FOCUS has them, in memory that does not grow with them.

    What is appended meanwhile is not in the export. A file appears only when it is whole, and
    takes the place of an older one.

    Args:
        book: The books.
        where: Which entries, or the name of a pool.
        to: A file's name, or an open binary stream for CSV and JSONL.
        format: What is exported; without it, entries in the format that the file's ending names.
        focus_version: Which FOCUS.
        up_to: The last entry of some of the pools, by their names; of the others, the newest.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: A format that cannot be told or piped; an entry that a pool does not
            have yet; a text that the format cannot hold.
        MissingExtraError: The format's library is not installed.
        ExportError: The file or stream cannot be written.
        JournalDamagedError: An entry cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    if format is not None:
        check_type("format", format, Format)
    check_type("focus_version", focus_version, FocusVersion)
    path = Path(to) if isinstance(to, str | Path) else None
    container = container_of(path, format)
    if path is None and not container.piped:
        raise InvalidInputError("format", "only CSV and JSONL can be written to a stream")
    table = FOCUS[focus_version] if format is Format.FOCUS else ENTRIES
    found = source(book, where, table.columns, charges=table.charges, up_to=up_to)
    counted = _Counted(found.rows())
    if isinstance(to, str | Path):
        with _whole(Path(to)) as out:
            container.write(table.columns, counted, out, found.as_of)
    else:
        try:
            container.write(table.columns, counted, to, found.as_of)
        except OSError as error:
            raise ExportError("the stream", error.strerror or str(error)) from error
    return Exported(rows=counted.rows, up_to=found.ends)


class _Counted:
    """Rows that are counted as they go by."""

    def __init__(self, rows: Iterator[Sequence[Value]]) -> None:
        self._waiting = rows
        self.rows = 0

    def __iter__(self) -> Iterator[Sequence[Value]]:
        for row in self._waiting:
            self.rows += 1
            yield row


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Lend a file beside the one that is wanted, which it becomes when all went well."""
    if path.exists() and not path.is_file():
        raise ExportError(path, "it is no ordinary file; write - for standard output")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # Not tempfile: who may read an export, the umask says, as of any file.
        with beside.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    except OSError as error:
        raise ExportError(path, error.strerror or str(error)) from error
    finally:
        beside.unlink(missing_ok=True)
