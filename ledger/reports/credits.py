"""The credits report: the credits of pools, and what is used, left and lost of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import Totals
from ledger.core.errors import LeftOut
from ledger.core.status import CreditStatus
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Filter, Where
from ledger.reports.position import Position, asked_moment, newest, unpriced_of_each
from ledger.reports.scopes import Scope, scope_of, snapshot
from ledger.reports.standing import journals_in, standing_in
from ledger.store.history import StoredHistory
from ledger.store.journal import PoolJournal
from ledger.store.statements import rows_of_each


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCredit:
    """A credit of a pool.

    Attributes:
        pool: The pool's name.
        seq: The entry that gave it.
        name: Its name.
        priority: 0 to 100; the lower one is used first.
        granted_at: When it was given.
        expires_at: When it expires, None for never.
        granted: What it gave.
        used: What was spent of it.
        left: What can still be spent of it, held amounts included.
        lost: What was left of it when it expired.
        unpriced: How many records of usage of the pool, since its opening, leave out a figure that
            the pool limits. No credit pays for that usage.
        owed: What the pool has spent and no credit has paid; the next credit pays it first.
    """

    pool: str
    seq: int
    name: str
    priority: int
    granted_at: datetime
    expires_at: datetime | None
    granted: Totals
    used: Totals
    left: Totals
    lost: Totals
    unpriced: int = 0
    owed: Totals = field(default_factory=Totals)

    @classmethod
    def of(cls, pool: str, status: CreditStatus, unpriced: int, owed: Totals) -> PoolCredit:
        """Return a credit as a row of a report."""
        credit = status.credit
        return cls(
            pool=pool,
            seq=status.seq,
            name=credit.name,
            priority=credit.priority,
            granted_at=status.granted_at,
            expires_at=credit.expires_at,
            granted=Totals.on_axes(credit),
            used=status.used,
            left=status.left,
            lost=status.lost,
            unpriced=unpriced,
            owed=owed,
        )


def credits(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    now: datetime | None = None,
    left_out: LeftOut | None = None,
) -> list[PoolCredit]:
    """Return every credit that pools were ever given, pool by pool in the order of their entries.

    What due leases will be charged counts as spent. A pool lists only its newest credits. A credit
    that is no longer listed is shown as it was when it was left out.

    Args:
        book: The store.
        where: Which pools, or the name of one. Only the filter's pools and its `as_of` count.
        now: The moment; by default the present, or with `as_of` when that entry was recorded.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: A moment without a time zone.
        JournalDamagedError: A pool's credits, or an entry on which they count, cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    at = asked_moment(book, where, now)

    def query(connection: Connection, scope: Scope) -> list[PoolCredit]:
        journals = journals_in(scope)
        rows, unpriced = [], unpriced_of_each(connection, scope)
        for stands in standing_in(connection, scope, at):
            found = {one.seq: one for one in stands.credits}
            pool = journals[stands.pool.pool_id]
            for one in _listed(connection, pool, stands.seq, at):
                found.setdefault(one.seq, one)
            name = pool.info.name
            many = unpriced.get(name, 0)
            rows += [PoolCredit.of(name, found[seq], many, stands.debt) for seq in sorted(found)]
        return rows

    return snapshot(book, where, query, mirrors=True, left_out=left_out)


def _listed(
    connection: Connection, pool: PoolJournal, seq: int, at: Micros | None
) -> Iterator[CreditStatus]:
    """Yield the credits of every list that a pool has had, the newest first, as each list ended."""
    read = partial(rows_of_each, connection)

    def stood_at(seq: int) -> Position | None:
        where = Filter(pools=[pool.info.name], as_of=seq)
        return newest(connection, scope_of(connection, where, mirrors=True)) if seq else None

    while (stood := stood_at(seq)) is not None:
        book = pool.terms.book(read, stood.policy_seq)
        if book is None:
            return
        history = StoredHistory(read, pool.info, upto=stood.seq)
        ended = max(at or stood.recorded_at, stood.recorded_at)
        yield from rules.Credits(stood.policy, book, ended, history).states(stood.balance)
        began = stood_at(book.since)
        seq, at = book.since - 1, None if began is None else began.recorded_at
