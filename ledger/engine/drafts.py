"""What drafts of several operations have in common."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.entries import EntryKind
from ledger.core.values import USAGE_FIELDS, Usage
from ledger.store.rows import Draft, LeaseRow


def about_lease(kind: EntryKind, effect: rules.Effect, found: LeaseRow) -> Draft:
    """Return an entry about a lease, with all that each of its entries repeats."""
    balance, lease, flags = effect
    return Draft(
        kind=kind,
        balance=balance,
        lease=lease,
        flags=flags,
        estimate=lease.estimate,
        request_budget=lease.request_budget,
        attribution=found.attribution,
        request_id=found.request_id,
        occurred_at=found.occurred_at,
    )


def amounts(usage: Usage) -> dict[str, int]:
    """Return a usage as a correction's detail says it: what is not 0."""
    return {name: amount for name in USAGE_FIELDS if (amount := getattr(usage, name))}
