"""Reports and exports of calls that expired: what is assumed, and what replaces it later."""

from __future__ import annotations

import csv
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from ledger import (
    Attribution,
    LeaseTtl,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    exports,
    from_micros,
    reports,
)
from ledger.reports.render import runs_sheet
from tests.clocks import Clock

ESTIMATE = UsageEstimate(
    input_tokens=30, output_tokens=10, total_tokens=40, cost_micros_usd=2_000_000
)


@pytest.fixture
def clock() -> Clock:
    """Return a clock, early in the last evening of a month."""
    return Clock(1_709_226_000_000_000)


def reserve(book: Ledger, run: str) -> Any:  # noqa: ANN401 - a lease
    """Reserve for a run, for a minute."""
    asked = RequestExtensions(
        Attribution(run_id=run, model="cheap"), LeaseTtl(timedelta(minutes=1))
    )
    return book.pool("team").reserve(asked, ESTIMATE, RequestBudget.unlimited())


def write(book: Ledger, clock: Clock) -> None:
    """Let two calls expire; the usage of one arrives in the next month, from another model."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
    late = reserve(book, "late")
    reserve(book, "lost")
    clock.minutes(2)
    assert 2 == book.expire_due()
    clock.minutes(24 * 60)
    usage = Usage(input_tokens=40, output_tokens=5, total_tokens=45, cost_micros_usd=3_500_000)
    book.pool("team").record_used(late, usage, report=UsageReport(model="dear"))


def test_an_expiry_has_the_time_at_which_it_was_written(timed: Ledger, clock: Clock) -> None:
    """A month that was reported before gets nothing added, unless the call said when it was."""
    budget = timed.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
    reserve(timed, "undated")
    dated = RequestExtensions(OccurredAt(from_micros(clock.now)), LeaseTtl(timedelta(minutes=1)))
    budget.reserve(dated, UsageEstimate(total_tokens=7), RequestBudget.unlimited())
    clock.minutes(2 * 24 * 60)
    assert 2 == timed.expire_due()
    rows = reports.spend(timed, by=["month"]).rows
    assert [("2024-02", 7), ("2024-03", 40)] == [
        (row.group["month"], row.total_tokens) for row in rows
    ]


def test_runs_show_expiries_where_there_are_any(timed: Ledger, clock: Clock) -> None:
    """What was assumed and not replaced is spent, as an estimate; the rest is what was reported."""
    write(timed, clock)
    late, lost = sorted(reports.runs(timed), key=lambda run: run.run_id or "")
    assert (1, 1, 1, 1) == (late.requests, late.expiries, late.late, late.attempts)
    assert (45, 3_500_000, 3_500_000, 0) == (
        late.total_tokens,
        late.cost_micros_usd,
        late.cost_micros_usd_reported,
        late.cost_micros_usd_estimated,
    )
    assert (1, 0, 0) == (lost.expiries, lost.late, lost.attempts)
    assert (40, 2_000_000) == (lost.total_tokens, lost.cost_micros_usd_estimated)
    assert "Expired" in [column.heading for column in runs_sheet([late, lost]).columns]


def test_runs_without_expiries_have_no_column_for_them(timed: Ledger) -> None:
    """A table has no column of zeros."""
    timed.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
    timed.pool("team").record_used(reserve(timed, "r"), Usage(total_tokens=1, cost_micros_usd=1))
    headings = [column.heading for column in runs_sheet(reports.runs(timed)).columns]
    assert "Expired" not in headings


def test_a_model_is_charged_for_what_it_used(timed: Ledger, clock: Clock) -> None:
    """The assumed charge of the model that was asked for is gone where another one answered."""
    write(timed, clock)
    found = {
        row.group["model"]: (row.total_tokens, row.cost_micros_usd)
        for row in reports.spend(timed, by=["model"]).rows
    }
    assert {"cheap": (40, 2_000_000), "dear": (45, 3_500_000)} == found


def test_late_usage_is_listed_and_what_it_replaces_is_not(timed: Ledger, clock: Clock) -> None:
    """The correction that takes the assumed charge back is no line of its own."""
    write(timed, clock)
    (found,) = reports.leases(timed).late
    assert (45, 3_500_000, "late") == (found.total_tokens, found.cost_micros_usd, found.run_id)
    assert 24 * 3_600 == found.after_s


def test_the_statement_adds_up(timed: Ledger, clock: Clock) -> None:
    """By kind: what expired was committed, and taken back as far as it was replaced."""
    write(timed, clock)
    found = reports.statement(timed, "team")
    moved = {one.kind: one.committed.tokens for one in found.movements if one.committed.tokens}
    assert {"expiry": 80, "correction": -40, "settlement": 45} == moved
    assert 85 == found.closing.committed.tokens


def test_charges_of_both_months_add_up(timed: Ledger, clock: Clock, tmp_path: Path) -> None:
    """FOCUS: the expiry's month keeps its charge, and the correction of it is marked as one."""
    write(timed, clock)
    path = tmp_path / "charges.csv"
    exports.write(timed, reports.Filter(), path, format=exports.Format.FOCUS)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [
        ("expiry", "2024-02-01", Decimal("2.000000"), "", "estimated"),
        ("expiry", "2024-02-01", Decimal("2.000000"), "", "estimated"),
        ("correction", "2024-03-01", Decimal("-2.000000"), "Correction", "estimated"),
        ("settlement", "2024-03-01", Decimal("3.500000"), "", "reported"),
    ] == [
        (
            row["x_EntryKind"],
            row["BillingPeriodStart"][:10],
            Decimal(row["BilledCost"]),
            row["ChargeClass"],
            row["x_Provenance"],
        )
        for row in rows
    ]
    assert ["expired at_expiry"] * 2 == [row["x_EntryFlags"] for row in rows[:2]]


def test_views_follow(timed: Ledger, clock: Clock, store_url: str) -> None:
    """The view of leases says what each used by now, and that of days adds up to what is spent."""
    write(timed, clock)
    url = store_url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    with engine.connect() as connection:
        leases = connection.execute(
            text("SELECT phase, used_total_tokens FROM lease_summary ORDER BY lease")
        ).all()
        (spent,) = connection.execute(text("SELECT SUM(total_tokens) FROM spend_by_day")).one()
    engine.dispose()
    assert [("ended", 45), ("expired", 40)] == [tuple(row) for row in leases]
    assert 85 == spent
