"""A pool that a process wrote to whose clock was ahead: its time stands still, and that is said."""

from __future__ import annotations

import pytest

from ledger import Ledger, SharedPoolBudgetOptions, Window, reports
from ledger.core.checks import from_micros
from ledger.reports.render.statement import statement_notes
from tests.clocks import DAY, Clock
from tests.conformance.conftest import spend

LINE = "the newest entry of pool 'pool' is of %s, and the clock says %s"
DAILY = SharedPoolBudgetOptions(capacity_tokens=100, window=Window(period=DAY))


def test_a_clock_that_was_ahead_is_logged_once(
    timed: Ledger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute is nothing; what is further ahead is named, and once again if it moves on."""
    budget = timed.pool("pool", DAILY)
    right = clock.now
    spend(budget, 1)
    clock.minutes(-1)
    spend(budget, 1)
    assert [] == [one for one in caplog.records if one.levelname == "WARNING"]
    told = []
    for minutes in (60 * 24 * 400, 60 * 24 * 401):
        clock.now = right
        clock.minutes(minutes)
        spend(budget, 1)
        ahead, clock.now = clock.now, right
        spend(budget, 1)
        spend(budget, 1)
        times = from_micros(ahead).isoformat(), from_micros(right).isoformat()
        told.append(LINE % times)
    lines = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert told == [line.rpartition(": until")[0] for line in lines]


def test_a_statement_says_that_the_clock_was_ahead(timed: Ledger, clock: Clock) -> None:
    """The newest entry's time is in it, and a note where that is yet to come."""
    timed.pool("pool", DAILY)
    right = clock.now
    found = reports.statement(timed, "pool")
    assert from_micros(right) == found.recorded_at
    assert not [one for one in statement_notes(found, timed.now()) if "clock" in one]
    clock.minutes(60 * 24 * 400)
    spend(timed.pool("pool"), 1)
    clock.now = right
    found = reports.statement(timed, "pool")
    assert found.recorded_at > timed.now()
    (note,) = [one for one in statement_notes(found, timed.now()) if "clock" in one]
    assert note.startswith("The newest entry is of 2024-12-18T22:13:20Z, ahead of the clock")
