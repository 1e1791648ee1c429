"""Connections that only read an SQLite file, and neither make nor change a file beside it.

To read a WAL database, SQLite uses two files beside it, `-wal` and `-shm`, and makes them where
they are missing. As another user's they would keep the owner's writers out; and in a folder that
may not be written, nothing could be read. Where there is no `-wal`, the database file is complete,
and "immutable" reads it as it is. SQLite then does not notice when a program changes the file. So
the reader looks at the file before and after, and if it has changed, everything is read again.
"""

from __future__ import annotations

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
"""How old a file must be, in nanoseconds, so that another change gives it another time. File
systems count time in steps of up to 10 ms."""


class Look(NamedTuple):
    """What a database looks like from outside: number, size and time of the file and its WAL."""

    database: tuple[int, int, int]
    wal: tuple[int, int, int] | None
    """None where there is none, or an empty one."""
    shm: bool
    journal: bool

    @classmethod
    def at(cls, path: Path) -> Look:
        """Look at a database.

        Raises:
            OSError: It cannot be found.
        """
        real = os.path.realpath(path)
        database, wal, shm, journal = (
            _facts(f"{real}{end}") for end in ("", "-wal", "-shm", "-journal")
        )
        if database is None:
            raise FileNotFoundError(errno.ENOENT, "it is gone", real)
        return cls(database, wal if wal and wal[1] else None, shm is not None, journal is not None)


class Connection(sqlite3.Connection):
    """What the dialect's connections have for being read alone."""

    seen: Look | None = None
    """What the file looked like before, where SQLite itself would notice no change."""
    busy_ms = -1
    """How long a statement was last let wait for other programs; -1 before the first time."""
    copy: tempfile.TemporaryDirectory[str] | None = None
    """The folder of the copy that is read in place of the file."""

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
        # Programs that write keep these files, and SQLite's locks hold for readers, too. A
        # read-only connection neither removes them nor writes to them.
        return _open(path, "mode=ro", options)
    if 0 <= time.time_ns() - seen.database[2] < _TICK_NS:
        raise FileChangedError
    if seen.wal is None:
        made = _open(path, "mode=ro&immutable=1", options)
    else:
        # No program has it open, or there would be a `-shm`: a copy, or what a crash has left. Its
        # WAL cannot be read without writing beside it.
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
    """Make sure that a file is as it was when a connection that looked at it was made.

    Raises:
        FileChangedError: It has changed, so what was read is no snapshot.
        OSError: It is gone.
    """
    if connection.seen != Look.at(path):
        raise FileChangedError


def journal_mode(path: Path) -> str:
    """Return in which mode a file is, which an immutable connection does not tell."""
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
