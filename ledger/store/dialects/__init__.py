"""Every difference between SQLite and PostgreSQL: engines, BEGIN, error codes, guards, views."""

from __future__ import annotations

from sqlalchemy.exc import ArgumentError

from ledger.core.errors import InvalidUrlError
from ledger.store.dialects.addresses import read_address
from ledger.store.dialects.base import (
    CommitInDoubtError,
    Dialect,
    Failure,
    FileChangedError,
    NoReferenceError,
    RolledBackError,
)
from ledger.store.dialects.postgresql import PostgreSQLDialect
from ledger.store.dialects.sqlite import SQLiteDialect

__all__ = [
    "CommitInDoubtError",
    "Dialect",
    "Failure",
    "FileChangedError",
    "NoReferenceError",
    "RolledBackError",
    "dialect_for",
    "dialect_named",
]

_DIALECTS: dict[str, type[Dialect]] = {
    "sqlite": SQLiteDialect,
    "postgresql": PostgreSQLDialect,
    "postgres": PostgreSQLDialect,
}
_EXAMPLES = "sqlite:///ledger.db or postgresql://user@host/database"


def dialect_for(url: str, *, timeout_s: float, read_only: bool = False) -> Dialect:
    """Return the dialect of the store at `url`.

    Raises:
        InvalidUrlError: Not a URL, or not of a database this library works with.
        MissingExtraError: The driver is not installed.
    """
    try:
        parsed = read_address(url)
    except (ArgumentError, ValueError):
        # SQLAlchemy's message may quote a part of the password.
        raise InvalidUrlError("url", f"not a database URL; write {_EXAMPLES}") from None
    backend, _, driver = parsed.drivername.partition("+")
    if backend not in _DIALECTS or driver not in {"", "pysqlite", "psycopg"}:
        raise InvalidUrlError("url", f"{parsed.drivername!r} is not supported; write {_EXAMPLES}")
    if backend != "sqlite" and ("@" in (parsed.host or "") or url.partition("?")[0].count("@") > 1):
        # Otherwise a part of the password would be read as the host, and shown.
        raise InvalidUrlError(
            "url", f"has several @; write an @ in a user or password as %40: {_EXAMPLES}"
        )
    return _DIALECTS[backend](parsed, timeout_s=timeout_s, read_only=read_only)


def dialect_named(name: str) -> type[Dialect]:
    """Return the dialect class of a backend name, for DDL that needs no connection."""
    return _DIALECTS[name]
