"""Reports on a part of the books look it up, and do not read all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event

from ledger import Ledger, SharedPoolBudgetOptions, UsageEstimate, reports
from ledger.reports import Filter

PART = Filter(since=datetime(2024, 1, 1, tzinfo=UTC), until=datetime(2024, 1, 2, tzinfo=UTC))
REPORTS: dict[str, tuple[Callable[[Ledger], object], str]] = {
    "a run": (lambda book: reports.runs(book, Filter(run_id="r")), "ix_entries_attribution_id"),
    "the runs of a day": (lambda book: reports.runs(book, PART), "ix_entries_at"),
    "a day's spend": (lambda book: reports.spend(book, PART, by=["hour"]), "ix_entries_at"),
    "a day's estimates": (lambda book: reports.estimates(book, PART), "ix_entries_at"),
    "denials": (reports.denials_by, "ix_entries_denial"),
    "a forecast": (lambda book: reports.forecast(book, "team"), "ix_entries_at"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_part_is_looked_up(
    name: str, new_store: Callable[..., str], call: Callable[..., object]
) -> None:
    """SQLite's plan is by an index, however short the pool: it was told that pools are long."""
    report, index = REPORTS[name]
    plans: list[str] = []

    def explain(connection: Connection, _cursor: object, text: str, given: Any, *_: object) -> None:  # noqa: ANN401 - a driver's parameters
        driver: Any = connection.connection.driver_connection
        if text.startswith("SELECT"):
            plans.extend(row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {text}", given))

    url = new_store("sqlite")
    with Ledger.open(url) as book:
        book.pool("team", SharedPoolBudgetOptions())
        call(book, "team", UsageEstimate(total_tokens=10), run="r")
    with Ledger.open(url) as book:
        engine = book._database.engine
        event.listen(engine, "before_cursor_execute", explain)
        report(book)
    assert [plan for plan in plans if index in plan]
    assert not [plan for plan in plans if plan == "SCAN entries"]
