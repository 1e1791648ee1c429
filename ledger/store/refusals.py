"""Refusals from above: whether the pool that a denial names had as little left as it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ledger.core import rules
from ledger.core.entries import Entry, EntryKind
from ledger.errors import JournalDamagedError, ThresholdExceededError
from ledger.store import queries
from ledger.store.journal import PAGE, PoolJournal
from ledger.store.rows import Row
from ledger.store.schema import entries
from ledger.store.statements import Prepared

_POOL = entries.c.pool_id == bindparam("pool_id")
_STATES = Prepared(
    select(*(entries.c[name] for name in queries.HEAD_NAMES))
    .where(_POOL, entries.c.seq > bindparam("after"), entries.c.seq <= bindparam("upto"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_OWN = (
    _POOL,
    entries.c.lease.is_not(None),
    entries.c.origin_seq.is_(None),
)
_OWN_BEFORE = Prepared(
    select(entries.c.seq)
    .where(*_OWN, entries.c.seq < bindparam("seq"))
    .order_by(entries.c.seq.desc())
    .limit(1)
)
_OWN_BEHIND = Prepared(
    select(entries.c.seq)
    .where(*_OWN, entries.c.seq > bindparam("seq"))
    .order_by(entries.c.seq)
    .limit(1)
)


class Refusals:
    """What pools above had left when they refused what was asked of one pool.

    A denial is not repeated above. But a transaction on this pool is alone on those above it, so
    that an entry of this pool and its mirror there stand at the same point of both journals: what
    the pool above had left is one of its states between the mirrors of the entries before and
    behind the denial. Those around the denial's time are looked at first.
    """

    def __init__(self, pool: PoolJournal) -> None:
        self._pool = pool
        self._pages: dict[int, Sequence[Row]] = {}
        """Of each pool above, the states that were read last."""

    def problem(self, connection: Connection, entry: Entry) -> str | None:
        """Return what is wrong with a denial that says that a pool above refused."""
        figures = entry.detail.get("denial")
        if entry.kind != EntryKind.DENIAL or not isinstance(figures, dict):
            return None
        name = figures.get("pool")
        if name is None:
            return None
        above = next((one for one in self._pool.lineage[1:] if one.info.name == name), None)
        if above is None:
            return f"it says that pool {name!r} refused, which shares nothing with this one"
        try:
            if self._near(connection, above, entry) or self._between(connection, above, entry):
                return None
        except JournalDamagedError:
            return None  # the pool above says so when it is verified
        return f"pool {name!r} did not refuse it: that never had what it says was left"

    def _near(self, connection: Connection, above: PoolJournal, entry: Entry) -> bool:
        """Look for the state among those up to the denial's time."""
        page = self._pages.get(above.info.pool_id, ())
        at = entry.recorded_at
        if not page or not page[0]["recorded_at"] < at <= page[-1]["recorded_at"]:
            last = _last_at(connection, above, at)
            page = _page(connection, above, after=max(0, last - PAGE // 2), upto=last + PAGE // 2)
            self._pages[above.info.pool_id] = page
        least = self._mirrored(connection, above, entry, _OWN_BEFORE) or 1
        states = (row for row in reversed(page) if row["recorded_at"] <= at and row["seq"] >= least)
        return any(_refuses(connection, above, row, entry) for row in states)

    def _between(self, connection: Connection, above: PoolJournal, entry: Entry) -> bool:
        """Look for the state among all that it can have been."""
        after = (self._mirrored(connection, above, entry, _OWN_BEFORE) or 1) - 1
        behind = self._mirrored(connection, above, entry, _OWN_BEHIND)
        upto = _newest(connection, above) if behind is None else behind - 1
        while page := _page(connection, above, after=after, upto=upto):
            if any(_refuses(connection, above, row, entry) for row in page):
                return True
            after = page[-1]["seq"]
        return False

    def _mirrored(
        self, connection: Connection, above: PoolJournal, entry: Entry, which: Prepared
    ) -> int | None:
        """Return where the entry of a lease before a denial, or behind it, is repeated above."""
        pool_id = self._pool.info.pool_id
        own = which.rows(connection, {"pool_id": pool_id, "seq": entry.seq})
        if not own:
            return None
        origin = {"origin_pool_id": pool_id, "origin_seq": own[0]["seq"]}
        found = queries.MIRROR.rows(connection, {"pool_id": above.info.pool_id, **origin})
        return int(found[0]["seq"]) if found else None


def _refuses(connection: Connection, above: PoolJournal, row: Row, entry: Entry) -> bool:
    """Tell whether a pool at one of its entries refuses what was asked, with the same figures."""
    assert entry.estimate is not None  # noqa: S101 - a denial has one
    assert entry.request_budget is not None  # noqa: S101 - likewise
    head = above.head_from(connection, row)
    denial = rules.admit(
        head.policy, head.balance, entry.estimate, entry.request_budget, head.window
    )
    if not isinstance(denial, ThresholdExceededError):
        return False
    said = {**rules.denial_figures(denial), "pool": above.info.name}
    return bool(said == entry.detail["denial"])


def _page(
    connection: Connection, above: PoolJournal, *, after: int, upto: int
) -> list[dict[str, Any]]:
    given = {"pool_id": above.info.pool_id, "after": after, "upto": upto, "page": PAGE}
    return _STATES.rows(connection, given)


def _newest(connection: Connection, above: PoolJournal) -> int:
    found = queries.HEAD.rows(connection, {"pool_id": above.info.pool_id})
    return int(found[0]["seq"]) if found else 0


def _last_at(connection: Connection, above: PoolJournal, at: int) -> int:
    """Return the last entry that was recorded by a time; times never go back in a pool."""
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
