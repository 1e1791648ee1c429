"""Databases as they are, past the library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine

from ledger.store.dialects import dialect_for


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Lend a plain connection, without any of the library's."""
    engine = create_engine(dialect_for(url, timeout_s=5).url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()
