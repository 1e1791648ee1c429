"""The newest entry of a pool, for which PostgreSQL keeps its plan in a function.

Without it the server plans the SELECT anew each time, since a prepared statement belongs to a
session, which a pooler lends to others. That takes three times as long as to run it: the server
looks at every index of the entries. It keeps the plans of a function by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from ledger.store.dialects.clock import SERVER_CLOCK
from ledger.store.schema import HEAD_NAMES
from ledger.store.statements import Prepared, driver_of

_NAME = "entries_newest"
SIGNATURE = f"{_NAME}(bigint, bigint)"
"""The function's name, with the types of its arguments."""


class NewestEntry(Prepared):
    """The query for a pool's newest entry and the time.

    Of several pools it is one statement, as others are: that is planned once for all of them.
    """

    def text(self, connection: Connection, parameters: Mapping[str, Any]) -> str:
        """Return what asks the server's function."""
        literal = driver_of(connection).literal
        given = ", ".join(literal(parameters[name]) for name in ("pool_id", "now"))
        return f"SELECT * FROM {_NAME}({given})"


def newest_entry() -> str:
    """Return DDL that makes the function.

    Its plan is that of a search by the key, whatever the session has set and however small the
    table is when it is made.
    """
    names = ", ".join(f"e.{name}" for name in HEAD_NAMES)
    types = ", ".join(f"{name} {'bytea' if name == 'hash' else 'bigint'}" for name in HEAD_NAMES)
    return f"""
CREATE FUNCTION {_NAME}(of_pool bigint, given bigint) RETURNS TABLE ({types}, now bigint)
LANGUAGE plpgsql STABLE ROWS 1 SET enable_seqscan = off AS $$
BEGIN
  RETURN QUERY SELECT {names}, coalesce(given, {SERVER_CLOCK})
    FROM entries AS e WHERE e.pool_id = of_pool ORDER BY e.seq DESC LIMIT 1;
END$$
"""
