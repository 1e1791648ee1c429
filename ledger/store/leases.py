"""Stored leases as public values: `BudgetLease` for callers, `OpenLease` for lists."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from ledger.core.checks import Micros, OutOfCalendarError, from_micros
from ledger.core.status import OpenLease
from ledger.core.values import BudgetLease
from ledger.store.database import Database
from ledger.store.heads import LeaseRow
from ledger.store.journal import PoolJournal


def lease_of(found: LeaseRow, pool: UUID) -> BudgetLease:
    """Return a stored lease as the grant that a caller holds."""
    state = found.state
    return BudgetLease(
        id=state.lease,
        reserved=state.estimate,
        request_budget=state.request_budget,
        pool=pool,
        proof=found.proof,
    )


def open_leases(database: Database, pool: PoolJournal) -> Iterator[OpenLease]:
    """Yield the leases of a pool that have not ended, oldest first, page by page.

    Raises:
        JournalDamagedError: One of them cannot be read.
    """
    after = 0
    while True:
        page = database.read(
            lambda connection, after=after: pool.open_leases(connection, after=after),  # type: ignore[misc]
            serializable=False,
        )
        for found, reserved_at in page:
            try:
                yield _open_lease(found, reserved_at, pool.info.identity)
            except OutOfCalendarError as error:
                raise pool.damaged(found.state.lease, str(error)) from error
        if not page:
            return
        after = page[-1][0].state.lease


def _open_lease(found: LeaseRow, reserved_at: Micros, pool: UUID) -> OpenLease:
    state = found.state
    return OpenLease(
        lease=lease_of(found, pool),
        phase=state.phase,
        held=state.held,
        used=state.used,
        attribution=None if found.attribution is None else found.attribution.value,
        reserved_at=from_micros(reserved_at),
        expires_at=None if state.expires_at is None else from_micros(state.expires_at),
    )
