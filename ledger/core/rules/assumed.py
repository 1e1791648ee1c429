"""Rules of calls whose usage was not recorded: what is assumed of them, and what stays of that."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ledger.core.entries import Balance, LeaseState, Totals
from ledger.core.kinds import EntryKind
from ledger.core.policy import SettlementPolicy
from ledger.core.values import NOTHING_USED, USAGE_FIELDS, Provenance, Usage, UsageEstimate


class Assumed(NamedTuple):
    """What is assumed of a call whose usage was not recorded, and where the figure is from."""

    usage: Usage
    provenance: Provenance


def assumed(policy: SettlementPolicy, lease: LeaseState) -> Assumed | None:
    """Return the last usage that a policy assumes for a lease; None where it gives the hold back.

    By default that is what is missing from what was observed to what was estimated.
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
    """Return what the call of a lease used at most, as far as that is known by its end.

    What was observed may be more than was estimated, on the input alone. The total then covers it
    and what is missing of the other part: otherwise less is charged than the call may have used.

    Args:
        lease: The lease.
        estimate: What the caller knows by now; without it, what the lease was reserved for.
        ceiling: The most that a total may be.
    """
    known, used = estimate or lease.estimate, lease.used
    if not known.total_tokens or used == NOTHING_USED:
        return known
    missing = sum(
        max(0, getattr(known, name) - getattr(used, name))
        for name in ("input_tokens", "output_tokens")
    )
    # A total that says more than its parts may have been for what is missing of them.
    unsaid = max(0, used.total_tokens - used.input_tokens - used.output_tokens)
    more = max(0, missing - unsaid)
    total = min(max(known.total_tokens, used.total_tokens + more), ceiling)
    return replace(known, total_tokens=total)


def charged(policy: SettlementPolicy, held: Totals) -> Totals:
    """Return what is committed once leases that hold so much together have expired.

    What is assumed by default is what they hold: an observation takes the same from both.
    """
    match policy:
        case SettlementPolicy.ESTIMATED:
            return held
        case SettlementPolicy.OBSERVED:
            return Totals(requests=held.requests)
        case SettlementPolicy.RELEASE:
            return Totals()


def swept(balance: Balance, held: Totals, spent: Totals, *, ceiling: int) -> Balance:
    """Return a balance as it is once leases that hold so much have expired, charged with `spent`.

    The committed totals stop at `ceiling`.
    """
    committed = Totals(*(min(value, ceiling) for value in balance.committed.plus(spent)))
    return Balance(committed, balance.reserved.minus(held))


def still_assumed(usage: Usage, kind: str, late: Usage | None) -> Usage:
    """Return what remains of an assumed usage when an entry about the expired lease is recorded.

    An observation takes the place of as much as it records, so that together they are what the
    policy would assume. The end of the lease takes the place of all.
    """
    if kind == EntryKind.OBSERVATION and late is not None:
        return _less(usage, late)
    return NOTHING_USED


def _less(usage: Usage, other: Usage) -> Usage:
    """Return by how much the first usage is more, for each amount."""
    return Usage(
        **{name: max(0, getattr(usage, name) - getattr(other, name)) for name in USAGE_FIELDS}
    )
