"""Functions of PostgreSQL for which the server keeps its plans: the newest entry, and new rows.

Without them it plans each statement anew, which takes longer than to run it: a prepared statement
belongs to a session, and a pooler lends sessions to others. The plans of functions are the
server's own affair. They run with the rights of the role that calls them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from ledger.store.dialects.clock import SERVER_CLOCK
from ledger.store.schema import DIVIDED, HEAD_NAMES
from ledger.store.statements import Prepared, driver_of

DISCARDED = "LG001"
"""The SQLSTATE, our own, of rows that a trigger dropped."""

_NEWEST = "entries_newest"
_WRITTEN = ("pools", *DIVIDED)
"""The tables that are written to, once a store is made."""
SIGNATURES = (
    f"{_NEWEST}(bigint, bigint)",
    *(f"{table}_write({table}[])" for table in _WRITTEN),
)
"""The functions, each with the types of its arguments."""


class NewestEntry(Prepared):
    """The query for a pool's newest entry and the time.

    Of several pools it is one statement, as others are: that is planned once for all of them.
    """

    def text(self, connection: Connection, parameters: Mapping[str, Any]) -> str:
        """Return what asks the server's function."""
        literal = driver_of(connection).literal
        given = ", ".join(literal(parameters[name]) for name in ("pool_id", "now"))
        return f"SELECT * FROM {_NEWEST}({given})"


def array_of(rows: Iterable[tuple[Any, ...]]) -> str:
    """Return rows as text that the server reads as an array of them."""
    return "{" + ",".join([_quoted(_record(row)) for row in rows]) + "}"


def _record(row: tuple[Any, ...]) -> str:
    fields = [
        ""
        if value is None
        else str(int(value))
        if isinstance(value, int)
        else _quoted(value if isinstance(value, str) else f"\\x{value.hex()}")
        for value in row
    ]
    return f"({','.join(fields)})"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def make_functions() -> list[str]:
    """Return DDL that makes the functions.

    The newest entry is searched by its key, whatever the session has set, and however small the
    table is when that is planned.
    """
    names = ", ".join(f"e.{name}" for name in HEAD_NAMES)
    types = ", ".join(f"{name} {'bytea' if name == 'hash' else 'bigint'}" for name in HEAD_NAMES)
    newest = f"""
CREATE FUNCTION {_NEWEST}(of_pool bigint, given bigint) RETURNS TABLE ({types}, now bigint)
LANGUAGE plpgsql STABLE ROWS 1 SET enable_seqscan = off AS $$
BEGIN
  RETURN QUERY SELECT {names}, coalesce(given, {SERVER_CLOCK})
    FROM entries AS e WHERE e.pool_id = of_pool ORDER BY e.seq DESC LIMIT 1;
END$$
"""
    return [newest, *map(_write, _WRITTEN)]


def _write(table: str) -> str:
    return f"""
CREATE FUNCTION {table}_write(given {table}[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  written bigint;
BEGIN
  INSERT INTO {table} SELECT * FROM unnest(given);
  GET DIAGNOSTICS written = ROW_COUNT;
  -- COMMIT is in the same message: nobody looks at the count before it.
  IF written <> cardinality(given) THEN
    RAISE SQLSTATE '{DISCARDED}' USING MESSAGE = 'rows of {table} were dropped';
  END IF;
END$$
"""
