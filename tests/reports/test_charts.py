"""Pictures: what they plot is what the reports say, and files need no browser."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ledger import (
    Credit,
    ExportError,
    InvalidInputError,
    Ledger,
    Limit,
    MissingExtraError,
    Rolling,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.reports import Figures, RunCost, Spend, SpendRow, charts
from ledger.reports.render import forecast_sheet, moment, sparkline

Call = Callable[..., Any]


def rows(picture: charts.Picture) -> list[dict[str, Any]]:
    """Return the rows that a picture draws."""
    found: list[dict[str, Any]] = picture.chart.to_dict()["data"]["values"]
    return found


@pytest.fixture
def pictures(busy: Ledger) -> dict[str, charts.Picture]:
    """Return every kind of picture of known books."""
    return {
        "burn-down": charts.burn_down_pictures(reports.burn_down(busy, "team"))["tokens"],
        "spend": charts.spend_picture(reports.spend(busy, by=["day", "model"])),
        "runs": charts.runs_picture(reports.runs(busy)),
        "estimates": charts.estimates_picture(reports.estimates(busy, by=["model"])),
    }


def test_the_last_point_is_what_remains(busy: Ledger, pictures: dict[str, charts.Picture]) -> None:
    """A burn-down ends at the pool's balance, under its capacity, in words as well."""
    left = busy.pool("team").status().remaining.tokens
    drawn = [row for row in rows(pictures["burn-down"]) if row["what"] == "remaining"]
    assert (left, f"{left:,}") == (drawn[-1]["amount"], drawn[-1]["exact"])
    assert f"{left:,} tokens of 5,000 remained at " in pictures["burn-down"].words
    assert {"remaining", "capacity", "stop threshold"} == {
        row["what"] for row in rows(pictures["burn-down"])
    }


def test_an_unlimited_pool_shows_what_was_spent(busy: Ledger) -> None:
    """Nothing can burn down where there is no limit: what is drawn rises."""
    (picture,) = charts.burn_down_pictures(reports.burn_down(busy, "other")).values()
    assert "0.000015" == rows(picture)[-1]["exact"]
    assert "no limit" in picture.words


def test_what_bounds_an_axis_is_named(book: Ledger) -> None:
    """An axis without a capacity is not unlimited where credits or limits bound it."""
    rate = Limit(name="rate", period=Rolling(timedelta(minutes=1)), capacity_requests=3)
    book.pool("team", SharedPoolBudgetOptions(prepaid=["cost_micros_usd"], limits=[rate]))
    book.credit("team", Credit(name="paid", cost_micros_usd=5_000))
    drawn = charts.burn_down_pictures(reports.burn_down(book, "team"))
    assert "0.005000 USD of its credits remained at " in drawn["cost_micros_usd"].words
    assert "3 requests of its limits remained at " in drawn["requests"].words
    shown = forecast_sheet(reports.forecast(book, "team")).rows
    assert ["unlimited", "prepaid", "by limits"] == [row[1] for row in shown]


def test_a_picture_of_earlier_calls_says_when_the_pool_was_opened(book: Ledger, call: Call) -> None:
    """Calls that were made before, and imported, have points before the opening."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=5_000))
    opened = reports.burn_down(book, "team")
    assert opened.points[0].at == opened.opened_at
    assert "opened" not in charts.burn_down_pictures(opened)["tokens"].words
    call(book, "team", UsageEstimate(total_tokens=1), after_noon_s=0)  # of a day long ago
    found = reports.burn_down(book, "team")
    assert found.points[0].at < found.opened_at == opened.opened_at
    words = charts.burn_down_pictures(found)["tokens"].words
    assert f"opened at {moment(opened.opened_at)}; calls of before that count in it." in words


def test_times_within_a_second_are_told_apart(pictures: dict[str, charts.Picture]) -> None:
    """A part of a second alone would be the same in each."""
    drawn = pictures["burn-down"].chart.to_dict()
    formats = [layer["encoding"]["x"]["axis"]["format"] for layer in drawn["layer"]]
    assert ["%H:%M:%S.%L"] * 2 == [one["milliseconds"] for one in formats]


def test_both_limits_are_drawn(book: Ledger) -> None:
    """A pool that is limited in dollars and in tokens has a picture of each."""
    both = SharedPoolBudgetOptions(capacity_tokens=5, capacity_cost_micros_usd=7)
    book.pool("team", both)
    drawn = charts.burn_down_pictures(reports.burn_down(book, "team"))
    assert ["cost_micros_usd", "tokens"] == list(drawn)


def test_the_pictures_say_what_the_reports_say(
    busy: Ledger, pictures: dict[str, charts.Picture]
) -> None:
    """Exact amounts stand beside the numbers that are drawn."""
    total = reports.spend(busy).total.cost_micros_usd
    assert 1_706 == total
    for name in ("spend", "runs"):
        assert total == sum(round(row["amount"] * 1_000_000) for row in rows(pictures[name]))
        assert total == sum(int(row["exact"].replace(".", "")) for row in rows(pictures[name]))
    used = [row for row in rows(pictures["estimates"]) if row["what"] == "used"]
    assert ["0.001706"] == [row["exact"] for row in used]


def test_the_dearest_run_comes_first(pictures: dict[str, charts.Picture]) -> None:
    """Runs are ordered by cost; calls without a run are one of them."""
    assert ["one", "(none)", "two"] == [row["run"] for row in rows(pictures["runs"])]


def test_runs_that_look_alike_are_two_bars() -> None:
    """A run that is called like no run does not add up with it."""
    found = [RunCost(run_id=name, cost_micros_usd=5) for name in (None, "(none)")]
    assert ["(none)", "(none) (2)"] == [row["run"] for row in rows(charts.runs_picture(found))]


def test_many_models_share_a_colour_and_nothing_is_lost() -> None:
    """Models beyond those that can be told apart are one, and the sum stays."""
    found = [
        SpendRow(group={"day": f"2024-02-0{day}", "model": f"m{n}"}, cost_micros_usd=n)
        for n in range(1, 21)
        for day in (1, 9)
    ]
    spent = Spend(by=("day", "model"), zone="UTC", rows=found, total=Figures(cost_micros_usd=420))
    picture = charts.spend_picture(spent)
    assert 8 == len({row["model"] for row in rows(picture)})
    assert 420 == sum(round(row["amount"] * 1_000_000) for row in rows(picture))
    domain = picture.chart.to_dict()["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert [f"2024-02-0{day}" for day in range(1, 10)] == domain


def test_nothing_spent_is_drawn_too(book: Ledger) -> None:
    """Empty books make empty pictures and no error."""
    for picture in (
        charts.spend_picture(reports.spend(book, by=["day", "model"])),
        charts.runs_picture(reports.runs(book)),
        charts.estimates_picture(reports.estimates(book, by=["model"])),
    ):
        assert [] == rows(picture)


def test_files_are_written_without_a_browser(
    pictures: dict[str, charts.Picture], tmp_path: Path
) -> None:
    """SVG that is XML and shows the title, PNG that is PNG, of every kind of picture."""
    for name, picture in pictures.items():
        file = tmp_path / f"{name}.svg"
        picture.save(file)
        shown = "".join(ET.fromstring(file.read_text(encoding="utf-8")).itertext())  # noqa: S314 - our own
        assert picture.title in shown
    file = tmp_path / "runs.PNG"
    pictures["runs"].save(file)
    assert b"\x89PNG" == file.read_bytes()[:4]


def test_a_name_that_is_markup_stays_text(book: Ledger, call: Call, tmp_path: Path) -> None:
    """A run whose name is a script is text in the SVG."""
    book.pool("team", SharedPoolBudgetOptions())
    call(
        book, "team", UsageEstimate(total_tokens=1), Usage(total_tokens=1), run="<script>x</script>"
    )
    file = tmp_path / "runs.svg"
    charts.runs_picture(reports.runs(book)).save(file)
    assert "<script" not in file.read_text(encoding="utf-8")


def test_other_files_are_refused(pictures: dict[str, charts.Picture], tmp_path: Path) -> None:
    """The ending says which picture is wanted, and the folder must be there."""
    with pytest.raises(InvalidInputError, match=r"must end in \.png or \.svg"):
        pictures["runs"].save(tmp_path / "runs.gif")
    with pytest.raises(ExportError, match="No such file or directory"):
        pictures["runs"].save(tmp_path / "nowhere" / "runs.svg")


def test_without_altair_the_extra_is_named(busy: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed the extra is told which one it is."""
    found = reports.runs(busy)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(MissingExtraError, match=r"budget-ledger\[html\]"):
        charts.runs_picture(found)


@pytest.mark.parametrize(
    ("amounts", "bars"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 1, 7], "▁▂█"),
        ([1, 10**18], "▂█"),
        ([-5, 5], "▁█"),
        ([9] * 70, "█" * 60),
    ],
)
def test_a_sparkline(amounts: list[int], bars: str) -> None:
    """The largest is the highest, and only nothing looks like nothing."""
    assert bars == sparkline(amounts)
