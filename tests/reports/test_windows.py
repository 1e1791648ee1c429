"""Reports of pools whose capacity comes back: what remained is what remained of the window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ledger import (
    JournalDamagedError,
    Ledger,
    Limit,
    RequestBudget,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
    reports,
)
from ledger.core import rules
from ledger.core.checks import to_micros
from ledger.engine.operations import Reserve
from ledger.reports import Increase, Outlook
from tests.clocks import HOUR_US

POLICY = SharedPoolBudgetOptions(
    capacity_tokens=100, window=Window(period=timedelta(hours=1), carry_over=True)
)


@pytest.fixture
def now() -> list[int]:
    """Return the time, in a list so that it can be changed."""
    return [400_000 * HOUR_US]


@pytest.fixture
def hourly(store_url: str, now: list[int]) -> Iterator[Ledger]:
    """Return books with three windows of an hour, and a denial in the second and the third.

    ====== ========= ======= =========
    window carried   spent   denied
    ====== ========= ======= =========
    1      0         80
    2      20        70      60
    3      50        0       200
    ====== ========= ======= =========
    """
    with Ledger.open(store_url, record_denials=True, clock=lambda: now[0]) as book:
        book.pool("team", POLICY)
        spend(book, 80)
        now[0] += HOUR_US
        spend(book, 70)
        deny(book, 60)
        now[0] += HOUR_US
        deny(book, 200)
        yield book


def spend(book: Ledger, tokens: int) -> None:
    """Reserve and settle."""
    budget = book.pool("team")
    asked = RequestExtensions(), UsageEstimate(total_tokens=tokens), RequestBudget.unlimited()
    budget.record_used(budget.reserve(*asked), Usage(total_tokens=tokens))


def deny(book: Ledger, tokens: int) -> None:
    """Ask for too much."""
    asked = RequestExtensions(), UsageEstimate(total_tokens=tokens), RequestBudget.unlimited()
    with pytest.raises(ThresholdExceededError):
        book.pool("team").reserve(*asked)


def test_a_statement_s_remaining_is_of_its_window(hourly: Ledger) -> None:
    """Balances go on over windows; what remained is of the window of the last entry."""
    found = reports.statement(hourly, "team")
    assert (Totals(150, 0, 2), 150) == (found.closing.committed, found.remaining.tokens)
    rollovers = next(one for one in found.movements if one.kind == "rollover")
    assert (2, Totals(), Totals()) == (rollovers.entries, rollovers.committed, rollovers.reserved)
    for seq, left in ((1, 100), (2, 20), (3, 20), (4, 120), (6, 50), (8, 150)):
        assert left == reports.statement(hourly, "team", as_of=seq).remaining.tokens


def test_what_would_have_let_a_denial_in(hourly: Ledger) -> None:
    """The capacity that was missing in that window, and not in the pool's whole life."""
    found = list(reports.denials(hourly, "team"))
    assert [(60, 50, 10), (200, 150, 50)] == [
        (one.requested_tokens, one.remaining_tokens, one.increase_tokens) for one in found
    ]
    for one in found:
        at = next(entry for entry in hourly.entries("team") if entry.seq == one.seq)
        began = next(entry for entry in hourly.entries("team") if entry.seq == at.window_seq)
        assert at.estimate is not None
        for more, admitted in ((one.increase_tokens, True), (one.increase_tokens - 1, False)):
            policy = replace(POLICY, capacity_tokens=100 + more)
            denial = rules.admit(
                policy, at.balance, at.estimate, RequestBudget.unlimited(), began.window
            )
            assert admitted == (denial is None)


def test_denials_of_two_windows_do_not_add_up(hourly: Ledger) -> None:
    """What lets the first one in is there again when the second one asks."""
    (group,) = reports.denials_by(hourly, "team", by=["reason"])
    assert Increase(half=10, most=50, each=50, all=50) == group.tokens
    deny(hourly, 160)
    (group,) = reports.denials_by(hourly, "team", by=["reason"])
    assert group.tokens is not None
    assert 200 + 160 - 150 == group.tokens.all


def test_a_forecast_starts_from_what_remains_of_the_window(hourly: Ledger, now: list[int]) -> None:
    """Of the window that it is by then; and it says that it assumes no further one."""
    spend(hourly, 30)
    for later_us, left in ((1, 120), (HOUR_US, 220)):
        found = reports.forecast(hourly, "team", now=from_micros(now[0] + later_us))
        tokens = found.axes[0]
        assert (100, left, 180) == (tokens.capacity, tokens.remaining, tokens.spent)
        assert found.capacity_stays


def test_a_window_that_cannot_be_read_is_named(hourly: Ledger, store_url: str) -> None:
    """A report guesses no base."""
    address = sa.make_url(store_url)
    if address.get_backend_name() == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("ALTER TABLE entries DISABLE TRIGGER ALL"))
        else:
            found = connection.execute(
                sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            )
            for name in found.scalars().all():
                connection.execute(sa.text(f"DROP TRIGGER {name}"))
        connection.execute(sa.text("UPDATE entries SET detail = '{}' WHERE kind = 'rollover'"))
    with pytest.raises(JournalDamagedError, match="begin a window"):
        reports.statement(hourly, "team")
    with pytest.raises(JournalDamagedError, match="begin a window"):
        list(reports.denials(hourly, "team"))


def test_a_forecast_ends_where_capacity_comes_back(hourly: Ledger, now: list[int]) -> None:
    """It says that the pool refills before it would run out, and when one that is out refills."""
    ends = from_micros(now[0] + HOUR_US)
    spend(hourly, 30)
    now[0] += HOUR_US // 3
    tokens = reports.forecast(hourly, "team").axes[0]
    assert (Outlook.REFILLS, None, ends) == (tokens.outlook, tokens.runs_out_at, tokens.refills_at)
    spend(hourly, 110)
    tokens = reports.forecast(hourly, "team").axes[0]
    assert (Outlook.RUNS_OUT, ends) == (tokens.outlook, tokens.refills_at)
    assert tokens.runs_out_at is not None
    assert tokens.runs_out_at < ends
    spend(hourly, 10)
    tokens = reports.forecast(hourly, "team").axes[0]
    assert (Outlook.OUT, ends) == (tokens.outlook, tokens.refills_at)


def test_a_forecast_counts_the_limits_of_a_policy(store_url: str, now: list[int]) -> None:
    """A limit of the calendar like a window, a rolling one until anything comes back to it."""
    policy = SharedPoolBudgetOptions(
        limits=[
            Limit(name="hour", period=Window(period=timedelta(hours=1)), capacity_tokens=100),
            Limit(name="any", period=Rolling(timedelta(minutes=50)), capacity_tokens=80),
        ],
    )
    with Ledger.open(store_url, clock=lambda: now[0]) as book:
        book.pool("team", policy)
        book.pool("below", SharedPoolBudgetOptions(), parent="team")
        now[0] += HOUR_US // 4
        ends = from_micros(now[0] + 3 * HOUR_US // 4)
        found = []
        for spent in (10, 60, 10):
            spend(book, spent)
            now[0] += 1
            below = reports.forecast(book, "below").axes[0]
            tokens = reports.forecast(book, "team").axes[0]
            assert below == replace(tokens, spent=0, per_day=below.per_day)
            assert ("team", book.pool("team").status().remaining.tokens) == (
                tokens.decided_by,
                tokens.remaining,
            )
            found.append((tokens.outlook, tokens.limit, tokens.refills_at))
    assert [
        (Outlook.REFILLS, "hour", ends),
        (Outlook.RUNS_OUT, "any", None),
        (Outlook.OUT, "any", None),
    ] == found


def test_a_burn_down_refills_when_its_window_ends(hourly: Ledger, now: list[int]) -> None:
    """And not at the next entry, nor at the next look; the last point is what is left by now."""
    opened = 400_000 * HOUR_US
    now[0] += HOUR_US // 2
    points = [
        ((to_micros("at", one.at) - opened) / HOUR_US, one.remaining_tokens)
        for one in reports.burn_down(hourly, "team").points
    ]
    # Each amount when it was first reached: spent, refilled, spent, refilled.
    assert [(0, 100), (0, 20), (1, 120), (1, 50), (2, 150)] == [
        next(group) for _left, group in itertools.groupby(points, key=lambda point: point[1])
    ]
    now[0] += 10 * HOUR_US
    last = reports.burn_down(hourly, "team").points[-2:]
    assert [(from_micros(opened + 3 * HOUR_US), 250), (from_micros(now[0]), 1_150)] == [
        (one.at, one.remaining_tokens) for one in last
    ]


def test_whoever_waits_sees_that_a_window_has_ended(hourly: Ledger, now: list[int]) -> None:
    """Capacity that comes back with time alone is found, although nothing was written."""
    spend(hourly, 150)
    now[0] += HOUR_US
    budget = hourly.pool("team")
    operation = Reserve.of(
        RequestExtensions(),
        UsageEstimate(total_tokens=90),
        RequestBudget.unlimited(),
        keep_denial=False,
    )
    assert hourly._waiting._is_worth_it(budget._journal, operation)
