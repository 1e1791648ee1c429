"""Verification of denials by pools above: whether the named pool had as little left as stated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ledger.core import rules
from ledger.core.entries import Entry
from ledger.core.errors import JournalDamagedError, ThresholdExceededError
from ledger.store import queries
from ledger.store.bounds import bounds_of
from ledger.store.journal import PAGE, PoolJournal
from ledger.store.rows import Row
from ledger.store.schema import HEAD_NAMES, entries
from ledger.store.statements import Prepared, rows_of_each

_POOL = entries.c.pool_id == bindparam("pool_id")
_STATES = Prepared(
    select(*(entries.c[name] for name in HEAD_NAMES))
    .where(_POOL, entries.c.seq > bindparam("after"), entries.c.seq <= bindparam("upto"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_NEXT_GRANTED = Prepared(
    select(entries.c.seq)
    .where(
        _POOL,
        entries.c.lease.is_not(None),
        entries.c.origin_seq.is_(None),
        entries.c.seq > bindparam("seq"),
    )
    .order_by(entries.c.seq)
    .limit(1)
)
"""The query for the next entry after a given one about a lease that the pool granted."""


class Refusals:
    """What pools above had left when they refused reservations in one pool.

    A denial has no mirror. But a transaction on this pool also locks the pools above, so an entry
    here and its mirror there are written together. So the state in which the pool above refused is
    one of its states between the mirrors of the entries before and after the denial. States around
    the denial's time are searched first.
    """

    def __init__(self, pool: PoolJournal) -> None:
        self._pool = pool
        self._pages: dict[int, Sequence[Row]] = {}
        """The states of each pool above that were read last."""

    def problem(self, connection: Connection, entry: Entry, *, granted: int | None) -> str | None:
        """Return what is wrong with a denial that names a pool above, None if nothing is.

        Args:
            connection: A transaction.
            entry: The denial.
            granted: The newest entry before it about a lease that was granted here.
        """
        name = entry.detail["denial"]["pool"]
        above = next((one for one in self._pool.lineage[1:] if one.info.name == name), None)
        if above is None:
            return f"it says that pool {name!r} refused, which shares nothing with this one"
        first = self._mirror(connection, above, granted) or 1
        try:
            if self._near(connection, above, entry, first) or self._between(
                connection, above, entry, first
            ):
                return None
        except JournalDamagedError:
            return None  # verifying the pool above reports it
        return f"pool {name!r} did not refuse it: that never had what it says was left"

    def _near(self, connection: Connection, above: PoolJournal, entry: Entry, first: int) -> bool:
        """Search the state among those up to the denial's time, first in the page read last."""
        pool_id = above.info.pool_id
        if self._among(connection, above, entry, first):
            return True
        last = _last_at(connection, above, entry.recorded_at)
        begin = max(0, last - PAGE // 2)
        self._pages[pool_id] = _page(connection, above, after=begin, upto=begin + PAGE)
        return self._among(connection, above, entry, first)

    def _among(self, connection: Connection, above: PoolJournal, entry: Entry, first: int) -> bool:
        page = self._pages.get(above.info.pool_id, ())
        return any(
            row["recorded_at"] <= entry.recorded_at
            and row["seq"] >= first
            and _refuses(connection, above, row, entry)
            for row in reversed(page)
        )

    def _between(
        self, connection: Connection, above: PoolJournal, entry: Entry, first: int
    ) -> bool:
        """Search the state among all states between the two mirrors."""
        given = {"pool_id": self._pool.info.pool_id, "seq": entry.seq}
        behind = _NEXT_GRANTED.rows(connection, given)
        end = self._mirror(connection, above, behind[0]["seq"]) if behind else None
        after, upto = first - 1, _newest(connection, above) if end is None else end - 1
        while page := _page(connection, above, after=after, upto=upto):
            if any(_refuses(connection, above, row, entry) for row in page):
                return True
            after = page[-1]["seq"]
        return False

    def _mirror(self, connection: Connection, above: PoolJournal, seq: int | None) -> int | None:
        """Return the number of an entry's mirror in a pool above, None without one."""
        if seq is None:
            return None
        given = {"origin_pool_id": self._pool.info.pool_id, "origin_seq": seq}
        found = queries.MIRROR.rows(connection, {"pool_id": above.info.pool_id, **given})
        return int(found[0]["seq"]) if found else None


def _refuses(connection: Connection, above: PoolJournal, row: Row, entry: Entry) -> bool:
    """Tell whether a pool in one of its states refuses the reservation with the same figures."""
    assert entry.estimate is not None  # noqa: S101 - a denial has one
    assert entry.request_budget is not None  # noqa: S101 - a denial has one
    head, figures = above.head_from(connection, row), entry.detail["denial"]
    at = max(figures.get("at", entry.recorded_at), head.recorded_at)
    session = rules.begin_session(head.policy, head.window, head.balance, at)
    limits, credits = bounds_of(
        partial(rows_of_each, connection),
        above,
        head.policy,
        policy_seq=head.policy_seq,
        upto=head.seq,
        at=at,
    )
    denial = rules.RELEASED[head.rules_version].admit(
        head.policy,
        head.balance,
        entry.estimate,
        entry.request_budget,
        session or head.window,
        limits=limits,
        credits=credits,
    )
    if not isinstance(denial, ThresholdExceededError):
        return False
    said = {name: one for name, one in figures.items() if name != "at"}
    return rules.says(said, denial, pool=above.info.name)


def _page(
    connection: Connection, above: PoolJournal, *, after: int, upto: int
) -> list[dict[str, Any]]:
    given = {"pool_id": above.info.pool_id, "after": after, "upto": upto, "page": PAGE}
    return _STATES.rows(connection, given)


def _newest(connection: Connection, above: PoolJournal) -> int:
    found = queries.HEAD.rows(connection, {"pool_id": above.info.pool_id, "now": None})
    return int(found[0]["seq"]) if found else 0


def _last_at(connection: Connection, above: PoolJournal, at: int) -> int:
    """Return the last entry recorded at or before a time. Times never decrease in a pool."""
    low, high = 0, _newest(connection, above)
    while low < high:
        middle = (low + high + 1) // 2
        given = {"pool_id": above.info.pool_id, "after": middle - 1, "upto": middle, "page": 1}
        found = _STATES.rows(connection, given)
        if found and found[0]["recorded_at"] <= at:
            low = middle
        else:
            high = middle - 1
    return low
