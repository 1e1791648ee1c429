"""Connections that only read an SQLite file, and neither make nor change files beside it.

To read a WAL database, SQLite uses two files beside it, `-wal` and `-shm`, and makes them if they
are missing. If they belonged to another user, they would keep the owner's writers out; and in a
folder without write permission nothing could be read. Without a `-wal`, the database file is
complete, and "immutable" reads it as it is. SQLite then does not notice when a program changes the
file. So the reader compares the file before and after, and reads everything again if it has
changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from ledger.store.dialects.base import FileChangedError

_TICK_NS = 20_000_000
"""How old a file's last change must be, in nanoseconds, so that another change gives another time.
File systems count time in steps of up to 10 ms."""


class Look(NamedTuple):
    """The number, size and time of a database file and its WAL."""

    database: tuple[int, int, int]
    wal: tuple[int, int, int] | None
    """None if there is no WAL, or an empty one."""
    shm: bool
    journal: bool

    @classmethod
    def at(cls, path: Path) -> Look:
        """Return the present look of a database.

        Raises:
            OSError: The file cannot be found.
        """
        real = os.path.realpath(path)
        database, wal, shm, journal = (
            _facts(f"{real}{end}") for end in ("", "-wal", "-shm", "-journal")
        )
        if database is None:
            raise FileNotFoundError(errno.ENOENT, "it is gone", real)
        return cls(database, wal if wal and wal[1] else None, shm is not None, journal is not None)


class Connection(sqlite3.Connection):
    """What a connection of the dialect keeps, in addition to the driver's."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - the driver's own
        super().__init__(*args, **options)
        self.shared = self.cursor()
        """The cursor on which one statement after the other runs: to make one takes as long as to
        run BEGIN."""

    seen: Look | None = None
    """The look of the file before reading, if SQLite itself would not notice a change."""
    busy_ms = -1
    """The last busy time-out, in ms, that was set; -1 before the first."""
    copy: tempfile.TemporaryDirectory[str] | None = None
    """The folder of the copy that is read instead of the file."""

    def end_statement(self) -> None:
        """End what the shared cursor runs: one that was interrupted would keep its read lock."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # the connection is closed
            self.shared.close()
            self.shared = self.cursor()

    def close(self) -> None:
        """Close, and remove the copy."""
        super().close()
        if self.copy is not None:
            self.copy.cleanup()


def connect(path: Path, **options: Any) -> Connection:  # noqa: ANN401 - the driver's own
    """Return a connection that reads a file.

    Raises:
        FileChangedError: The file has changed just now, or is changing.
        OSError: It cannot be found or copied.
        sqlite3.Error: It cannot be opened.
    """
    seen = Look.at(path)
    if seen.journal or (seen.wal and seen.shm):
        # Writing programs have these files open, and SQLite's locks protect readers, too. A
        # read-only connection neither removes these files nor writes to them.
        return _open(path, "mode=ro", options)
    if 0 <= time.time_ns() - seen.database[2] < _TICK_NS:
        raise FileChangedError
    if seen.wal is None:
        made = _open(path, "mode=ro&immutable=1", options)
    else:
        # No program has the file open, or there would be a `-shm`. It is a copy, or was left by a
        # crash. Its WAL cannot be read without writing beside it.
        folder = tempfile.TemporaryDirectory(prefix="ledger-read-")
        copy = Path(folder.name) / "ledger.db"
        real = os.path.realpath(path)
        for end in ("", "-wal"):
            shutil.copyfile(f"{real}{end}", f"{copy}{end}")
        made = _open(copy, "mode=rw", options)
        made.copy = folder
    made.seen = seen
    return made


def check_unchanged(path: Path, connection: Connection) -> None:
    """Make sure that a file is unchanged since a connection was made.

    Raises:
        FileChangedError: It has changed, so what was read is no snapshot.
        OSError: The file is gone.
    """
    if connection.seen != Look.at(path):
        raise FileChangedError


def journal_mode(path: Path) -> str:
    """Return a file's journal mode, which an immutable connection does not tell."""
    with path.open("rb") as file:
        return "wal" if file.read(20)[18:19] == b"\2" else "delete"


def _open(path: Path, how: str, options: dict[str, Any]) -> Connection:
    made: Connection = sqlite3.connect(f"{path.as_uri()}?{how}", **options)
    return made


def _facts(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
