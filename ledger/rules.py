"""The one place where a verdict or a balance is computed: pure arithmetic on integers.

The in-memory manager, the SQL write path, replay, the verifier and the tests' oracle all call
these functions. There is no I/O, no SQL and no clock here.

`admit` answers "may I?" and changes nothing; `reserve`, `observe`, `settle` and the others say what
an entry leaves behind, the same whether it is about to be written or was written years ago.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ledger.checks import U64_MAX, Micros
from ledger.errors import (
    AmountOutOfRangeError,
    InvalidInputError,
    RequestBudgetExceededError,
    ThresholdExceededError,
    UncorrectableEntryError,
    UnknownLeaseError,
)
from ledger.model import (
    USAGE_FIELDS,
    Remaining,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)
from ledger.policy import SettlementPolicy, SharedPoolBudgetOptions
from ledger.records import (
    Balance,
    Direction,
    EntryFlag,
    EntryKind,
    LeasePhase,
    LeaseState,
    Totals,
    WindowState,
)

_NOTHING = Usage.zero()

Denial = RequestBudgetExceededError | ThresholdExceededError


class Effect(NamedTuple):
    """What an entry leaves behind: the pool's balance, its lease, and what was remarkable."""

    balance: Balance
    lease: LeaseState
    flags: EntryFlag


def counted(balance: Balance, window: WindowState | None) -> Totals:
    """Return what counts against the capacities: what is committed and reserved.

    In a window only what was committed in it, less what was carried into it: below 0 where more
    was carried than is used, or where corrections took back what earlier windows had spent.
    """
    used = _plus(balance.committed, balance.reserved)
    return used if window is None else _minus(used, _plus(window.base, window.carried))


def remaining(
    policy: SharedPoolBudgetOptions, balance: Balance, window: WindowState | None = None
) -> Remaining:
    """Return capacity minus what counts against it on each axis, stopping at 0.

    Unlimited requests stay unlimited: a pool that does not count them answers as if it could not.
    """
    used = counted(balance, window)
    tokens = min(max(0, policy.capacity_tokens - used.tokens), U64_MAX)
    cost = min(max(0, policy.capacity_cost_micros_usd - used.cost_micros_usd), U64_MAX)
    requests = policy.capacity_requests
    if requests != U64_MAX:
        requests = max(0, requests - used.requests)
    return Remaining(
        tokens,
        cost,
        tokens <= policy.stop_threshold_tokens
        or cost <= policy.stop_threshold_cost_micros_usd
        or requests <= policy.stop_threshold_requests,
        requests,
    )


def least(found: Iterable[Remaining]) -> Remaining:
    """Return what pools leave together that share their capacity: the least on each axis."""
    left = tuple(found)
    return Remaining(
        min(one.tokens for one in left),
        min(one.cost_micros_usd for one in left),
        any(one.below_threshold for one in left),
        min(one.requests for one in left),
    )


class Crossing(NamedTuple):
    """A named threshold that an entry crossed."""

    name: str
    percent: int
    direction: Direction


def crossings(
    policy: SharedPoolBudgetOptions,
    before: Collection[str],
    after: Collection[str],
) -> list[Crossing]:
    """Return the thresholds of a policy that an entry crossed, lowest first.

    Args:
        policy: The policy in force after the entry.
        before: The names of the thresholds that were `reached` before it, under the policy then.
        after: The names of those that are `reached` after it.
    """
    return [
        Crossing(name, percent, Direction.REACHED if name in after else Direction.LEFT)
        for name, percent in policy.thresholds.items()
        if (name in before) != (name in after)
    ]


def reached(
    policy: SharedPoolBudgetOptions, balance: Balance, window: WindowState | None = None
) -> set[str]:
    """Return the names of a policy's thresholds that are reached.

    One of p % is reached when at least p % of a capacity does not remain, on any axis that has a
    limit.
    """
    if not policy.thresholds:
        return set()
    left = remaining(policy, balance, window)
    axes = [
        (capacity, capacity - remains)
        for capacity, remains in (
            (policy.capacity_tokens, left.tokens),
            (policy.capacity_cost_micros_usd, left.cost_micros_usd),
            (policy.capacity_requests, left.requests),
        )
        if capacity != U64_MAX
    ]
    return {
        name
        for name, percent in policy.thresholds.items()
        if any(used * 100 >= capacity * percent for capacity, used in axes)
    }


def crossing_detail(crossing: Crossing) -> dict[str, dict[str, str | int]]:
    """Return what an entry keeps of a threshold that was crossed."""
    name, percent, direction = crossing
    return {"threshold": {"name": name, "percent": percent, "direction": str(direction)}}


def admit(
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    window: WindowState | None = None,
    *,
    requests: int = 1,
) -> Denial | None:
    """Return why a reservation is denied, or None where it is admitted.

    The estimate is held against the request's own budget first, then against the pool: it must
    fit into what remains, and may not leave less than the stop threshold, on any axis. A strict
    pool admits nothing while it is at or below a threshold. `requests` is how many calls the
    lease is for: more than one where it funds a carved pool.
    """
    tokens, cost = estimate.total_tokens, estimate.cost_micros_usd
    if not request_budget.allows_estimate(estimate):
        return _over(request_budget, tokens, cost)
    left = remaining(policy, balance, window)
    # A threshold is at least 0, so "less than the threshold would remain" covers "does not fit".
    if (
        left.tokens - tokens < policy.stop_threshold_tokens
        or left.cost_micros_usd - cost < policy.stop_threshold_cost_micros_usd
        or left.requests - requests < policy.stop_threshold_requests
        or (policy.strict and left.below_threshold)
    ):
        return ThresholdExceededError(
            requested_tokens=tokens,
            requested_cost_micros_usd=cost,
            remaining_tokens=left.tokens,
            remaining_cost_micros_usd=left.cost_micros_usd,
            remaining_requests=left.requests,
        )
    return None


def over_request_budget(
    request_budget: RequestBudget, usage: Usage
) -> RequestBudgetExceededError | None:
    """Return the error a settlement ends in if its usage is over the request's own budget."""
    if request_budget.allows_usage(usage):
        return None
    return _over(request_budget, usage.total_tokens, usage.cost_micros_usd)


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
    """Return what an admitted reservation leaves behind.

    Raises:
        AmountOutOfRangeError: The reserved total would pass `ceiling`.
    """
    held = Totals(estimate.total_tokens, estimate.cost_micros_usd, requests)
    reserved = _plus(balance.reserved, held)
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
    """Return what recording the last `usage` of a lease leaves behind.

    The hold goes back, and the usage is committed, of as many calls as the lease was for.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    phase = LeasePhase.ENDED
    spent = Totals(usage.total_tokens, usage.cost_micros_usd, requests)
    return _spend(balance, lease, usage, spent, lease_id=lease_id, ceiling=ceiling, phase=phase)


def observe(
    balance: Balance, lease: LeaseState | None, usage: Usage, *, lease_id: int, ceiling: int
) -> Effect:
    """Return what recording a part of a lease's usage leaves behind.

    The usage is committed, the lease stays open, and holds as much less, down to nothing.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    spent = Totals(usage.total_tokens, usage.cost_micros_usd)
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
    exact = _plus(balance.committed, spent)
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
        phase, held = lease.phase, Totals(*map(max, _minus(lease.held, spent), held))
    after = lease._replace(phase=phase, held=held, used=used)
    reserved = _minus(balance.reserved, _minus(lease.held, held))
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
    """Return what correcting an entry of a lease leaves behind, which said `before`.

    What is committed, and what the lease has used, moves by the difference. Totals stop at 0 and
    at `ceiling` (flagged saturated). Requests stay, since the call was made; but what funds a pool
    may turn out to have been for more of them.

    Raises:
        UncorrectableEntryError: The lease has not ended, and more usage may come.
        InvalidInputError: The entry says so already.
    """
    if lease.phase is not LeasePhase.ENDED:
        raise UncorrectableEntryError(seq, f"lease {lease.lease} has not ended")
    if before == after and not requests:
        raise InvalidInputError("usage", f"nothing to correct: entry {seq} says so already")
    moved = UsageDifference.between(before, after)
    exact = _plus(balance.committed, Totals(moved.total_tokens, moved.cost_micros_usd, requests))
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
    """Return what ending a lease leaves behind whose usage nobody recorded, and its last usage.

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
    """Return what a renewal leaves behind: the lease holds what it held, until another time.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold is gone already.
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
    """Return what a release (phase ended) or an expiry (phase expired) leaves behind.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold is gone already.
    """
    if lease is None or lease.phase is not LeasePhase.OPEN:
        raise UnknownLeaseError(lease_id)
    after = lease._replace(phase=phase, held=Totals())
    return Effect(
        Balance(balance.committed, _minus(balance.reserved, lease.held)), after, EntryFlag.NONE
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
    """Return what an entry about a lease that exists leaves behind, by its kind.

    So an entry is decided anew: when it is verified, and in every pool above its own.

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


def denial_figures(denial: Denial) -> dict[str, str | int]:
    """Return what an entry keeps of a denial beside the estimate: why, and what remained."""
    if isinstance(denial, RequestBudgetExceededError):
        return {"reason": "request_budget"}
    figures: dict[str, str | int] = {
        "reason": "threshold",
        "remaining_tokens": denial.remaining_tokens,
        "remaining_cost_micros_usd": denial.remaining_cost_micros_usd,
    }
    if denial.remaining_requests != U64_MAX:
        figures["remaining_requests"] = denial.remaining_requests
    return figures


def _over(request_budget: RequestBudget, tokens: int, cost: int) -> RequestBudgetExceededError:
    return RequestBudgetExceededError(
        requested_tokens=tokens,
        requested_cost_micros_usd=cost,
        budget_tokens=request_budget.tokens,
        budget_cost_micros_usd=request_budget.cost_micros_usd,
    )


def _plus(left: Totals, right: Totals) -> Totals:
    return Totals(
        left.tokens + right.tokens,
        left.cost_micros_usd + right.cost_micros_usd,
        left.requests + right.requests,
    )


def _minus(left: Totals, right: Totals) -> Totals:
    return Totals(
        left.tokens - right.tokens,
        left.cost_micros_usd - right.cost_micros_usd,
        left.requests - right.requests,
    )
