"""Pages in a real browser, headless: Debian's `chromium`, or the one in LEDGER_TEST_CHROMIUM."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger import (
    Attribution,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)
from ledger.core.checks import to_micros
from ledger.reports.overview import Overview, overview
from ledger.reports.page import whole_page, write_page

MALICE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


class Shown(NamedTuple):
    """A page in the browser, and what happened in it."""

    page: Any
    errors: list[str]
    requests: list[str]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a running browser; without one these tests fail, they are never skipped."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only these tests need it

    program = os.environ.get("LEDGER_TEST_CHROMIUM") or shutil.which("chromium")
    assert program, "no chromium; apt-get install chromium, or set LEDGER_TEST_CHROMIUM"
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overview]:
    """Return books of a month with pools that are limited, drained, unlimited and ill named."""
    folder = tmp_path_factory.mktemp("books")
    now = [NOON - timedelta(days=30)]
    with Ledger.open(
        f"sqlite:///{folder}/ledger.db",
        record_denials=True,
        clock=lambda: to_micros("now", now[0]),
    ) as book:
        fill(book, now)
        yield overview(book, now=now[0])


def fill(book: Ledger, now: list[datetime]) -> None:
    """Spend for a month."""
    chance = random.Random(5)
    limited = SharedPoolBudgetOptions(
        capacity_cost_micros_usd=60_000_000, stop_threshold_cost_micros_usd=5_000_000
    )
    for name, options in (
        ("research", limited),
        ("support", SharedPoolBudgetOptions(capacity_tokens=2_000_000)),
        ("sandbox", SharedPoolBudgetOptions()),
        (MALICE, SharedPoolBudgetOptions(capacity_cost_micros_usd=2_000_000)),
    ):
        book.pool(name, options)
    pools = ("research", "research", "support", "sandbox", MALICE)
    models = ("gpt-5", "claude-sonnet", "gemini-flash", MALICE)
    for call in range(300):
        now[0] += timedelta(seconds=8_640 * (0.2 + 1.6 * chance.random()))
        if call == 180:
            more = SharedPoolBudgetOptions(
                capacity_cost_micros_usd=80_000_000, stop_threshold_cost_micros_usd=5_000_000
            )
            book.adjust("research", more, reason="more work")
        who = Attribution(
            run_id=MALICE if call % 50 == 0 else f"nightly-{call // 10}",
            model=chance.choice(models),
        )
        _spend(book, chance.choice(pools), who, chance)
    for age_s in (90_000, 5_000, 30):
        now[0] = NOON + timedelta(days=1) - timedelta(seconds=age_s)
        tokens = UsageEstimate(total_tokens=1_000, cost_micros_usd=12_345)
        asked = RequestExtensions(Attribution(run_id=MALICE, model="gpt-5"))
        book.pool("sandbox").reserve(asked, tokens, RequestBudget.unlimited())
    now[0] = NOON + timedelta(days=1)


def _spend(book: Ledger, pool: str, who: Attribution, chance: random.Random) -> None:
    tokens = chance.randrange(500, 20_000)
    estimate = UsageEstimate(input_tokens=tokens, total_tokens=tokens, cost_micros_usd=tokens * 40)
    try:
        lease = book.pool(pool).reserve(RequestExtensions(who), estimate, RequestBudget.unlimited())
    except ThresholdExceededError:
        return
    used = tokens * chance.randrange(40, 120) // 100
    book.pool(pool).record_used(
        lease, Usage(input_tokens=used, total_tokens=used, cost_micros_usd=used * 37 + 1)
    )


@pytest.fixture(scope="session")
def file(found: Overview, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of these books."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(whole_page(found), path)
    return path


@pytest.fixture
def show(browser: Any, file: Path) -> Iterator[Callable[..., Shown]]:  # noqa: ANN401
    """Return a function that opens the page, draws it, and listens to what goes wrong."""
    contexts = []

    def opened(*, path: Path = file, **options: Any) -> Shown:  # noqa: ANN401 - the browser's own
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        errors: list[str] = []
        requests: list[str] = []
        page.on("console", lambda said: errors.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=all]", timeout=60_000)
        return Shown(page, errors, requests)

    yield opened
    for context in contexts:
        context.close()
