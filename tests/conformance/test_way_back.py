"""What an earlier version let in stays readable, and an appended adjustment mends the pool."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import (
    JournalDamagedError,
    Ledger,
    Period,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.core import rules
from ledger.core.checks import canonical_json, to_micros
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock
from tests.conformance.conftest import Vandal

DAILY = SharedPoolBudgetOptions(
    capacity_tokens=100, window=Window(period=Period.DAY, time_zone="Asia/Tokyo")
)
LAST_DAY = to_micros("at", datetime.max.replace(tzinfo=UTC))
FIRST_DAY = to_micros("at", datetime.min.replace(tzinfo=UTC))
NANOSECONDS = 1_700_000_000_000_000_000


def policy(**window: object) -> dict[str, str]:
    """Return the detail of an entry that sets a policy with a window."""
    stored = {"capacity_tokens": 100, "capacity_cost_micros_usd": None, "window": window}
    stored |= {"stop_threshold_tokens": 0, "stop_threshold_cost_micros_usd": 0}
    return {
        "detail": canonical_json({"actor": {"user": "u"}, "policy": stored, "rules": rules.stamp()})
    }


PLANTED: dict[str, tuple[dict[str, Any], bool]] = {
    "an anchor no clock of Tokyo shows": (
        policy(anchor=LAST_DAY, period="day", time_zone="Asia/Tokyo"),
        True,
    ),
    "an anchor no clock of New York shows": (
        policy(anchor=FIRST_DAY, period="week", time_zone="America/New_York"),
        True,
    ),
    "an anchor at the end of the calendar": (policy(anchor=LAST_DAY, period="month"), True),
    "a clock that counted nanoseconds": (
        {"recorded_at": NANOSECONDS, "swept_until": NANOSECONDS},
        False,
    ),
    "such a clock, and a window": (
        {"recorded_at": NANOSECONDS, "swept_until": NANOSECONDS} | policy(period="day"),
        False,
    ),
}
"""What an earlier version could write into an opening, and whether it can be read."""


@pytest.fixture(params=PLANTED, ids=str)
def planted(request: pytest.FixtureRequest, timed: Ledger, store_url: str) -> bool:
    """Plant such an opening with a right hash; return whether it can be read."""
    changes, readable = PLANTED[request.param]
    timed.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
    vandal = Vandal(store_url)
    vandal.forge(1, window_seq=1, **changes)
    vandal.close()
    return readable


def test_a_policy_that_got_in_is_replaced(
    planted: bool,  # noqa: FBT001 - a fixture
    timed: Ledger,
    store_url: str,
    clock: Clock,
) -> None:
    """The pool is answered before, and works as it should once a sane policy is appended."""
    timed.close()
    with Ledger.open(store_url, clock=clock) as book:
        other = book.pool("other", DAILY)
        budget = book.pool("pool")
        assert 100 == budget.remaining(RequestExtensions()).tokens
        budget.record_used(
            budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=9), UNLIMITED),
            Usage(total_tokens=30),
        )
        if planted:
            assert ["pool", "other"] == [one.pool.name for one in reports.standing(book)]
        clock.minutes(3 * 24 * 60)
        assert 70 == budget.remaining(RequestExtensions()).tokens
        book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=100))
        book.adjust("pool", DAILY)
        for _ in range(2):
            lease = budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=9), UNLIMITED)
            budget.renew(lease, timedelta(hours=1))
            assert 91 == budget.remaining(RequestExtensions()).tokens
            clock.minutes(2 * 24 * 60)
            assert 1 == book.expire_due("pool")
        assert 100 == other.remaining(RequestExtensions()).tokens
        found, sound = book.verify()
        assert sound.ok
        assert planted is found.ok, found.damage
        if not planted:
            assert found.damage is not None
            assert (1, True) == (found.damage.seq, "years 1 to 9999" in found.damage.reason)
            with pytest.raises(JournalDamagedError, match="entry 1"):
                list(book.entries("pool"))
