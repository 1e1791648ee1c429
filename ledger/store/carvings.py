"""Verification of the entries that `mirrors` leaves out: those of carved pools, and corrections."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from ledger.core import carving
from ledger.core.entries import Entry, EntryFlag, PoolId, PoolInfo, requests_made
from ledger.core.errors import JournalDamagedError
from ledger.core.kinds import CHANGES_WINDOW, EntryKind
from ledger.core.values import RequestBudget
from ledger.store import pools, rows
from ledger.store.corrections import entry_row, settlement_of
from ledger.store.database import Database
from ledger.store.journal import PoolJournal
from ledger.store.rows import Row
from ledger.store.schema import pools as table

_CALLERS = ("attribution_id", "request_id", "provenance", "occurred_at", "expires_at")
"""Columns that are NULL in entries of a lease that funds a pool: no caller asked for it."""


class Below:
    """The lower pools whose entries a pool may repeat: those that share, and carved ones."""

    def __init__(self, database: Database, pool: PoolJournal) -> None:
        self._database = database
        self._pool = pool
        self._known: dict[PoolId, PoolInfo | None] = {}

    def problem(self, row: Row, entry: Entry, *, ahead: int | None) -> str | None:
        """Return what is wrong with an entry, by the one that it names as repeated.

        Args:
            row: The entry as it is stored.
            entry: The same, read.
            ahead: When the entry before it was recorded.
        """
        if entry.origin is None:
            return None
        pool_id, seq = entry.origin
        below = self._below(pool_id)
        if below is None:
            return f"it repeats entry {seq} of pool {pool_id}, which is not below this one"
        wrong = f"it repeats entry {seq} of pool {pool_id} wrongly"
        if below.carved_lease is not None and below.parent_id == self._pool.info.pool_id:
            reason = self._database.read(
                lambda connection: self._carving_problem(connection, below, row, entry, ahead),
                serializable=False,
            )
            return None if reason is None else f"{wrong}: {reason}"
        # `mirrors` compares all other entries of pools that share capacity.
        if entry.kind not in CHANGES_WINDOW or self._database.read(
            lambda connection: self._says_the_same(connection, entry, pool_id, seq),
            serializable=False,
        ):
            return None
        return f"{wrong}: that says otherwise, or corrects another entry"

    def _carving_problem(
        self, connection: Connection, below: PoolInfo, row: Row, entry: Entry, ahead: int | None
    ) -> str | None:
        """Return what is wrong with an entry of a lease that funds a carved pool, if anything."""
        seq = row["origin_seq"]
        other = entry_row(connection, below.pool_id, seq)
        if other is None or row["lease"] != below.carved_lease:
            return f"there is no such entry, or lease {row['lease']} does not fund that pool"
        try:
            expected = self._expected(connection, below, row, other)
        except (JournalDamagedError, *rows.UNREADABLE) as error:
            return f"that cannot be compared: {error}"
        if expected is None:
            return f"a {other['kind']} leads to no {entry.kind}"
        expected |= dict.fromkeys(_CALLERS)
        for name, value in expected.items():
            found = getattr(entry, name) if hasattr(entry, name) else row[name]
            if found != value:
                return f"{name} should be {value}, but is {found}"
        before = entry_row(connection, below.pool_id, seq - 1)
        if _together(row, ahead, other, None if before is None else before["recorded_at"]):
            return None
        return "it is recorded at another time"

    def _says_the_same(
        self, connection: Connection, entry: Entry, pool_id: PoolId, seq: int
    ) -> bool:
        """Tell whether a correction or an import agrees with the one that it repeats.

        Both name the window that they change, and corrections the number of an entry. These differ
        by pool.
        """
        other = entry_row(connection, pool_id, seq)
        if other is None:
            return False
        said = rows.detail_of(other)
        own = {name: entry.detail[name] for name in _OWN if name in entry.detail}
        shared = {name: value for name, value in said.items() if name not in _OWN}
        if entry.detail != {**shared, **own}:
            return False
        corrects = entry.detail.get("corrects")
        if corrects is None:
            return "corrects" not in said
        corrected = entry_row(connection, self._pool.info.pool_id, corrects)
        if corrected is None:
            return False
        mirrored = corrected["origin_pool_id"], corrected["origin_seq"]
        return mirrored == (pool_id, said.get("corrects"))

    def _below(self, pool_id: PoolId) -> PoolInfo | None:
        """Return a pool if it shares this one's capacity, or is carved out of it."""
        if pool_id not in self._known:
            above = self._database.read(
                lambda connection: pools.find_above(connection, table.c.pool_id, [pool_id]),
                serializable=False,
            )
            line = {one.pool_id: one for one in above}
            found, at = line.get(pool_id), line.get(pool_id)
            while at is not None and at.parent_id != self._pool.info.pool_id:
                # A hold in a carved pool is not repeated above it.
                shares = at.carved_lease is None and at.parent_id is not None
                at = line.get(at.parent_id) if shares and at.parent_id is not None else None
            if at is None or (at is not found and at.carved_lease is not None):
                found = None
            self._known[pool_id] = found
        return self._known[pool_id]

    def _expected(
        self, connection: Connection, below: PoolInfo, row: Row, other: Row
    ) -> dict[str, Any] | None:
        """Return the values of an entry that an entry of the carved pool led to."""
        kinds = row["kind"], other["kind"]
        if kinds == (EntryKind.RESERVATION, EntryKind.OPENING):
            return _funding(below, other)
        if kinds == (EntryKind.SETTLEMENT, EntryKind.CLOSING):
            spent = rows.balance_of(other).committed
            return {
                "usage": carving.spent_usage(spent),
                "detail": carving.detail(below.name, spent.requests),
            }
        said = rows.usage_of(other)
        if row["kind"] != EntryKind.CORRECTION or said is None:
            return None
        if not other["flags"] & EntryFlag.CLOSED:
            return None
        detail = rows.detail_of(row)
        requests = requests_made(other["kind"], rows.detail_of(other))
        corrects = settlement_of(connection, self._pool, row["lease"])
        return {
            "usage": carving.late_usage(said),
            "detail": {
                **{name: detail[name] for name in _PROVED if name in detail},
                "corrects": corrects,
                "reason": carving.late_reason(below.name, other["kind"]),
                **carving.detail(below.name, requests),
            },
        }


_OWN = ("corrects", "window")
_PROVED = ("from", "to", "window")
"""The fields of a correction that only its own pool can prove."""


def _funding(below: PoolInfo, opening: Row) -> dict[str, Any] | None:
    """Return the values of the reservation that funds a carved pool."""
    policy = rows.policy_of(opening)
    if policy is None:
        return None
    estimate, requests = carving.funding(policy)
    return {
        "estimate": estimate,
        "request_budget": RequestBudget.unlimited(),
        "detail": carving.detail(below.name, requests),
    }


def _together(row: Row, ahead: int | None, other: Row, other_ahead: int | None) -> bool:
    """Tell whether the times of two entries fit one transaction.

    Each is recorded at the transaction's time, or at that of the entry before it if that is later.
    """
    at, other_at = row["recorded_at"], other["recorded_at"]
    least, other_least = ahead or at, other_ahead
    if other_at != other_least and at != max(other_at, least):
        return False
    return bool(at == ahead or other_at == max(at, other_least or at))
