"""The views for BI tools show what the reports count, on both databases alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from ledger import (
    I64_MAX,
    BudgetLease,
    LeasePhase,
    Ledger,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.store.dialects.views import VIEWS

Call = Callable[..., BudgetLease]

NOW = datetime(2124, 1, 1, tzinfo=UTC)


def rows(book: Ledger, statement: str) -> list[dict[str, Any]]:
    """Return the rows of a view, amounts and times as text."""
    found = book.read(lambda connection: connection.execute(text(statement)).mappings().all())
    return [{name: plain(value) for name, value in row.items()} for row in found]


def plain(value: object) -> object:
    """Return a value as SQLite has it; PostgreSQL has types for days, times and amounts."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value)
    return value


@pytest.mark.parametrize("seed", range(2))
def test_spend_by_day(history: Callable[[int], Ledger], seed: int) -> None:
    """Each day of each pool and attribution is what the report of the same dimensions says."""
    book = history(seed)
    by = ["pool", "day", "tenant", "agent", "operation", "provider", "model"]
    expected = [
        (
            *row.group.values(),
            *(row.requests, row.denied, row.attempts, row.unpriced),
            *(row.input_tokens, row.output_tokens, row.total_tokens),
            row.cost_micros_usd if row.attempts or row.corrections else None,
        )
        for row in reports.spend(book, by=by).rows
        # The view leaves days out on which holds were only given back.
        if row.requests or row.denied or row.attempts or row.corrections
    ]
    found = [tuple(row.values()) for row in rows(book, "SELECT * FROM spend_by_day")]
    assert sorted(expected, key=str) == sorted(found, key=str)


@pytest.mark.parametrize("seed", range(2))
def test_lease_summary(
    history: Callable[[int], Ledger], facts: Callable[..., list[dict[str, Any]]], seed: int
) -> None:
    """Open and expired leases are those of the report; ended ones have used what they used."""
    book = history(seed)
    found = rows(book, "SELECT * FROM lease_summary ORDER BY pool, lease")
    still = reports.leases(book, now=NOW, stale_after_s=0).stale
    shown = [(one.pool, one.lease, str(one.phase), one.held) for one in still]
    assert sorted((pool, *who, tokens, calls) for pool, *who, (tokens, _, calls) in shown) == [
        (row["pool"], row["lease"], row["phase"], row["held_tokens"], row["held_requests"])
        for row in found
        if row["phase"] != LeasePhase.ENDED
    ]
    ended = {
        (row["pool"], row["lease"]): row["used_total_tokens"]
        for row in facts(book)
        if row["kind"] in {"settlement", "release"} and row["origin_seq"] is None
    }
    assert ended == {
        (row["pool"], row["lease"]): row["used_total_tokens"]
        for row in found
        if row["phase"] == LeasePhase.ENDED
    }


def test_every_column_of_a_lease(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """Readable times, whole micro-USD, the attribution joined."""
    scribe.pool("team")
    at = datetime(2100, 1, 1, tzinfo=UTC)
    lease = scribe.append(
        "team",
        "reservation",
        who={"run_id": "r", "model": "m", "tags": {"a": "b"}},
        at=datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        recorded=at,
        estimate_total_tokens=9,
        estimate_cost_micros_usd=I64_MAX,
    )
    scribe.append("team", "expiry", lease=lease, recorded=at.replace(second=1))
    scribe.append("team", "settlement", lease=lease, recorded=at.replace(microsecond=5, second=2),
                  usage_total_tokens=4, usage_cost_micros_usd=1_500_000)  # fmt: skip
    (row,) = rows(scribe.book, "SELECT * FROM lease_summary")
    assert {
        "pool": "team",
        "lease": 2,
        "phase": "ended",
        "reserved": "2100-01-01T00:00:00.000000Z",
        "occurred": "1969-12-31T23:59:59.000001Z",
        "expired": "2100-01-01T00:00:01.000000Z",
        "ended": "2100-01-01T00:00:02.000005Z",
        "run_id": "r",
        "parent_run_id": None,
        "tenant": None,
        "agent": None,
        "operation": None,
        "provider": None,
        "model": "m",
        "tags": '{"a":"b"}',
        "estimate_total_tokens": 9,
        "used_total_tokens": 4,
        "estimate_cost_micros_usd": I64_MAX,
        "used_cost_micros_usd": 1_500_000,
        "held_tokens": 0,
        "held_cost_micros_usd": 0,
        "held_requests": 0,
    } == row


def test_days_are_those_of_utc(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """Whatever the time zone of the session or the server, and before 1970 too."""
    scribe.pool("team")
    for day in ("1969-12-31", "2024-02-29"):
        for time in ("00:00:00", "23:59:59.999999"):
            scribe.append("team", "correction", at=datetime.fromisoformat(f"{day}T{time}Z"),
                          usage_total_tokens=1, usage_cost_micros_usd=-1)  # fmt: skip
    found = rows(
        scribe.book, "SELECT day, total_tokens, cost_micros_usd FROM spend_by_day ORDER BY 1"
    )
    assert [("1969-12-31", 2, -2), ("2024-02-29", 2, -2)] == [tuple(row.values()) for row in found]


@pytest.mark.parametrize("view", VIEWS)
def test_money_is_a_number_in_every_view(
    history: Callable[[int], Ledger], call: Call, view: str
) -> None:
    """It is ordered, compared and has a largest as numbers do: 10 is more than 9."""
    book = history(3)
    for cost in (9, 10):
        book.pool(f"{cost}", SharedPoolBudgetOptions())
        lease = call(book, f"{cost}", UsageEstimate(cost_micros_usd=cost), run="r")
        book.pool(f"{cost}").record_used(lease, Usage(cost_micros_usd=cost))
    found = rows(book, f"SELECT * FROM {view}")
    money = [name for name in found[0] if "cost" in name or "usd" in name]
    assert money
    for name in money:
        amounts = {row[name] for row in found} - {None}
        assert all(type(amount) is int for amount in amounts), name
        asked = f"SELECT max({name}) AS m, count(*) FILTER (WHERE {name} > 9) AS n FROM {view}"
        (row,) = rows(book, asked)
        assert (max(amounts), sum((one[name] or 0) > 9 for one in found)) == (row["m"], row["n"])


def test_money_is_null_where_there_is_none(audited: Ledger, call: Call) -> None:
    """An entry that is about no money has NULL, not 0: means and counts of costs leave it out."""
    budget = audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=10))
    lease = call(audited, "team", UsageEstimate(total_tokens=10), run="spent")
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", UsageEstimate(total_tokens=1), run="denied")
    budget.record_used(lease, Usage(total_tokens=4))
    audited.adjust("team", SharedPoolBudgetOptions(capacity_tokens=20))
    budget.release(call(audited, "team", UsageEstimate(total_tokens=1), run="given back"))
    found = rows(audited, "SELECT * FROM journal WHERE pool = 'team' ORDER BY seq")
    assert [
        # What is estimated, used, and held by the lease.
        ("opening", None, None, None),
        ("reservation", 0, None, 0),
        ("denial", 0, None, None),
        ("settlement", None, 0, 0),
        ("adjustment", None, None, None),
        ("reservation", 0, None, 0),
        ("release", None, None, 0),
    ] == [
        (row["kind"], *(row[f"{name}_cost_micros_usd"] for name in ("estimate", "usage", "held")))
        for row in found
    ]


def test_calls_below_a_parent_are_counted_once(audited: Ledger, call: Call) -> None:
    """An entry that repeats one from below names its origin, in the view of the journal, too."""
    audited.pool("org", SharedPoolBudgetOptions())
    audited.pool("team", SharedPoolBudgetOptions(), parent="org")
    call(audited, "team", UsageEstimate(total_tokens=5), Usage(total_tokens=4, cost_micros_usd=3))
    query = "SELECT SUM(usage_cost_micros_usd) AS cost FROM journal"
    assert [{"cost": 6}] == rows(audited, query)
    assert [{"cost": 3}] == rows(audited, f"{query} WHERE origin_seq IS NULL")
