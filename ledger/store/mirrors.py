"""What pools above and below each other must agree on: mirrors, and the leases that fund."""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, exists, or_, select
from sqlalchemy.sql.elements import ColumnElement

from ledger.core.entries import EntryFlag, EntryKind
from ledger.core.values import USAGE_FIELDS
from ledger.store.journal import PoolJournal
from ledger.store.schema import entries, pools

_own, _other = entries.alias("own"), entries.alias("other")
_child = pools.alias("child")
_REPEATED = (
    "estimate_total_tokens",
    "estimate_cost_micros_usd",
    "budget_tokens",
    "budget_cost_micros_usd",
    *(f"usage_{name}" for name in USAGE_FIELDS),
)
"""What a mirror says as its original does."""


def disagreement(connection: Connection, pool: PoolJournal, *, upto: int) -> tuple[int, str] | None:
    """Return the first entry of a pool that its kin contradict, and why; None where they agree.

    Every entry about a lease that a pool shares with one above is repeated there, and every entry
    that repeats another has an original that says the same. What funds a carved pool is settled by
    what that pool had spent when it was closed.

    Args:
        connection: A transaction; nothing else may be written between the pools' entries.
        pool: The pool.
        upto: The last entry that is known to be good.
    """
    found = [_orphan(connection, pool, upto)]
    if pool.parent is not None and pool.info.carved_lease is not None:
        found.append(_unfunded(connection, pool, pool.parent))
        found.append(_not_passed_on(connection, pool, pool.parent, upto))
    if len(pool.lineage) > 1:
        found.append(_unrepeated(connection, pool, pool.lineage[1], upto))
    return min((one for one in found if one is not None), default=None)


def _orphan(connection: Connection, pool: PoolJournal, upto: int) -> tuple[int, str] | None:
    """Return the first entry that repeats what no other pool says."""
    same = and_(
        _own.c.kind == _other.c.kind,
        *(_own.c[name].is_not_distinct_from(_other.c[name]) for name in _REPEATED),
    )
    funds = or_(
        and_(_own.c.kind == EntryKind.RESERVATION, _other.c.kind == EntryKind.OPENING),
        and_(
            _own.c.kind == EntryKind.SETTLEMENT,
            _other.c.kind == EntryKind.CLOSING,
            _own.c.usage_total_tokens == _other.c.committed_tokens,
            _own.c.usage_cost_micros_usd == _other.c.committed_cost_micros_usd,
        ),
        and_(
            _own.c.kind == EntryKind.CORRECTION,
            _own.c.usage_total_tokens == _other.c.usage_total_tokens,
            _own.c.usage_cost_micros_usd == _other.c.usage_cost_micros_usd,
        ),
    )
    row = connection.execute(
        select(_own.c.seq, _own.c.origin_pool_id, _own.c.origin_seq)
        .where(
            _own.c.pool_id == pool.info.pool_id,
            _own.c.origin_seq.is_not(None),
            _own.c.seq <= upto,
            ~exists().where(
                _other.c.pool_id == _own.c.origin_pool_id,
                _other.c.seq == _own.c.origin_seq,
                case((_funded_by(pool, _own.c.origin_pool_id), funds), else_=same),
            ),
        )
        .order_by(_own.c.seq)
        .limit(1)
    ).first()
    if row is None:
        return None
    return row.seq, f"it repeats entry {row.origin_seq} of pool {row.origin_pool_id} wrongly"


def _unrepeated(
    connection: Connection, pool: PoolJournal, above: PoolJournal, upto: int
) -> tuple[int, str] | None:
    """Return the first entry about a lease that the pool above does not repeat."""
    # What a pool below was granted is repeated from there; what funds one is this pool's own.
    passed_on = and_(_own.c.origin_seq.is_not(None), ~_funded_by(pool, _own.c.origin_pool_id))
    seq = connection.execute(
        select(_own.c.seq)
        .where(
            _own.c.pool_id == pool.info.pool_id,
            _own.c.lease.is_not(None),
            _own.c.seq <= upto,
            ~exists().where(
                _other.c.pool_id == above.info.pool_id,
                _other.c.origin_seq.is_not(None),
                _other.c.origin_pool_id
                == case((passed_on, _own.c.origin_pool_id), else_=_own.c.pool_id),
                _other.c.origin_seq == case((passed_on, _own.c.origin_seq), else_=_own.c.seq),
            ),
        )
        .order_by(_own.c.seq)
        .limit(1)
    ).scalar()
    return None if seq is None else (seq, f"pool {above.info.name!r} above does not repeat it")


def _unfunded(
    connection: Connection, pool: PoolJournal, parent: PoolJournal
) -> tuple[int, str] | None:
    """Return the opening of a carved pool if the lease that should fund it is another's."""
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


def _not_passed_on(
    connection: Connection, pool: PoolJournal, parent: PoolJournal, upto: int
) -> tuple[int, str] | None:
    """Return the closing, or the first late usage, that the parent of a carved pool lacks."""
    counts = or_(_own.c.usage_total_tokens != 0, _own.c.usage_cost_micros_usd != 0)
    seq = connection.execute(
        select(_own.c.seq)
        .where(
            _own.c.pool_id == pool.info.pool_id,
            _own.c.flags.op("&")(int(EntryFlag.CLOSED)) != 0,
            or_(_own.c.kind == EntryKind.CLOSING, counts),
            _own.c.seq <= upto,
            ~exists().where(
                _other.c.pool_id == parent.info.pool_id,
                _other.c.origin_seq.is_not(None),
                _other.c.origin_pool_id == _own.c.pool_id,
                _other.c.origin_seq == _own.c.seq,
            ),
        )
        .order_by(_own.c.seq)
        .limit(1)
    ).scalar()
    reason = f"pool {parent.info.name!r}, which it is carved out of, was not told"
    return None if seq is None else (seq, reason)


def _funded_by(pool: PoolJournal, child: ColumnElement[int]) -> ColumnElement[bool]:
    """Tell whether a pool is carved out of this one."""
    return (
        exists()
        .where(
            _child.c.pool_id == child,
            _child.c.parent_id == pool.info.pool_id,
            _child.c.carved_lease.is_not(None),
        )
        .correlate(_own)
    )
