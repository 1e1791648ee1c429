"""Every report, rendering and export of a pool that ran dry on one axis, for each axis in turn."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path

import pytest

from ledger import (
    Attribution,
    Ledger,
    Limit,
    Period,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.cli import report
from ledger.cli.live import LastMinute, _pool_line
from ledger.core.axes import AXES, REQUESTS, Axis
from ledger.core.errors import PoolConflictError
from ledger.reports.charts import burn_down_pictures
from ledger.reports.page import whole_page, write_page
from ledger.reports.render import figure
from tests.conftest import STORES
from tests.migration.databases import connected

from .conftest import Ended

Run = Callable[..., Ended]

CAPACITY = 3_000_000
ASKED = UsageEstimate(total_tokens=1_000_000, cost_micros_usd=1_000_000)
NO_MEANING = re.compile(r"18[,.]?446[,.]?744")
"""2^64, less what is used, however it is written; in US dollars, too."""

FORMATS = ("table", "json", "csv")


def full(axis: Axis) -> int:
    """Return the capacity on an axis: that of three calls like `ASKED`."""
    return CAPACITY if axis.amount else 3


def limited(axis: Axis, **more: int) -> SharedPoolBudgetOptions:
    """Return a policy with a limit on one axis alone: three calls, each like `ASKED`."""
    limits = {axis.capacity: full(axis)} | more
    return SharedPoolBudgetOptions(**limits, window=Window(period=Period.MONTH))


def capacity_of(axis: Axis) -> str:
    """Return its capacity as people are shown it."""
    return figure(axis, full(axis))


@pytest.fixture(params=AXES, ids=[axis.name for axis in AXES])
def axis(request: pytest.FixtureRequest) -> Axis:
    """Return each axis in turn."""
    found: Axis = request.param
    return found


def run_dry(axis: Axis, url: str) -> str:
    """Spend a store's pool `team` to the last unit, and have it refuse a call; return its URL."""
    with Ledger.open(url, record_denials=True) as book:
        pool = book.pool("team", limited(axis))
        who = RequestExtensions()
        who.insert(Attribution(run_id="one", model="m"))
        for _ in range(3):
            lease = pool.reserve(who, ASKED, RequestBudget.unlimited())
            pool.record_used(lease, Usage.from_estimate(ASKED))
        with pytest.raises(ThresholdExceededError):
            pool.reserve(who, ASKED, RequestBudget.unlimited())
    return url


@pytest.fixture(scope="module")
def _made(module_store: Callable[..., str]) -> Callable[[str, Axis], str]:
    return cache(lambda store, axis: run_dry(axis, module_store(store)))


@pytest.fixture(params=STORES)
def dry(request: pytest.FixtureRequest, _made: Callable[[str, Axis], str], axis: Axis) -> str:
    """Return a store that ran dry, for all tests of this module that only read it."""
    return _made(request.param, axis)


@pytest.fixture
def own_dry(axis: Axis, store_url: str) -> str:
    """Return a store that ran dry, for a test that writes to it."""
    return run_dry(axis, store_url)


REPORTS = [
    ("pool", "list"),
    ("pool", "show", "team"),
    ("remaining", "team"),
    ("report", "forecast", "team"),
    ("report", "statement", "team"),
    ("report", "denials"),
    ("report", "denials", "--by", "model"),
    ("report", "spend"),
    ("report", "runs"),
    ("report", "runs", "--tree"),
    ("report", "estimates"),
    ("report", "leases"),
    ("report", "credits"),
    ("leases", "list", "team"),
]
DRAWN = {"page", "chart"}
"""The reports that are files of pictures and tables; further down."""


def test_every_report_is_gone_over() -> None:
    """A new one fails here until it stands in the list."""
    known = {one.name for one in report.app.registered_commands}
    assert known == DRAWN | {words[1] for words in REPORTS if words[0] == "report"}


def test_no_report_shows_what_is_left_of_an_unlimited_axis(ledger: Run, dry: str) -> None:
    """Neither 2^64-1 nor what remains of it stands in any report, for people or programs."""
    # What is written of the same rows is the same on both databases.
    formats = FORMATS if dry.startswith("sqlite") else FORMATS[:1]
    for words, output in itertools.product(REPORTS, formats):
        found = ledger(*words, "--format", output, "--url", dry)
        assert not NO_MEANING.search(found.out), words
        assert found.out, words
    assert not NO_MEANING.search(ledger("metrics", "--url", dry).out)


@pytest.mark.parametrize("words", [("pool", "list"), ("pool", "show", "team")], ids=" ".join)
def test_pools_show_the_axis_that_is_limited(
    ledger: Run, dry: str, axis: Axis, words: tuple[str, ...]
) -> None:
    """A pool has columns for the axis, its capacity stands there, and others are unlimited."""
    out = ledger(*words, "--url", dry).out
    assert axis.shown in out
    assert capacity_of(axis) in out
    assert "unlimited" in out


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        (("pool", "list"), ("policy", "own", "remaining")),
        (("pool", "show", "team"), ("policy", "remaining")),
        (("remaining", "team"), ("",)),
    ],
    ids=["list", "show", "remaining"],
)
def test_unlimited_is_null_in_json(
    ledger: Run, dry: str, axis: Axis, words: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    """No number stands for it: programs see null, of the capacity and of what is left."""
    (found,) = json.loads(ledger(*words, "--format", "json", "--url", dry).out)
    for group in groups:
        part = found[group] if group else found
        for one in AXES:
            amount = part[one.capacity if group == "policy" else one.name]
            assert (amount is None) == (one is not axis), (group, one)


def test_unlimited_is_null_in_json_of_forecasts(ledger: Run, dry: str, axis: Axis) -> None:
    """Each axis is a row there."""
    (found,) = json.loads(
        ledger("report", "forecast", "team", "--format", "json", "--url", dry).out
    )
    assert {one.name: one is not axis for one in AXES} == {
        row["axis"]: row["capacity"] is None and row["remaining"] is None for row in found["axes"]
    }


def test_open_leases_show_what_they_hold_of_it(ledger: Run, store_url: str, axis: Axis) -> None:
    """The list of a pool's leases has a column for it, and so have the views."""
    with Ledger.open(store_url) as book:
        book.pool("team", limited(axis)).reserve(
            RequestExtensions(), ASKED, RequestBudget.unlimited()
        )
    held = 1 if axis.amount is None else 1_000_000
    table = ledger("leases", "team", "--url", store_url).out
    assert axis.shown in table
    assert figure(axis, held) in table
    assert axis.only_if_limited == (REQUESTS.shown in table)
    with connected(store_url) as connection:
        for view in ("journal", "lease_summary"):
            shown = f"SELECT MAX(held_{axis.name}) FROM {view}"
            assert held == connection.exec_driver_sql(shown).scalar()


def test_the_statement_moves_on_the_axis(ledger: Run, dry: str, axis: Axis) -> None:
    """A line for each entry has the axis among its columns."""
    heading = ledger("report", "statement", "team", "--url", dry).out
    assert axis.shown in heading


def test_a_pool_that_ran_out_is_said_to_have_run_out(ledger: Run, dry: str, axis: Axis) -> None:
    """The forecast says so of the axis that ran out, and of the others that they have no limit."""
    lines = ledger("report", "forecast", "team", "--url", dry).out.splitlines()
    for other in AXES:
        (line,) = [one for one in lines if one.split()[:1] == [other.shown] and " left," not in one]
        said = "it has run out" if other is axis else "never: unlimited"
        assert said in line


def test_what_was_spent_and_how_fast_is_told_of_each_axis(dry: str, axis: Axis) -> None:
    """What three calls spent is what the forecast says that they spent."""
    with Ledger.open(dry) as book:
        (found,) = [one for one in reports.forecast(book, "team").axes if one.axis == axis.name]
    assert full(axis) == found.spent == found.capacity
    assert found.per_day > 0
    assert (0, reports.Outlook.OUT) == (found.remaining, found.outlook)


def test_a_denial_says_how_much_more_of_that_axis_would_have_let_it_in(
    own_dry: str, axis: Axis
) -> None:
    """The increase is that of the axis which ran out, and 0 of the others: with it, it fits."""
    asked = 1 if axis.amount is None else 1_000_000
    wanted = {other.name: asked if other is axis else 0 for other in AXES}
    left = {other.name: 0 if other is axis else None for other in AXES}
    with Ledger.open(own_dry) as book:
        (denied,) = reports.denials(book)
        (group,) = reports.denials_by(book)
        assert wanted == {name: getattr(denied, f"increase_{name}") for name in wanted}
        assert left == {name: getattr(denied, f"remaining_{name}") for name in left}
        for name, more in wanted.items():
            part = getattr(group, name)
            assert (more, more, more, more) == (part.half, part.most, part.each, part.all)
        book.adjust("team", limited(axis, **{axis.capacity: full(axis) + asked}))
        book.pool("team").reserve(RequestExtensions(), ASKED, RequestBudget.unlimited())


def test_people_read_in_the_denials_what_was_short(ledger: Run, dry: str, axis: Axis) -> None:
    """The table names the axis of the increase, and the figure."""
    asked = figure(axis, 1 if axis.amount is None else 1_000_000)
    wide = ledger("report", "denials", "--wide", "--url", dry).out
    assert f"More {axis.shown}" in " ".join(wide.split()) or axis.shown in wide
    assert asked in ledger("report", "denials", "--by", "model", "--url", dry).out


def test_the_burn_down_falls_to_nothing(dry: str, axis: Axis, tmp_path: Path) -> None:
    """The picture is that of the axis that is limited, and the newest point of it is 0."""
    with Ledger.open(dry) as book:
        found = reports.burn_down(book, "team")
        assert [axis.name] == list(burn_down_pictures(found))
        last = found.points[-1]
        assert 0 == getattr(last, f"remaining_{axis.name}")
        assert full(axis) == getattr(last, axis.capacity)
        for other in AXES:
            if other is not axis:
                assert getattr(last, other.capacity) is None
                assert getattr(last, f"remaining_{other.name}") is None
        page = tmp_path / "page.html"
        write_page(whole_page(reports.overview(book)), page)
    text = page.read_text()
    assert f"Pool team: {axis.shown} remaining" in text
    assert not NO_MEANING.search(text)


def test_the_chart_of_each_axis_can_be_asked_for(
    ledger: Run, dry: str, axis: Axis, tmp_path: Path
) -> None:
    """`--axis` takes every axis by the name that people see, and refuses those without a limit."""
    for other in AXES:
        out = tmp_path / f"{other.name}.svg"
        words = ("--pool", "team", "--axis", other.shown.lower(), "--out", out, "--url", dry)
        ended = ledger("report", "chart", "burn-down", *words, code=0 if other is axis else 2)
        assert out.exists() == (other is axis), ended.err


def test_the_live_view_shows_the_axis_that_ran_out(ledger: Run, dry: str, axis: Axis) -> None:
    """Its bar is full, of that axis, and what is printed once has no figure without a meaning."""
    assert not NO_MEANING.search(ledger("top", "--once", "--url", dry).out)
    with Ledger.open(dry) as book:
        cells = [str(cell) for cell in _pool_line(book.pool("team").status(), LastMinute())]
    _name, bar, capacity, committed, held, left, unit, _rate = cells
    assert bar.endswith("100%")
    assert [capacity_of(axis)] * 2 == [capacity, committed]
    assert [figure(axis, 0)] * 2 == [held, left]
    assert axis.shown == unit


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_no_export_holds_what_is_left_of_an_unlimited_axis(
    ledger: Run, dry: str, tmp_path: Path, form: str
) -> None:
    """The denial's own figures are among what is exported, and say nothing of such an axis."""
    out = tmp_path / f"entries.{form}"
    ledger("export", out, "--format", form, "--url", dry)
    text = out.read_text()
    assert "denial" in text
    assert not NO_MEANING.search(text)


def test_errors_call_an_unlimited_axis_so(own_dry: str, axis: Axis) -> None:
    """A refusal says `unlimited` in a store, in memory, and when it is told again by its key."""
    with Ledger.open(own_dry) as book:
        for pool in (book.pool("team"), SharedPoolBudgetManager(limited(axis, **_nothing(axis)))):
            with pytest.raises(ThresholdExceededError) as denied:
                pool.reserve(RequestExtensions(), ASKED, RequestBudget.unlimited())
            others = {other.name for other in AXES if other is not axis}
            assert others == denied.value.unlimited
            assert not NO_MEANING.search(str(denied.value))
            assert "unlimited" in str(denied.value)
        with pytest.raises(PoolConflictError) as conflict:
            book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1))
        assert not NO_MEANING.search(str(conflict.value))


def _nothing(axis: Axis) -> dict[str, int]:
    return {axis.capacity: 0}


def test_what_remains_knows_which_axes_are_unlimited(own_dry: str, axis: Axis) -> None:
    """Memory and stores agree, alone and below a pool that limits another axis."""
    with Ledger.open(own_dry) as book:
        pool = book.pool("team")
        memory = SharedPoolBudgetManager(limited(axis))
        for left in (pool.remaining(RequestExtensions()), memory.remaining(RequestExtensions())):
            assert {axis.name} == {one.name for one in AXES if not left.is_unlimited(one.name)}
        for other in AXES:
            book.pool(f"below {other.name}", limited(other), parent="team")
            below = book.pool(f"below {other.name}").remaining(RequestExtensions())
            limits = {one.name for one in AXES if not below.is_unlimited(one.name)}
            assert {axis.name, other.name} == limits


def test_no_value_is_printed_with_what_is_left_of_an_unlimited_axis(dry: str, axis: Axis) -> None:
    """`repr` says unlimited of policies, windows, limits, what remains, and within every report."""
    seen: list[object] = [Window(Period.DAY, carry_over=True), limited(axis)]
    seen += [Limit(name="day", period=Window(Period.DAY), **{axis.capacity: 1})]
    memory = SharedPoolBudgetManager(limited(axis))
    with Ledger.open(dry) as book:
        pool = book.pool("team")
        seen += [memory.remaining(RequestExtensions()), pool.remaining(RequestExtensions())]
        assert all("=unlimited" in repr(one) for one in seen)
        seen += [pool.status(), book.pools(), *book.entries("team")]
        of_all = (
            *(reports.overview, reports.glance, reports.standing, reports.leases, reports.due),
            *(reports.denials, reports.denials_by, reports.credits, reports.spend, reports.runs),
        )
        for ask in of_all:
            found = ask(book)
            seen += [found] if is_dataclass(found) else [*found]
        for ask in (reports.forecast, reports.burn_down, reports.statement):
            seen.append(ask(book, "team"))
    for one in seen:
        assert not NO_MEANING.search(repr(one)), one
