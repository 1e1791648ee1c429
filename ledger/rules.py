"""The one place where a verdict or a balance is computed: pure arithmetic on integers.

The in-memory manager, the SQL write path, replay, the verifier and the tests' oracle all call
these functions. There is no I/O, no SQL and no clock here.

`admit` answers "may I?" and changes nothing; `reserve`, `observe`, `settle` and the others say what
an entry leaves behind, the same whether it is about to be written or was written years ago.
"""

from __future__ import annotations

from typing import NamedTuple

from ledger.checks import U64_MAX, Micros
from ledger.errors import (
    AmountOutOfRangeError,
    RequestBudgetExceededError,
    ThresholdExceededError,
    UnknownLeaseError,
)
from ledger.model import (
    USAGE_FIELDS,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
)
from ledger.policy import SettlementPolicy, SharedPoolBudgetOptions
from ledger.records import (
    Balance,
    EntryFlag,
    LeasePhase,
    LeaseState,
    Totals,
)

_NOTHING = Usage.zero()

Denial = RequestBudgetExceededError | ThresholdExceededError


class Effect(NamedTuple):
    """What an entry leaves behind: the pool's balance, its lease, and what was remarkable."""

    balance: Balance
    lease: LeaseState
    flags: EntryFlag


def remaining(policy: SharedPoolBudgetOptions, balance: Balance) -> Remaining:
    """Return capacity minus (committed + reserved) on each axis, stopping at 0.

    Unlimited requests stay unlimited: a pool that does not count them answers as if it could not.
    """
    committed, reserved = balance
    tokens = max(0, policy.capacity_tokens - committed.tokens - reserved.tokens)
    cost = max(
        0,
        policy.capacity_cost_micros_usd - committed.cost_micros_usd - reserved.cost_micros_usd,
    )
    requests = policy.capacity_requests
    if requests != U64_MAX:
        requests = max(0, requests - committed.requests - reserved.requests)
    return Remaining(
        tokens,
        cost,
        tokens <= policy.stop_threshold_tokens
        or cost <= policy.stop_threshold_cost_micros_usd
        or requests <= policy.stop_threshold_requests,
        requests,
    )


def admit(
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
) -> Denial | None:
    """Return why a reservation is denied, or None where it is admitted.

    The estimate is held against the request's own budget first, then against the pool: it must
    fit into what remains, and may not leave less than the stop threshold, on any axis. A strict
    pool admits nothing while it is at or below a threshold.
    """
    tokens, cost = estimate.total_tokens, estimate.cost_micros_usd
    if not request_budget.allows_estimate(estimate):
        return _over(request_budget, tokens, cost)
    left = remaining(policy, balance)
    # A threshold is at least 0, so "less than the threshold would remain" covers "does not fit".
    if (
        left.tokens - tokens < policy.stop_threshold_tokens
        or left.cost_micros_usd - cost < policy.stop_threshold_cost_micros_usd
        or left.requests - 1 < policy.stop_threshold_requests
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
) -> Effect:
    """Return what an admitted reservation leaves behind.

    Raises:
        AmountOutOfRangeError: The reserved total would pass `ceiling`.
    """
    held = Totals(estimate.total_tokens, estimate.cost_micros_usd, 1)
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
    balance: Balance, lease: LeaseState | None, usage: Usage, *, lease_id: int, ceiling: int
) -> Effect:
    """Return what recording the last `usage` of a lease leaves behind.

    The hold goes back, and the usage is committed.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    return _spend(balance, lease, usage, lease_id=lease_id, ceiling=ceiling, ends=True)


def observe(
    balance: Balance, lease: LeaseState | None, usage: Usage, *, lease_id: int, ceiling: int
) -> Effect:
    """Return what recording a part of a lease's usage leaves behind.

    The usage is committed, the lease stays open, and holds as much less, down to nothing.

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    return _spend(balance, lease, usage, lease_id=lease_id, ceiling=ceiling, ends=False)


def _spend(
    balance: Balance,
    lease: LeaseState | None,
    usage: Usage,
    *,
    lease_id: int,
    ceiling: int,
    ends: bool,
) -> Effect:
    """Commit usage, whatever it is.

    Committed totals stop at `ceiling` (flagged saturated): spend is never refused. Usage that
    comes after the hold expired is committed all the same (flagged late).
    """
    if lease is None or lease.phase is LeasePhase.ENDED:
        raise UnknownLeaseError(lease_id)
    spent = Totals(usage.total_tokens, usage.cost_micros_usd, 1 if ends else 0)
    exact = _plus(balance.committed, spent)
    committed = exact
    if max(exact) > ceiling:
        committed = Totals(*(min(value, ceiling) for value in exact))
    used = lease.used.saturating_add(usage, ceiling=ceiling)
    flags = EntryFlag.NONE
    if (
        used.total_tokens > lease.estimate.total_tokens
        or used.cost_micros_usd > lease.estimate.cost_micros_usd
    ):
        flags |= EntryFlag.OVERRUN
    if lease.phase is LeasePhase.EXPIRED:
        flags |= EntryFlag.LATE
    if committed != exact:
        flags |= EntryFlag.SATURATED
    phase, held = LeasePhase.ENDED, Totals()
    if not ends:
        phase, held = lease.phase, Totals(*map(max, _minus(lease.held, spent), Totals()))
    after = lease._replace(phase=phase, held=held, used=used)
    reserved = _minus(balance.reserved, _minus(lease.held, held))
    return Effect(Balance(committed, reserved), after, flags)


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
