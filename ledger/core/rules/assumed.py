"""Rules of calls whose usage was not recorded: which usage is assumed, and how much of it stays."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ledger.core.entries import Balance, LeaseState, Totals
from ledger.core.kinds import EntryKind
from ledger.core.policy import SettlementPolicy
from ledger.core.values import NOTHING_USED, USAGE_FIELDS, Provenance, Usage, UsageEstimate


class Assumed(NamedTuple):
    """The usage assumed of a call whose usage was not recorded, and the source of the figure."""

    usage: Usage
    provenance: Provenance


def assumed(policy: SettlementPolicy, lease: LeaseState) -> Assumed | None:
    """Return the last usage that a policy assumes for a lease; None if it gives the hold back.

    By default that is the estimated usage minus the observed usage, at least 0 in each amount.
    """
    if policy is SettlementPolicy.RELEASE:
        return None
    usage = NOTHING_USED
    if policy is SettlementPolicy.ESTIMATED:
        usage = _less(Usage.from_estimate(lease.estimate), lease.used)
    if usage != NOTHING_USED:
        return Assumed(usage, Provenance.ESTIMATED)
    unseen = lease.used == NOTHING_USED
    return Assumed(usage, Provenance.UNKNOWN if unseen else Provenance.REPORTED)


def restated(
    lease: LeaseState, estimate: UsageEstimate | None = None, *, ceiling: int
) -> UsageEstimate:
    """Return the most that the call of a lease may have used, by what is known at its end.

    The observed input may already be more than was estimated. The total then covers it and the
    estimated output that was not observed yet; otherwise less would be charged than the call may
    have used.

    Args:
        lease: The lease.
        estimate: The caller's newest estimate; by default that of the reservation.
        ceiling: The most that a total may be.
    """
    known, used = estimate or lease.estimate, lease.used
    if not known.total_tokens or used == NOTHING_USED:
        return known
    missing = sum(
        max(0, getattr(known, name) - getattr(used, name))
        for name in ("input_tokens", "output_tokens")
    )
    # A total above the sum of its parts may stand for parts that were not given.
    unsaid = max(0, used.total_tokens - used.input_tokens - used.output_tokens)
    more = max(0, missing - unsaid)
    total = min(max(known.total_tokens, used.total_tokens + more), ceiling)
    return replace(known, total_tokens=total)


def charged(policy: SettlementPolicy, held: Totals) -> Totals:
    """Return what is committed when leases that hold `held` together expire.

    By default the assumed usage equals what they hold, since an observation reduces both alike.
    """
    match policy:
        case SettlementPolicy.ESTIMATED:
            return held
        case SettlementPolicy.OBSERVED:
            return Totals(requests=held.requests)
        case SettlementPolicy.RELEASE:
            return Totals()


def swept(balance: Balance, held: Totals, spent: Totals, *, ceiling: int) -> Balance:
    """Return the balance after leases that hold `held` have expired, charged with `spent`.

    The committed totals stop at `ceiling`.
    """
    committed = Totals(*(min(value, ceiling) for value in balance.committed.plus(spent)))
    return Balance(committed, balance.reserved.minus(held))


def still_assumed(usage: Usage, kind: str, late: Usage | None) -> Usage:
    """Return what stays assumed when an entry about the expired lease is recorded.

    An observation replaces as much as it records, so that both together are what the policy would
    assume. The end of the lease replaces all of it.
    """
    if kind == EntryKind.OBSERVATION and late is not None:
        return _less(usage, late)
    return NOTHING_USED


def _less(usage: Usage, other: Usage) -> Usage:
    """Return by how much the first usage exceeds the second, for each amount; at least 0."""
    return Usage(
        **{name: max(0, getattr(usage, name) - getattr(other, name)) for name in USAGE_FIELDS}
    )
