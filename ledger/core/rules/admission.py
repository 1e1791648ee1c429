"""What a pool has left, whom it admits, and which of its named thresholds are reached."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ledger.core.checks import U64_MAX
from ledger.core.entries import Balance, Direction, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining, RequestBudget, Usage, UsageEstimate
from ledger.errors import RequestBudgetExceededError, ThresholdExceededError

Denial = RequestBudgetExceededError | ThresholdExceededError


def counted(balance: Balance, window: WindowState | None) -> Totals:
    """Return what counts against the capacities: what is committed and reserved.

    In a window only what was committed in it, less what was carried into it: below 0 where more
    was carried than is used, or where corrections took back what earlier windows had spent.
    """
    used = balance.committed.plus(balance.reserved)
    return used if window is None else used.minus(window.base.plus(window.carried))


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


def _over(request_budget: RequestBudget, tokens: int, cost: int) -> RequestBudgetExceededError:
    return RequestBudgetExceededError(
        requested_tokens=tokens,
        requested_cost_micros_usd=cost,
        budget_tokens=request_budget.tokens,
        budget_cost_micros_usd=request_budget.cost_micros_usd,
    )
