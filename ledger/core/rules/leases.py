"""Rules of leases: the pool's balance and the lease's state after an entry about the lease."""

from __future__ import annotations

from typing import NamedTuple

from ledger.core.checks import Micros
from ledger.core.entries import Balance, EntryFlag, LeaseState, Totals
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.core.policy import SettlementPolicy
from ledger.core.values import USAGE_FIELDS, RequestBudget, Usage, UsageDifference, UsageEstimate
from ledger.errors import (
    AmountOutOfRangeError,
    InvalidInputError,
    UncorrectableEntryError,
    UnknownLeaseError,
)

_NOTHING = Usage.zero()


class Effect(NamedTuple):
    """The state after an entry: the pool's balance and its lease, with the entry's flags."""

    balance: Balance
    lease: LeaseState
    flags: EntryFlag


def reserve(
    balance: Balance,
    *,
    lease_id: int,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    ceiling: int,
    expires_at: Micros | None = None,
    requests: int = 1,
) -> Effect:
    """Return the effect of an admitted reservation.

    Raises:
        AmountOutOfRangeError: The reserved total would pass `ceiling`.
    """
    held = Totals.of(estimate, requests=requests)
    reserved = balance.reserved.plus(held)
    if max(reserved) > ceiling:
        name, value = next(
            one for one in zip(Totals._fields, reserved, strict=True) if one[1] > ceiling
        )
        raise AmountOutOfRangeError(f"reserved_{name}", value=value, ceiling=ceiling)
    lease = LeaseState(
        lease=lease_id,
        estimate=estimate,
        request_budget=request_budget,
        phase=LeasePhase.OPEN,
        held=held,
        used=_NOTHING,
        expires_at=expires_at,
    )
    return Effect(Balance(balance.committed, reserved), lease, EntryFlag.NONE)


def settle(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage,
    *,
    lease_id: int,
    ceiling: int,
    requests: int = 1,
) -> Effect:
    """Return the effect of recording the last `usage` of a lease.

    The hold goes back. The usage is committed, with as many requests as the lease was for.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    phase = LeasePhase.ENDED
    spent = Totals.of(usage, requests=requests)
    return _spend(balance, lease, usage, spent, lease_id=lease_id, ceiling=ceiling, phase=phase)


def observe(
    balance: Balance, lease: LeaseState | None, usage: Usage, *, lease_id: int, ceiling: int
) -> Effect:
    """Return the effect of recording a part of a lease's usage.

    The usage is committed. The lease stays open, and its hold shrinks by the usage, down to 0.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    spent = Totals.of(usage, requests=0)
    return _spend(balance, lease, usage, spent, lease_id=lease_id, ceiling=ceiling)


def _spend(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage,
    spent: Totals,
    *,
    lease_id: int,
    ceiling: int,
    phase: LeasePhase | None = None,
) -> Effect:
    """Commit usage, whatever it is.

    Committed totals stop at `ceiling` (flagged saturated): spend is never refused. Usage that
    comes after the hold expired is committed all the same (flagged late).
    """
    if lease is None or lease.phase is LeasePhase.ENDED:
        raise UnknownLeaseError(lease_id)
    exact = balance.committed.plus(spent)
    committed = exact
    if max(exact) > ceiling:
        committed = Totals(*(min(value, ceiling) for value in exact))
    used = lease.used.saturating_add(usage, ceiling=ceiling)
    flags = _overrun(lease, used)
    if lease.phase is LeasePhase.EXPIRED:
        flags |= EntryFlag.LATE
    if committed != exact:
        flags |= EntryFlag.SATURATED
    held = Totals()
    if phase is None:
        phase, held = lease.phase, Totals(*map(max, lease.held.minus(spent), held))
    after = lease._replace(phase=phase, held=held, used=used)
    reserved = balance.reserved.minus(lease.held.minus(held))
    return Effect(Balance(committed, reserved), after, flags)


def correct(
    balance: Balance,
    lease: LeaseState,
    before: Usage,
    after: Usage,
    *,
    seq: int,
    ceiling: int,
    requests: int = 0,
) -> Effect:
    """Return the effect of correcting an entry of a lease; its usage was `before` until now.

    The committed totals and the lease's usage move by the difference. Totals stop at 0 and at
    `ceiling` (flagged saturated). Requests stay, since the call was made; but a lease that funds a
    pool may turn out to have been for more of them.

    Raises:
        UncorrectableEntryError: The lease has not ended, and more usage may come.
        InvalidInputError: The entry records that usage already.
    """
    if lease.phase is not LeasePhase.ENDED:
        raise UncorrectableEntryError(seq, f"lease {lease.lease} has not ended")
    if before == after and not requests:
        raise InvalidInputError("usage", f"nothing to correct: entry {seq} says so already")
    moved = UsageDifference.between(before, after)
    exact = balance.committed.plus(Totals.of(moved, requests=requests))
    committed = Totals(*(min(max(value, 0), ceiling) for value in exact))
    used = moved.added_to(lease.used, ceiling=ceiling)
    flags = _overrun(lease, used)
    if committed != exact:
        flags |= EntryFlag.SATURATED
    return Effect(Balance(committed, balance.reserved), lease._replace(used=used), flags)


def _overrun(lease: LeaseState, used: Usage) -> EntryFlag:
    estimate = lease.estimate
    if used.total_tokens > estimate.total_tokens or used.cost_micros_usd > estimate.cost_micros_usd:
        return EntryFlag.OVERRUN
    return EntryFlag.NONE


def abandon(
    policy: SettlementPolicy,
    balance: Balance,
    lease: LeaseState | None,
    *,
    lease_id: int,
    ceiling: int,
) -> tuple[Effect, Usage | None]:
    """Return the effect of ending a lease whose usage was not recorded, and its last usage.

    The usage is None where the lease is released.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    usage = Usage.zero()
    if lease is not None and policy is SettlementPolicy.ESTIMATED:
        estimate, used = Usage.from_estimate(lease.estimate), lease.used
        rest = {
            name: max(0, getattr(estimate, name) - getattr(used, name)) for name in USAGE_FIELDS
        }
        usage = Usage(**rest)
    if policy is SettlementPolicy.RELEASE:
        return end_hold(balance, lease, LeasePhase.ENDED, lease_id=lease_id), None
    return settle(balance, lease, usage, lease_id=lease_id, ceiling=ceiling), usage


def renew(
    balance: Balance, lease: LeaseState | None, expires_at: Micros, *, lease_id: int
) -> Effect:
    """Return the effect of a renewal: the lease holds the same amounts, until another time.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold has ended.
    """
    if lease is None or lease.phase is not LeasePhase.OPEN:
        raise UnknownLeaseError(lease_id)
    return Effect(balance, lease._replace(expires_at=expires_at), EntryFlag.NONE)


def due(lease: LeaseState, now: Micros) -> bool:
    """Tell whether a lease's hold ends by time-out."""
    return (
        lease.phase is LeasePhase.OPEN and lease.expires_at is not None and lease.expires_at <= now
    )


def end_hold(
    balance: Balance, lease: LeaseState | None, phase: LeasePhase, *, lease_id: int
) -> Effect:
    """Return the effect of a release (phase ended) or an expiry (phase expired).

    Raises:
        UnknownLeaseError: There is no such lease, or its hold has ended.
    """
    if lease is None or lease.phase is not LeasePhase.OPEN:
        raise UnknownLeaseError(lease_id)
    after = lease._replace(phase=phase, held=Totals())
    return Effect(
        Balance(balance.committed, balance.reserved.minus(lease.held)), after, EntryFlag.NONE
    )


def follow(
    kind: str,
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage | None,
    *,
    lease_id: int,
    expires_at: Micros | None,
    ceiling: int,
    requests: int = 1,
) -> Effect:
    """Return the effect of an entry about an existing lease, by the entry's kind.

    This decides an entry anew: when it is verified, and in every pool above its own.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
        ValueError: Entries of this kind are not about a lease, or lack what they need.
    """
    match kind:
        case EntryKind.SETTLEMENT if usage is not None:
            return settle(
                balance, lease, usage, lease_id=lease_id, ceiling=ceiling, requests=requests
            )
        case EntryKind.OBSERVATION if usage is not None:
            return observe(balance, lease, usage, lease_id=lease_id, ceiling=ceiling)
        case EntryKind.RENEWAL if expires_at is not None:
            return renew(balance, lease, expires_at, lease_id=lease_id)
        case EntryKind.RELEASE:
            return end_hold(balance, lease, LeasePhase.ENDED, lease_id=lease_id)
        case EntryKind.EXPIRY:
            return end_hold(balance, lease, LeasePhase.EXPIRED, lease_id=lease_id)
        case _:
            raise ValueError(f"a {kind} of lease {lease_id} lacks what it needs")
