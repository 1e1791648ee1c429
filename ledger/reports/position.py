"""Where a pool stood at one of its entries: its balance, and the policy in force."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, select

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import Balance, EntryFlag, Seq, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.errors import JournalDamagedError
from ledger.reports.filters import Scope, Shape
from ledger.store import rows
from ledger.store.columns import Columns
from ledger.store.policies import Terms
from ledger.store.schema import entries

SIDES = tuple(f"{side}_{name}" for side in ("committed", "reserved") for name in Totals._fields)
"""The columns of a balance."""

_TERMS = ("seq", "flags", "recorded_at", "policy_seq", "window_seq")
"""The columns that say when, and under what terms, an entry was written."""


_COLUMNS = Columns(entries, (*_TERMS, *SIDES))


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
        """Return the pool as it is at `now` if nothing more is written: in the window of then."""
        rolled = rules.roll_over(self.policy, self.window, self.balance, now)
        return self if rolled is None else self._replace(window=rolled)


@functools.lru_cache(maxsize=32)
def _newest(shape: Shape) -> Select[Any]:
    e = entries.c
    return (
        select(*(e[name] for name in (*_TERMS, *SIDES)))
        .where(*shape.conditions())
        .order_by(e.seq.desc())
        .limit(1)
    )


def newest(connection: Connection, scope: Scope) -> Position | None:
    """Return the pool at the newest entry in scope, None where there is no entry.

    Raises:
        JournalDamagedError: The policy in force, or the window, cannot be read.
    """
    found = connection.execute(_newest(scope.shape), scope.values).mappings().first()
    if found is None:
        return None
    row: dict[str, Any] = dict(found)
    name = scope.pools[scope.pool]
    try:
        _COLUMNS.check(row)
    except ValueError as error:
        reason = f"it cannot be read: {error}"
        raise JournalDamagedError(pool=name, seq=row["seq"], reason=reason) from error
    policy, window, _rules = Terms(scope.pool, name).of(connection, row)
    return Position(
        seq=row["seq"],
        recorded_at=row["recorded_at"],
        balance=rows.balance_of(row),
        policy=policy,
        window=window,
        closed=bool(row["flags"] & EntryFlag.CLOSED),
    )
