"""What each run cost, from the rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

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
from ledger.core.checks import to_micros
from ledger.reports import Filter, RunCost, RunTree

Noon = Callable[[int], datetime]


def run_cost(first: datetime, last: datetime, **figures: int | str | None) -> RunCost:
    """Return a report's row, all reported; every figure that is not named is 0."""
    reported = {
        f"{name}_reported": figures.get(name, 0) for name in ("total_tokens", "cost_micros_usd")
    }
    return RunCost(**{"run_id": None, **reported, **figures, "first_at": first, "last_at": last})


def test_every_figure_of_a_pool(busy: Ledger, noon: Noon) -> None:
    """Admitted calls, denials, open leases, use, estimates and times, the earliest run first."""
    expected = [
        run_cost(
            noon(10),
            noon(30),
            run_id="one",
            requests=2,
            attempts=2,
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
            attempts=1,
            input_tokens=1,
            total_tokens=1,
            cost_micros_usd=1,
            estimated_input_tokens=1,
            estimated_output_tokens=1,
            estimated_total_tokens=2,
            estimated_cost_micros_usd=3,
        ),
    ]
    assert expected == reports.runs(busy, "team")


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
    (alone,) = reports.runs(busy, "other")
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
    assert [] == reports.runs(book, "team")


def test_runs_are_in_the_order_of_their_first_call(
    book: Ledger, call: Callable[..., object]
) -> None:
    """The earliest first by its own time, whatever was recorded first; then by name."""
    book.pool("team", SharedPoolBudgetOptions())
    for run, after_noon_s in (("late", 30), ("b", 10), ("a", 10), ("early", 5), ("late", 1)):
        call(book, "team", UsageEstimate(), run=run, after_noon_s=after_noon_s)
    assert ["late", "early", "a", "b"] == [row.run_id for row in reports.runs(book)]


def test_an_unknown_pool_is_named(busy: Ledger) -> None:
    """The error says which pool there is not."""
    with pytest.raises(UnknownPoolError, match="no pool 'nope'") as error:
        reports.runs(busy, "nope")
    assert "nope" == error.value.name


def names(trees: list[RunTree]) -> list[tuple[str | None, int, int | None, int]]:
    """Return runs with their depths, and what each cost alone and with its sub-runs."""
    return [
        (
            tree.run_id,
            tree.depth,
            None if tree.own is None else tree.own.cost_micros_usd,
            tree.with_subruns.cost_micros_usd,
        )
        for tree in trees
    ]


def charge(scribe: Any, run: str | None, parent: str | None, cost: int, second: int) -> None:  # noqa: ANN401
    """Let a run cost something, so many seconds after noon."""
    scribe.append(
        "team",
        "settlement",
        who={"run_id": run, "parent_run_id": parent},
        at=datetime(2024, 2, 29, 12, 0, second, tzinfo=UTC),
        usage_total_tokens=1,
        usage_cost_micros_usd=cost,
    )


def test_sub_runs_are_added_to_those_above(scribe: Any) -> None:  # noqa: ANN401
    """Each run is followed by those below it; a parent that did nothing itself is shown too."""
    scribe.pool("team")
    for number, (run, parent) in enumerate(
        [("top", None), ("b", "top"), ("a", "top"), ("a1", "a"), (None, None), ("x", "gone")]
    ):
        charge(scribe, run, parent, 10**number, number)
    assert [
        ("top", 0, 1, 1_111),
        ("b", 1, 10, 10),
        ("a", 1, 100, 1_100),
        ("a1", 2, 1_000, 1_000),
        (None, 0, 10_000, 10_000),
        ("gone", 0, None, 100_000),
        ("x", 1, 100_000, 100_000),
    ] == names(reports.run_trees(scribe.book))
    assert [("a", 0, 100, 1_100), ("a1", 1, 1_000, 1_000)] == names(
        reports.run_trees(scribe.book, Filter(run_id="a"))
    )
    assert [] == reports.run_trees(scribe.book, Filter(run_id="nobody"))


def test_runs_in_a_circle_are_counted_once(scribe: Any) -> None:  # noqa: ANN401
    """Runs that name each other as parents, or themselves, neither hang nor count twice."""
    scribe.pool("team")
    for number, (run, parent) in enumerate([("tail", "b"), ("b", "c"), ("c", "b"), ("me", "me")]):
        charge(scribe, run, parent, 10**number, number)
    trees = reports.run_trees(scribe.book)
    assert {"tail", "b", "c", "me"} == {tree.run_id for tree in trees}
    assert 4 == len(trees)
    assert 1_111 == sum(tree.with_subruns.cost_micros_usd for tree in trees if tree.depth == 0)


def test_the_first_parent_counts(scribe: Any) -> None:  # noqa: ANN401
    """A run that names two parents is a part of the one it named first."""
    scribe.pool("team")
    charge(scribe, "child", "second", 1, 20)
    charge(scribe, "child", "first", 2, 10)
    charge(scribe, "child", None, 4, 1)
    assert [("first", 0, None, 7), ("child", 1, 7, 7)] == names(reports.run_trees(scribe.book))


@pytest.mark.parametrize("seed", range(3))
def test_trees_add_up_to_the_runs(history: Callable[[int], Ledger], seed: int) -> None:
    """The heads of all trees together cost what all runs cost, and each run is there once."""
    book = history(seed)
    costs = reports.runs(book)
    trees = reports.run_trees(book)
    assert {cost.run_id for cost in costs} <= {tree.run_id for tree in trees}
    assert len(trees) == len({tree.run_id for tree in trees})
    heads = [tree.with_subruns for tree in trees if tree.depth == 0]
    for name in ("requests", "attempts", "total_tokens", "cost_micros_usd", "open_leases"):
        expected = sum(getattr(cost, name) for cost in costs)
        assert expected == sum(getattr(head, name) for head in heads)


def test_a_long_chain_of_runs(scribe: Any) -> None:  # noqa: ANN401
    """A hundred runs each below the other are rolled up without recursion."""
    scribe.pool("team")
    for number in range(100):
        charge(scribe, f"{number}", f"{number - 1}" if number else None, 1, number % 60)
    trees = reports.run_trees(scribe.book)
    assert [100 - number for number in range(100)] == [
        tree.with_subruns.cost_micros_usd for tree in trees
    ]
