"""How good estimates are, and what others would have held."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.core.errors import InvalidInputError
from ledger.reports import EstimateQuality, Filter, Held, Ratios

PERCENTS = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}


def nearest_rank(values: list[Any], percent: int) -> Any:  # noqa: ANN401 - of whatever there is
    """Return the smallest value that at least so many in a hundred do not exceed."""
    return sorted(values)[max(1, math.ceil(Fraction(percent * len(values), 100))) - 1]


def held(pairs: list[tuple[int, int]], estimate: int | None) -> Held:
    """Return what an estimate, or those that were given, would have held, call by call."""
    both = [(given if estimate is None else estimate, used) for given, used in pairs]
    return Held(
        estimate=estimate,
        overruns=sum(used > held for held, used in both),
        overrun=sum(max(0, used - held) for held, used in both),
        wasted=sum(max(0, held - used) for held, used in both),
    )


def quality(
    group: dict[str, str | None], axis: str, pairs: list[tuple[int, int]], fixed: int | None = None
) -> EstimateQuality:
    """Return the quality of estimates, each with what was used, call by call."""
    used = [actual for _given, actual in pairs]
    ratios = [Fraction(actual, given) for given, actual in pairs]
    return EstimateQuality(
        group=group,
        axis=axis,
        calls=len(pairs),
        estimated=sum(given for given, _actual in pairs),
        used=sum(used),
        overrun_share=Fraction(sum(actual > given for given, actual in pairs), len(pairs)),
        ratio=Ratios(**{name: nearest_rank(ratios, one) for name, one in PERCENTS.items()}),
        given=held(pairs, None),
        **{name: held(pairs, nearest_rank(used, one)) for name, one in PERCENTS.items()},
        fixed=None if fixed is None else held(pairs, fixed),
    )


def settled(scribe: Any, model: str | None, pairs: list[tuple[int, int]]) -> None:  # noqa: ANN401
    """Let a model be called with these estimates and these uses, of tokens and micro-USD."""
    for given, used in pairs:
        lease = scribe.append(
            "team",
            "reservation",
            who={"model": model},
            estimate_total_tokens=given,
            estimate_cost_micros_usd=given,
        )
        scribe.append(
            "team",
            "settlement",
            lease=lease,
            usage_total_tokens=used,
            usage_cost_micros_usd=used,
        )


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]
)
def test_random_calls_against_a_fold(scribe: Any, seed: int) -> None:  # noqa: ANN401
    """Every figure of every group, with many equal and many nearly equal ratios."""
    rng = random.Random(seed)
    scribe.pool("team")
    calls: dict[str | None, list[tuple[int, int]]] = {}
    for model, count in (("a", 1), ("b", 7), (None, 25)):
        top = rng.choice([4, 2**31 - 1])
        calls[model] = [
            (rng.randint(max(1, top - 3), top), rng.randint(0, 3 * top)) for _ in range(count)
        ]
        calls[model] += [(given, given - 1) for given, _used in calls[model]]
        settled(scribe, model, calls[model])
    fixed = calls[None][0][1]
    found = reports.estimates(scribe.book, by=["model"], fixed_tokens=fixed)
    assert [
        quality({"model": model}, axis, calls[model], fixed if axis == "tokens" else None)
        for model in ("a", "b", None)
        for axis in ("tokens", "cost_micros_usd")
    ] == found


@pytest.mark.parametrize("seed", range(2))
def test_a_history_against_a_fold(
    history: Callable[[int], Ledger], facts: Callable[..., list[dict[str, Any]]], seed: int
) -> None:
    """Attempts of one lease count together, under what its settlement names."""
    book = history(seed)
    for where, by in ((Filter(), ("model", "operation")), (Filter(pools=["leaf"]), ("pool",))):
        calls: dict[tuple[str | None, ...], list[tuple[int, int]]] = defaultdict(list)
        for row in facts(book):
            if (
                row["kind"] == "settlement"
                and row["origin_seq"] is None
                and (not where.pools or row["pool"] in where.pools)
            ):
                place = tuple(row[name] for name in by)
                calls[place].append((row["granted_total_tokens"], row["used_total_tokens"]))
        expected = {
            place: quality(dict(zip(by, place, strict=True)), "tokens", pairs)
            for place, pairs in calls.items()
        }
        assert expected
        assert expected == {
            tuple(one.group.values()): one
            for one in reports.estimates(book, where, by=by)
            if one.axis == "tokens"
        }


def test_large_amounts_are_exact(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """Sums pass 2^63, and ratios that differ by next to nothing are in order."""
    scribe.pool("team")
    scribe.pool("second")
    pairs = [(I64_MAX, I64_MAX), (I64_MAX, I64_MAX // 2), (I64_MAX - 5, 1), (2**40, 2**41)]
    pairs += [(I64_MAX - 1, I64_MAX - 2), (I64_MAX, I64_MAX - 1), (I64_MAX - 2, I64_MAX - 3)]
    for given, used in pairs:
        asked = {f"estimate_{name}": given for name in ("total_tokens", "cost_micros_usd")}
        row = {f"used_{name}": used for name in ("total_tokens", "cost_micros_usd")}
        lease = scribe.append("team", "reservation", **asked)
        scribe.append("team", "settlement", lease=lease, usage_total_tokens=0, **row)
    (tokens, cost) = reports.estimates(scribe.book, by=[], fixed_tokens=2**62)
    assert quality({}, "tokens", pairs, 2**62) == tokens
    assert quality({}, "cost_micros_usd", pairs) == cost


def test_corrections_are_counted(book: Ledger) -> None:
    """What a call used is what the books say by now, or said by an entry."""
    team = book.pool("team", SharedPoolBudgetOptions())
    lease = team.reserve(
        RequestExtensions(), UsageEstimate(total_tokens=100), RequestBudget.unlimited()
    )
    team.record_used(lease, Usage(total_tokens=80))
    team.correct(3, Usage(total_tokens=150), "the invoice says so")
    (now,) = reports.estimates(book)
    (then,) = reports.estimates(book, Filter(pools=["team"], as_of=3))
    assert (150, 1, 50, 0) == (now.used, now.given.overruns, now.given.overrun, now.given.wasted)
    assert (80, 0, 0, 20) == (then.used, then.given.overruns, then.given.overrun, then.given.wasted)
    (spent,) = reports.spend(book).rows
    assert spent.total_tokens == now.used


def test_what_was_not_estimated_is_not_counted(book: Ledger, call: Callable[..., object]) -> None:
    """An axis whose estimate is 0 is free, and says nothing about estimates."""
    book.pool("team", SharedPoolBudgetOptions())
    call(book, "team", UsageEstimate(total_tokens=10), Usage(total_tokens=5, cost_micros_usd=7))
    call(book, "team", UsageEstimate(total_tokens=10))
    (only,) = reports.estimates(book)
    assert ("tokens", 1, Fraction(1, 2)) == (only.axis, only.calls, only.ratio.max)


def test_an_empty_store(book: Ledger) -> None:
    """No calls, no rows."""
    assert [] == reports.estimates(book)
    assert [] == reports.estimates(book, by=[])


@pytest.mark.parametrize(
    "given",
    [{"by": ["day"]}, {"by": ["x"]}, {"fixed_tokens": -1}, {"fixed_cost_micros_usd": 2**63}],
)
def test_what_is_refused(book: Ledger, given: dict[str, Any]) -> None:
    """A dimension that is none here, and an estimate that is no amount."""
    with pytest.raises(InvalidInputError):
        reports.estimates(book, **given)
