"""What most tests reserve, and of which pool; a lease by its number alone."""

from __future__ import annotations

from ledger import BudgetLease, LedgerBudgetManager, SharedPoolBudgetOptions, UsageEstimate
from ledger.store.leases import lease_of

ONE, TEN = UsageEstimate(total_tokens=1), UsageEstimate(total_tokens=10)
"""So many tokens to be reserved."""

OF_HUNDRED = SharedPoolBudgetOptions(capacity_tokens=100)
OF_THOUSAND = SharedPoolBudgetOptions(capacity_tokens=1_000)
"""A pool of so many tokens."""


def numbered(budget: LedgerBudgetManager, lease_id: int) -> BudgetLease:
    """Return the lease that a pool granted under this number, as `reserve` did."""
    found = budget._writer.database.read(
        lambda connection: budget._journal.leases(connection, [lease_id])
    )
    return lease_of(found[lease_id], budget.identity)
