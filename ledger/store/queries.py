"""The queries of the write path, on the entries of one pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    FromClause,
    Select,
    TextClause,
    bindparam,
    case,
    exists,
    false,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.sql.selectable import NamedFromClause

from ledger.core.axes import AXES, Axis
from ledger.core.kinds import BEGINS_LEASE, ENDS_HOLD, ENDS_LEASE, FOLLOWS_UP, EntryKind, sql
from ledger.store.attributions import CONTENT
from ledger.store.columns import Columns
from ledger.store.dialects import clock
from ledger.store.dialects.functions import NewestEntry
from ledger.store.schema import (
    EXPIRY_SET,
    HEAD_NAMES,
    IS_OF_ENTRY,
    attributions,
    entries,
    pools,
)
from ledger.store.statements import Prepared

_POOL: BindParameter[int] = bindparam("pool_id")
_JOINED = select(*entries.columns, *CONTENT, attributions.c.content_key).select_from(
    entries.outerjoin(attributions, IS_OF_ENTRY)
)
_OF_POOL = _JOINED.where(entries.c.pool_id == _POOL)


def _newest(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns).where(entries.c.pool_id == _POOL).order_by(entries.c.seq.desc()).limit(1)
    )


_NOW = clock.NOW.label("now")
_HEAD = tuple(entries.c[name] for name in HEAD_NAMES)
HEAD = NewestEntry(_newest(*_HEAD, _NOW))
"""The newest entry of a pool, and the time."""
HEAD_COLUMNS = Columns(entries, HEAD_NAMES)
ENTRIES_BEHIND = (
    _OF_POOL.where(entries.c.seq > bindparam("after"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_HAS_KEY = entries.c.idempotency_key.in_(bindparam("keys", expanding=True))
BY_KEYS = _OF_POOL.where(entries.c.payload_digest.is_not(None), _HAS_KEY)
"""The query for entries with keys that callers gave."""
BY_MADE_KEYS = _OF_POOL.where(
    entries.c.seq > bindparam("after"), entries.c.payload_digest.is_(None), _HAS_KEY
)
"""The query for entries with keys that the library made, which are not indexed."""
_origin = entries.alias("origin")
_MIRROR = select(_origin.c.seq).where(
    _origin.c.pool_id == _POOL,
    _origin.c.origin_pool_id == bindparam("origin_pool_id"),
    _origin.c.origin_seq.is_not(None),
    _origin.c.origin_seq == bindparam("origin_seq"),
)
MIRROR = Prepared(_MIRROR)


_LEASE = (
    *("seq", "kind", "flags", "lease", "expires_at", "attribution_id", "request_id", "occurred_at"),
    *(
        column.name
        for column in entries.c
        if column.name.startswith(("estimate_", "budget_", "usage_", "held_", "used_"))
    ),
    "origin_pool_id",
)
LEASE_COLUMNS = Columns(entries, _LEASE)
_granted, _follow_up, _ending = (
    entries.alias(name) for name in ("granted", "follow_up", "lease_end")
)


def _newest_of_lease(
    lease: ColumnElement[int], *, before: ColumnElement[int] | None = None
) -> Prepared:
    """Return the query for a lease's newest entry, with columns of its reservation.

    Args:
        lease: The lease.
        before: Only entries with a lower number count; None is no limit.
    """

    def about(one: NamedFromClause[Any], kinds: Iterable[EntryKind]) -> Select[tuple[int]]:
        # Each by its own partial index, since most leases have only a reservation and an end.
        found = select(func.max(one.c.seq)).where(
            one.c.pool_id == _POOL, one.c.lease == lease, text(sql(kinds, f"{one.name}.kind"))
        )
        return found if before is None else found.where(one.c.seq < before)

    itself: Select[tuple[int]] = select(lease.label("seq"))
    of_lease = itself.union_all(about(_follow_up, FOLLOWS_UP), about(_ending, ENDS_LEASE)).subquery(
        "of_lease"
    )
    constants = ("estimate_", "budget_", "attribution_id", "request_id", "occurred_at")
    return Prepared(
        select(
            *((_granted if name.startswith(constants) else entries).c[name] for name in _LEASE),
            _granted.c.hash.label("proof"),
        ).where(
            _granted.c.pool_id == _POOL,
            _granted.c.seq == lease,
            text(sql(BEGINS_LEASE, "granted.kind")),
            entries.c.pool_id == _POOL,
            entries.c.seq == select(func.max(of_lease.c.seq)).scalar_subquery(),
        )
    )


LEASE = _newest_of_lease(bindparam("lease"))
MIRRORED_LEASE = _newest_of_lease(_MIRROR.scalar_subquery())
LEASE_BEFORE = _newest_of_lease(bindparam("lease"), before=bindparam("before"))
SINCE = Prepared(
    select(entries.c.seq, entries.c.lease, entries.c.expires_at, entries.c.hash)
    .where(entries.c.pool_id == _POOL, entries.c.seq >= bindparam("known"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)


def _none_about_lease(
    one: NamedFromClause[Any], *conditions: ColumnElement[bool] | TextClause
) -> ColumnElement[bool]:
    found = select(one.c.seq).where(
        one.c.pool_id == entries.c.pool_id, one.c.lease == entries.c.lease, *conditions
    )
    return found.limit(1).correlate(entries).scalar_subquery().is_(None)


_HOLDS_STILL = (
    EXPIRY_SET,
    _none_about_lease(_ending, text(sql(ENDS_LEASE, "lease_end.kind"))),
    _none_about_lease(
        _follow_up,
        text(sql(FOLLOWS_UP, "follow_up.kind")),
        _follow_up.c.seq > entries.c.seq,
        _follow_up.c.kind.in_([literal_column(f"'{kind}'") for kind in ENDS_HOLD]),
    ),
)
"""The condition for entries that set when a hold ends, unless the hold has ended or was renewed
since.

Subqueries run only for holds that are due. A join would be planned again with every call, and a
server without statistics might join the whole table.
"""
_ONCE = select(clock.NOW).scalar_subquery()
"""The time, read once, since a server cannot search an index by a clock that moves."""
READ_CLOCK = Prepared(select(_NOW))
ENDING = Prepared(
    select(entries.c.lease, entries.c.expires_at)
    .where(
        entries.c.pool_id == _POOL,
        entries.c.expires_at > _newest(entries.c.swept_until).scalar_subquery(),
        entries.c.expires_at <= _ONCE + bindparam("ahead", type_=BigInteger()),
        *_HOLDS_STILL,
    )
    .order_by(entries.c.expires_at, entries.c.lease)
    .limit(bindparam("page"))
)
"""The query for holds that end soon, and those that are due and have not expired yet."""
NEXT_END = Prepared(
    select(entries.c.expires_at)
    .where(entries.c.pool_id == _POOL, entries.c.expires_at > _ONCE, *_HOLDS_STILL)
    .order_by(entries.c.expires_at)
    .limit(1)
)
"""The query for the first end of a hold that a pool granted and that has not ended."""


def _sharing(parent: ColumnElement[int]) -> Select[tuple[int]]:
    return select(pools.c.pool_id).where(
        pools.c.parent_id == parent, pools.c.carved_lease.is_(None)
    )


_below = _sharing(_POOL).cte("below", recursive=True)
_below = _below.union_all(_sharing(_below.c.pool_id))
_newest_below = entries.alias("newest_below")
SHARING_WITH_DUE = (
    select(_below.c.pool_id)
    .where(
        exists()
        .where(
            entries.c.pool_id == _below.c.pool_id,
            entries.c.expires_at
            > select(_newest_below.c.swept_until)
            .where(_newest_below.c.pool_id == _below.c.pool_id)
            .order_by(_newest_below.c.seq.desc())
            .limit(1)
            .correlate(_below)
            .scalar_subquery(),
            entries.c.expires_at <= bindparam("until"),
            *_HOLDS_STILL,
        )
        .correlate(_below)
    )
    .order_by(_below.c.pool_id)
    .limit(bindparam("page"))
)
"""The query for pools below, at any depth, that share a pool's capacity and have due leases."""
_held_by = entries.alias("held_by")


def _held(axis: Axis) -> ColumnElement[int]:
    """Return SQL for what a lease holds now, given the entry that set when its hold ends."""
    newest = select(func.max(_follow_up.c.seq)).where(
        _follow_up.c.pool_id == entries.c.pool_id,
        _follow_up.c.lease == entries.c.lease,
        text(sql(FOLLOWS_UP, "follow_up.kind")),
    )
    at_first = literal_column("1") if axis.amount is None else _held_by.c[f"estimate_{axis.amount}"]
    by_kind = case((_held_by.c.kind == EntryKind.RESERVATION, at_first), else_=0)
    return (
        select(func.coalesce(_held_by.c[f"held_{axis.name}"], by_kind))
        .where(
            _held_by.c.pool_id == entries.c.pool_id,
            _held_by.c.seq
            == func.coalesce(newest.correlate(entries).scalar_subquery(), entries.c.lease),
        )
        .correlate(entries)
        .scalar_subquery()
    )


def _swept_until(pool: ColumnElement[int], of: FromClause) -> ColumnElement[int]:
    newest = entries.alias("newest_swept")
    return (
        select(newest.c.swept_until)
        .where(newest.c.pool_id == pool)
        .order_by(newest.c.seq.desc())
        .limit(1)
        .correlate(of)
        .scalar_subquery()
    )


_sharers = select(pools.c.pool_id).where(pools.c.pool_id == _POOL).cte("sharers", recursive=True)
_sharers = _sharers.union_all(_sharing(_sharers.c.pool_id))
_due = (
    select(
        _sharers.c.pool_id.label("pool_id"),
        entries.c.expires_at,
        *(_held(axis).label(axis.name) for axis in AXES),
    )
    .select_from(_sharers.join(entries, entries.c.pool_id == _sharers.c.pool_id))
    .where(
        entries.c.expires_at > _swept_until(_sharers.c.pool_id, _sharers),
        entries.c.expires_at <= _ONCE,
        *_HOLDS_STILL,
    )
    .subquery("due")
)
DUE_HOLDS = Prepared(
    select(_due.c.pool_id, *(func.sum(_due.c[axis.name]).label(axis.name) for axis in AXES))
    .group_by(_due.c.pool_id)
    .order_by(_due.c.pool_id)
)
"""The query for what due leases that have not expired yet hold, in a pool and in those below.

Pools without due leases are left out.
"""
DUE_HOLDS_BY_TIME = Prepared(
    select(
        _due.c.pool_id,
        _due.c.expires_at,
        *(func.sum(_due.c[axis.name]).label(axis.name) for axis in AXES),
    )
    .group_by(_due.c.pool_id, _due.c.expires_at)
    .order_by(_due.c.pool_id, _due.c.expires_at)
)
"""The same for each time at which such leases were due, by which limits and credits count."""
_own = entries.alias("own")
_child, _grandchild = pools.alias("child"), pools.alias("grandchild")


def _shares(pool: FromClause, parent: ColumnElement[int]) -> ColumnElement[bool]:
    return (pool.c.parent_id == parent) & pool.c.carved_lease.is_(None)


def _may_be_due(pool: ColumnElement[int], swept_until: ColumnElement[int]) -> ColumnElement[bool]:
    return exists().where(
        _own.c.pool_id == pool,
        EXPIRY_SET,
        _own.c.expires_at > swept_until,
        _own.c.expires_at <= _ONCE,
    )


STANDING = Prepared(
    _newest(
        *_HEAD,
        # Only one level below is searched, since a recursion takes five times as long as the rest.
        case(
            (entries.c.reserved_requests == literal_column("0"), false()),
            else_=_may_be_due(entries.c.pool_id, entries.c.swept_until)
            | exists().where(
                _shares(_child, entries.c.pool_id),
                _may_be_due(_child.c.pool_id, _swept_until(_child.c.pool_id, _child))
                | exists().where(_shares(_grandchild, _child.c.pool_id)),
            ),
        ).label("may_be_due"),
        _NOW,
    )
)
"""The query for the newest entry, whether a due lease may hold capacity of the pool, and the
time."""
OPEN_LEASES = Prepared(
    select(entries.c.seq, entries.c.recorded_at)
    .where(
        entries.c.pool_id == _POOL,
        entries.c.seq > bindparam("after"),
        entries.c.kind == EntryKind.RESERVATION,
        entries.c.origin_seq.is_(None),
        ~exists().where(
            _ending.c.pool_id == entries.c.pool_id,
            _ending.c.lease == entries.c.seq,
            text(sql(ENDS_LEASE, "lease_end.kind")),
        ),
    )
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
