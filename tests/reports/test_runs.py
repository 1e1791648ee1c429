"""What each run cost, from the rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ledger import (
    I64_MAX,
    Ledger,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.checks import to_micros
from ledger.reports import RunCost

Noon = Callable[[int], datetime]


def run_cost(first: datetime, last: datetime, **figures: int | str | None) -> RunCost:
    """Return a report's row; every figure that is not named is 0."""
    zeros = dict.fromkeys(set(RunCost.__dataclass_fields__) - {"first_at", "last_at"}, 0)
    return RunCost(**{**zeros, "run_id": None, **figures, "first_at": first, "last_at": last})


def test_every_figure_of_a_pool(busy: Ledger, noon: Noon) -> None:
    """Admitted calls, denials, open leases, use, estimates and times, the earliest run first."""
    expected = [
        run_cost(
            noon(10),
            noon(30),
            run_id="one",
            requests=2,
            input_tokens=300,
            output_tokens=110,
            total_tokens=410,
            cost_micros_usd=1_690,
            estimated_input_tokens=300,
            estimated_output_tokens=110,
            estimated_total_tokens=410,
            estimated_cost_micros_usd=1_700,
        ),
        run_cost(
            noon(20),
            noon(40),
            run_id="two",
            requests=1,
            denied=1,
            open_leases=1,
            estimated_input_tokens=10,
            estimated_output_tokens=5,
            estimated_total_tokens=15,
            estimated_cost_micros_usd=40,
        ),
        run_cost(
            noon(50),
            noon(50),
            requests=1,
            input_tokens=1,
            total_tokens=1,
            cost_micros_usd=1,
            estimated_input_tokens=1,
            estimated_output_tokens=1,
            estimated_total_tokens=2,
            estimated_cost_micros_usd=3,
        ),
    ]
    assert expected == reports.runs(busy, pool="team")


def test_pools_are_reported_together_unless_one_is_named(busy: Ledger, noon: Noon) -> None:
    """A run that spent from two pools is one line, and each pool's part can be had alone."""
    together = {row.run_id: row for row in reports.runs(busy)}
    assert {"one", "two", None} == set(together)
    one = together["one"]
    assert (3, 307, 112, 419, 1_705) == (
        one.requests,
        one.input_tokens,
        one.output_tokens,
        one.total_tokens,
        one.cost_micros_usd,
    )
    assert (307, 113, 420, 1_720) == (
        one.estimated_input_tokens,
        one.estimated_output_tokens,
        one.estimated_total_tokens,
        one.estimated_cost_micros_usd,
    )
    assert (noon(5), noon(30)) == (one.first_at, one.last_at)
    (alone,) = reports.runs(busy, pool="other")
    assert ("one", 1, 9, 15) == (
        alone.run_id,
        alone.requests,
        alone.total_tokens,
        alone.cost_micros_usd,
    )


def test_figures_are_python_integers(busy: Ledger) -> None:
    """No database's decimals or booleans reach a report."""
    for row in reports.runs(busy):
        for name in set(RunCost.__dataclass_fields__) - {"run_id", "first_at", "last_at"}:
            assert int is type(getattr(row, name)), name


def test_sums_above_63_bits_are_exact(book: Ledger, call: Callable[..., object]) -> None:
    """Neither database overflows or rounds: three of the largest amounts are their sum."""
    book.pool("team", SharedPoolBudgetOptions())
    largest = Usage(
        input_tokens=I64_MAX,
        output_tokens=I64_MAX - 1,
        total_tokens=I64_MAX,
        cost_micros_usd=I64_MAX - 2,
    )
    estimate = UsageEstimate(input_tokens=I64_MAX, output_tokens=I64_MAX - 3)
    for _ in range(3):
        call(book, "team", estimate, largest, run="huge")
    (row,) = reports.runs(book)
    assert 3 * I64_MAX == row.input_tokens
    assert 3 * (I64_MAX - 1) == row.output_tokens
    assert 3 * I64_MAX == row.total_tokens
    assert 3 * (I64_MAX - 2) == row.cost_micros_usd
    assert 3 * I64_MAX == row.estimated_input_tokens
    assert 3 * (I64_MAX - 3) == row.estimated_output_tokens


def test_calls_without_a_run_are_one_line(book: Ledger, call: Callable[..., object]) -> None:
    """What named no run is reported under None, also when other attribution is absent."""
    book.pool("team", SharedPoolBudgetOptions())
    for tokens in (3, 4):
        call(book, "team", UsageEstimate(total_tokens=tokens), Usage(total_tokens=tokens))
    (row,) = reports.runs(book)
    assert (None, 2, 7) == (row.run_id, row.requests, row.total_tokens)


def test_times_are_those_of_the_calls_or_else_of_the_entries(
    store_url: str, call: Callable[..., object], noon: Noon
) -> None:
    """`occurred_at` is what counts; where it was not given, when the entry was recorded."""
    recorded = datetime(2030, 1, 1, tzinfo=UTC)
    micros = to_micros("recorded", recorded)
    with Ledger.open(store_url, clock=lambda: micros) as book:
        book.pool("team", SharedPoolBudgetOptions())
        call(book, "team", UsageEstimate(), Usage(), run="dated", after_noon_s=7)
        call(book, "team", UsageEstimate(), Usage(), run="undated")
        dated, undated = reports.runs(book)
    assert ("dated", noon(7), noon(7)) == (dated.run_id, dated.first_at, dated.last_at)
    assert ("undated", recorded, recorded) == (undated.run_id, undated.first_at, undated.last_at)
    assert timedelta(0) == dated.first_at.utcoffset()


def test_a_run_of_denials_alone_is_charged_nothing(
    audited: Ledger, call: Callable[..., object]
) -> None:
    """A run that was always refused stands in the report, with 0 everywhere else."""
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=1))
    for _ in range(2):
        with pytest.raises(Exception, match="cannot grant"):
            call(audited, "team", UsageEstimate(total_tokens=5, cost_micros_usd=5), run="poor")
    (row,) = reports.runs(audited)
    assert run_cost(row.first_at, row.last_at, run_id="poor", denied=2) == row


def test_openings_and_adjustments_are_no_runs(book: Ledger) -> None:
    """A pool's own entries cost nobody anything."""
    book.pool("team", SharedPoolBudgetOptions())
    book.adjust("team", SharedPoolBudgetOptions(capacity_tokens=9), reason="less")
    assert [] == reports.runs(book)
    assert [] == reports.runs(book, pool="team")


def test_runs_are_in_the_order_of_their_first_call(
    book: Ledger, call: Callable[..., object]
) -> None:
    """The earliest first by its own time, whatever was recorded first; then by name."""
    book.pool("team", SharedPoolBudgetOptions())
    for run, after_noon_s in (("late", 30), ("b", 10), ("a", 10), ("early", 5), ("late", 1)):
        call(book, "team", UsageEstimate(), run=run, after_noon_s=after_noon_s)
    assert ["late", "early", "a", "b"] == [row.run_id for row in reports.runs(book)]


def test_an_unknown_pool_is_named(busy: Ledger) -> None:
    """The error says which pool there is not, and which there are."""
    with pytest.raises(UnknownPoolError, match=r"no pool 'nope'.*'team'") as error:
        reports.runs(busy, pool="nope")
    assert "nope" == error.value.name
