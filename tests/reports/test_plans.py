"""Reports on a part of the books look it up, and do not read all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event

from benchmarks import history
from ledger import Ledger, SharedPoolBudgetOptions, UsageEstimate, reports
from ledger.reconcile.recorded import recorded
from ledger.reports import Filter, stream
from ledger.store import queries
from ledger.store.statements import Prepared

PART = Filter(since=datetime(2024, 1, 1, tzinfo=UTC), until=datetime(2024, 1, 2, tzinfo=UTC))
REPORTS: dict[str, tuple[Callable[[Ledger], object], str]] = {
    "a run": (lambda book: reports.runs(book, Filter(run_id="r")), "ix_entries_attribution_id"),
    "the runs of a day": (lambda book: reports.runs(book, PART), "ix_entries_at"),
    "a day's spend": (lambda book: reports.spend(book, PART, by=["hour"]), "ix_entries_at"),
    "a day's estimates": (lambda book: reports.estimates(book, PART), "ix_entries_at"),
    "denials": (reports.denials_by, "ix_entries_denial"),
    "unpriced records": (reports.unpriced, "ix_entries_unpriced"),
    "a forecast": (lambda book: reports.forecast(book, "team"), "ix_entries_at"),
}


@pytest.mark.parametrize("process", ["that made the store", "that came later"])
@pytest.mark.parametrize("name", REPORTS)
def test_a_part_is_looked_up(
    name: str, process: str, new_store: Callable[..., str], call: Callable[..., object]
) -> None:
    """SQLite's plan is by an index, however short the pool: it was told that pools are long.

    What a connection knows of the store's figures it read when it was made.
    """
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
        if process == "that made the store":
            event.listen(book._database.engine, "before_cursor_execute", explain)
            report(book)
    if not plans:
        with Ledger.open(url) as book:
            event.listen(book._database.engine, "before_cursor_execute", explain)
            report(book)
    assert [plan for plan in plans if index in plan]
    assert not [plan for plan in plans if plan == "SCAN entries"]


LEASE_BY_INDEX = "ix_entries_lease (pool_id=? AND lease=?)"
END_BY_INDEX = "lease_end USING INDEX uq_entries_lease_end (pool_id=? AND lease=?)"
WRITES: dict[str, tuple[Prepared, str]] = {
    "a lease": (queries.LEASE, LEASE_BY_INDEX),
    "a lease of a pool below": (queries.MIRRORED_LEASE, LEASE_BY_INDEX),
    "leases that are due": (
        queries.ENDING,
        "ix_entries_expires_at (pool_id=? AND expires_at>? AND expires_at<?)",
    ),
    "a lease that has ended": (queries.LEASE, END_BY_INDEX),
    "a lease that is due": (queries.ENDING, "ix_entries_lease (pool_id=? AND lease=? AND seq>?)"),
    "a lease that was due": (queries.ENDING, END_BY_INDEX),
    "open leases": (queries.OPEN_LEASES, END_BY_INDEX),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_looks_up_what_it_needs(name: str, new_store: Callable[..., str]) -> None:
    """Also in the process that made the store, where the figures of its indexes are new."""
    statement, index = WRITES[name]
    with Ledger.open(new_store("sqlite")) as book:
        book.pool("team", SharedPoolBudgetOptions())
        with book._database.connect() as connection:
            text, names, _ = statement._for(connection)
            given = [1] * len(names or ())
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", tuple(given))
            plans = [row[3] for row in found]
    assert [plan for plan in plans if index in plan], plans


def test_a_long_pool_is_read_in_pages_of_bounded_work(
    new_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the entries take SQLite about four times the work, if a filter takes many of them.

    It looks the filter's attributions up, and sorts what it finds for each page.
    """
    monkeypatch.setattr(stream, "PAGE", 50)
    work = {}
    for count in (2_000, 8_000):
        url = new_store("sqlite")
        history.write(url, count)
        ticks: list[None] = []
        with Ledger.open(url) as book:

            def count_steps(connection: Connection, *_: object, ticks: list[None] = ticks) -> None:
                driver: Any = connection.connection.driver_connection
                driver.set_progress_handler(lambda: ticks.append(None), 100)

            event.listen(book._database.engine, "before_cursor_execute", count_steps)
            found = list(recorded(book, Filter(agent="agent-1"), ("total_tokens",)))
        work[count] = len(ticks) / len(found)
    assert work[8_000] < 2 * work[2_000]
