"""A bill is held against the journal, and every difference is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import InvalidInputError, Ledger, LedgerBudgetManager, SharedPoolBudgetOptions, Usage
from ledger.reconcile import (
    READY,
    BillMapping,
    Reconciliation,
    Repeats,
    Status,
    read_bill,
    reconcile,
)
from ledger.reports import Filter, TimeBasis
from tests.fixtures import Read

Spend = Callable[..., Any]
Used = Callable[..., Usage]
Plain = Callable[[Any], dict[str, int]]
Line = tuple[str, str, str, int, Decimal]
Call = tuple[str, str, str, int, int]

HEADER = "request_id,at,model,total_tokens,cost_usd\n"


def found(result: Reconciliation) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return what was matched with what, and how it came out."""
    return [(one.status, one.request_id, one.model, one.day) for one in result.matches]


def adds_up(result: Reconciliation) -> bool:
    """Tell whether matches and parts each come to the totals, and those to the difference."""
    for axis in result.axes:
        sides = {
            side: getattr(getattr(result, side), axis)
            for side in ("billed", "recorded", "difference")
        }
        for parts in (result.matches, result.parts):
            for side, total in sides.items():
                assert total == sum(getattr(getattr(part, side), axis) for part in parts)
        assert sides["difference"] == sides["billed"] - sides["recorded"]
    return True


def test_the_four_kinds(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read, plain: Plain
) -> None:
    """By request id: matched, differing by how much, billed alone, recorded alone."""
    spend(team, used(70, 30, 500), request_id="same")
    spend(team, used(100, 20, 900), request_id="other")
    spend(team, used(5, 1, 40), request_id="mine")
    spend(team, used(1, 0, 3))
    result = reconcile(
        book,
        bill(
            f"{HEADER}same,2024-02-29,gpt-5,100,0.0005\nother,2024-02-29,gpt-5,130,0.00085\n"
            "theirs,2024-02-29,gpt-6,9,0.000007\n"
        ),
    )
    assert [
        ("matched", "same", "gpt-5", "2024-02-29"),
        ("differing", "other", "gpt-5", "2024-02-29"),
        ("billed_only", "theirs", "gpt-6", "2024-02-29"),
        # Without a request id it can only be said which model and day it is of.
        ("recorded_only", None, "gpt-5", "2024-02-29"),
        ("recorded_only", "mine", "gpt-5", "2024-02-29"),
    ] == found(result)
    differing = result.matches[1]
    assert {"total_tokens": 130, "cost_micros_usd": 850} == plain(differing.billed)
    assert {"total_tokens": 120, "cost_micros_usd": 900} == plain(differing.recorded)
    assert {"total_tokens": 10, "cost_micros_usd": -50} == plain(differing.difference)
    assert ("team", 5, 1, 3) == (
        differing.pool,
        differing.entry,
        differing.entries,
        differing.line,
    )
    assert {"total_tokens": 239, "cost_micros_usd": 1_357} == plain(result.billed)
    assert {"total_tokens": 227, "cost_micros_usd": 1_443} == plain(result.recorded)
    assert {"total_tokens": 12, "cost_micros_usd": -86} == plain(result.difference)
    assert adds_up(result)
    assert not result.agrees


def test_entries_of_one_request_add_up(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Attempts, several leases, several pools and earlier corrections of a request are one."""
    spend(team, used(10, 1, 100), used(20, 2, 200), request_id="r")
    spend(team, used(5, 0, 50), request_id="r")
    other = book.pool("other", SharedPoolBudgetOptions())
    spend(other, used(7, 0, 70), request_id="r")
    team.correct(4, used(20, 2, 180), "earlier")
    result = reconcile(book, bill(f"{HEADER}r,2024-02-29,gpt-5,45,0.0004\n"))
    assert [("matched", "r", "gpt-5", "2024-02-29")] == found(result)
    assert 5 == result.matches[0].entries
    assert result.agrees


def test_lines_of_one_request_add_up(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Where each line is a part, a request is billed by all of them, and rounded up once."""
    spend(team, used(10, 0, 3), request_id="r")
    spend(team, used(1, 0, 1), request_id="s")
    content = HEADER + "r,2024-02-29,gpt-5,4,0.0000012\ns,2024-02-29,m,1,0.000001\n"
    parts = [replace(READY["generic"][0], repeats=Repeats.ADD)]
    result = reconcile(book, bill(content + "r,2024-02-29,gpt-5,6,0.0000013\n", parts))
    assert ["matched", "matched"] == [one.status for one in result.matches]
    assert [(2, 2), (1, 3)] == [(one.lines, one.line) for one in result.matches]
    assert Fraction(1, 2) == result.rounded_up_micros_usd
    assert 4 == result.billed.cost_micros_usd


def test_mirrors_are_not_counted(book: Ledger, spend: Spend, used: Used, bill: Read) -> None:
    """What a pool passed on to the one above it is counted once; a parent alone has nothing."""
    book.pool("org", SharedPoolBudgetOptions())
    below = book.pool("below", SharedPoolBudgetOptions(), parent="org")
    spend(below, used(10, 0, 3), request_id="r")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,10,0.000003\n")
    assert reconcile(book, read).agrees
    assert reconcile(book, read, Filter(pools=["org"], descendants=True)).agrees
    alone = reconcile(book, read, Filter(pools=["org"]))
    assert [Status.BILLED_ONLY] == [one.status for one in alone.matches]


def test_by_model_and_day(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Without request ids it is by model and day, whatever requests are called here."""
    noon = datetime(2024, 2, 29, 12, tzinfo=UTC)
    spend(team, used(10, 0, 100), request_id="r", at=noon)
    spend(team, used(20, 0, 200), at=noon)
    spend(team, used(40, 0, 400), at=noon + timedelta(days=1))
    spend(team, used(80, 0, 800), at=noon, model="gpt-6")
    result = reconcile(
        book,
        bill(
            "at,model,total_tokens\n2024-02-29,gpt-5,25\n2024-02-29,gpt-5,5\n"
            "2024-03-01,gpt-5,41\n2024-03-02,gpt-5,7\n"
        ),
    )
    assert [
        ("matched", None, "gpt-5", "2024-02-29"),
        ("differing", None, "gpt-5", "2024-03-01"),
        ("billed_only", None, "gpt-5", "2024-03-02"),
        ("recorded_only", None, "gpt-6", "2024-02-29"),
    ] == found(result)
    assert adds_up(result)


def test_by_day_where_a_bill_names_no_model(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Then all models of a day are one."""
    spend(team, used(10, 0, 100))
    spend(team, used(20, 0, 200), model="gpt-6")
    spend(team, used(1, 0, 1), model=None)
    result = reconcile(book, bill("at,total_tokens\n2024-02-29,31\n"))
    assert [("matched", None, None, "2024-02-29")] == found(result)


def test_lines_with_and_without_a_request_id(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """By request id where a line has one; the rest of both sides by model and day."""
    spend(team, used(10, 0, 100), request_id="r")
    spend(team, used(20, 0, 200), request_id="unknown to them")
    spend(team, used(40, 0, 400))
    result = reconcile(
        book, bill(f"{HEADER}r,2024-02-29,gpt-5,10,0.0001\n,2024-02-29,gpt-5,60,0.0006\n")
    )
    assert [
        ("matched", None, "gpt-5", "2024-02-29"),
        ("matched", "r", "gpt-5", "2024-02-29"),
    ] == sorted(found(result), key=lambda one: one[1] or "")


def test_tolerances(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A difference of exactly the tolerance still matches, and is still counted."""
    spend(team, used(10, 0, 100))
    read = bill("at,model,total_tokens,cost_usd\n2024-02-29,gpt-5,12,0.000097\n")
    exact = reconcile(book, read, tolerance_tokens=2, tolerance_cost_micros_usd=3)
    assert exact.agrees
    assert 2 == exact.difference.total_tokens
    assert adds_up(exact)
    for tokens, micros in ((1, 3), (2, 2)):
        near = reconcile(book, read, tolerance_tokens=tokens, tolerance_cost_micros_usd=micros)
        assert [Status.DIFFERING] == [one.status for one in near.matches]
    assert reconcile(book, read, axes=["total_tokens"], tolerance_tokens=2).agrees
    with pytest.raises(InvalidInputError, match="'input_tokens' is none of total_tokens"):
        reconcile(book, read, axes=["input_tokens"])


def test_days_end_at_midnight_of_the_mapping(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Also on the day that has 23 hours; the bill's own days are the range."""
    zone = BillMapping(at="at", total_tokens="total_tokens", zone="Europe/Berlin")
    for tokens, at in {1: "30T22:59", 2: "30T23:00", 4: "31T21:59", 8: "31T22:00"}.items():
        spend(team, used(tokens, 0, 0), at=datetime.fromisoformat(f"2024-03-{at}:00+00:00"))
    result = reconcile(book, bill("at,total_tokens\n2024-03-31,6\n", [zone]))
    # From 23:00 of the 30th to 22:00 of the 31st, in UTC: 2 and 4.
    assert [("matched", None, None, "2024-03-31")] == found(result)
    assert timedelta(hours=23) == (
        result.until.astimezone(UTC) - result.since.astimezone(UTC)  # type: ignore[union-attr]
    )
    in_utc = BillMapping(at="at", total_tokens="total_tokens")
    assert reconcile(book, bill("at,total_tokens\n2024-03-31,12\n", [in_utc])).agrees


def test_a_request_is_dated_by_its_line(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """The provider's clock and ours may put a request on two sides of midnight."""
    spend(team, used(1, 0, 0), request_id="late", at=datetime(2024, 3, 1, 0, 0, 1, tzinfo=UTC))
    spend(team, used(2, 0, 0), request_id="next", at=datetime(2024, 2, 29, 23, 59, tzinfo=UTC))
    spend(team, used(4, 0, 0), request_id="far", at=datetime(2024, 3, 5, tzinfo=UTC))
    read = bill(
        "request_id,at,total_tokens\nlate,2024-02-29T23:59:59Z,1\nnext,2024-03-01T00:00:00Z,2\n"
    )
    day = Filter(since=datetime(2024, 2, 29, tzinfo=UTC), until=datetime(2024, 3, 1, tzinfo=UTC))
    result = reconcile(book, read, day)
    assert [("matched", "late", None, "2024-02-29")] == found(result)
    assert (1, 1) == (result.lines, result.lines_left_out)
    second = reconcile(book, read, Filter(since=datetime(2024, 3, 1, tzinfo=UTC)))
    assert [("matched", "next", None, "2024-03-01")] == found(second)
    # Without times, the days of the bill: what was recorded days later is no part of it.
    assert ["late", "next"] == [one.request_id for one in reconcile(book, read).matches]
    outside = Filter(since=datetime(2024, 3, 5, tzinfo=UTC))
    assert (0, 2) == (
        reconcile(book, read, outside).lines,
        reconcile(book, read, outside).lines_left_out,
    )


def test_a_bill_without_times(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Then there is no range: everything that was ever recorded is held against it."""
    spend(team, used(1, 0, 0), request_id="r")
    spend(team, used(2, 0, 0), request_id="s", at=datetime(2020, 1, 1, tzinfo=UTC))
    result = reconcile(book, bill("request_id,total_tokens\nr,1\n"))
    assert [("matched", "r"), ("recorded_only", "s")] == [one[:2] for one in found(result)]
    assert (None, None) == (result.since, result.until)


def test_filters(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Pools, models and times are those of reports; a model goes for lines too."""
    spend(team, used(1, 0, 0), model="gpt-5")
    spend(team, used(2, 0, 0), model="gpt-6")
    spend(book.pool("other", SharedPoolBudgetOptions()), used(4, 0, 0), model="gpt-5")
    read = bill("at,model,total_tokens\n2024-02-29,gpt-5,5\n2024-02-29,gpt-6,2\n")
    assert reconcile(book, read).agrees
    alone = reconcile(book, read, Filter(model="gpt-6"))
    assert [("matched", None, "gpt-6", "2024-02-29")] == found(alone)
    assert 1 == alone.lines_left_out
    in_team = reconcile(book, read, Filter(pools=["team"]))
    assert ["differing", "matched"] == sorted(one.status for one in in_team.matches)
    recorded = reconcile(book, read, Filter(basis=TimeBasis.RECORDED))
    assert {Status.BILLED_ONLY} == {one.status for one in recorded.matches}
    early = reconcile(book, read, Filter(pools=["team"], as_of=3))
    assert ["billed_only", "differing"] == sorted(one.status for one in early.matches)


_ids = st.sampled_from(["", "a", "b", "c", "d"])
_days = st.sampled_from(["2024-02-28", "2024-02-29", "2024-03-01"])
_models = st.sampled_from(["", "gpt-5", "gpt-6"])
_lines = st.lists(
    st.tuples(_ids, _days, _models, st.integers(0, 2**40), st.decimals("-1", "9000", places=9)),
    max_size=12,
)
_calls = st.lists(
    st.tuples(_ids, _days, _models, st.integers(0, 2**40), st.integers(0, 2**40)), max_size=8
)


@pytest.fixture
def names() -> Iterator[str]:
    """Return names of pools, none of which was used before."""
    return (f"pool-{number}" for number in count())


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lines=_lines, calls=_calls)
def test_the_parts_add_up_to_the_difference(
    book: Ledger,
    names: Iterator[str],
    spend: Spend,
    tmp_path: Path,
    lines: list[Line],
    calls: list[Call],
) -> None:
    """Whatever was billed and recorded, to the last micro; nothing is lost or counted twice."""
    pool = book.pool(next(names), SharedPoolBudgetOptions())
    for request_id, day, model, tokens, cost in calls:
        spend(
            pool,
            Usage(total_tokens=tokens, cost_micros_usd=cost),
            request_id=request_id or None,
            model=model or None,
            at=datetime.fromisoformat(f"{day}T12:00:00+00:00"),
        )
    path = tmp_path / "bill.csv"
    rows = [",".join(map(str, line)) + "\n" for line in lines]
    # Both ends of the range, so that it takes in every call.
    ends = ["e,2024-02-28,,0,0\n", "f,2024-03-01,,0,0\n"]
    path.write_text(HEADER + "".join([*rows, *ends]), encoding="utf-8")
    generic = BillMapping(
        request_id="request_id",
        at="at",
        model="model",
        total_tokens="total_tokens",
        cost="cost_usd",
        repeats=Repeats.ADD,
    )
    result = reconcile(book, read_bill(path, [generic]), Filter(pools=[pool.name]))
    assert adds_up(result)
    assert len(lines) + 2 == result.lines == sum(one.lines for one in result.matches)
    assert len(calls) == sum(one.entries for one in result.matches)
    assert sum(line[3] for line in lines) == result.billed.total_tokens
    exactly = sum(Fraction(line[4]) * 1_000_000 for line in lines)
    assert exactly == (result.billed.cost_micros_usd or 0) - result.rounded_up_micros_usd
    assert 0 <= result.rounded_up_micros_usd < len(result.matches)
    assert sum(call[4] for call in calls) == result.recorded.cost_micros_usd
