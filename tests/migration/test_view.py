"""The view for people: exact US dollars and readable times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from ledger import (
    Attribution,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)
from ledger.store import schema
from tests.migration.databases import connected

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def as_text(value: object) -> str:
    """Return an amount or a time as SQLite prints it; PostgreSQL has types for both."""
    if isinstance(value, datetime):
        # Python drops the fraction where it is zero; the view never does.
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    return str(value)


def add_entry(connection: Connection, **changes: object) -> None:
    """Append an entry like the newest one, but for its number and the changes."""
    row = connection.execute(
        select(schema.entries).order_by(schema.entries.c.seq.desc()).limit(1)
    ).one()
    crafted: dict[str, Any] = {**row._mapping, "seq": row.seq + 1, "idempotency_key": None}
    connection.execute(insert(schema.entries), {**crafted, "lease": None, **changes})
    connection.commit()


@pytest.fixture
def url(store_url: str) -> str:
    """Return a store with a reservation and its settlement, on each database in turn."""
    with Ledger.open(store_url, clock=lambda: 1_700_000_000_000_001) as book:
        budget = book.pool("the pool", SharedPoolBudgetOptions())
        extensions = RequestExtensions(
            Attribution(run_id="run", model="model", request_id="request"),
            OccurredAt(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        )
        lease = budget.reserve(
            extensions,
            UsageEstimate(total_tokens=5, cost_micros_usd=1_234_567),
            RequestBudget.unlimited(),
        )
        budget.record_used(lease, Usage(total_tokens=4, cost_micros_usd=1))
    return store_url


def test_the_view_shows_what_happened(url: str) -> None:
    """Names instead of numbers, dollars with six places, times with microseconds."""
    with connected(url) as connection:
        rows = connection.exec_driver_sql("SELECT * FROM journal ORDER BY seq").mappings().all()
    assert ["opening", "reservation", "settlement"] == [row["kind"] for row in rows]
    settlement = rows[2]
    shown = {
        name: as_text(settlement[name])
        for name in (
            "pool",
            "run_id",
            "model",
            "request_id",
            "estimate_usd",
            "usage_usd",
            "held_usd",
            "committed_usd",
            "reserved_usd",
            "recorded",
            "occurred",
        )
    }
    assert {
        "pool": "the pool",
        "run_id": "run",
        "model": "model",
        "request_id": "request",
        "estimate_usd": "None",
        "usage_usd": "0.000001",
        "held_usd": "0.000000",
        "committed_usd": "0.000001",
        "reserved_usd": "0.000000",
        "recorded": "2023-11-14T22:13:20.000001Z",
        "occurred": "1969-12-31T23:59:59.999999Z",
    } == shown
    assert len(settlement["pool_identity"]) == 32


@pytest.mark.parametrize(
    ("micros_usd", "usd"),
    [
        (0, "0.000000"),
        (999_999, "0.999999"),
        (-1, "-0.000001"),
        (-999_999, "-0.999999"),
        (-1_500_000, "-1.500000"),
        (2**63 - 1, "9223372036854.775807"),
        (-(2**63), "-9223372036854.775808"),
    ],
)
def test_dollars_are_exact(url: str, micros_usd: int, usd: str) -> None:
    """A correction's negative cost, and the largest amounts, are printed to the last micro."""
    with connected(url) as connection:
        add_entry(connection, kind="correction", usage_cost_micros_usd=micros_usd)
        shown = connection.exec_driver_sql(
            "SELECT usage_usd FROM journal ORDER BY seq DESC LIMIT 1"
        ).scalar()
    assert usd == as_text(shown)


@pytest.mark.parametrize(
    "moment",
    [
        EPOCH,
        EPOCH - timedelta(microseconds=1),
        EPOCH - timedelta(seconds=1),
        EPOCH + timedelta(seconds=1, microseconds=1),
        datetime(1900, 2, 28, 23, 59, 59, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 0, 0, 500_000, tzinfo=UTC),
        datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_times_are_exact(url: str, moment: datetime) -> None:
    """Before 1970 as after it, a time is printed to the last microsecond."""
    micros = (moment - EPOCH) // MICROSECOND
    with connected(url) as connection:
        add_entry(connection, kind="note", occurred_at=micros)
        shown = connection.exec_driver_sql(
            "SELECT occurred FROM journal ORDER BY seq DESC LIMIT 1"
        ).scalar()
    assert as_text(moment) == as_text(shown)


@pytest.mark.parametrize("micros", [-(2**63), -(10**17), 10**18, 2**62, 2**63 - 1])
def test_what_is_no_time_is_null_and_hides_no_other_row(url: str, micros: int) -> None:
    """One row with a number outside the years 1 to 9999 fails no view, and no other column."""
    with connected(url) as connection:
        add_entry(connection, kind="note", occurred_at=micros, recorded_at=micros)
        add_entry(connection, kind="reservation", lease=5, occurred_at=micros, recorded_at=micros)
        found = {
            view: connection.exec_driver_sql(f"SELECT * FROM {view}").mappings().all()
            for view in ("journal", "spend_by_day", "lease_summary")
        }
    journal = [(row["seq"], row["recorded"] is None) for row in found["journal"]]
    assert [(1, False), (2, False), (3, False), (4, True), (5, True)] == sorted(journal)
    assert {"1969-12-31", "None"} == {str(row["day"]) for row in found["spend_by_day"]}
    assert {2: False, 5: True} == {
        row["lease"]: row["reserved"] is None for row in found["lease_summary"]
    }


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_first_and_last_times_are_shown_in_every_zone(url: str, zone: str) -> None:
    """No client reads a time that is outside the years 1 to 9999 of its own time zone."""
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
    near = [first - MICROSECOND, first, last, last + MICROSECOND]
    with connected(url) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET TIME ZONE '{zone}'")
        for moment in near:
            add_entry(connection, kind="note", occurred_at=(moment - EPOCH) // MICROSECOND)
        query = "SELECT occurred FROM journal WHERE kind = 'note' ORDER BY seq"
        shown = connection.exec_driver_sql(query).scalars().all()
    assert ["None", as_text(first), as_text(last), "None"] == [as_text(one) for one in shown]
