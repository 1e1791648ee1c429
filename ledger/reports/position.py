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
from ledger.records import Balance, PoolId, Seq, Totals
from ledger.reports.filters import Scope
from ledger.schema import entries

SIDES = tuple(f"{side}_{name}" for side in ("committed", "reserved") for name in Totals._fields)
"""The columns of a balance."""


class Position(NamedTuple):
    """A pool at one of its entries."""

    seq: Seq
    recorded_at: Micros
    balance: Balance
    policy: SharedPoolBudgetOptions

    @property
    def remaining(self) -> Remaining:
        """What was left under that policy."""
        return rules.remaining(self.policy, self.balance)


def newest(connection: Connection, scope: Scope) -> Position | None:
    """Return the pool at the newest entry in scope, None where there is no entry.

    Raises:
        JournalDamagedError: The policy in force cannot be read.
    """
    e = entries.c
    found = (
        connection.execute(
            select(e.seq, e.recorded_at, e.policy_seq, *(e[name] for name in SIDES))
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
    pool_id, policy_seq = scope.pool, row["policy_seq"]
    return Position(
        seq=row["seq"],
        recorded_at=row["recorded_at"],
        balance=balance_in(row),
        policy=policy_at(connection, pool_id, policy_seq, pool=scope.pools[pool_id]),
    )


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


def balance_in(row: Mapping[str, Any]) -> Balance:
    """Return the balance that an entry's columns hold."""
    return Balance(
        *(
            Totals(*(row[f"{side}_{name}"] for name in Totals._fields))
            for side in ("committed", "reserved")
        )
    )
