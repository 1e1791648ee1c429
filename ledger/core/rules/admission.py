"""Rules of admission: what a pool has left, what it admits, and which thresholds are reached."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import reduce
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

from ledger.core.axes import AXES, CAPACITIES, NAMES, STOP_THRESHOLDS, U64_MAX
from ledger.core.entries import Balance, Direction, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import (
    ESTIMATE_FIELDS,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
)
from ledger.errors import RequestBudgetExceededError, ThresholdExceededError

Denial = RequestBudgetExceededError | ThresholdExceededError
_Three = tuple[int, int, int]
"""An amount on each axis, in the order of the table."""


def counted(balance: Balance, window: WindowState | None) -> Totals:
    """Return what counts against the capacities: what is committed and reserved.

    With windows, only what was committed in this one counts, less what was carried into it. The
    result is below 0 if more was carried over than is used, or if corrections took back what
    earlier windows had spent.
    """
    return Totals(*_used(balance, window))


def _used(balance: Balance, window: WindowState | None) -> _Three:
    # Every verdict runs this. A loop over the axes takes twice as long, so they are unrolled, in
    # the order of the table. A fourth axis would fail at once in the unpacking.
    (tokens, cost, requests), (held_tokens, held_cost, held_requests) = balance
    if window is None:
        return tokens + held_tokens, cost + held_cost, requests + held_requests
    base_tokens, base_cost, base_requests = window.base
    carried_tokens, carried_cost, carried_requests = window.carried
    return (
        tokens + held_tokens - base_tokens - carried_tokens,
        cost + held_cost - base_cost - carried_cost,
        requests + held_requests - base_requests - carried_requests,
    )


def _left(capacities: _Three, balance: Balance, window: WindowState | None) -> _Three:
    """Return capacity minus what counts against it on each axis, from 0 to 2^64-1."""
    tokens, cost, requests = capacities
    used_tokens, used_cost, used_requests = _used(balance, window)
    tokens -= used_tokens
    cost -= used_cost
    if requests != U64_MAX:
        requests -= used_requests
    if 0 <= tokens <= U64_MAX and 0 <= cost <= U64_MAX and 0 <= requests <= U64_MAX:
        return tokens, cost, requests
    return (
        min(max(0, tokens), U64_MAX),
        min(max(0, cost), U64_MAX),
        min(max(0, requests), U64_MAX),
    )


def remaining(
    policy: SharedPoolBudgetOptions, balance: Balance, window: WindowState | None = None
) -> Remaining:
    """Return capacity minus what counts against it on each axis, stopping at 0.

    Unlimited requests stay unlimited, as in a pool that cannot count requests.
    """
    capacities = _capacities(policy)
    tokens, cost, requests = left = _left(capacities, balance, window)
    of_tokens, of_cost, of_requests = capacities
    return Remaining(
        tokens,
        cost,
        _is_below(left, _kept_back(policy)),
        requests,
        _UNLIMITED[of_tokens == U64_MAX, of_cost == U64_MAX, of_requests == U64_MAX],
    )


_capacities: Callable[[SharedPoolBudgetOptions], _Three] = attrgetter(*CAPACITIES)
_kept_back: Callable[[SharedPoolBudgetOptions], _Three] = attrgetter(*STOP_THRESHOLDS)
_estimated: Callable[[UsageEstimate], tuple[int, ...]] = attrgetter(*ESTIMATE_FIELDS)
_UNLIMITED = {
    which: frozenset(name for name, unlimited in zip(NAMES, which, strict=True) if unlimited)
    for which in product((False, True), repeat=len(AXES))
}
"""Every possible set of axes, made once: each `Remaining` looks its own up."""


def least(found: Iterable[Remaining]) -> Remaining:
    """Return what remains in pools that share capacity: the least amount on each axis."""
    return reduce(_less, found)


def _less(one: Remaining, other: Remaining) -> Remaining:
    return Remaining(
        min(one.tokens, other.tokens),
        min(one.cost_micros_usd, other.cost_micros_usd),
        one.below_threshold or other.below_threshold,
        min(one.requests, other.requests),
        one.unlimited & other.unlimited,
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

    The estimate is compared with the request's own budget first, then with the pool: it must fit
    into what remains, and may not leave less than the stop threshold, on any axis. A strict
    pool admits nothing while it is at or below a threshold. An overspent pool admits nothing that
    uses anything. `requests` is how many calls the lease is for: more than one where it funds a
    carved pool.
    """
    if not request_budget.allows_estimate(estimate):
        return _over(request_budget, estimate)
    left, kept_back = _left(_capacities(policy), balance, window), _kept_back(policy)
    kept_tokens, kept_cost, kept_requests = kept_back
    tokens, cost, calls = left
    # A threshold is at least 0, so "less than the threshold would remain" covers "does not fit".
    if (
        tokens - estimate.total_tokens < kept_tokens
        or cost - estimate.cost_micros_usd < kept_cost
        or calls - requests < kept_requests
        or (policy.strict and _is_below(left, kept_back))
        # Nothing is left on an axis that is overspent, so most calls compare no more than this.
        or (0 in left and _is_overspent(policy, balance, window) and _uses_anything(estimate))
    ):
        return _short(policy, estimate, left)
    return None


def _is_overspent(
    policy: SharedPoolBudgetOptions, balance: Balance, window: WindowState | None
) -> bool:
    """Tell whether more is committed and reserved than the capacity on one axis with a limit."""
    used = _used(balance, window)
    return any(
        capacity != U64_MAX and amount > capacity
        for capacity, amount in zip(_capacities(policy), used, strict=True)
    )


def _uses_anything(estimate: UsageEstimate) -> bool:
    """Tell whether an estimate has any amount, also one that does not count by itself."""
    return any(_estimated(estimate))


def _is_below(left: _Three, kept_back: _Three) -> bool:
    """Tell whether a stop threshold is reached on one axis."""
    return left[0] <= kept_back[0] or left[1] <= kept_back[1] or left[2] <= kept_back[2]


def _short(
    policy: SharedPoolBudgetOptions, estimate: UsageEstimate, left: _Three
) -> ThresholdExceededError:
    tokens, cost, requests = left
    return ThresholdExceededError(
        requested_tokens=estimate.total_tokens,
        requested_cost_micros_usd=estimate.cost_micros_usd,
        remaining_tokens=tokens,
        remaining_cost_micros_usd=cost,
        remaining_requests=requests,
        unlimited=frozenset(axis.name for axis in AXES if axis.is_unlimited(policy)),
    )


def over_request_budget(
    request_budget: RequestBudget, usage: Usage
) -> RequestBudgetExceededError | None:
    """Return the error a settlement ends in if its usage is over the request's own budget."""
    if request_budget.allows_usage(usage):
        return None
    return _over(request_budget, usage)


def denial_figures(denial: Denial) -> dict[str, Any]:
    """Return what an entry keeps of a denial beside the estimate: why, and what remained.

    An axis without a limit has no meaningful rest: `uncounted` holds what is used instead.
    """
    if isinstance(denial, RequestBudgetExceededError):
        return {"reason": "request_budget"}
    figures: dict[str, Any] = {"reason": "threshold"}
    uncounted = {}
    for axis in AXES:
        left: int = getattr(denial, f"remaining_{axis.name}")
        if axis.name not in denial.unlimited:
            figures[f"remaining_{axis.name}"] = left
        elif not axis.only_if_limited:
            uncounted[axis.name] = U64_MAX - left
    return figures | {"uncounted": uncounted} if uncounted else figures


def denial_of(
    figures: Mapping[str, Any], estimate: UsageEstimate, pool: str | None
) -> ThresholdExceededError:
    """Return the refusal of a pool that an entry keeps; see `denial_figures`."""
    uncounted = figures.get("uncounted", {})
    left = {
        f"remaining_{name}": figures.get(f"remaining_{name}", U64_MAX - uncounted.get(name, 0))
        for name in NAMES
    }
    return ThresholdExceededError(
        requested_tokens=estimate.total_tokens,
        requested_cost_micros_usd=estimate.cost_micros_usd,
        **left,
        unlimited=frozenset(name for name in NAMES if f"remaining_{name}" not in figures),
        pool=pool,
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
    capacities = _capacities(policy)
    axes = [
        (capacity, capacity - remains)
        for capacity, remains in zip(capacities, _left(capacities, balance, window), strict=True)
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


def _over(
    request_budget: RequestBudget, asked: UsageEstimate | Usage
) -> RequestBudgetExceededError:
    return RequestBudgetExceededError(
        requested_tokens=asked.total_tokens,
        requested_cost_micros_usd=asked.cost_micros_usd,
        budget_tokens=request_budget.tokens,
        budget_cost_micros_usd=request_budget.cost_micros_usd,
    )
