"""SQLite's result codes: what each means for a transaction, and what to do about it."""

from __future__ import annotations

import sqlite3

from ledger.store.dialects.base import Failure

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

_HINTS = {
    sqlite3.SQLITE_READONLY: "the file is read-only for this program; check its permissions",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check its folder and permissions",
    sqlite3.SQLITE_PERM: "the file may not be opened; check its permissions",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
}


def failure_of(error: BaseException) -> Failure:
    """Return what an SQLite result code means."""
    code = _primary_code(error)
    if code in _BUSY:
        return Failure.BUSY
    if code == sqlite3.SQLITE_NOTADB:
        return Failure.FOREIGN
    return Failure.UNAVAILABLE


def explained(error: BaseException) -> str:
    """Return SQLite's message, with what to do about the commonest result codes."""
    text = str(getattr(error, "orig", error))
    hint = _HINTS.get(_primary_code(error) or 0)
    if text.startswith("no such "):
        hint = "a part of the schema is missing; run 'ledger db check'"
    return text + (f" ({hint})" if hint else "")


def _primary_code(error: BaseException) -> int | None:
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
