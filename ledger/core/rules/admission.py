"""Rules of admission: what a pool has left and admits, and which thresholds are reached."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from ledger.core.axes import AXES, NAMES, STOP_THRESHOLDS, U64_MAX
from ledger.core.calendar import NEVER
from ledger.core.checks import from_micros, to_micros
from ledger.core.entries import Balance, Direction, Totals, WindowState
from ledger.core.errors import RequestBudgetExceededError, ThresholdExceededError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.carry_over import carried_at_most, reopens
from ledger.core.rules.credits import Credits, Shortage
from ledger.core.rules.limits import Limits, Refusal
from ledger.core.rules.remainder import (
    Three,
    capacities_of,
    least,
    left,
    left_of,
    overspent,
    too_little,
    used,
)
from ledger.core.values import Remaining, RequestBudget, Usage, UsageEstimate

Denial = RequestBudgetExceededError | ThresholdExceededError


def remaining(
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    window: WindowState | None = None,
    limits: Limits | None = None,
    credits: Credits | None = None,
) -> Remaining:
    """Return what is left of a pool: the least that its capacity, limits and credits have left.

    Args:
        policy: The policy in force.
        balance: The pool's balance.
        window: The window that it is in.
        limits: The policy's limits at the time of the question; None to leave limits out.
        credits: The pool's credits at that time, where it is prepaid.
    """
    kept_back = _kept_back(policy)
    own = left_of(capacities_of(policy), used(balance, window), kept_back)
    if limits is None and credits is None:
        return own
    others = [] if limits is None else [one.remaining for one in limits.states(balance)]
    if credits is not None:
        others.append(prepaid(policy, balance, credits))
    return least([own, *others])


def prepaid(policy: SharedPoolBudgetOptions, balance: Balance, credits: Credits) -> Remaining:
    """Return what is left of a pool's credits alone."""
    return credits.remaining(balance, _kept_back(policy))


_kept_back: Callable[[SharedPoolBudgetOptions], Three] = attrgetter(*STOP_THRESHOLDS)


def admit(
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    window: WindowState | None = None,
    *,
    requests: int = 1,
    limits: Limits | None = None,
    credits: Credits | None = None,
) -> Denial | None:
    """Return why a reservation is denied, or None if it is admitted.

    The estimate is compared with the request's own budget first, then with the pool's capacity,
    with all of its limits and with its credits (see `too_little`). If several refuse, the denial
    names one for which the request is too large, or else the one that frees up last. Credits never
    free up, so they are named first. `requests` is how many calls the lease is for: more than one
    if it funds a carved pool. `limits` and `credits` are the pool's, at the time of the
    reservation.
    """
    if not request_budget.allows_usage(estimate):
        return _over(request_budget, estimate)
    asked = policy, estimate, window, requests, limits, credits
    denial = _refusal(balance, *asked)
    if denial is None or denial.retry_at is not None or not any(balance.reserved):
        return denial
    # Waiting does not help while open leases hold what they hold. Does it once they have ended?
    unheld = _refusal(Balance(balance.committed), *asked)
    return denial.by_leases() if unheld is None or unheld.retry_at is not None else denial


def _refusal(
    balance: Balance,
    policy: SharedPoolBudgetOptions,
    estimate: UsageEstimate,
    window: WindowState | None,
    requests: int,
    limits: Limits | None,
    credits: Credits | None,
) -> ThresholdExceededError | None:
    """Return why the pool denies a reservation; see `admit`."""
    capacities, kept_back = capacities_of(policy), _kept_back(policy)
    rest = too_little(
        capacities, used(balance, window), kept_back, estimate, requests, policy.strict
    )
    if policy.prepaid:  # credits never free up, so their denial is named first
        assert credits is not None  # noqa: S101 - unread credits would bound nothing
        shortage = credits.refusal(balance, estimate, requests, kept_back)
        if shortage is not None:
            return _unpaid(policy, estimate, shortage)
    if rest is None and not policy.limits:
        return None
    found = []
    if rest is not None:

        def admits(begun: WindowState) -> bool:
            counts = used(balance, begun)
            strict = policy.strict
            return too_little(capacities, counts, kept_back, estimate, requests, strict) is None

        frees_at = None if window is None else reopens(policy, window, balance, admits)
        unused = Totals().minus(carried_at_most(policy, window))
        short = too_little(capacities, unused, kept_back, estimate, requests, policy.strict)
        over = overspent(capacities, used(balance, window))
        found.append(Refusal(None, rest, frees_at, short is not None, over))
    if policy.limits:
        assert limits is not None  # noqa: S101 - an unread limit would bound nothing
        found += limits.refusals(balance, estimate, requests)
    if not found:
        return None
    worst = max(
        found, key=lambda one: (one.too_large, NEVER if one.frees_at is None else one.frees_at)
    )
    return _short(policy, estimate, worst)


def _short(
    policy: SharedPoolBudgetOptions, estimate: UsageEstimate, refusal: Refusal
) -> ThresholdExceededError:
    limit, (tokens, cost, requests), frees_at, too_large, over = refusal
    of = limit or policy
    return ThresholdExceededError(
        requested_tokens=estimate.total_tokens,
        requested_cost_micros_usd=estimate.cost_micros_usd,
        remaining_tokens=tokens,
        remaining_cost_micros_usd=cost,
        remaining_requests=requests,
        unlimited=frozenset(axis.name for axis in AXES if axis.is_unlimited(of)),
        limit=None if limit is None else limit.name,
        retry_at=None if frees_at is None else from_micros(frees_at),
        too_large=too_large,
        overspent=over or None,
    )


def _unpaid(
    policy: SharedPoolBudgetOptions, estimate: UsageEstimate, shortage: Shortage
) -> ThresholdExceededError:
    (tokens, cost, requests), top_up, expired = shortage
    return ThresholdExceededError(
        requested_tokens=estimate.total_tokens,
        requested_cost_micros_usd=estimate.cost_micros_usd,
        remaining_tokens=tokens,
        remaining_cost_micros_usd=cost,
        remaining_requests=requests,
        unlimited=frozenset(name for name in NAMES if name not in policy.prepaid),
        top_up={name: amount for name, amount in top_up._asdict().items() if amount},
        expired=None if expired is None else expired.credit.name,
        expired_at=None if expired is None else expired.credit.expires_at,
    )


def over_request_budget(
    request_budget: RequestBudget, usage: Usage
) -> RequestBudgetExceededError | None:
    """Return the error that a settlement raises if its usage is over the request's own budget."""
    if request_budget.allows_usage(usage):
        return None
    return _over(request_budget, usage)


def denial_figures(denial: Denial) -> dict[str, Any]:
    """Return what an entry keeps of a denial beside the estimate: the reason, and what remained.

    On an axis without a limit what remains has no meaning: `uncounted` holds what is used there.
    """
    if isinstance(denial, RequestBudgetExceededError):
        return {"reason": "request_budget"}
    figures: dict[str, Any] = {"reason": "threshold"}
    if denial.limit is not None:
        figures["limit"] = denial.limit
    if denial.retry_at is not None:
        figures["retry_at"] = to_micros("retry_at", denial.retry_at)
    figures |= {name: True for name in ("held_by_leases", "too_large") if getattr(denial, name)}
    for name in ("overspent", "top_up"):
        amounts = getattr(denial, name)
        if amounts is not None:
            figures[name] = dict(amounts)
    if denial.expired is not None:
        at = to_micros("expired_at", denial.expired_at)
        figures["expired"] = {"name": denial.expired, "at": at}
    uncounted = {}
    for axis in AXES:
        left: int = getattr(denial, f"remaining_{axis.name}")
        if axis.name not in denial.unlimited:
            figures[f"remaining_{axis.name}"] = left
        elif not axis.only_if_limited:
            uncounted[axis.name] = U64_MAX - left
    return figures | {"uncounted": uncounted} if uncounted else figures


def says(figures: Mapping[str, Any], denial: Denial, **more: object) -> bool:
    """Tell whether an entry keeps a denial as `denial_figures` states it.

    Entries of earlier versions do not say by how much a capacity was overspent.

    Args:
        figures: What it keeps.
        denial: The denial.
        more: The fields that it keeps beside those of `denial_figures`.
    """
    expected = denial_figures(denial) | more
    if "overspent" not in figures:
        expected.pop("overspent", None)
    return bool(figures == expected)


def denial_of(
    figures: Mapping[str, Any], estimate: UsageEstimate, pool: str | None
) -> ThresholdExceededError:
    """Return the refusal of a pool that an entry keeps; see `denial_figures`."""
    uncounted = figures.get("uncounted", {})
    retry_at, expired = figures.get("retry_at"), figures.get("expired")
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
        limit=figures.get("limit"),
        retry_at=None if retry_at is None else from_micros(retry_at),
        held_by_leases=figures.get("held_by_leases", False),
        too_large=figures.get("too_large", False),
        overspent=figures.get("overspent"),
        top_up=figures.get("top_up"),
        expired=None if expired is None else expired["name"],
        expired_at=None if expired is None else from_micros(expired["at"]),
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
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    window: WindowState | None = None,
    credits: Credits | None = None,
) -> set[str]:
    """Return the names of a policy's thresholds that are reached.

    A threshold of p % is reached when, on any limited axis, at least p % of a window's amount is
    spent or held. That amount is the capacity plus what was carried in, and at least 0. On a
    prepaid axis a threshold is also reached when at least p % of the credits is spent or held: of
    what was left of them after the newest top-up, without credits that have expired since.
    """
    if not policy.thresholds:
        return set()
    capacities = capacities_of(policy)
    carried = Totals() if window is None else window.carried
    axes = [
        (whole := max(0, capacity + more), whole - remains)
        for capacity, more, remains in zip(
            capacities, carried, left(capacities, used(balance, window)), strict=True
        )
        if capacity != U64_MAX
    ]
    if credits is not None:
        axes += credits.wholes(balance)
    return {
        name
        for name, percent in policy.thresholds.items()
        if any(used * 100 >= whole * percent for whole, used in axes)
    }


def crossing_detail(crossing: Crossing) -> dict[str, dict[str, str | int]]:
    """Return the detail of an entry that reports a crossed threshold."""
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
