"""A pool's statement: opening balance, movements by kind or one by one, closing balance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, case, func, select

from ledger.core.checks import Micros, check_type, from_micros
from ledger.core.credit_book import book_from_json
from ledger.core.entries import Actor, Balance, EntryFlag, Totals, actor_in, reason_in
from ledger.core.errors import InvalidInputError
from ledger.core.kinds import EntryKind
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.status import CreditStatus, LimitStatus
from ledger.core.values import Remaining
from ledger.ledger import Ledger
from ledger.reports.due import DueLeases, due_of_each
from ledger.reports.filters import Filter, TimeBasis
from ledger.reports.position import SIDES, asked_moment, newest
from ledger.reports.refusals import REFUSAL_COLUMNS, refusal_of
from ledger.reports.scopes import UNPRICED_ENTRY, Scope, scope_of, snapshot
from ledger.reports.standing import PresentWindow, standing_in
from ledger.reports.stream import stream, unreadable
from ledger.reports.sums import Sums, summed, whole
from ledger.store import rows
from ledger.store.columns import Columns
from ledger.store.rows import Row, balance_of
from ledger.store.schema import IS_OF_ENTRY, attributions, entries, pools

_LINE = (
    *("seq", "recorded_at", "occurred_at", "kind", "flags", "detail", "lease"),
    *("provenance", "request_id", "origin_seq"),
)
"""The columns of a statement's line, besides those of the balance."""
_ROLLOVER = EntryKind.ROLLOVER
_WHOM = ("run_id", "provider", "model")
_COLUMNS = Columns(entries, (*_LINE, *REFUSAL_COLUMNS, *SIDES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What all entries of one kind did together.

    Attributes:
        kind: The kind.
        entries: How many there are.
        committed: By how much they changed what is committed.
        reserved: By how much they changed what is reserved; settlements give holds back, so
            theirs is negative.
        unpriced: How many of them leave out a figure that the pool limits; see
            `Figures.unpriced`.
    """

    kind: str
    entries: int
    committed: Totals
    reserved: Totals
    unpriced: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A pool over a range of its entries: opening + movements = closing.

    Attributes:
        pool: The pool's name.
        opening: The balance before the first entry of the range.
        movements: What each kind of entry did, in the order in which the kinds first occur.
        closing: The balance after the last entry, as that entry holds it.
        seq: The last entry.
        recorded_at: When the last entry was recorded. It is never before the entries in front of
            it, so it is ahead of the clock if one of them was recorded by a clock that was.
        policy: The policy in force at it.
        balance: The present balance, in which due leases have expired; that of the last entry if
            the range ends earlier.
        remaining: What is left now, nothing once the pool is closed. If the range ends earlier,
            what was left of its own capacity at the last entry.
        window: The window that it is by then, None without windows.
        opening_seq: The entry before the range, 0 if it begins with the first.
        until: When `remaining` changes if nothing else happens: a window ends, less counts on a
            limit, or a credit expires, here or above. None for never.
        limits: How far each limit of the policy is used by then.
        credits: How far each credit is used by then, of those that the pool lists.
        debt: What was spent by then that no credit has paid.
        due: The due leases, here and in the pools below that share with this one.
        charged: The sum that the entries of the range charged, corrections included: the committed
            totals of the closing balance minus those of the opening balance.
    """

    pool: str
    opening: Balance
    movements: list[Movement]
    closing: Balance
    seq: int
    recorded_at: datetime
    policy: SharedPoolBudgetOptions
    balance: Balance
    remaining: Remaining
    window: PresentWindow | None = None
    opening_seq: int = 0
    until: datetime | None = None
    limits: Sequence[LimitStatus] = ()
    credits: Sequence[CreditStatus] = ()
    debt: Totals = field(default_factory=Totals)
    due: DueLeases = field(default_factory=DueLeases)
    charged: Totals = field(init=False)

    def __post_init__(self) -> None:
        moved = self.closing.committed.minus(self.opening.committed)
        object.__setattr__(self, "charged", moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One entry of a statement.

    Attributes:
        seq: The entry.
        recorded_at: When it was recorded: the order of a statement.
        occurred_at: When the call happened, None if the caller did not say.
        kind: Its kind.
        flags: The names of its flags, such as `overrun`.
        reason: Why a pool was adjusted, usage corrected or a call recorded by hand; or what refused
            a call, which threshold was crossed, which credit was given, that a pool was carved
            out, or in place of which lost lease a reservation stands.
        run_id: The caller's run.
        lease: The lease that it is about.
        committed: By how much it changed what is committed.
        reserved: By how much it changed what is reserved.
        balance: The balance after it.
        policy: The policy that it set, None if it set none.
        actor: Who opened, adjusted, closed, topped up or corrected, None on other entries.
        provenance: Where its usage is from, such as `reported` or `estimated`; None if it has none.
        request_id: The provider's id of the call, by which a bill is matched, or the caller's own.
        provider: Who served the call.
        model: The model that was asked, or that answered.
        origin_pool: The pool below that passed it on, None for an entry that was made here.
        origin_seq: The number of the entry there, which is the one to correct.
        corrects: The number of the entry that it corrects.
        carried: What a rollover carried into the window that it begins, below 0 for overage that is
            deducted.
    """

    seq: int
    recorded_at: datetime
    occurred_at: datetime | None
    kind: str
    flags: str
    reason: str | None
    run_id: str | None
    lease: int | None
    committed: Totals
    reserved: Totals
    balance: Balance
    policy: SharedPoolBudgetOptions | None
    actor: Actor | None = None
    provenance: str | None = None
    request_id: str | None = None
    provider: str | None = None
    model: str | None = None
    origin_pool: str | None = None
    origin_seq: int | None = None
    corrects: int | None = None
    carried: Totals | None = None


def statement(
    book: Ledger,
    pool: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: int | None = None,
) -> Statement:
    """Return the statement of a pool, from its opening to its newest entry or over a range.

    A balance exists only in the order in which entries were recorded, so the recorded time counts
    here. Mirrors of other pools' entries have moved the balance and are included.

    Args:
        book: The store.
        pool: The pool's name.
        since: From this time on, which has a time zone.
        until: Up to, and without, this time, which has a time zone.
        as_of: Up to and with this entry.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: The pool was opened later; a time without a zone; or `as_of` is an
            entry that the pool does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    where = Filter(pools=[pool], since=since, until=until, as_of=as_of, basis=TimeBasis.RECORDED)
    at = asked_moment(book, where, None) if until is None else None

    def query(connection: Connection, scope: Scope) -> Statement:
        return _statement(connection, scope, at)

    return snapshot(book, where, query, mirrors=True)


def statement_lines(book: Ledger, found: Statement) -> Iterator[StatementLine]:
    """Yield the entries of a statement in order, in bounded memory.

    Raises:
        InvalidInputError: An argument of another type.
        UnknownPoolError: There is no such pool in these books.
        JournalDamagedError: An entry cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("found", found, Statement)
    e, a = entries.c, attributions.c
    origin = pools.alias("origin")
    pool_id = snapshot(book, found.pool, lambda _connection, scope: scope.pool)
    query = (
        select(
            *(e[name] for name in (*_LINE, *REFUSAL_COLUMNS, *SIDES)),
            *(a[name] for name in _WHOM),
            origin.c.name.label("origin_pool"),
        )
        .select_from(
            entries.outerjoin(attributions, IS_OF_ENTRY).outerjoin(
                origin, origin.c.pool_id == e.origin_pool_id
            )
        )
        .where(e.pool_id == pool_id)
    )
    before = found.opening
    for row in stream(book, query, after=found.opening_seq, end=found.seq):
        try:
            line = _line(row, before)
        except rows.UNREADABLE as error:
            raise unreadable(found.pool, row["seq"], error) from error
        yield line
        before = line.balance


def _statement(connection: Connection, scope: Scope, now: Micros | None) -> Statement:
    where = scope.where
    opening = None
    if where.since is not None:
        earlier = replace(where, since=None, until=where.since)
        opening = newest(connection, scope_of(connection, earlier, mirrors=True))
    closing = newest(connection, scope_of(connection, replace(where, since=None), mirrors=True))
    if closing is None:
        raise InvalidInputError("until", f"pool {where.pools[0]!r} was opened later")
    if where.until is None and where.as_of is None:
        scope.newest[scope.pool] = closing.seq
    balance = Balance() if opening is None else opening.balance
    opening_seq = 0 if opening is None else opening.seq
    of_then = replace(where, since=None, until=None, as_of=closing.seq if now is None else None)
    of_now = scope_of(connection, of_then, mirrors=True)
    (stands,) = standing_in(connection, of_now, now)
    return Statement(
        pool=where.pools[0],
        opening=balance,
        movements=_movements(connection, scope, opening_seq, closing.seq),
        closing=closing.balance,
        seq=closing.seq,
        recorded_at=from_micros(closing.recorded_at),
        policy=closing.policy,
        balance=stands.balance,
        remaining=stands.reservable,
        window=PresentWindow.of(stands),
        opening_seq=opening_seq,
        until=None if stands.until is None else from_micros(stands.until),
        limits=stands.limits,
        credits=stands.credits,
        debt=stands.debt,
        due=due_of_each(connection, of_now, now, of_now.pools)[of_now.pool],
    )


def _movements(connection: Connection, scope: Scope, after: int, last: int) -> list[Movement]:
    """Return by how much each kind of entry moved the balance from that of the entry before."""
    e, before = entries.c, entries.alias("before")

    def query(sums: Sums) -> Select[Any]:
        return (
            select(
                e.kind,
                func.count().label("entries"),
                func.sum(case((UNPRICED_ENTRY, 1), else_=0)).label("unpriced"),
                *(
                    part
                    for name in SIDES
                    for part in sums.of(name, e[name] - func.coalesce(before.c[name], 0))
                ),
            )
            .select_from(
                entries.outerjoin(
                    before, (before.c.pool_id == e.pool_id) & (before.c.seq == e.seq - 1)
                )
            )
            .where(e.pool_id == scope.pool, e.seq > after, e.seq <= last)
            .group_by(e.kind)
            .order_by(func.min(e.seq))
        )

    return [
        Movement(
            kind=row.kind,
            entries=row.entries,
            unpriced=int(row.unpriced),
            committed=Totals(*(whole(row, f"committed_{name}") for name in Totals._fields)),
            reserved=Totals(*(whole(row, f"reserved_{name}") for name in Totals._fields)),
        )
        for row in summed(connection, query)
    ]


def _line(row: Mapping[str, Any], before: Balance) -> StatementLine:
    _COLUMNS.check(row)
    detail = rows.detail_of(row)
    occurred_at, balance = row["occurred_at"], balance_of(row)
    return StatementLine(
        seq=row["seq"],
        recorded_at=from_micros(row["recorded_at"]),
        occurred_at=None if occurred_at is None else from_micros(occurred_at),
        kind=row["kind"],
        flags=_flags(row["flags"]),
        reason=_reason(row, detail),
        **{name: row[name] for name in (*_WHOM, "request_id", "origin_pool", "origin_seq")},
        lease=row["lease"],
        committed=balance.committed.minus(before.committed),
        reserved=balance.reserved.minus(before.reserved),
        balance=balance,
        policy=rows.policy_of(row) if "policy" in detail else None,
        actor=actor_in(detail),
        provenance=row["provenance"],
        corrects=detail.get("corrects"),
        carried=Totals(**detail["window"]["carried"]) if row["kind"] == _ROLLOVER else None,
    )


@cache
def _flags(flags: int) -> str:
    return " ".join(str(flag.name).lower() for flag in EntryFlag if flag & flags)


def _reason(row: Row, detail: Mapping[str, Any]) -> str | None:
    if "threshold" in detail:
        crossed = detail["threshold"]
        return f"{crossed['name']} ({crossed['percent']} %) {crossed['direction']}"
    if "denial" in detail:
        return refusal_of(row, detail["denial"])
    if "lost" in detail:
        return f"in place of lost lease {detail['lost']}"
    reason = reason_in(detail)
    if "carving" in detail and reason is None:
        return "carved pool"  # the origin shows which pool it is
    if row["kind"] == EntryKind.CREDIT:
        given = book_from_json(detail["credits"]).listed[-1].credit
        return str(given) if reason is None else f"{given} ({reason})"
    return reason
