"""Named thresholds: what a policy accepts, and when one is crossed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import U64_MAX, Balance, Direction, InvalidInputError, SharedPoolBudgetOptions, Totals
from ledger.core import rules
from ledger.core.checks import canonical_json
from ledger.core.policy import policy_from_json, policy_to_json


def policy(thresholds: Mapping[str, int], **limits: int) -> SharedPoolBudgetOptions:
    """Return a policy with named thresholds."""
    return SharedPoolBudgetOptions(**limits, thresholds=thresholds)


def test_a_policy_keeps_a_copy_that_nobody_can_change() -> None:
    """The caller's mapping may change afterwards; the policy's own has no way to."""
    mine = {"half": 50}
    options = policy(mine)
    mine["half"] = 1
    assert {"half": 50} == options.thresholds
    with pytest.raises(TypeError):
        options.thresholds["half"] = 1


def test_policies_are_equal_and_hashed_by_their_thresholds() -> None:
    """Whatever the order in which they were named; and they survive pickling and copying."""
    one, other = policy({"a": 50, "b": 80}), policy({"b": 80, "a": 50})
    assert (one, hash(one)) == (other, hash(other))
    assert one != policy({"a": 50})
    assert one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)  # noqa: S301 - our own


def test_they_stand_lowest_first() -> None:
    """So are they shown, and so are they reported."""
    options = policy({"warning": 80, "half": 50, "also": 80})
    assert ["half", "also", "warning"] == list(options.thresholds)
    assert str(options).endswith(", reporting half 50 %, also 80 %, warning 80 %")
    assert "reporting" not in str(policy({}))


def test_they_are_stored_only_where_there_are_some() -> None:
    """The stored form of a policy without any is what it was; with some it comes back equal."""
    assert "thresholds" not in policy_to_json(policy({}))
    options = policy({"warning": 80, "half": 50})
    stored = canonical_json(policy_to_json(options))
    assert '"thresholds":{"half":50,"warning":80}' in stored
    assert options == policy_from_json(policy_to_json(options))


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": 0},
        {"x": 101},
        {"x": -1},
        {"x": 50.0},
        {"x": True},
        {"x": "50"},
        {"": 50},
        {"x" * 65: 50},
        {"a\0": 50},
        {7: 50},
        {str(number): 50 for number in range(9)},
        [("x", 50)],
        None,
    ],
    ids=str,
)
def test_what_is_no_threshold_is_refused(wrong: object) -> None:
    """A percentage is a whole number from 1 to 100, a name has 1 to 64 characters."""
    with pytest.raises(InvalidInputError, match="threshold"):
        SharedPoolBudgetOptions(thresholds=wrong)


def test_the_most_there_may_be() -> None:
    """Eight names of 64 characters, from 1 to 100 per cent."""
    most = {f"{number}" * 64: percent for number, percent in enumerate([1, 100, *range(2, 8)])}
    assert most == policy(most).thresholds


@given(
    capacity=st.integers(0, 1_000) | st.integers(2**63 - 9, 2**63),
    percent=st.integers(1, 100),
    part=st.fractions(0, 2),
)
def test_it_is_reached_by_exact_arithmetic(capacity: int, percent: int, part: Fraction) -> None:
    """On each axis, at whatever size: what does not remain is at least so much of the capacity."""
    used = int(capacity * part)
    expected = Fraction(min(used, capacity)) >= Fraction(capacity * percent, 100)
    for name in Totals._fields:
        options = policy({"it": percent}, **{f"capacity_{name}": capacity})
        totals = Totals(**{name: used})
        for balance in (Balance(totals), Balance(reserved=totals)):
            assert ({"it"} if expected else set()) == rules.reached(options, balance)


def test_no_limit_no_threshold() -> None:
    """An unlimited capacity has no percentages, and the other axes still count."""
    spent = Balance(Totals(2**63, 2**63, 2**63))
    assert set() == rules.reached(policy({"it": 1}), spent)
    assert {"it"} == rules.reached(policy({"it": 1}, capacity_requests=2**63), spent)
    assert U64_MAX == policy({}).capacity_tokens


def test_a_crossing_has_a_direction() -> None:
    """What is reached now and was not, and the other way round; what stays is no crossing."""
    options = policy({"low": 10, "half": 50, "high": 90, "top": 100})
    assert [
        rules.Crossing("low", 10, Direction.LEFT),
        rules.Crossing("high", 90, Direction.REACHED),
    ] == rules.crossings(options, {"low", "half", "gone"}, {"half", "high"})
