"""Amounts and policies that the tests of the suite use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger import (
    BudgetManager,
    Remaining,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UsageEstimate,
)

Make = Callable[[SharedPoolBudgetOptions], BudgetManager]
"""Makes a manager of a new pool."""

EXTENSIONS = RequestExtensions()
"""Extensions without any value."""
UNLIMITED = RequestBudget.unlimited()

EACH_AXIS = pytest.mark.parametrize("axis", ["tokens", "cost_micros_usd"])


def tokens(amount: int) -> UsageEstimate:
    """Return an estimate of tokens alone."""
    return UsageEstimate(total_tokens=amount)


def on(axis: str, amount: int) -> dict[str, int]:
    """Return the amount on one axis, as an estimate's or a usage's field."""
    return {"total_tokens" if axis == "tokens" else axis: amount}


def pool_on(axis: str, capacity: int, threshold: int = 0) -> SharedPoolBudgetOptions:
    """Return a policy that limits one axis alone."""
    options: dict[str, Any] = {f"capacity_{axis}": capacity, f"stop_threshold_{axis}": threshold}
    return SharedPoolBudgetOptions(**options)


def left_on(axis: str, remaining: Remaining) -> int:
    """Return what remains on one axis."""
    left: int = getattr(remaining, axis)
    return left
