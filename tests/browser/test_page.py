"""The page as a reader has it: drawn, sorted, in dark and light, on a phone and on paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.reports import Figures
from ledger.reports.overview import Overview
from ledger.reports.render import usd

pytestmark = pytest.mark.browser

Show = Callable[..., Any]

SECTIONS = (
    "Pools",
    "Spend per day by model",
    "The most expensive runs",
    "Estimated against actual",
    "Leases",
    "Verification",
)


def table(page: Any, section: str, number: int = 0) -> list[list[str]]:  # noqa: ANN401
    """Return the lines of a section's table as a reader sees them, the foot last."""
    place = page.locator("section", has=page.get_by_role("heading", name=section, exact=True))
    found: list[list[str]] = (
        place.locator("table")
        .nth(number)
        .evaluate(
            "table => [...table.rows].slice(1).map("
            "row => [...row.cells].map(cell => cell.textContent.trim()))"
        )
    )
    return found


def column(page: Any, section: str, heading: str, number: int = 0) -> list[str]:  # noqa: ANN401
    """Return a column of a section's table, without the foot."""
    place = page.locator("section", has=page.get_by_role("heading", name=section, exact=True))
    found: list[str] = (
        place.locator("table")
        .nth(number)
        .evaluate(
            """(table, heading) => {
            const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent.trim());
            return [...table.tBodies[0].rows].map(
                row => row.cells[heads.indexOf(heading)].textContent.trim());
        }""",
            heading,
        )
    )
    return found


def test_nothing_goes_wrong_and_nothing_is_loaded(show: Show, file: Path) -> None:
    """No error, no warning, no dialog, and no request but for the file itself."""
    shown = show()
    page = shown.page
    page.mouse.move(400, 600)
    assert [] == shown.errors
    assert [file.as_uri()] == [url for url in shown.requests if not url.startswith("data:")]
    assert "Budgets and spend" == page.title()
    assert list(SECTIONS) == page.locator("h2").all_text_contents()


def test_every_picture_is_drawn(show: Show) -> None:
    """Each place for a picture holds one with marks in it, which tells what it shows."""
    page = show().page
    places = page.locator("[data-chart]")
    assert places.count() >= 7
    for number in range(places.count()):
        place = places.nth(number)
        assert place.locator("svg path, svg rect").count() > 3
        assert "graphics-document" == place.get_attribute("role")
        label = place.get_attribute("aria-label")
        assert label
        assert label.split(".")[0] in place.locator("xpath=..").inner_text()


def test_the_figures_are_those_of_the_queries(show: Show, found: Overview) -> None:
    """Spend, runs, pools and leases: each figure on the page is the query's, to the millionth."""
    page = show().page
    spent = [usd(row.cost_micros_usd) for row in found.spend.rows]
    assert spent == column(page, "Spend per day by model", "Cost USD")
    assert usd(found.spend.total.cost_micros_usd) in table(page, "Spend per day by model")[-1]
    runs = sorted(found.runs, key=lambda row: -row.cost_micros_usd)[:20]
    assert [usd(row.cost_micros_usd) for row in runs] == column(page, SECTIONS[2], "Cost USD")
    assert [row.run_id for row in runs] == column(page, SECTIONS[2], "Run")
    left = [
        "unlimited"
        if one.policy.capacity_cost_micros_usd >= 2**63
        else usd(one.remaining.cost_micros_usd)
        for one in found.pools
    ]
    assert left == column(page, "Pools", "Remaining USD")
    held = [usd(row.held.cost_micros_usd) for row in found.leases.ages]
    assert held == column(page, "Leases", "Held USD")
    assert found.verified is not None
    assert [one.hash.hex() for one in found.verified] == column(
        page, "Verification", "Hash of the last one"
    )
    total: Figures = found.spend.total
    assert usd(total.cost_micros_usd) in page.locator(".tiles").inner_text()


def test_the_picture_draws_the_querys_numbers(show: Show, found: Overview) -> None:
    """What the marks of the spend picture say adds up to the total of the query."""
    page = show().page
    place = page.locator("section", has=page.get_by_role("heading", name=SECTIONS[1], exact=True))
    labels = place.locator("svg [aria-roledescription=bar]").evaluate_all(
        "marks => marks.map(mark => mark.getAttribute('aria-label'))"
    )
    assert labels
    micros = sum(
        round(1_000_000 * float(label.partition("; amount: ")[2].split(";")[0])) for label in labels
    )
    assert found.spend.total.cost_micros_usd == micros


def test_names_are_text(show: Show, found: Overview) -> None:
    """A run, a model and a pool whose names are HTML and scripts stay names."""
    shown = show()
    malice = next(one.pool.name for one in found.pools if "<script>" in one.pool.name)
    assert malice in column(shown.page, "Pools", "Pool")
    assert 0 == shown.page.locator("img").count()
    assert 2 == shown.page.locator("script:not([type='application/json'])").count()
    assert "Budgets and spend" == shown.page.title()
    assert [] == shown.errors


def test_no_other_script_runs(show: Show) -> None:
    """The page's own policy stops a script that is not one of its two, and every request."""
    shown = show()
    owned = shown.page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.owned = 1';
            document.head.append(script);
            const image = new Image();
            image.src = 'http://127.0.0.1:9/';
            document.body.append(image);
            return window.owned === 1;
        }"""
    )
    shown.page.wait_for_timeout(200)
    assert not owned
    assert 2 == sum("Content Security Policy" in error for error in shown.errors)


def test_a_tooltip_shows_the_exact_amount_as_text(show: Show) -> None:
    """Pointing at a bar shows its figures to the millionth, and names as text."""
    shown = show()
    page = shown.page
    place = page.locator("section", has=page.get_by_role("heading", name=SECTIONS[1], exact=True))
    place.locator("svg [aria-roledescription=bar][aria-label*='<script>']").first.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "</script><script>" in tip.inner_text()
    assert re.search(r"USD\s+\d+\.\d{6}", tip.inner_text())
    assert 0 == tip.locator("script, img").count()
    assert [] == shown.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light(show: Show, scheme: str) -> None:
    """Text stands out from what is behind it, in tables as in pictures."""
    page = show(color_scheme=scheme).page
    ink, card = page.evaluate(
        """() => {
            const bright = colour => colour.match(/[0-9.]+/g).slice(0, 3)
                .reduce((sum, part) => sum + Number(part), 0) / 3;
            const label = document.querySelector('svg .role-axis-label text');
            const section = document.querySelector('section');
            return [getComputedStyle(label).fill, getComputedStyle(section).backgroundColor]
                .map(bright);
        }"""
    )
    assert abs(ink - card) > 150
    assert (ink > card) == (scheme == "dark")


def test_a_phone_shows_it_without_scrolling_sideways(show: Show) -> None:
    """At 360 pixels only the tables scroll, each in its own place, and pictures fit."""
    page = show(viewport={"width": 360, "height": 740}).page
    assert 360 >= page.evaluate("document.documentElement.scrollWidth")
    for wide in page.locator("[data-chart] svg").all():
        box = wide.bounding_box()
        assert box["x"] + box["width"] <= 360


def test_it_prints(show: Show) -> None:
    """Paper has black on white and no more columns than fit; it becomes a PDF of some pages."""
    shown = show(color_scheme="dark")
    page = shown.page
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert b"%PDF" == pdf[:4]
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 without its margins
    for part in page.locator("table").all():
        assert part.bounding_box()["width"] <= 703
    assert "rgb(0, 0, 0)" == page.evaluate("getComputedStyle(document.body).color")
    assert [] == shown.errors


def test_tables_are_sorted_by_mouse_and_keyboard(show: Show, found: Overview) -> None:
    """A heading sorts by amount, not by text; again turns it round; aria-sort says so."""
    page = show().page
    place = page.locator("section", has=page.get_by_role("heading", name=SECTIONS[1], exact=True))
    head = place.get_by_role("columnheader", name="Cost USD", exact=True)
    costs = sorted((row.cost_micros_usd for row in found.spend.rows), reverse=True)
    head.get_by_role("button").click()
    assert "descending" == head.get_attribute("aria-sort")
    assert [usd(cost) for cost in costs] == column(page, SECTIONS[1], "Cost USD")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert "ascending" == head.get_attribute("aria-sort")
    assert [usd(cost) for cost in costs[::-1]] == column(page, SECTIONS[1], "Cost USD")
    assert "ascending" in page.locator("#said").inner_text()
    day = place.get_by_role("columnheader", name="Day", exact=True)
    day.get_by_role("button").click()
    assert None is head.get_attribute("aria-sort")
    assert [row.group["day"] for row in found.spend.rows] == column(page, SECTIONS[1], "Day")
    assert usd(found.spend.total.cost_micros_usd) in table(page, SECTIONS[1])[-1]


def test_unlimited_is_more_than_any_amount(show: Show) -> None:
    """A pool without a limit sorts above those with one, and lengths of time by their length."""
    page = show().page
    place = page.locator("section", has=page.get_by_role("heading", name="Pools", exact=True))
    place.get_by_role("columnheader", name="Capacity USD").get_by_role("button").click()
    assert ["unlimited", "unlimited", "80.000000", "2.000000"] == column(
        page, "Pools", "Capacity USD"
    )
    ages = page.get_by_role("columnheader", name="Age", exact=True).first
    for _twice in range(2):
        ages.get_by_role("button").click()
    assert "7d and more" == column(page, "Leases", "Age")[0]


def test_a_screen_reader_finds_its_way(show: Show) -> None:
    """Every table has a caption and scoped headings, every section a name, the page a language."""
    page = show().page
    assert "en" == page.locator("html").get_attribute("lang")
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert 0 == page.locator("th:not([scope])").count()
    for section in page.locator("section").all():
        assert page.locator(f"#{section.get_attribute('aria-labelledby')}").inner_text()
    assert 1 == page.get_by_role("main").count()
