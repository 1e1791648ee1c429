"""The clock of a store: that of the server, if there is one.

Clocks of client machines differ, and leases and windows must end at one time for all of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, BindParameter, Connection, bindparam, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ledger.core.checks import Micros

SERVER_CLOCK = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS bigint)"
"""Microseconds since 1970 by PostgreSQL's clock, as SQL."""
_GIVEN: BindParameter[int | None] = bindparam("now", type_=BigInteger())


class _ServerClock(FunctionElement[int]):
    """Microseconds since 1970 by the server's clock; NULL if there is no server."""

    type = BigInteger()
    inherit_cache = True


@compiles(_ServerClock)
def _no_server(_element: _ServerClock, _compiler: Any, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    return "NULL"


@compiles(_ServerClock, "postgresql")
def _postgresql(_element: _ServerClock, _compiler: Any, **_: Any) -> str:  # noqa: ANN401 - SQLAlchemy's hook
    # Not the time at which the transaction began, since it may have waited for a lock since then.
    return SERVER_CLOCK


_STANDBY = f"""
SELECT {SERVER_CLOCK},
       CAST(EXTRACT(EPOCH FROM pg_last_xact_replay_timestamp()) * 1000000 AS bigint)
WHERE pg_is_in_recovery()
"""
NOW = func.coalesce(_GIVEN, _ServerClock())
"""The parameter `now` if it is given, or else the server's clock."""


def standby_times(connection: Connection) -> tuple[Micros, Micros | None] | None:
    """Return a PostgreSQL standby's time, and that of the newest commit it has replayed."""
    found = connection.exec_driver_sql(_STANDBY).first()
    return None if found is None else (Micros(found[0]), found[1] and Micros(found[1]))
