"""Where the money went, by any dimension, against a fold of every entry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from ledger import (
    I64_MAX,
    Attribution,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    UsageReport,
    from_micros,
    reports,
)
from ledger.core.errors import InvalidInputError
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS
from ledger.reports import Figures, Filter, TimeBasis
from ledger.reports.render.figures import trend

Facts = Callable[[Ledger], list[dict[str, Any]]]
History = Callable[[int], Ledger]

SINCE, UNTIL = datetime(2024, 3, 10, 5, tzinfo=UTC), datetime(2024, 4, 2, 3, 4, 5, tzinfo=UTC)
FILTERS = [
    Filter(),
    Filter(pools=["root"]),
    Filter(pools=["root"], descendants=True),
    Filter(pools=["leaf", "other"]),
    Filter(since=SINCE),
    Filter(until=UNTIL, basis=TimeBasis.RECORDED),
    Filter(since=SINCE, until=UNTIL, pools=["other", "root"]),
    Filter(run_id="b"),
    Filter(model="m1", tenant="t1", provider="p"),
    Filter(operation="chat"),
    Filter(agent="g", pools=["leaf"]),
    Filter(tags={"team": "x"}),
    Filter(tags={"team": "x", 'é"': ","}),
    Filter(pools=["root"], as_of=9),
]
DIMENSIONS = ["hour", "day", "week", "month", "model", "tenant", "run", "pool", "tag:team"]


def counts(where: Filter, row: dict[str, Any]) -> bool:
    """Tell whether an entry is in a filter's scope."""
    chosen = set(where.pools)
    if where.descendants and "root" in chosen:
        chosen.add("leaf")
    at = from_micros(row["recorded_at" if where.basis is TimeBasis.RECORDED else "at"])
    names = ("run_id", "tenant", "agent", "operation", "provider", "model")
    return (
        row["origin_seq"] is None
        and (not chosen or row["pool"] in chosen)
        and (where.as_of is None or row["seq"] <= where.as_of)
        and (where.since is None or at >= where.since)
        and (where.until is None or at < where.until)
        and all(getattr(where, name) in {None, row[name]} for name in names)
        and all(row["tags"].get(name) == value for name, value in where.tags.items())
        and (
            row["kind"] in {"reservation", "denial", "release", "expiry"}
            or row["usage_total_tokens"] is not None
        )
    )


NAMES = ("run_id", "tenant", "agent", "operation", "provider", "model", "tags")


def under_their_ends(where: Filter, facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries in scope; a reservation is named as the end of its lease is."""
    ends = {
        (row["pool_id"], row["lease"]): row
        for row in facts
        if row["kind"] in {"settlement", "release"}
        and (where.as_of is None or row["seq"] <= where.as_of)
    }
    found = []
    for own in facts:
        end = ends.get((own["pool_id"], own["seq"]), own)
        named = own
        if own["kind"] == "reservation":
            named = {**own, **{name: end[name] for name in NAMES}}
        # Runs, tenants, agents and operations are the same in all entries of a real lease.
        reported = where.model or where.provider or where.tags
        if counts(where, named if reported else own):
            found.append(named)
    return found


def fold(where: Filter, facts: list[dict[str, Any]], chosen: list[dict[str, Any]]) -> Figures:
    """Return what some entries come to, one by one."""
    kinds = [row["kind"] for row in chosen]
    attempts = [row for row in chosen if row["kind"] in {"settlement", "observation"}]
    ended = {
        (row["pool_id"], row["lease"])
        for row in facts
        if row["kind"] in {"settlement", "release"}
        and (where.as_of is None or row["seq"] <= where.as_of)
    }
    reserved = [row for row in chosen if row["kind"] == "reservation"]
    used = [row for row in chosen if row["usage_total_tokens"] is not None]
    time = "recorded_at" if where.basis is TimeBasis.RECORDED else "at"
    split: dict[str, int] = defaultdict(int)
    for row in used:
        for amount in ("total_tokens", "cost_micros_usd"):
            split[f"{amount}_{row['provenance'] or 'unknown'}"] += row[f"usage_{amount}"]
    return Figures(
        requests=len(reserved),
        denied=kinds.count("denial"),
        open_leases=sum((row["pool_id"], row["seq"]) not in ended for row in reserved),
        attempts=len(attempts),
        releases=kinds.count("release"),
        expiries=kinds.count("expiry"),
        late=sum(bool(row["flags"] & 2) for row in attempts),
        corrections=kinds.count("correction"),
        **{name: sum(row[f"usage_{name}"] for row in used) for name in USAGE_FIELDS},
        **{
            f"estimated_{name}": sum(row[f"estimate_{name}"] for row in reserved)
            for name in ESTIMATE_FIELDS
        },
        **split,
        first_at=min((from_micros(row[time]) for row in chosen), default=None),
        last_at=max((from_micros(row[time]) for row in chosen), default=None),
    )


def place(name: str, row: dict[str, Any], time: str, zone: str) -> str | None:
    """Return where an entry stands in a dimension."""
    local = from_micros(row[time]).astimezone(ZoneInfo(zone))
    found: str | None
    match name:
        case "hour":
            found = local.strftime("%Y-%m-%dT%H:00")
            found += local.isoformat()[-6:]
        case "day":
            found = str(local.date())
        case "week":
            found = str(local.date() - timedelta(days=local.weekday()))
        case "month":
            found = str(local.date())[:7]
        case "tag:team":
            found = row["tags"].get("team")
        case "run":
            found = row["run_id"]
        case _:
            found = row[name]
    return found


def figures(row: Figures) -> Figures:
    """Return the figures of a row, without its names."""
    return Figures(**{name: getattr(row, name) for name in Figures.__dataclass_fields__})


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(more, marks=pytest.mark.long) for more in (1, 2))]
)
def test_every_dimension_and_filter_against_a_fold(
    history: History, facts: Facts, seed: int
) -> None:
    """Each filter and each pair of dimensions gives what folding the entries one by one gives."""
    book = history(seed)
    known = facts(book)
    pairs = list(combinations(DIMENSIONS, 2))
    for number, where in enumerate(FILTERS):
        chosen = under_their_ends(where, known)
        for by in [(), (DIMENSIONS[number % 9],), *pairs[number :: len(FILTERS)]]:
            zone = ["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"][number % 4]
            time = "recorded_at" if where.basis is TimeBasis.RECORDED else "at"
            groups: dict[tuple[str | None, ...], list[dict[str, Any]]] = defaultdict(list)
            for row in chosen:
                groups[tuple(place(name, row, time, zone) for name in by)].append(row)
            found = reports.spend(book, where, by=by, zone=zone)
            expected = {group: fold(where, known, rows) for group, rows in groups.items()}
            assert expected == {tuple(row.group.values()): figures(row) for row in found.rows}
            assert fold(where, known, chosen) == found.total


@pytest.mark.parametrize("top", [0, 1, 2, 100])
def test_the_rest_is_one_row_and_totals_stay_equal(history: History, top: int) -> None:
    """The dearest groups are kept, the others added up; every grouping has the same total."""
    book = history(7)
    total = reports.spend(book, by=[]).total
    for by in (["model"], ["run", "day"], ["tag:team"], ["hour"], ["pool", "operation"]):
        whole = reports.spend(book, by=by)
        found = reports.spend(book, by=by, top=top)
        assert total == whole.total
        assert total == found.total
        assert len(whole.rows) == sum(row.groups for row in found.rows)
        dearest = sorted((row.cost_micros_usd for row in whole.rows), reverse=True)[:top]
        kept = found.rows[:top]
        assert dearest == sorted((row.cost_micros_usd for row in kept), reverse=True)
        assert {"other"} == {value for row in found.rows[top:] for value in row.group.values()} or (
            len(whole.rows) <= top
        )


def at_times(scribe: Any, *times: datetime) -> Ledger:  # noqa: ANN401 - the conftest's own
    """Return books in which each of these times cost one micro-USD more than the one before."""
    scribe.pool("team")
    for number, at in enumerate(times):
        scribe.append("team", "correction", at=at, usage_total_tokens=0,
                      usage_cost_micros_usd=number + 1)  # fmt: skip
    book: Ledger = scribe.book
    return book


def test_days_of_23_and_25_hours(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """Days end at local midnight on the days on which clocks are set, too."""
    spring = [datetime(2024, 3, 31, hour, 59, 59, 999_999, tzinfo=UTC) for hour in (21, 22)]
    autumn = [datetime(2024, 10, 27, hour, 0, tzinfo=UTC) for hour in (22, 23)]
    before = [datetime(2024, 3, 30, 22, 59, tzinfo=UTC), datetime(2024, 3, 30, 23, tzinfo=UTC)]
    found = reports.spend(
        at_times(scribe, *spring, *autumn, *before), by=["day"], zone="Europe/Berlin"
    )
    assert [
        ("2024-03-30", 5),
        ("2024-03-31", 6 + 1),
        ("2024-04-01", 2),
        ("2024-10-27", 3),
        ("2024-10-28", 4),
    ] == [(row.group["day"], row.cost_micros_usd) for row in found.rows]


def test_an_hour_that_comes_twice_is_two(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """In autumn the hour from two to three is there twice, and in the order of time."""
    found = reports.spend(
        at_times(
            scribe,
            datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
            datetime(2024, 10, 27, 1, 30, tzinfo=UTC),
        ),
        by=["hour"],
        zone="Europe/Berlin",
    )
    assert ["2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00"] == [
        row.group["hour"] for row in found.rows
    ]
    (line,) = trend(found)
    assert line.startswith("USD by hour, 2024-10-27T02:00+02:00 to 2024-10-27T02:00+01:00")


@pytest.mark.parametrize(
    ("zone", "at", "days"),
    [
        # Clocks were set at one minute past midnight, back into the day before.
        ("America/St_Johns", "2010-11-07T02:30:00Z", ["2010-11-06", "2010-11-07"]),
        # 44 minutes and 30 seconds behind, until 1972.
        ("Africa/Monrovia", "1971-05-05T00:44:00Z", ["1971-05-04", "1971-05-05"]),
        # Before 1970 time is counted downwards.
        ("UTC", "1969-12-31T23:59:59.500000Z", ["1969-12-31", "1970-01-01"]),
        # A day that was left out altogether.
        ("Pacific/Apia", "2011-12-30T09:59:59Z", ["2011-12-29", "2011-12-31"]),
    ],
)
def test_odd_zones(scribe: Any, zone: str, at: str, days: list[str]) -> None:  # noqa: ANN401
    """Distances from UTC that are no quarter hours, and clocks that are set at odd times."""
    seconds = [0, 1, 29, 30, 31, 60, 61]
    times = [datetime.fromisoformat(at) + timedelta(seconds=second) for second in seconds]
    expected: dict[str, int] = defaultdict(int)
    for number, time in enumerate(times):
        expected[str(time.astimezone(ZoneInfo(zone)).date())] += number + 1
    assert sorted(days) == sorted(expected)
    found = reports.spend(at_times(scribe, *times), by=["day"], zone=zone)
    assert expected == {row.group["day"]: row.cost_micros_usd for row in found.rows}


def test_the_ends_of_the_calendar(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """The first and the last moment that a time can be have a bucket in every zone."""
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    book = at_times(scribe, *ends)
    for zone in ("Asia/Tokyo", "America/New_York", "UTC"):
        for unit in ("hour", "day", "week", "month"):
            found = reports.spend(book, by=[unit], zone=zone)
            assert [1, 2] == [row.cost_micros_usd for row in found.rows]


def test_an_empty_store(book: Ledger) -> None:
    """Nothing was spent: no rows, and a total of nothing."""
    for by in ([], ["model"], ["day", "pool"]):
        found = reports.spend(book, by=by)
        assert ([], Figures()) == (found.rows, found.total)


def test_sums_above_63_bits_are_exact(book: Ledger, call: Callable[..., object]) -> None:
    """Neither database overflows or rounds, whatever is grouped by."""
    book.pool("team", SharedPoolBudgetOptions())
    for _ in range(3):
        call(book, "team", UsageEstimate(), Usage(total_tokens=I64_MAX, cost_micros_usd=I64_MAX))
    for by in ([], ["day"], ["tag:x"]):
        (row,) = reports.spend(book, by=by).rows
        assert (3 * I64_MAX, 3 * I64_MAX) == (row.total_tokens, row.cost_micros_usd_reported)


@pytest.mark.parametrize(
    "given",
    [
        {"by": ["colour"]},
        {"by": ["tag:"]},
        {"by": "model"},
        {"by": ["model", "model"]},
        {"zone": "Mars/Olympus"},
        {"zone": "../etc"},
        {"top": -1},
    ],
)
def test_what_is_refused(book: Ledger, given: dict[str, Any]) -> None:
    """A dimension or time zone that is none, and a number of groups that is none."""
    with pytest.raises(InvalidInputError):
        reports.spend(book, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"since": datetime(2024, 1, 1)},  # noqa: DTZ001 - that is the point
        {"until": datetime(2024, 1, 1)},  # noqa: DTZ001 - likewise
        {"since": UNTIL, "until": SINCE},
        {"pools": "team"},
        {"pools": [""]},
        {"model": ""},
        {"tags": {"": "x"}},
        {"tags": [("a", "b")]},
        {"as_of": 1},
        {"as_of": 1, "pools": ["a", "b"]},
        {"as_of": 1, "pools": ["a"], "descendants": True},
        {"as_of": -1, "pools": ["a"]},
        {"basis": "recorded"},
        {"parent": ""},
        {"matching": ""},
        {"state": "open"},
        {"as_of": 1, "pools": ["a"], "matching": "*"},
    ],
)
def test_filters_that_are_none(given: dict[str, Any]) -> None:
    """A time without a zone, a range that ends before it begins, and the like."""
    with pytest.raises(InvalidInputError):
        Filter(**given)


def test_an_unknown_pool_is_named(busy: Ledger) -> None:
    """Wherever it stands in a filter."""
    with pytest.raises(UnknownPoolError, match="no pool 'nope'"):
        reports.spend(busy, Filter(pools=["team", "nope"]))


def test_as_of_is_the_same_for_ever(busy: Ledger, call: Callable[..., object]) -> None:
    """What is appended later changes nothing, not even whether a lease is open."""
    where = Filter(pools=["team"], as_of=4)
    before = reports.runs(busy, where)
    call(busy, "team", UsageEstimate(total_tokens=7), Usage(total_tokens=9), run="one")
    assert before == reports.runs(busy, where)
    for seq in (0, 99):
        with pytest.raises(InvalidInputError, match="entries 1 to 11"):
            reports.runs(busy, Filter(pools=["team"], as_of=seq))


def test_a_call_is_one_row(book: Ledger) -> None:
    """Under the model that answered, also where a model is asked for; an open one as it was asked.

    The view has the same rows.
    """
    budget = book.pool("team", SharedPoolBudgetOptions())
    asked = RequestExtensions(Attribution(model="gpt", provider="openai"))
    estimate = UsageEstimate(total_tokens=9, cost_micros_usd=8)
    for _ in range(3):
        lease = budget.reserve(asked, estimate, RequestBudget.unlimited())
    budget.record_used(lease, Usage(total_tokens=7, cost_micros_usd=6), report=ANSWERED)
    budget.release(budget.reserve(asked, estimate, RequestBudget.unlimited()))

    def rows(where: Filter) -> list[tuple[object, ...]]:
        return [
            (row.group["model"], row.requests, row.estimated_total_tokens, row.total_tokens)
            for row in reports.spend(book, where).rows
        ]

    assert [("gpt-2024", 1, 9, 7), ("gpt", 3, 27, 0)] == rows(Filter())
    assert [("gpt-2024", 1, 9, 7)] == rows(Filter(model="gpt-2024"))
    assert [("gpt", 3, 27, 0)] == rows(Filter(model="gpt"))
    assert [("gpt", 3, 27, 0)] == rows(Filter(pools=["team"], as_of=4))
    view = text("SELECT model, requests, total_tokens FROM spend_by_day ORDER BY model")
    assert [("gpt", 3, 0), ("gpt-2024", 1, 7)] == [
        tuple(row) for row in book.read(lambda connection: connection.execute(view).all())
    ]


ANSWERED = UsageReport(model="gpt-2024")
