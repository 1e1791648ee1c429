"""`status().until`: what is left is so until then, if nothing is written, and not any longer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ledger import (
    LeaseTtl,
    Ledger,
    Limit,
    Period,
    RequestExtensions,
    Rolling,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    Window,
    from_micros,
    reports,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import MINUTE_US, Clock
from tests.conformance.conftest import spend

CALL = SharedPoolBudgetOptions(capacity_tokens=100, lease_ttl=timedelta(minutes=10))


def held(minutes: int) -> RequestExtensions:
    """Return what a call carries whose lease holds for so long."""
    return RequestExtensions(LeaseTtl(timedelta(minutes=minutes)))


@pytest.mark.parametrize("policy", SettlementPolicy)
def test_it_is_the_end_of_a_hold_that_gives_something_back(
    timed: Ledger, clock: Clock, policy: SettlementPolicy
) -> None:
    """The first one that lasts, of this pool or of one above; one that is charged is none."""
    org = timed.pool("org", replace(CALL, settlement=policy))
    team = timed.pool("team", CALL, parent="org")
    begin = clock.now
    gone = org.reserve(held(2), tokens(5), UNLIMITED)
    first = org.reserve(held(4), tokens(7), UNLIMITED)
    org.reserve(held(9), tokens(11), UNLIMITED)
    team.reserve(held(3), tokens(1), UNLIMITED)  # charged what it holds
    org.release(gone)
    org.renew(first, timedelta(minutes=6))
    gives_back = policy is not SettlementPolicy.ESTIMATED
    for minutes, free in ((6, 7), (9, 11)):
        end = begin + minutes * MINUTE_US
        for pool in (org, team):
            status = pool.status()
            assert (end if gives_back else None) == status.until
            assert status in reports.standing(timed)
        before = [one.remaining(EXTENSIONS).tokens for one in (org, team)]
        clock.now = end - 1
        assert before == [one.remaining(EXTENSIONS).tokens for one in (org, team)]
        clock.now = end
        after = [one.remaining(EXTENSIONS).tokens for one in (org, team)]
        assert [one + free * gives_back for one in before] == after
    assert None is org.status().until is team.status().until
    assert 0 == org.status().balance.reserved.requests


def test_the_first_of_all_ends_counts(timed: Ledger, clock: Clock) -> None:
    """A hold, a limit and a window of one pool: each in its turn."""
    policy = SharedPoolBudgetOptions(
        capacity_tokens=100,
        window=Window(period=Period.DAY),
        limits=[Limit(name="hour", period=Rolling(timedelta(hours=1)), capacity_tokens=50)],
        settlement=SettlementPolicy.RELEASE,
    )
    budget = timed.pool("pool", policy)
    clock.now = begin = 1_700_006_400_000_000  # midnight
    spend(budget, 5)
    budget.reserve(held(90), tokens(20), UNLIMITED)
    seen = []
    for _ in range(3):
        end = budget.status().until
        assert end is not None
        clock.now = end - 1
        assert end == budget.status().until
        left = budget.remaining(EXTENSIONS).tokens
        clock.now = end
        seen.append(((end - begin) // MINUTE_US, left, budget.remaining(EXTENSIONS).tokens))
    # The limit first, as it is less; then the hold; the window ends last, and still bounds nothing.
    assert [(60, 25, 30), (90, 30, 50), (24 * 60, 50, 50)] == seen
    assert [None] == [one.damage for one in timed.verify()]


def test_a_standing_of_then_says_it_too(timed: Ledger, clock: Clock) -> None:
    """Reports that are given a moment go by that, and not by the store's clock."""
    budget = timed.pool("pool", replace(CALL, settlement=SettlementPolicy.RELEASE))
    begin = clock.now
    budget.reserve(held(4), tokens(7), UNLIMITED)
    lease = budget.reserve(held(9), tokens(7), UNLIMITED)
    later = from_micros(begin + 5 * MINUTE_US)
    (status,) = reports.standing(timed, now=later)
    assert begin + 9 * MINUTE_US == status.until
    budget.record_used(lease, Usage(total_tokens=1))
    (status,) = reports.standing(timed, now=later)
    assert None is status.until
