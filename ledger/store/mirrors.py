"""Verification of mirrors: pools that share capacity must agree about every repeated entry."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.sql.elements import ColumnElement

from ledger.core.axes import AMOUNTS
from ledger.core.entries import REPEATED_FLAGS, EntryFlag
from ledger.core.extensions import ATTRIBUTION_TEXTS
from ledger.core.kinds import CHANGES_WINDOW, EntryKind
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS
from ledger.store.amounts import BUDGET_FIELDS
from ledger.store.journal import PoolJournal
from ledger.store.schema import attributions, entries, pools

_own, _other = entries.alias("own"), entries.alias("other")
_own_for, _other_for = attributions.alias("own_for"), attributions.alias("other_for")
_child = pools.alias("child")
_POOL, _ABOVE = (bindparam(name, type_=BigInteger) for name in ("pool", "above"))
_FIRST = (_own.c.pool_id == _POOL, _own.c.seq <= bindparam("upto"))
"""The entries of the pool up to the last one that is known to be good.

Statements are built once, since building took four fifths of the time to compare a small pool.
"""

Own = dict[str, int]
"""The values of `pool` and `upto`."""

_REPEATED = (
    *(f"estimate_{name}" for name in ESTIMATE_FIELDS),
    *(f"budget_{name}" for name in BUDGET_FIELDS),
    *(f"usage_{name}" for name in USAGE_FIELDS),
    "expires_at",
    "request_id",
    "provenance",
    "occurred_at",
)
"""Columns that a mirror has in common with the entry it repeats."""
_FLAGS = int(REPEATED_FLAGS)


def disagreement(connection: Connection, pool: PoolJournal, *, upto: int) -> tuple[int, str] | None:
    """Return a pool's first entry that related pools contradict, and why; None if all agree.

    Every entry about a lease must be repeated in each pool above that shares the capacity, and
    every entry that repeats another must agree with its original. `carvings` compares the entries
    that fund carved pools.

    Args:
        connection: A transaction; nothing else may be written between the pools' entries.
        pool: The pool.
        upto: The last entry that is known to be good.
    """
    own = {"pool": pool.info.pool_id, "upto": upto}
    found = [_orphan(connection, own), _repeated_key(connection, own)]
    if pool.parent is not None and pool.info.carved_lease is not None:
        found.append(_unfunded(connection, pool, pool.parent))
        found.append(_not_passed_on(connection, own, pool.parent))
    if len(pool.lineage) > 1:
        found.append(_unrepeated(connection, own, pool.lineage[1]))
    return min((one for one in found if one is not None), default=None)


def _orphan(connection: Connection, own: Own) -> tuple[int, str] | None:
    """Return the first mirror without an original in a pool that shares this one's capacity."""
    row = connection.execute(_orphans(), own).first()
    if row is None:
        return None
    return row.seq, f"it repeats entry {row.origin_seq} of pool {row.origin_pool_id} wrongly"


@cache
def _orphans() -> Select[Any]:
    same = and_(
        _own.c.kind == _other.c.kind,
        # Details name windows and entries of their own pool, and so differ. `Below` compares them.
        or_(
            _own.c.kind.in_(sorted(CHANGES_WINDOW)),
            _own.c.detail.is_not_distinct_from(_other.c.detail),
        ),
        *(_own.c[name].is_not_distinct_from(_other.c[name]) for name in _REPEATED),
        _own.c.flags.op("&")(_FLAGS) == _other.c.flags.op("&")(_FLAGS),
        _of_its_lease(),
        _recorded_together(),
        _for_the_same(),
    )
    return (
        select(_own.c.seq, _own.c.origin_pool_id, _own.c.origin_seq)
        .where(
            *_FIRST,
            _own.c.origin_seq.is_not(None),
            ~_funded(_own.c.origin_pool_id),
            ~exists().where(
                _other.c.pool_id == _own.c.origin_pool_id,
                _other.c.seq == _own.c.origin_seq,
                same,
            ),
        )
        .order_by(_own.c.seq)
        .limit(1)
    )


def _of_its_lease() -> ColumnElement[bool]:
    """Tell whether a mirror is about the mirror of the original's lease."""
    granted = entries.alias("granted")
    return or_(
        _own.c.kind == EntryKind.RESERVATION,
        exists()
        .where(
            granted.c.pool_id == _own.c.pool_id,
            granted.c.seq == _own.c.lease,
            granted.c.origin_pool_id == _own.c.origin_pool_id,
            granted.c.origin_seq == _other.c.lease,
        )
        .correlate(_own, _other),
    )


def _recorded_together() -> ColumnElement[bool]:
    """Tell whether the times of both fit one transaction.

    Each is the transaction's time, or that of its pool's previous entry if that is later. So only
    an entry that is later than its previous one shows the transaction's time.
    """
    own, other = _own.c.recorded_at, _other.c.recorded_at
    own_last, other_last = _last_recorded(_own), _last_recorded(_other)
    return and_(
        or_(other == other_last, own == case((other > own_last, other), else_=own_last)),
        or_(own == own_last, other == case((own > other_last, own), else_=other_last)),
    )


def _last_recorded(entry: FromClause) -> ColumnElement[int]:
    ahead = entries.alias()
    return (
        select(ahead.c.recorded_at)
        .where(ahead.c.pool_id == entry.c.pool_id, ahead.c.seq == entry.c.seq - 1)
        .correlate(entry)
        .scalar_subquery()
    )


def _for_the_same() -> ColumnElement[bool]:
    """Tell whether both have the same attribution, unless one of them was redacted."""
    content = (*ATTRIBUTION_TEXTS, "tags")
    return or_(
        and_(_own.c.attribution_id.is_(None), _other.c.attribution_id.is_(None)),
        exists()
        .where(
            _other_for.c.pool_id == _other.c.pool_id,
            _other_for.c.attribution_id == _other.c.attribution_id,
            _own_for.c.pool_id == _own.c.pool_id,
            _own_for.c.attribution_id == _own.c.attribution_id,
            or_(
                _own_for.c.salt.is_(None),
                _other_for.c.salt.is_(None),
                and_(
                    *(_own_for.c[name].is_not_distinct_from(_other_for.c[name]) for name in content)
                ),
            ),
        )
        .correlate(_own, _other),
    )


def _repeated_key(connection: Connection, own: Own) -> tuple[int, str] | None:
    """Return the second entry with an idempotency key, since a call takes effect only once.

    A caller's key may have the form of one that the library made; that one has no digest.
    """
    seen: set[tuple[str, bool]] = set()
    for row in connection.execute(_keyed_twice(), own):
        key = (row.idempotency_key, row.payload_digest is None)
        if key in seen:
            return row.seq, f"an entry ahead of it has idempotency key {row.idempotency_key!r} too"
        seen.add(key)
    return None


@cache
def _keyed_twice() -> Select[Any]:
    keyed = (*_FIRST, _own.c.idempotency_key.is_not(None))
    twice = (
        select(_own.c.idempotency_key)
        .where(*keyed)
        .group_by(_own.c.idempotency_key)
        .having(func.count() > 1)
    )
    return (
        select(_own.c.seq, _own.c.idempotency_key, _own.c.payload_digest)
        .where(*keyed, _own.c.idempotency_key.in_(twice))
        .order_by(_own.c.seq)
    )


def _unrepeated(connection: Connection, own: Own, above: PoolJournal) -> tuple[int, str] | None:
    """Return the first entry about a lease that the pool above does not repeat."""
    seq = connection.execute(_not_repeated(), own | {"above": above.info.pool_id}).scalar()
    return None if seq is None else (seq, f"pool {above.info.name!r} above does not repeat it")


@cache
def _not_repeated() -> Select[Any]:
    # A lease of a lower pool is compared from there. A lease that funds a pool is this pool's own.
    passed_on = and_(_own.c.origin_seq.is_not(None), ~_funded(_own.c.origin_pool_id))
    return (
        select(_own.c.seq)
        .where(
            *_FIRST,
            _own.c.lease.is_not(None),
            ~exists().where(
                _other.c.pool_id == _ABOVE,
                _other.c.origin_seq.is_not(None),
                _other.c.origin_pool_id
                == case((passed_on, _own.c.origin_pool_id), else_=_own.c.pool_id),
                _other.c.origin_seq == case((passed_on, _own.c.origin_seq), else_=_own.c.seq),
            ),
        )
        .order_by(_own.c.seq)
        .limit(1)
    )


def _unfunded(
    connection: Connection, pool: PoolJournal, parent: PoolJournal
) -> tuple[int, str] | None:
    """Return the opening of a carved pool if the lease that it names does not fund the pool."""
    funds = select(_other.c.seq).where(
        _other.c.pool_id == parent.info.pool_id,
        _other.c.seq == pool.info.carved_lease,
        _other.c.kind == EntryKind.RESERVATION,
        _other.c.origin_pool_id == pool.info.pool_id,
        _other.c.origin_seq == 1,
    )
    if connection.execute(funds).first() is not None:
        return None
    return 1, f"lease {pool.info.carved_lease} of pool {parent.info.name!r} does not fund it"


def _not_passed_on(connection: Connection, own: Own, parent: PoolJournal) -> tuple[int, str] | None:
    """Return a carved pool's closing or first late usage that led to no entry in its parent."""
    seq = connection.execute(_untold(), own | {"above": parent.info.pool_id}).scalar()
    reason = f"pool {parent.info.name!r}, which it is carved out of, was not told"
    return None if seq is None else (seq, reason)


@cache
def _untold() -> Select[Any]:
    counts = [_own.c[f"usage_{name}"] != 0 for name in AMOUNTS]
    return (
        select(_own.c.seq)
        .where(
            *_FIRST,
            _own.c.flags.op("&")(int(EntryFlag.CLOSED)) != 0,
            or_(_own.c.kind == EntryKind.CLOSING, *counts),
            ~exists().where(
                _other.c.pool_id == _ABOVE,
                _other.c.origin_seq.is_not(None),
                _other.c.origin_pool_id == _own.c.pool_id,
                _other.c.origin_seq == _own.c.seq,
            ),
        )
        .order_by(_own.c.seq)
        .limit(1)
    )


def _funded(child: ColumnElement[int]) -> ColumnElement[bool]:
    """Tell whether a pool is carved out of the one that is verified."""
    return (
        exists()
        .where(
            _child.c.pool_id == child,
            _child.c.parent_id == _POOL,
            _child.c.carved_lease.is_not(None),
        )
        .correlate(_own)
    )
