"""The report on leases: the open ones by age, the stale ones, and those used after expiry."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    text,
)

from ledger.core.axes import AXES, Axis
from ledger.core.checks import Micros, check_seconds, from_micros
from ledger.core.entries import EntryFlag, PoolId, Totals
from ledger.core.errors import LeftOut
from ledger.core.kinds import CORRECTABLE, FOLLOWS_UP, EntryKind, LeasePhase, sql
from ledger.ledger import Ledger
from ledger.reports.figures import AsOf, has_expired, is_open
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.position import asked_moment, moment_of
from ledger.reports.scopes import UNPRICED_ENTRY, Scope, snapshot
from ledger.store.rows import Row
from ledger.store.schema import IS_OF_ENTRY, attributions, entries
from ledger.store.statements import Prepared, rows_of_each

_SECOND_US = 1_000_000
_AGES_S = (60, 600, 3_600, 86_400, 604_800)
"""The boundaries of age groups: a minute, 10 minutes, an hour, a day, a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAge:
    """The open leases of one age group.

    Attributes:
        from_s: The leases are at least this many seconds old.
        below_s: The leases are younger than this many seconds; None is no limit.
        leases: How many there are.
        expired: How many of them have expired and hold nothing any more.
        held: What they hold.
        unpriced: How many of them leave out a figure that their pool limits.
    """

    from_s: int
    below_s: int | None
    leases: int
    expired: int
    held: Totals
    unpriced: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgedLease:
    """A lease that has not ended.

    Attributes:
        pool: The pool that granted it.
        lease: Its number.
        phase: `open`, or `expired` if it holds nothing any more; a due lease counts as expired.
        reserved_at: When the reservation was recorded.
        age_s: How many whole seconds ago that is.
        run_id: The run that the call named.
        agent: The agent that the call named.
        model: The model that the call named.
        held: What it holds.
        unpriced: Whether its estimate leaves out a figure that its pool limits.
    """

    pool: str
    lease: int
    phase: LeasePhase
    reserved_at: datetime
    age_s: int
    run_id: str | None
    agent: str | None
    model: str | None
    held: Totals
    unpriced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LateUse:
    """Usage that was recorded after the lease's hold had expired.

    Attributes:
        pool: The pool.
        lease: The lease.
        seq: The entry that records the usage.
        run_id: The caller's run.
        expired_at: When the expiry was recorded.
        used_at: When the usage was recorded.
        after_s: How many whole seconds after the expiry.
        total_tokens: How many tokens were used.
        cost_micros_usd: What they cost, in millionths of a US dollar.
    """

    pool: str
    lease: int
    seq: int
    run_id: str | None
    expired_at: datetime
    used_at: datetime
    after_s: int
    total_tokens: int
    cost_micros_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """Leases at one moment.

    Attributes:
        now: The moment.
        stale_after_s: The age from which an open lease is stale, in seconds.
        ages: The open leases by age, the youngest first.
        stale: The stale ones, the oldest first.
        late: The usage that was recorded after expiry.
    """

    now: datetime
    stale_after_s: int
    ages: list[LeaseAge]
    stale: list[AgedLease]
    late: list[LateUse]


def leases(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    now: datetime | None = None,
    stale_after_s: int = 3_600,
    left_out: LeftOut | None = None,
) -> Leases:
    """Return the open leases by age, the stale ones, and usage after expiry.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        now: The moment at which ages are taken; by default the present, or with `as_of` when
            that entry was recorded.
        stale_after_s: From what age on an open lease is stale, in whole seconds.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: A moment without a time zone, or a length of time that is none.
        LedgerUnavailableError: The store cannot be read.
    """
    check_seconds("stale_after_s", stale_after_s)
    asked = asked_moment(book, where, now)

    def query(connection: Connection, scope: Scope) -> Leases:
        at = moment_of(connection, scope, asked)
        found = _open(scope.conditions, scope.where.as_of)
        oldest_first = select(found).order_by(found.c.at, found.c.pool_id, found.c.seq)
        aged = [_aged(row, scope, at) for row in connection.execute(oldest_first).mappings()]
        return Leases(
            now=from_micros(at),
            stale_after_s=int(stale_after_s),
            ages=_ages(aged),
            stale=[one for one in aged if one.age_s >= int(stale_after_s)],
            late=_late(connection, scope),
        )

    return snapshot(book, where, query, left_out=left_out)


def with_newest_of_lease(lease: ColumnElement[int], as_of: AsOf) -> tuple[FromClause, FromClause]:
    """Return the newest entry about each lease, and entries joined with it.

    Args:
        lease: The lease column of an entry after which its lease does not end: the reservation of
            an open lease, or the end.
        as_of: The last entry that counts; None is no limit.
    """
    later, last = entries.alias("later"), entries.alias("last_entry")
    bound = [] if as_of is None else [later.c.seq <= as_of]
    follows = select(func.max(later.c.seq)).where(
        later.c.pool_id == entries.c.pool_id,
        later.c.lease == lease,
        later.c.seq > entries.c.seq,
        text(sql(FOLLOWS_UP, "later.kind")),
        *bound,
    )
    newest_seq = func.coalesce(follows.scalar_subquery(), entries.c.seq)
    of_lease = (last.c.pool_id == entries.c.pool_id) & (last.c.seq == newest_seq)
    return last, entries.join(last, of_lease)


def _open(conditions: Iterable[ColumnElement[bool]], as_of: AsOf) -> Any:  # noqa: ANN401 - SQLAlchemy names its columns at run time
    """Return the open leases of some entries, each with its newest entry."""
    e, a = entries.c, attributions.c
    last, joined = with_newest_of_lease(e.seq, as_of)
    return (
        select(
            e.pool_id,
            e.seq,
            e.recorded_at.label("at"),  # the hold began then, whenever the call was made
            *(a[name] for name in ("run_id", "agent", "model")),
            case((has_expired(as_of), 1), else_=0).label("expired"),
            case((UNPRICED_ENTRY, 1), else_=0).label("unpriced"),
            last.c.expires_at,
            *(held_of(axis, last).label(f"held_{axis.name}") for axis in AXES),
        )
        .select_from(joined.outerjoin(attributions, IS_OF_ENTRY))
        .where(*conditions, is_open(as_of))
        .subquery("open_leases")
    )


def held_of(axis: Axis, last: FromClause) -> ColumnElement[int]:
    """Return what an open lease holds on an axis, from its reservation and its newest entry."""
    at_first = 1 if axis.amount is None else entries.c[f"estimate_{axis.amount}"]
    by_kind = case((last.c.seq == entries.c.seq, at_first), else_=0)
    return func.coalesce(last.c[f"held_{axis.name}"], by_kind)


def _ages(found: Sequence[AgedLease]) -> list[LeaseAge]:
    of_age: list[list[AgedLease]] = [[] for _ in range(len(_AGES_S) + 1)]
    for one in found:
        of_age[bisect_right(_AGES_S, one.age_s)].append(one)
    return [
        LeaseAge(
            from_s=from_s,
            below_s=below_s,
            leases=len(members),
            expired=sum(one.phase is LeasePhase.EXPIRED for one in members),
            held=Totals(
                *(sum(getattr(one.held, name) for one in members) for name in Totals._fields)
            ),
            unpriced=sum(one.unpriced for one in members),
        )
        for from_s, below_s, members in zip((0, *_AGES_S), (*_AGES_S, None), of_age, strict=True)
    ]


@cache
def _granted(*, as_of: bool) -> Any:  # noqa: ANN401 - as `_open`
    """Return the open leases that one pool granted, from the entry `first` on.

    A pool above mirrors each lease of the pools that share with it; mirrors are not counted.
    """
    e = entries.c
    granted = [e.pool_id == bindparam("pool_id"), e.seq >= bindparam("first")]
    last: AsOf = bindparam("as_of", type_=BigInteger()) if as_of else None
    bound = [] if last is None else [e.seq <= last]
    return _open([*granted, e.origin_seq.is_(None), *bound], last)


@cache
def _oldest(*, as_of: bool) -> Prepared:
    found = _granted(as_of=as_of)
    return Prepared(select(found).order_by(found.c.seq).limit(bindparam("limit")))


@cache
def _holding(*, as_of: bool) -> Prepared:
    found = _granted(as_of=as_of)
    holds = or_(found.c.expires_at.is_(None), found.c.expires_at > bindparam("now"))
    query = select(
        func.sum(case((holds, 1), else_=0)).label("holding"), func.min(found.c.seq).label("oldest")
    )
    return Prepared(query.where(found.c.expired == literal_column("0")))


def _asked(scope: Scope, first: Mapping[PoolId, int], **more: int) -> list[dict[str, Any]]:
    more |= {name: scope.values[name] for name in ("as_of",) if name in scope.values}
    return [{"pool_id": pool_id, "first": seq, **more} for pool_id, seq in first.items()]


def open_leases_of_each(
    connection: Connection, scope: Scope, now: Micros, *, first: Mapping[PoolId, int], limit: int
) -> dict[PoolId, list[AgedLease]]:
    """Return the leases that each pool granted and that have not ended, by their numbers.

    Args:
        connection: A snapshot.
        scope: The pools' names, and the filter's `as_of`.
        now: The moment at which ages are taken.
        first: The pools, each with the number of the lease from which to search.
        limit: How many leases of each pool are returned at most.
    """
    query = _oldest(as_of="as_of" in scope.values)
    asked = [(query, given) for given in _asked(scope, first, limit=limit)]
    return {
        pool_id: [_aged(row, scope, now) for row in rows]
        for pool_id, rows in zip(first, rows_of_each(connection, asked), strict=True)
    }


def holding_of_each(
    connection: Connection, scope: Scope, now: Micros, *, first: Mapping[PoolId, int]
) -> dict[PoolId, tuple[int, int | None]]:
    """Return how many leases that each pool granted hold something now.

    The second number is the first lease that may hold something in a later look, None without one.
    See `open_leases_of_each`.
    """
    query = _holding(as_of="as_of" in scope.values)
    asked = [(query, given) for given in _asked(scope, first, now=now)]
    return {
        pool_id: (int(row["holding"] or 0), row["oldest"])
        for pool_id, (row,) in zip(first, rows_of_each(connection, asked), strict=True)
    }


def _aged(row: Row | RowMapping, scope: Scope, now: Micros) -> AgedLease:
    held = Totals(*(row[f"held_{name}"] for name in Totals._fields))
    due = row["expires_at"] is not None and row["expires_at"] <= now
    return AgedLease(
        pool=scope.name(row["pool_id"]),
        lease=row["seq"],
        phase=LeasePhase.EXPIRED if row["expired"] or due else LeasePhase.OPEN,
        reserved_at=from_micros(row["at"]),
        age_s=(now - row["at"]) // _SECOND_US,
        run_id=row["run_id"],
        agent=row["agent"],
        model=row["model"],
        held=Totals() if due else held,
        unpriced=bool(row["unpriced"]),
    )


def _late(connection: Connection, scope: Scope) -> list[LateUse]:
    e, a = entries.c, attributions.c
    # Few leases expire, so the query searches expiries first, then the entries after each.
    expiry = entries.alias("expiry")
    query = (
        select(
            e.pool_id,
            e.lease,
            e.seq,
            e.recorded_at,
            expiry.c.recorded_at.label("expired_at"),
            a.run_id,
            e.usage_total_tokens,
            e.usage_cost_micros_usd,
        )
        .select_from(
            expiry.join(
                entries,
                (e.pool_id == expiry.c.pool_id)
                & e.lease.is_not(None)
                & (e.lease == expiry.c.lease)
                & (e.seq > expiry.c.seq),
            ).outerjoin(attributions, IS_OF_ENTRY)
        )
        .where(
            *scope.conditions,
            text(sql([EntryKind.EXPIRY], "expiry.kind")),
            e.flags.bitwise_and(int(EntryFlag.LATE)) != 0,
            # Corrections of the assumed usage are left out, since the usage that replaced it is
            # listed.
            e.kind.in_(CORRECTABLE),
        )
        .order_by(e.pool_id, e.seq)
    )
    return [
        LateUse(
            pool=scope.name(row.pool_id),
            lease=row.lease,
            seq=row.seq,
            run_id=row.run_id,
            expired_at=from_micros(row.expired_at),
            used_at=from_micros(row.recorded_at),
            after_s=(row.recorded_at - row.expired_at) // _SECOND_US,
            total_tokens=row.usage_total_tokens,
            cost_micros_usd=row.usage_cost_micros_usd,
        )
        for row in connection.execute(query)
    ]
