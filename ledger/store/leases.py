"""Stored leases as callers hold them, and as the books list them."""

from __future__ import annotations

from uuid import UUID

from ledger.core.checks import Micros, from_micros
from ledger.core.entries import OpenLease
from ledger.core.values import BudgetLease
from ledger.store.rows import LeaseRow


def lease_of(found: LeaseRow, pool: UUID) -> BudgetLease:
    """Return a stored lease as the grant that a caller holds."""
    state = found.state
    return BudgetLease(
        id=state.lease, reserved=state.estimate, request_budget=state.request_budget, pool=pool
    )


def open_lease_of(found: LeaseRow, reserved_at: Micros, pool: UUID) -> OpenLease:
    """Return a stored lease with what it holds, and since when."""
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
