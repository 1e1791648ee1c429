"""Where a pool stood at one of its entries: its balance, and the policy in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from ledger import rows, rules
from ledger.checks import Micros
from ledger.errors import JournalDamagedError
from ledger.model import Remaining
from ledger.policy import SharedPoolBudgetOptions
from ledger.records import Balance, EntryFlag, PoolId, Seq, Totals, WindowState
from ledger.reports.filters import Scope
from ledger.schema import entries

SIDES = tuple(f"{side}_{name}" for side in ("committed", "reserved") for name in Totals._fields)
"""The columns of a balance."""

TERMS = tuple(
    entries.c[name] for name in ("seq", "flags", "recorded_at", "policy_seq", "window_seq")
)
"""The columns that say when, and under what terms, an entry was written."""


class Position(NamedTuple):
    """A pool at one of its entries."""

    seq: Seq
    recorded_at: Micros
    balance: Balance
    policy: SharedPoolBudgetOptions
    window: WindowState | None
    closed: bool = False

    @property
    def remaining(self) -> Remaining:
        """What was left under that policy, in that window."""
        return rules.remaining(self.policy, self.balance, self.window)

    def at(self, now: Micros) -> Position:
        """Return the same pool in the window that it is by then, if nothing more is written."""
        rolled = rules.roll_over(self.policy, self.window, self.balance, now)
        return self if rolled is None else self._replace(window=rolled)


def newest(connection: Connection, scope: Scope) -> Position | None:
    """Return the pool at the newest entry in scope, None where there is no entry.

    Raises:
        JournalDamagedError: The policy in force, or the window, cannot be read.
    """
    e = entries.c
    found = (
        connection.execute(
            select(*TERMS, *(e[name] for name in SIDES))
            .where(*scope.conditions)
            .order_by(e.seq.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )
    if found is None:
        return None
    row: dict[str, Any] = dict(found)
    pool_id, pool = scope.pool, scope.pools[scope.pool]
    policy, window = terms_at(connection, pool_id, row, pool=pool)
    return Position(
        seq=row["seq"],
        recorded_at=row["recorded_at"],
        balance=balance_in(row),
        policy=policy,
        window=window,
        closed=bool(row["flags"] & EntryFlag.CLOSED),
    )


def terms_at(
    connection: Connection, pool_id: PoolId, row: Mapping[str, Any], *, pool: str
) -> tuple[SharedPoolBudgetOptions, WindowState | None]:
    """Return the policy under which, and the window in which, an entry was decided.

    Raises:
        JournalDamagedError: One of them cannot be read.
    """
    policy = policy_at(connection, pool_id, row["policy_seq"], pool=pool)
    if policy.window is None:
        return policy, None
    return policy, window_at(connection, pool_id, row["window_seq"], pool=pool)


def policy_at(
    connection: Connection, pool_id: PoolId, seq: int, *, pool: str
) -> SharedPoolBudgetOptions:
    """Return the policy that an entry set.

    Raises:
        JournalDamagedError: It set none, or none that can be read.
    """
    detail = connection.execute(
        select(entries.c.detail).where(entries.c.pool_id == pool_id, entries.c.seq == seq)
    ).scalar()
    try:
        policy = rows.policy_of({"detail": detail})
    except rows.UNREADABLE as error:
        reason = f"its policy cannot be read: {error}"
        raise JournalDamagedError(pool=pool, seq=seq, reason=reason) from error
    if policy is None:
        raise JournalDamagedError(pool=pool, seq=seq, reason="it should set a policy")
    return policy


def window_at(connection: Connection, pool_id: PoolId, seq: int, *, pool: str) -> WindowState:
    """Return the window that an entry began.

    Raises:
        JournalDamagedError: It began none, or none that can be read.
    """
    e = entries.c
    found = connection.execute(
        select(*(e[name] for name in rows.BEGINNING)).where(e.pool_id == pool_id, e.seq == seq)
    )
    row = found.mappings().first()
    try:
        window = None if row is None else rows.window_of(dict(row))
    except rows.UNREADABLE as error:
        reason = f"its window cannot be read: {error}"
        raise JournalDamagedError(pool=pool, seq=seq, reason=reason) from error
    if window is None:
        raise JournalDamagedError(pool=pool, seq=seq, reason="it should begin a window")
    return window


def balance_in(row: Mapping[str, Any]) -> Balance:
    """Return the balance that an entry's columns hold."""
    return Balance(
        *(
            Totals(*(row[f"{side}_{name}"] for name in Totals._fields))
            for side in ("committed", "reserved")
        )
    )
