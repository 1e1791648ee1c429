"""The queries of the write path, on the entries of one pool."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Select,
    bindparam,
    case,
    exists,
    literal_column,
    or_,
    select,
)

from ledger.core.entries import EntryFlag
from ledger.core.kinds import ENDS_LEASE, HOLDING, EntryKind
from ledger.store.attributions import CONTENT
from ledger.store.columns import Columns
from ledger.store.dialects import clock
from ledger.store.schema import IS_OF_ENTRY, SETS_EXPIRY, attributions, entries, pools
from ledger.store.statements import Prepared

_POOL: BindParameter[int] = bindparam("pool_id")
_JOINED = select(*entries.columns, *CONTENT, attributions.c.content_key).select_from(
    entries.outerjoin(attributions, IS_OF_ENTRY)
)
_OF_POOL = _JOINED.where(entries.c.pool_id == _POOL)


def _newest(*columns: Column[Any]) -> Select[Any]:
    return (
        select(*columns).where(entries.c.pool_id == _POOL).order_by(entries.c.seq.desc()).limit(1)
    )


HEAD_NAMES = (
    *("seq", "flags", "policy_seq", "window_seq", "swept_until", "recorded_at", "hash"),
    *(column.name for column in entries.c if column.name.startswith(("committed_", "reserved_"))),
)
"""The columns of an entry that make up the state of its pool after it."""
HEAD = Prepared(_newest(*(entries.c[name] for name in HEAD_NAMES)))
HEAD_COLUMNS = Columns(entries, HEAD_NAMES)
DETAIL = Prepared(
    select(entries.c.detail).where(entries.c.pool_id == _POOL, entries.c.seq == bindparam("seq"))
)
PAGE = (
    _OF_POOL.where(entries.c.seq > bindparam("after"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
BY_KEYS = _OF_POOL.where(
    entries.c.idempotency_key.is_not(None),
    entries.c.idempotency_key.in_(bindparam("keys", expanding=True)),
)
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
        if column.name.startswith(("estimate_", "budget_", "held_", "used_"))
    ),
    "origin_pool_id",
)
LEASE_COLUMNS = Columns(entries, _LEASE)


_granted = entries.alias("granted")


def _newest_of_lease(lease: ColumnElement[int]) -> Prepared:
    """Return the query for a lease's newest entry, with what its reservation captured."""
    captured = ("attribution_id", "request_id", "occurred_at")
    return Prepared(
        _newest(*((_granted if name in captured else entries).c[name] for name in _LEASE)).where(
            entries.c.lease.is_not(None),
            entries.c.lease == lease,
            _granted.c.pool_id == _POOL,
            _granted.c.seq == lease,
        )
    )


LEASE = _newest_of_lease(bindparam("lease"))
MIRRORED_LEASE = _newest_of_lease(_MIRROR.scalar_subquery())
SINCE = Prepared(
    select(entries.c.seq, entries.c.lease, entries.c.hash)
    .where(entries.c.pool_id == _POOL, entries.c.seq >= bindparam("known"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_end = entries.alias("lease_end")
_newest_of = entries.alias("newest_of")
_HOLDS_STILL = (
    SETS_EXPIRY,
    entries.c.expires_at
    == select(
        case(
            (
                _newest_of.c.kind.in_([literal_column(f"'{kind}'") for kind in HOLDING])
                & (_newest_of.c.flags.op("&")(literal_column(str(int(EntryFlag.LATE)))) == 0),
                _newest_of.c.expires_at,
            )
        )
    )
    .where(
        _newest_of.c.pool_id == entries.c.pool_id,
        _newest_of.c.lease.is_not(None),
        _newest_of.c.lease == entries.c.lease,
    )
    .order_by(_newest_of.c.seq.desc())
    .limit(1)
    .correlate(entries)
    .scalar_subquery(),
)
"""The condition for entries that say when a hold ends, if it has not ended or been renewed since.

The lease's newest entry tells that. A subquery looks it up only for holds that are due. A join
would be planned anew with every call, and a server without statistics might join the whole table.
"""
_ONCE = select(clock.NOW).scalar_subquery()
"""The time, read once: a server cannot search an index for a clock that moves on."""
NOW = Prepared(select(clock.NOW.label("now")))
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
"""The holds that end soon, and those that are due and have not expired yet."""


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
"""The pools below that share a pool's capacity, at any depth, and have leases that are due."""
OPEN_LEASES = Prepared(
    select(entries.c.seq, entries.c.recorded_at)
    .where(
        entries.c.pool_id == _POOL,
        entries.c.seq > bindparam("after"),
        entries.c.kind == EntryKind.RESERVATION,
        entries.c.origin_seq.is_(None),
        ~exists().where(
            _end.c.pool_id == entries.c.pool_id,
            _end.c.lease == entries.c.seq,
            or_(*(_end.c.kind == kind for kind in ENDS_LEASE)),
        ),
    )
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
