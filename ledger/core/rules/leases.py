"""Rules of leases: the pool's balance and the lease's state after an entry about a lease."""

from __future__ import annotations

from typing import NamedTuple

from ledger.core.checks import Micros
from ledger.core.entries import Balance, EntryFlag, LeaseState, Totals, make, requests_made
from ledger.core.errors import (
    AmountOutOfRangeError,
    InvalidInputError,
    UncorrectableEntryError,
    UnknownLeaseError,
)
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.core.policy import SettlementPolicy
from ledger.core.rules.assumed import Assumed, assumed, restated, still_assumed
from ledger.core.values import (
    NOTHING_USED,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)

_NO_HOLD = Totals()

# Before Python 3.12, looking up a member of an enum is a function call.
_OPEN, _EXPIRED, _ENDED = LeasePhase.OPEN, LeasePhase.EXPIRED, LeasePhase.ENDED
_UNFLAGGED = EntryFlag.NONE


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
    committed, reserved_before = balance
    reserved = reserved_before.plus(held)
    if max(reserved) > ceiling:
        name, value = next(
            one for one in zip(Totals._fields, reserved, strict=True) if one[1] > ceiling
        )
        raise AmountOutOfRangeError(f"reserved_{name}", value=value, ceiling=ceiling)
    lease = make(
        LeaseState, (lease_id, estimate, request_budget, _OPEN, held, NOTHING_USED, expires_at)
    )
    return make(Effect, (make(Balance, (committed, reserved)), lease, _UNFLAGGED))


def settle(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage,
    *,
    lease_id: int,
    ceiling: int,
    requests: int = 1,
    funds: bool = False,
) -> Effect:
    """Return the effect of recording the last `usage` of a lease.

    The hold goes back. The usage is committed, with as many requests as the lease was for. A lease
    that funds a carved pool is not flagged overrun on an axis on which it reserved 0, since its
    reservation does not tell whether the pool has no limit there or a capacity of 0.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    spent = Totals.of(usage, requests=requests)
    effect = _spend(balance, lease, usage, spent, lease_id, ceiling, _ENDED)
    if not funds:
        return effect
    flags = effect.flags & ~EntryFlag.OVERRUN
    return effect._replace(flags=flags | _overrun(effect.lease, effect.lease.used, funds=True))


def observe(
    balance: Balance, lease: LeaseState | None, usage: Usage, *, lease_id: int, ceiling: int
) -> Effect:
    """Return the effect of recording a part of a lease's usage.

    The usage is committed. The lease does not end, and its hold shrinks by the usage, down to 0.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    spent = Totals.of(usage, requests=0)
    return _spend(balance, lease, usage, spent, lease_id, ceiling)


def _spend(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage,
    spent: Totals,
    lease_id: int,
    ceiling: int,
    phase: LeasePhase | None = None,
) -> Effect:
    """Commit usage, whatever it is.

    Committed totals stop at `ceiling` (flagged saturated): spend is never refused. Usage that
    comes after the hold expired is committed all the same (flagged late).
    """
    if lease is None or lease.phase is _ENDED:
        raise _unknown(lease, lease_id)
    same, estimate, request_budget, phase_before, held_before, used_before, expires_at = lease
    committed_before, reserved = balance
    exact = committed_before.plus(spent)
    committed = exact
    if max(exact) > ceiling:
        committed = Totals(*(min(value, ceiling) for value in exact))
    used = used_before.saturating_add(usage, ceiling=ceiling)
    flags = _overrun(lease, used)
    if phase_before is _EXPIRED:
        flags |= EntryFlag.LATE
    if committed is not exact:
        flags |= EntryFlag.SATURATED
    held, freed = _NO_HOLD, held_before
    if phase is None:
        phase, held = phase_before, Totals(*map(max, held_before.minus(spent), held))
        freed = held_before.minus(held)
    after = make(LeaseState, (same, estimate, request_budget, phase, held, used, expires_at))
    return make(Effect, (make(Balance, (committed, reserved.minus(freed))), after, flags))


def correct(  # noqa: PLR0913 - what a correction may be of
    balance: Balance,
    lease: LeaseState,
    before: Usage,
    after: Usage,
    *,
    seq: int,
    ceiling: int,
    requests: int = 0,
    of_expiry: bool = False,
    of_import: bool = False,
    funds: bool = False,
) -> Effect:
    """Return the effect of correcting an entry of a lease; its usage was `before` until now.

    The committed totals and the lease's usage move by the difference. Totals stop at 0 and at
    `ceiling` (flagged saturated). Requests stay, since the call was made, with two exceptions: a
    lease that funds a pool may have been for more calls, and an assumed call is replaced by the
    real one.

    An entry can be corrected once its lease has ended. The usage assumed by an expiry can be
    corrected until the lease ends (flagged late); after that it is 0, since recorded usage has
    replaced it. A correction of an import is flagged as imported, and never as overrun, since the
    import held nothing.

    Raises:
        UncorrectableEntryError: The lease has not ended, so more usage may come; or it has ended,
            and the entry is its expiry.
        InvalidInputError: The entry records that usage already.
    """
    if of_expiry and lease.phase is not _EXPIRED:
        reason = f"the end of lease {lease.lease} has replaced what it assumed"
        raise UncorrectableEntryError(seq, reason)
    if not of_expiry and lease.phase is not _ENDED:
        raise UncorrectableEntryError(seq, f"lease {lease.lease} has not ended")
    if before == after and not requests:
        raise InvalidInputError("usage", f"nothing to correct: entry {seq} says so already")
    moved = UsageDifference.between(before, after)
    exact = balance.committed.plus(Totals.of(moved, requests=requests))
    committed = Totals(*(min(max(value, 0), ceiling) for value in exact))
    used = moved.added_to(lease.used, ceiling=ceiling)
    flags = EntryFlag.IMPORTED if of_import else _overrun(lease, used, funds=funds)
    if of_expiry:
        flags |= EntryFlag.LATE
    if committed != exact:
        flags |= EntryFlag.SATURATED
    return Effect(Balance(committed, balance.reserved), lease._replace(used=used), flags)


def _overrun(lease: LeaseState, used: Usage, *, funds: bool = False) -> EntryFlag:
    tokens, cost = lease.estimate.total_tokens, lease.estimate.cost_micros_usd
    tokens_over, cost_over = used.total_tokens > tokens, used.cost_micros_usd > cost
    if funds:  # an axis on which it reserved 0 mostly has no limit, but may have a capacity of 0
        tokens_over, cost_over = tokens_over and tokens > 0, cost_over and cost > 0
    return EntryFlag.OVERRUN if tokens_over or cost_over else _UNFLAGGED


def abandon(
    policy: SettlementPolicy,
    balance: Balance,
    lease: LeaseState | None,
    *,
    lease_id: int,
    ceiling: int,
    estimate: UsageEstimate | None = None,
) -> tuple[Effect, Assumed | None]:
    """Return the effect of ending a lease whose usage was not recorded, and its last usage.

    The usage is None if the lease is released. To a lease whose hold has expired the policy was
    applied at that time. An `estimate` replaces that of the lease; see `restated`.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold has ended.
    """
    lease = _open(lease, lease_id)
    found = assumed(policy, lease._replace(estimate=restated(lease, estimate, ceiling=ceiling)))
    if found is None:
        return release(balance, lease, lease_id=lease_id), None
    return settle(balance, lease, found.usage, lease_id=lease_id, ceiling=ceiling), found


def expire(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage | None,
    *,
    lease_id: int,
    ceiling: int,
) -> Effect:
    """Return the effect of a hold that ends by time-out.

    The assumed usage is committed and the call counts (flagged expired). If None is assumed, the
    hold is given back.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold has ended.
    """
    lease = _open(lease, lease_id)
    if usage is None:
        return _give_back(balance, lease, _EXPIRED)
    spent = Totals.of(usage, requests=1)
    effect = _spend(balance, lease, usage, spent, lease_id, ceiling, _EXPIRED)
    return effect._replace(flags=effect.flags | EntryFlag.EXPIRED)


def make_room(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage,
    kind: str,
    late: Usage | None,
    *,
    seq: int,
    ceiling: int,
) -> Effect | None:
    """Return the effect of taking back an assumed usage before late usage is recorded.

    None if nothing is taken back: the lease has not expired, or nothing changes.

    Args:
        balance: The pool's balance.
        lease: The lease.
        usage: The usage that the expiry assumed, after corrections.
        kind: The kind of the entry that is to be recorded: settlement, observation or release.
        late: The usage of that entry.
        seq: The number of the expiry.
        ceiling: The most that a total may be.
    """
    if lease is None or lease.phase is not _EXPIRED:
        return None
    after = still_assumed(usage, kind, late)
    requests = requests_made(EntryKind.CORRECTION, {"late": kind})
    if after == usage and not requests:
        return None
    return correct(
        balance,
        lease,
        usage,
        after,
        seq=seq,
        ceiling=ceiling,
        requests=requests,
        of_expiry=True,
    )


def renew(
    balance: Balance, lease: LeaseState | None, expires_at: Micros, *, lease_id: int
) -> Effect:
    """Return the effect of a renewal: the lease holds the same amounts until another time.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold has ended.
    """
    lease = _open(lease, lease_id)
    return Effect(balance, lease._replace(expires_at=expires_at), _UNFLAGGED)


def has_ended(lease: LeaseState, at: Micros) -> bool:
    """Tell whether the time of a lease's hold has passed, whether or not the lease has ended."""
    return lease.expires_at is not None and lease.expires_at <= at


def due(lease: LeaseState, now: Micros) -> bool:
    """Tell whether a lease is due: it is open, and the time of its hold has passed."""
    return lease.phase is _OPEN and has_ended(lease, now)


def release(balance: Balance, lease: LeaseState | None, *, lease_id: int) -> Effect:
    """Return the effect of a release: the lease ends, and nothing more is committed.

    It may come after the hold expired (flagged late); `make_room` then gives back what was assumed.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    if lease is None or lease.phase is _ENDED:
        raise _unknown(lease, lease_id)
    effect = _give_back(balance, lease, _ENDED)
    late = lease.phase is _EXPIRED
    return effect._replace(flags=EntryFlag.LATE) if late else effect


def _open(lease: LeaseState | None, lease_id: int) -> LeaseState:
    if lease is None or lease.phase is not _OPEN:
        raise _unknown(lease, lease_id)
    return lease


def _unknown(lease: LeaseState | None, lease_id: int) -> UnknownLeaseError:
    return UnknownLeaseError(lease_id, "unknown" if lease is None else str(lease.phase))


def _give_back(balance: Balance, lease: LeaseState, phase: LeasePhase) -> Effect:
    reserved = balance.reserved.minus(lease.held)
    after = lease._replace(phase=phase, held=Totals())
    return Effect(Balance(balance.committed, reserved), after, _UNFLAGGED)


def follow(  # noqa: PLR0913 - what an entry may be about
    kind: str,
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage | None,
    *,
    lease_id: int,
    expires_at: Micros | None,
    ceiling: int,
    requests: int = 1,
    funds: bool = False,
) -> Effect:
    """Return the effect of an entry about an existing lease, by the entry's kind.

    It decides an entry again when the entry is verified, and in every pool above.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
        ValueError: Entries of this kind are not about a lease, or the entry lacks a field.
    """
    match kind:
        case EntryKind.SETTLEMENT if usage is not None:
            given = {"lease_id": lease_id, "ceiling": ceiling, "requests": requests}
            return settle(balance, lease, usage, **given, funds=funds)
        case EntryKind.OBSERVATION if usage is not None:
            return observe(balance, lease, usage, lease_id=lease_id, ceiling=ceiling)
        case EntryKind.RENEWAL if expires_at is not None:
            return renew(balance, lease, expires_at, lease_id=lease_id)
        case EntryKind.RELEASE:
            return release(balance, lease, lease_id=lease_id)
        case EntryKind.EXPIRY:
            return expire(balance, lease, usage, lease_id=lease_id, ceiling=ceiling)
        case _:
            raise ValueError(f"a {kind} of lease {lease_id} lacks what it needs")
