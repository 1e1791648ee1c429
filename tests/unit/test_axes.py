"""One table of axes: whatever has a value for each axis has one for each row, and no other."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import (
    Balance,
    Remaining,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.cli.page import _AXES, PictureAxis
from ledger.core import axes, rules
from ledger.core.axes import AMOUNTS, AXES, MONEY_FIRST, NAMES, U64_MAX
from ledger.core.entries import WindowState
from ledger.core.errors import InvalidInputError
from ledger.store.schema import entries

PACKAGE = Path(axes.__file__).parents[1]


def named(kind: type, prefix: str) -> set[str]:
    """Return the axes for which a value has a field with this prefix."""
    names = [part.name for part in fields(kind)]
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def test_every_value_has_a_field_for_every_axis() -> None:
    """A row without its field, or a field without its row, is forgotten work."""
    every = set(NAMES)
    assert NAMES == Totals._fields
    for kind, prefixes in {
        SharedPoolBudgetOptions: ("capacity_", "stop_threshold_"),
        Window: ("carry_cap_",),
        reports.BurnPoint: ("capacity_", "stop_threshold_", "remaining_"),
        reports.Denied: ("remaining_", "increase_"),
    }.items():
        for prefix in prefixes:
            assert every == named(kind, prefix), (kind, prefix)
    assert every < {part.name for part in fields(Remaining)}
    assert every < {part.name for part in fields(reports.DeniedGroup)}
    asked = inspect.signature(ThresholdExceededError).parameters
    assert every == {
        name.removeprefix("remaining_") for name in asked if name.startswith("remaining_")
    }
    for prefix in ("held_", "committed_", "reserved_"):
        columns = [column.name for column in entries.columns]
        assert every == {name.removeprefix(prefix) for name in columns if name.startswith(prefix)}
    for kind in (UsageEstimate, Usage):
        assert set(AMOUNTS) <= {part.name for part in fields(kind)}
    assert set(AXES) == set(MONEY_FIRST)
    assert every == set(_AXES.values())
    assert set(PictureAxis) == set(_AXES)


def listed(node: ast.AST) -> set[str]:
    """Return the axes that a list, a mapping or a call names by fields or texts, one after another.

    Plain names do not count: they are parameters of commands, and the unrolled arithmetic of rules.
    """
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = [*node.elts]
    elif isinstance(node, ast.Dict):
        parts = [*node.keys]
    elif isinstance(node, ast.Call):
        parts = [*node.args]
    words = [
        str(one.value) if isinstance(one, ast.Constant) else one.attr
        for one in parts
        if isinstance(one, ast.Constant | ast.Attribute)
    ]
    return {name for name in NAMES for word in words if word == name or word.endswith(f"_{name}")}


def test_no_other_module_lists_the_axes() -> None:
    """A list elsewhere would be forgotten with the next axis: there is a row for each."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr) and listed(node) == set(NAMES)
    ]
    assert [] == found


amounts = st.integers(0, 2**63 - 1)
totals = st.builds(Totals, amounts, amounts, amounts)
capacities = st.sampled_from([0, 5, 2**63 - 1, U64_MAX]) | amounts


@given(
    st.tuples(capacities, capacities, capacities),
    st.tuples(amounts, amounts, amounts),
    st.builds(Balance, totals, totals),
    st.none() | st.builds(WindowState, st.just(0), st.just(1), totals, totals),
)
def test_what_remains_is_that_of_a_plain_loop_over_the_table(
    limits: tuple[int, ...], kept: tuple[int, ...], balance: Balance, window: WindowState | None
) -> None:
    """The rules are unrolled to be quick; here is what they say in a loop."""
    named = {axis.capacity: amount for axis, amount in zip(AXES, limits, strict=True)}
    named |= {axis.stop_threshold: amount for axis, amount in zip(AXES, kept, strict=True)}
    policy = SharedPoolBudgetOptions(**named)
    found = rules.remaining(policy, balance, window)
    below = False
    for axis, capacity, stop in zip(AXES, limits, kept, strict=True):
        used = getattr(balance.committed, axis.name) + getattr(balance.reserved, axis.name)
        if window is not None:
            used -= getattr(window.base, axis.name) + getattr(window.carried, axis.name)
        if axis.only_if_limited and capacity == U64_MAX:
            used = 0
        left = min(max(0, capacity - used), U64_MAX)
        below |= left <= stop
        assert left == getattr(found, axis.name)
        assert (capacity == U64_MAX) == found.is_unlimited(axis.name)
        assert (None if capacity == U64_MAX else left) == axis.left(found)
    assert below == found.below_threshold


def test_pools_together_are_unlimited_where_all_of_them_are() -> None:
    """One limit is a limit of all that share it."""
    first = rules.remaining(SharedPoolBudgetOptions(capacity_tokens=5), Balance())
    second = rules.remaining(SharedPoolBudgetOptions(capacity_requests=7), Balance())
    assert frozenset({"cost_micros_usd"}) == rules.least([first, second]).unlimited
    assert first.unlimited == rules.least([first]).unlimited


def test_there_are_no_other_axes() -> None:
    """A misspelled axis is not simply limited."""
    with pytest.raises(InvalidInputError, match="tokens, cost_micros_usd, requests"):
        Remaining(1, 2, False).is_unlimited("token")


def test_what_remains_is_equal_by_its_amounts() -> None:
    """As it was before it could be asked which axes are unlimited."""
    assert Remaining(1, 2, False) == Remaining(1, 2, False, unlimited=frozenset())
    assert Remaining(1, 2, False).is_unlimited("requests")
