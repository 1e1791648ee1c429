"""A refusal without a time says whether to wait: open leases are in the way, or no time helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    U64_MAX,
    IdempotencyKey,
    Ledger,
    Limit,
    Period,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Window,
    reports,
)
from ledger.reports.render import denials_sheet
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock
from tests.conformance.conftest import refused, spend

WHOLE = 100
POLICIES = {
    "a capacity": SharedPoolBudgetOptions(capacity_tokens=WHOLE),
    "a threshold": SharedPoolBudgetOptions(capacity_tokens=WHOLE + 5, stop_threshold_tokens=5),
    "a window": SharedPoolBudgetOptions(capacity_tokens=WHOLE, window=Window(period=Period.MONTH)),
    "a session": SharedPoolBudgetOptions(
        capacity_tokens=WHOLE, window=Window(period=timedelta(hours=5), session=True)
    ),
    "a limit": SharedPoolBudgetOptions(
        limits=[Limit(name="5h", period=Rolling(timedelta(hours=5)), capacity_tokens=WHOLE)]
    ),
}
COME_BACK = {"a window", "a session", "a limit"}
"""Those of which what is spent comes back."""


@pytest.fixture(params=POLICIES)
def name(request: pytest.FixtureRequest) -> str:
    """Return what bounds a pool, each in turn."""
    return str(request.param)


def answer(budget: Any, amount: int) -> tuple[bool, bool]:  # noqa: ANN401 - any manager
    """Return whether a refusal names a time, and whether it says that leases are in the way."""
    found = refused(budget, amount)
    assert ("once they have ended" in str(found)) is found.held_by_leases
    assert ("would not fit either" in str(found)) is found.too_large is (amount > WHOLE)
    return found.retry_at is not None, found.held_by_leases


def test_soon_is_told_from_never(
    timed_budgets: Callable[..., Any], clock: Clock, name: str
) -> None:
    """Of a pool that is held, spent, held and spent, and of a request that is larger than it."""
    budget = timed_budgets(POLICIES[name])
    never, soon, later = (False, False), (False, True), (name in COME_BACK, False)
    assert never == answer(budget, WHOLE + 1)
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    assert soon == answer(budget, 50)
    assert soon == answer(budget, WHOLE)
    assert never == answer(budget, WHOLE + 1)
    spend(budget, 40)  # all is used up, and what is held does not come back by time
    assert soon == answer(budget, 60)
    # More than what is held: it takes both that the leases end and that what is spent comes back.
    assert (False, name in COME_BACK) == answer(budget, 61)
    clock.minutes(1)
    budget.release(lease)
    spend(budget, 60)
    assert later == answer(budget, 1)
    assert never == answer(budget, WHOLE + 1)


def test_a_pool_above_says_it_too_and_a_key_keeps_it(timed: Ledger) -> None:
    """What the journal keeps is proved, given again, and reported."""
    timed.pool("org", SharedPoolBudgetOptions(capacity_tokens=WHOLE))
    budget = timed.pool("team", SharedPoolBudgetOptions(), parent="org")
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    asked = RequestExtensions(IdempotencyKey("once")), tokens(50), UNLIMITED
    for _ in range(2):
        with pytest.raises(ThresholdExceededError) as found:
            budget.reserve(*asked)
        assert ("org", True, None) == (
            found.value.pool,
            found.value.held_by_leases,
            found.value.retry_at,
        )
    budget.release(lease)
    spend(budget, 60)
    with pytest.raises(ThresholdExceededError) as found:
        budget.reserve(RequestExtensions(IdempotencyKey("twice")), tokens(50), UNLIMITED)
    assert not found.value.held_by_leases
    for _ in range(2):
        with pytest.raises(ThresholdExceededError, match="would not fit either") as found:
            budget.reserve(RequestExtensions(IdempotencyKey("large")), tokens(WHOLE + 1), UNLIMITED)
        assert ("org", True) == (found.value.pool, found.value.too_large)
    assert [None, None] == [one.damage for one in timed.verify()]
    rows = [*reports.denials(timed, "team")]
    assert [True, False, False] == [row.held_by_leases for row in rows]
    assert [False, False, True] == [row.too_large for row in rows]
    sheet = denials_sheet(rows)
    free_at = [column.heading for column in sheet.columns].index("Free at")
    shown = [row[free_at] for row in sheet.rows if row is not None]
    assert ["as leases end", "", "never: too large"] == shown


def test_of_several_that_refuse_the_one_that_never_fits_is_named(
    timed_budgets: Callable[..., Any],
) -> None:
    """It frees up at no time, though another one has less left."""
    day = Limit(name="day", period=Window(period=Period.DAY), capacity_tokens=WHOLE)
    hours = Limit(name="5h", period=Rolling(timedelta(hours=5)), capacity_tokens=20)
    budget = timed_budgets(SharedPoolBudgetOptions(capacity_tokens=30, limits=[day, hours]))
    spend(budget, 20)
    large = refused(budget, 25)
    assert ("5h", True, None) == (large.limit, large.too_large, large.retry_at)
    assert (None, False) == ((found := refused(budget, 11)).limit, found.too_large)


@pytest.mark.parametrize(("cap", "most"), [(50, 150), (U64_MAX, None)])
def test_what_a_window_may_carry_over_fits_some_day(
    timed_budgets: Callable[..., Any], cap: int, most: int | None
) -> None:
    """A request is too large for the capacity with the most that is ever carried into a window."""
    window = Window(period=Period.DAY, carry_over=True, carry_cap_tokens=cap)
    budget = timed_budgets(SharedPoolBudgetOptions(capacity_tokens=WHOLE, window=window))
    spend(budget, 1)
    assert not refused(budget, most or 10**9).too_large
    if most is not None:
        assert refused(budget, most + 1).too_large


@pytest.mark.parametrize("carries", [True, False])
def test_what_this_window_has_carried_over_fits_whatever_later_ones_may(
    timed: Ledger, clock: Clock, *, carries: bool
) -> None:
    """A cap that is lowered, or no carrying over, is for later windows: no request is both."""
    window = Window(period=Period.DAY, carry_over=True, carry_cap_tokens=1_000)
    policy = SharedPoolBudgetOptions(capacity_tokens=WHOLE, window=window)
    budget = timed.pool("pool", policy)
    clock.minutes(3 * 24 * 60)
    spend(budget, 1)
    lower = replace(window, carry_over=carries, carry_cap_tokens=50 if carries else U64_MAX)
    timed.adjust("pool", replace(policy, window=lower), reason="less")
    whole = budget.remaining(EXTENSIONS).tokens
    lease = budget.reserve(EXTENSIONS, tokens(300), UNLIMITED)
    for asked, large in ((200, False), (whole, False), (whole + 2, True)):
        found = refused(budget, asked)
        assert (not large, large) == (found.held_by_leases, found.too_large)
    budget.release(lease)
    assert budget.reserve(EXTENSIONS, tokens(whole), UNLIMITED)
    assert [None] == [one.damage for one in timed.verify()]
