"""The overview report: everything that a page about the books shows, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ledger.core.checks import check_callable
from ledger.core.errors import JournalDamagedError, LeftOut
from ledger.core.status import PoolStatus, Standby
from ledger.ledger import Ledger
from ledger.reports.burndown import BurnDown, burn_down
from ledger.reports.due import DueLeases, due
from ledger.reports.estimates import EstimateQuality, estimates
from ledger.reports.filters import EVERYTHING, Filter, Where
from ledger.reports.leases import Leases, leases
from ledger.reports.runs import RunCost, runs
from ledger.reports.spend import Spend, spend
from ledger.reports.standing import standing, unpriced
from ledger.store.pools import leave_out
from ledger.store.verifications import Progress, Verification

BURN_DOWNS = 12
"""How many burn-downs there are at most, since each reads some hundred entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The books at one moment. Each part is one snapshot; they are taken one after the other.

    Attributes:
        store: The store's address, without its password.
        at: When it was taken.
        where: Which entries it is about.
        pools: The status of each pool.
        closed: How many closed pools are not listed, since they are neither named nor asked for by
            their state. Their spend is counted nevertheless.
        burn_downs: The burn-downs of the twelve pools that have spent most since their opening, the
            largest first.
        spend: Spend by day and model.
        runs: What each run cost, the earliest first.
        estimates: How good estimates were, by model.
        leases: The open leases.
        verified: What verifying each pool found; None if it was not asked for.
        unpriced: How many records of usage of each pool are unpriced, if there are any.
        due: The due leases that these pools granted, which are counted in `pools` and not in
            `spend`.
        left_out: What is wrong with each damaged pool that one of these parts leaves out, as a
            whole or from some entry on.
        standby: How far the store has come, if it is a standby.
    """

    store: str
    at: datetime
    where: Filter
    pools: list[PoolStatus]
    closed: int
    burn_downs: list[BurnDown]
    spend: Spend
    runs: list[RunCost]
    estimates: list[EstimateQuality]
    leases: Leases
    verified: list[Verification] | None
    unpriced: Mapping[str, int] = field(default_factory=dict)
    due: DueLeases = field(default_factory=DueLeases)
    left_out: LeftOut = field(default_factory=list)
    standby: Standby | None = None


def overview(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    zone: str = "UTC",
    now: datetime | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Overview:
    """Return what a page about the books shows.

    Args:
        book: The store.
        where: Which entries, or the name of a pool. Balances are those of whole pools, and they
            are verified as a whole, whatever else is chosen.
        zone: The time zone of days, by its IANA name.
        now: The moment of the statuses and of the ages of leases; by default the present.
        verify: Whether every entry is checked, which takes time in proportion to the journal.
        progress: Called with how many more entries are checked.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: No such time zone; a moment without one; or `as_of` is an entry that
            the pool does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    check_callable("progress", progress)
    chosen = Filter(pools=[where]) if isinstance(where, str) else where
    lost: LeftOut = []
    every = standing(book, chosen, now=now, left_out=lost)
    asked_for = chosen.pools or chosen.state is not None
    found = every if asked_for else [one for one in every if not one.closed]
    names = [one.pool.name for one in found]
    burn_downs: list[BurnDown] = []
    for one in sorted(found, key=lambda one: one.balance.committed[1::-1], reverse=True):
        if len(burn_downs) == BURN_DOWNS:
            break
        try:
            burn_downs.append(
                burn_down(book, one.pool.name, as_of=chosen.as_of, basis=chosen.basis)
            )
        except JournalDamagedError as error:
            leave_out([error], None if chosen.pools else lost)
    verified = None
    if verify:
        # None verifies the whole store, which also finds entries that belong to no pool.
        asked = names if chosen.pools or chosen.narrowed else [None]
        verified = [one for name in asked for one in book.verify(name, progress=progress)]
    return Overview(
        store=book.url,
        at=datetime.now(UTC),
        where=chosen,
        pools=found,
        closed=len(every) - len(found),
        burn_downs=burn_downs,
        spend=spend(book, chosen, by=["day", "model"], zone=zone, left_out=lost),
        runs=runs(book, chosen, left_out=lost),
        estimates=estimates(book, chosen, by=["model"], left_out=lost),
        leases=leases(book, chosen, now=now, left_out=lost),
        verified=verified,
        unpriced=unpriced(book, chosen, left_out=lost),
        due=due(book, chosen, now=now, left_out=lost),
        standby=book.standby(),
        left_out=list({str(error): error for error in lost}.values()),
    )
