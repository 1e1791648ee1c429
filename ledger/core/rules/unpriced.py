"""Rules of missing figures: a call that uses something on an axis, although it says 0 there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from ledger.core.axes import AXES, COST, TOKENS, U64_MAX, Axis
from ledger.core.entries import EntryFlag
from ledger.core.errors import UnpricedCallError
from ledger.core.policy import SharedPoolBudgetOptions, Unpriced
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS, Usage, UsageDifference, UsageEstimate

_COUNTED = frozenset(axis.amount for axis in AXES)


def _parts_of(names: Sequence[str]) -> Callable[[object], tuple[int, ...]]:
    return attrgetter(*(name for name in names if name not in _COUNTED))


_estimated_parts = _parts_of(ESTIMATE_FIELDS)
_used_parts = _parts_of(USAGE_FIELDS)


def left_out(amounts: UsageEstimate | Usage) -> tuple[Axis, ...]:
    """Return the axes on which a call plainly uses something, although its amount there is 0.

    Parts without a total leave out tokens, and tokens without a cost leave out the cost. A call
    that uses nothing at all leaves nothing out. A cost without tokens leaves nothing out, either:
    an image may have a price and no tokens.
    """
    total, cost = amounts.total_tokens, amounts.cost_micros_usd
    if total:
        return () if cost else (COST,)
    parts = _used_parts if amounts.__class__ is Usage else _estimated_parts
    if not any(parts(amounts)):
        return ()
    return (TOKENS,) if cost else (TOKENS, COST)


def unpriced(policy: SharedPoolBudgetOptions, amounts: UsageEstimate | Usage) -> tuple[Axis, ...]:
    """Return the axes of `left_out` that a policy limits, by capacity, credits or a limit."""
    total = amounts.total_tokens
    # Runs for every write. Nearly all give a total, and a cost if cost is limited.
    if total and (
        amounts.cost_micros_usd
        or (policy.capacity_cost_micros_usd == U64_MAX and not policy.limits and not policy.prepaid)
    ):
        return ()
    return tuple(
        axis
        for axis in left_out(amounts)
        if not policy.is_unlimited(axis) or not all(axis.is_unlimited(one) for one in policy.limits)
    )


def require_priced(
    policy: SharedPoolBudgetOptions,
    estimate: UsageEstimate,
    asked: Unpriced | None,
    pool: str | None,
) -> None:
    """Refuse an estimate that leaves out what a pool limits.

    Args:
        policy: The pool's policy.
        estimate: What is to be reserved.
        asked: What the call itself says about missing figures, which wins over the policy.
        pool: The pool's name, None in memory.

    Raises:
        UnpricedCallError: It leaves one out, and neither the call nor the policy admits that.
    """
    axes = unpriced(policy, estimate)
    if axes and (asked or policy.unpriced) is not Unpriced.FLAG:
        raise UnpricedCallError(
            missing=tuple(axis.amount for axis in axes if axis.amount is not None),
            input_tokens=estimate.input_tokens,
            output_tokens=estimate.output_tokens,
            total_tokens=estimate.total_tokens,
            cost_micros_usd=estimate.cost_micros_usd,
            pool=pool,
        )


def unpriced_flag(
    policies: Sequence[SharedPoolBudgetOptions],
    amounts: UsageEstimate | Usage | UsageDifference | None,
) -> EntryFlag:
    """Return the flag of an entry that leaves out what one of several policies limits.

    Args:
        policies: Those of all pools that share the entry.
        amounts: What the entry reserves or records; None, or a difference, is never flagged.
    """
    if amounts is None or isinstance(amounts, UsageDifference):
        return EntryFlag.NONE
    missing = any(unpriced(policy, amounts) for policy in policies)
    return EntryFlag.UNPRICED if missing else EntryFlag.NONE
