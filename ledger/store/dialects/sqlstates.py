"""PostgreSQL's SQLSTATEs: what each means for a transaction, and what to do about it."""

from __future__ import annotations

from ledger.store.dialects.base import Failure
from ledger.store.dialects.functions import DISCARDED
from ledger.store.dialects.locks import LOCK_TABLES

_BUSY = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available: lock_timeout ran out
    "57014",  # query_canceled: statement_timeout ran out
    "23505",  # unique_violation: another writer took the number or the key first
}
WAITED = {"55P03", "57014"}
"""The SQLSTATEs of a wait for a lock that took too long."""
_LOST = {"57P01", "57P02", "57P03", "57P05"}  # shutdown, crash, starting up, idle too long
_STOOD_STILL = "25P03"  # idle_in_transaction_session_timeout ran out
_FORBIDDEN = "42501"  # insufficient_privilege
REFUSED = {_FORBIDDEN, "25006"}
"""And read_only_sql_transaction, as on a standby."""
_HINTS = {
    _STOOD_STILL: "this process stood still inside a transaction, and the server ended it",
    "0A000": "a standby can be read alone: open it with read_only=True, or name the primary",
    "25006": "the server or the session is read-only",
    "28": "check user and password",
    "3D": "create the database first",
    "42883": "the schema lacks a function; 'ledger db check' names what is missing",
    "42P01": "the schema is missing; run 'ledger db upgrade'",
    "53": "the server ran out of disk, memory or connections",
}


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of a driver's error, None if the server did not answer."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def failure_of(error: BaseException) -> Failure:
    """Return what an SQLSTATE means; an error without one is a lost connection."""
    state = sqlstate(error)
    if state in _BUSY:
        return Failure.BUSY
    if state == DISCARDED:
        return Failure.DISCARDED
    if state == _FORBIDDEN:
        return Failure.FORBIDDEN
    if state == _STOOD_STILL:
        return Failure.ENDED
    if state is None or state in _LOST or state.startswith("08"):
        return Failure.LOST
    return Failure.UNAVAILABLE


def explained(error: BaseException) -> str:
    """Return the server's message, with what to do about the commonest SQLSTATEs."""
    state = sqlstate(error) or ""
    text = " ".join(str(getattr(error, "orig", error)).split())
    if state == _FORBIDDEN and LOCK_TABLES in text:
        text = "it may only read: it may not lock pools, as every call that writes does"
    hint = _HINTS.get(state) or _HINTS.get(state[:2])
    return text + (f" ({hint})" if hint else "")
