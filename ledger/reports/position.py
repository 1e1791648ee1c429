"""The state of a pool at one of its entries: its balance and the policy in force."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select

from ledger.core import rules
from ledger.core.checks import Micros, check_type, to_micros
from ledger.core.entries import Balance, EntryFlag, Seq, Totals, WindowState
from ledger.core.errors import JournalDamagedError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.ledger import Ledger
from ledger.reports.filters import Filter, Where
from ledger.reports.missing_figures import is_unpriced
from ledger.reports.scopes import Scope, Shape
from ledger.store import rows
from ledger.store.columns import Columns
from ledger.store.journal import NO_OPENING
from ledger.store.policies import Terms
from ledger.store.schema import IS_UNPRICED, entries

SIDES = tuple(f"{side}_{name}" for side in ("committed", "reserved") for name in Totals._fields)
"""The columns of a balance."""

_TERMS = ("seq", "flags", "recorded_at", "policy_seq", "window_seq")
"""The columns that say when an entry was written, and under what terms."""


_COLUMNS = Columns(entries, (*_TERMS, *SIDES))


class Position(NamedTuple):
    """A pool at one of its entries."""

    seq: Seq
    recorded_at: Micros
    balance: Balance
    policy: SharedPoolBudgetOptions
    window: WindowState | None
    policy_seq: int
    closed: bool = False
    credits: rules.Credits | None = None
    """The pool's credits, if they were read."""
    limits: rules.Limits | None = None
    """The limits of its policy, if they were read."""

    @property
    def remaining(self) -> Remaining:
        """What was left: the least of its own capacity, these limits and these credits."""
        return rules.remaining(self.policy, self.balance, self.window, self.limits, self.credits)


def asked_moment(book: Ledger, where: Where, now: datetime | None) -> Micros | None:
    """Return the moment of a report: as given, or the present by the store's clock.

    None with `as_of`, when it is the time of that entry.

    Raises:
        InvalidInputError: A moment without a time zone, or an argument of another type.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("book", book, Ledger)
    if now is not None:
        return to_micros("now", now)
    if isinstance(where, Filter) and where.as_of is not None:
        return None
    return to_micros("now", book.now())


def moment_of(connection: Connection, scope: Scope, asked: Micros | None) -> Micros:
    """Return the moment of a report: as `asked_moment` says, or when `as_of` was recorded.

    Raises:
        JournalDamagedError: The policy in force, or the window, cannot be read.
    """
    if asked is not None:
        return asked
    last = newest(connection, scope)
    if last is None:
        raise JournalDamagedError(pool=scope.pools[scope.pool], seq=1, reason=NO_OPENING)
    return last.recorded_at


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
    """Return the pool at the newest entry in scope, None if there is no entry.

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
        policy_seq=row["policy_seq"],
        closed=bool(row["flags"] & EntryFlag.CLOSED),
    )


def unpriced_in(connection: Connection, scope: Scope) -> int:
    """Return how many records of usage in scope leave out a figure that their pool limits."""
    return sum(unpriced_of_each(connection, scope).values())


def unpriced_of_each(connection: Connection, scope: Scope) -> dict[str, int]:
    """Return that number by the pool's name, for each pool that has any."""
    own = entries.c.pool_id
    query = (
        select(own, func.count())
        .where(
            *scope.conditions,
            IS_UNPRICED,  # as the index has it
            is_unpriced(scope.shape, value=scope.value),
            entries.c.usage_total_tokens.is_not(None),
        )
        .group_by(own)
    )
    found = connection.execute(query).all()
    return {scope.pools[pool_id]: int(many) for pool_id, many in found if pool_id in scope.pools}
