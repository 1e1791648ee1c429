"""Leases by their numbers alone, for tests that know which store they look at."""

from __future__ import annotations

from ledger import BudgetLease, LedgerBudgetManager
from ledger.store.leases import lease_of


def numbered(budget: LedgerBudgetManager, lease_id: int) -> BudgetLease:
    """Return the lease that a pool granted under this number, as `reserve` did."""
    found = budget._writer.database.read(
        lambda connection: budget._journal.leases(connection, [lease_id])
    )
    return lease_of(found[lease_id], budget.identity)
