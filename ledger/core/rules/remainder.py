"""Rules of what remains: what counts against a capacity, and whether the rest is enough.

The same rules hold for a pool's own capacity and for each of its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import reduce
from itertools import product
from operator import attrgetter

from ledger.core.axes import AXES, CAPACITIES, NAMES, U64_MAX
from ledger.core.entries import Balance, Totals, WindowState
from ledger.core.values import ESTIMATE_FIELDS, Remaining, UsageEstimate

Three = tuple[int, int, int]
"""An amount on each axis, in the order of `AXES`."""

capacities_of: Callable[[object], Three] = attrgetter(*CAPACITIES)
"""Returns the capacities of a policy, or of a limit."""
_estimated: Callable[[UsageEstimate], tuple[int, ...]] = attrgetter(*ESTIMATE_FIELDS)
_UNLIMITED = {
    which: frozenset(name for name, unlimited in zip(NAMES, which, strict=True) if unlimited)
    for which in product((False, True), repeat=len(AXES))
}
"""Every possible set of axes, made once and looked up by each `Remaining`."""


_set_tokens, _set_cost, _set_below, _set_requests, _set_unlimited = (
    vars(Remaining)[part.name].__set__ for part in fields(Remaining)
)


def _remains(
    tokens: int,
    cost_micros_usd: int,
    below: bool,  # noqa: FBT001 - the hot path passes arguments by position
    requests: int,
    unlimited: frozenset[str],
) -> Remaining:
    """Return a `Remaining`, in half the time that calling its class takes."""
    made = object.__new__(Remaining)
    _set_tokens(made, tokens)
    _set_cost(made, cost_micros_usd)
    _set_below(made, below)
    _set_requests(made, requests)
    _set_unlimited(made, unlimited)
    return made


def counted(balance: Balance, window: WindowState | None) -> Totals:
    """Return what counts against the capacities: what is committed and reserved.

    With windows, only what was committed in the present window counts, minus what was carried into
    it. The result is below 0 if more was carried over than is used, or if corrections took back
    usage of earlier windows.
    """
    return Totals(*used(balance, window))


def used(balance: Balance, window: WindowState | None) -> Three:
    """Return what `counted` does, as a plain tuple."""
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


def left(capacities: Three, counts: Three) -> Three:
    """Return the capacity minus what counts against it on each axis, 0 to 2^64-1."""
    tokens, cost, requests = capacities
    used_tokens, used_cost, used_requests = counts
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


def left_of(capacities: Three, counts: Three, kept_back: Three) -> Remaining:
    """Return what is left of capacities as a `Remaining`.

    Unlimited requests remain 2^64-1, however many calls were made.
    """
    tokens, cost, requests = rest = left(capacities, counts)
    of_tokens, of_cost, of_requests = capacities
    unlimited = _UNLIMITED[of_tokens == U64_MAX, of_cost == U64_MAX, of_requests == U64_MAX]
    return _remains(tokens, cost, _is_below(rest, kept_back), requests, unlimited)


def least(found: Iterable[Remaining]) -> Remaining:
    """Return what remains under several capacities: the least amount on each axis."""
    return reduce(_less, found)


def _less(one: Remaining, other: Remaining) -> Remaining:
    return Remaining(
        min(one.tokens, other.tokens),
        min(one.cost_micros_usd, other.cost_micros_usd),
        one.below_threshold or other.below_threshold,
        min(one.requests, other.requests),
        one.unlimited & other.unlimited,
    )


def too_little(
    capacities: Three,
    counts: Three,
    kept_back: Three,
    estimate: UsageEstimate,
    requests: int,
    strict: bool,  # noqa: FBT001 - the hot path passes arguments by position
) -> Three | None:
    """Return what is left of capacities if it is too little for an estimate, None if it is enough.

    On each axis the estimate must fit into what is left, and leave at least the stop threshold.
    Strict capacities admit nothing once what is left is at or below the stop threshold. Capacities
    that are overspent on one axis admit nothing that uses anything.
    """
    kept_tokens, kept_cost, kept_requests = kept_back
    tokens, cost, calls = rest = left(capacities, counts)
    # The stop threshold is at least 0, so "less than that would remain" covers "does not fit".
    if (
        tokens - estimate.total_tokens < kept_tokens
        or cost - estimate.cost_micros_usd < kept_cost
        or calls - requests < kept_requests
        or (strict and _is_below(rest, kept_back))
        # Nothing is left on an overspent axis, so most calls make only this comparison.
        or (0 in rest and overspent(capacities, counts) and any(_estimated(estimate)))
    ):
        return rest
    return None


def overspent(capacities: Three, counts: Three) -> Mapping[str, int]:
    """Return by how much what is committed and reserved exceeds a capacity, for each such axis."""
    return {
        name: amount - capacity
        for name, capacity, amount in zip(NAMES, capacities, counts, strict=True)
        if capacity != U64_MAX and amount > capacity
    }


def _is_below(rest: Three, kept_back: Three) -> bool:
    """Tell whether what is left is at or below the stop threshold on one axis."""
    return rest[0] <= kept_back[0] or rest[1] <= kept_back[1] or rest[2] <= kept_back[2]
