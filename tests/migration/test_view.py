"""The view for people: micro-USD that tools compute with, and readable times."""

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
    """Return a value as SQLite prints it; PostgreSQL has a type for times."""
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
    """Names instead of numbers, whole micro-USD, times with microseconds."""
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
            "estimate_cost_micros_usd",
            "usage_cost_micros_usd",
            "held_cost_micros_usd",
            "committed_cost_micros_usd",
            "reserved_cost_micros_usd",
            "origin_seq",
            "recorded",
            "occurred",
        )
    }
    assert {
        "pool": "the pool",
        "run_id": "run",
        "model": "model",
        "request_id": "request",
        "estimate_cost_micros_usd": "None",
        "usage_cost_micros_usd": "1",
        "held_cost_micros_usd": "0",
        "committed_cost_micros_usd": "1",
        "reserved_cost_micros_usd": "0",
        "origin_seq": "None",
        "recorded": "2023-11-14T22:13:20.000001Z",
        "occurred": "1969-12-31T23:59:59.999999Z",
    } == shown
    assert len(settlement["pool_identity"]) == 32


def test_money_is_compared_as_numbers(url: str) -> None:
    """Order, comparison and sums of money are those of numbers; without money there is NULL."""
    costs = [2_000_000, -(2**63), 10_000_000, 2**63 - 1, -3_000_000]
    with connected(url) as connection:
        for cost in costs:
            add_entry(connection, kind="correction", usage_cost_micros_usd=cost)
        cost = "usage_cost_micros_usd"
        entries = "FROM journal WHERE kind <> 'settlement'"
        one = f"SELECT {cost} {entries} AND {cost} BETWEEN -3000000 AND 10000000 ORDER BY 1"
        assert [-3_000_000, 2_000_000, 10_000_000] == [
            *connection.exec_driver_sql(one).scalars().all()
        ]
        both = connection.exec_driver_sql(f"SELECT MAX({cost}), MIN({cost}) {entries}").one()
        assert (2**63 - 1, -(2**63)) == (*both,)
        none = f"SELECT COUNT(*) {entries} AND {cost} IS NULL"
        assert 2 == connection.exec_driver_sql(none).scalar()  # the opening, and the reservation


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
