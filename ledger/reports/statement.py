"""A pool's statement: opening balance, movements by kind, closing balance."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from ledger.book import Ledger
from ledger.model import Remaining, SharedPoolBudgetOptions
from ledger.records import Balance, Totals
from ledger.reports.sums import halves, whole
from ledger.schema import entries

_SIDES = ("committed", "reserved")


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What all entries of one kind did together.

    Attributes:
        kind: The kind.
        entries: How many there are.
        committed: By how much they changed what is committed.
        reserved: By how much they changed what is reserved; settlements give holds back, so
            theirs is negative.
    """

    kind: str
    entries: int
    committed: Totals
    reserved: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A pool from its opening to its newest entry: opening + movements = closing.

    Attributes:
        pool: The pool's name.
        opening: The balance before the first entry.
        movements: What each kind of entry did, in the order in which the kinds first occur.
        closing: The balance after the newest entry, as that entry holds it.
        seq: The newest entry.
        policy: The policy in force at it.
        remaining: What is left under that policy.
    """

    pool: str
    opening: Balance
    movements: list[Movement]
    closing: Balance
    seq: int
    policy: SharedPoolBudgetOptions
    remaining: Remaining


def statement(book: Ledger, pool: str) -> Statement:
    """Return the statement of a pool.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    status = book.pool(pool).status()
    columns = [f"{side}_{name}" for side in _SIDES for name in Totals._fields]
    moved = (
        select(
            entries.c.seq,
            entries.c.kind,
            *(
                (
                    entries.c[name] - func.lag(entries.c[name], 1, 0).over(order_by=entries.c.seq)
                ).label(name)
                for name in columns
            ),
        )
        # Up to the status that the statement closes with: entries may be appended meanwhile.
        .where(entries.c.pool_id == status.pool.pool_id, entries.c.seq <= status.seq)
        .subquery()
    )
    query = (
        select(
            moved.c.kind,
            func.count().label("entries"),
            *(half for name in columns for half in halves(name, moved.c[name])),
        )
        .group_by(moved.c.kind)
        .order_by(func.min(moved.c.seq))
    )
    found = book.read(lambda connection: connection.execute(query).all())
    return Statement(
        pool=pool,
        opening=Balance(),
        movements=[
            Movement(
                kind=row.kind,
                entries=row.entries,
                committed=Totals(*(whole(row, f"committed_{name}") for name in Totals._fields)),
                reserved=Totals(*(whole(row, f"reserved_{name}") for name in Totals._fields)),
            )
            for row in found
        ],
        closing=status.balance,
        seq=status.seq,
        policy=status.policy,
        remaining=status.remaining,
    )
