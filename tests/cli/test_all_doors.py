"""What is left, now and until when: every door to the books says the same, on random books."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    BudgetError,
    BudgetLease,
    Credit,
    EntryKind,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    LedgerError,
    Limit,
    PoolStatus,
    Remaining,
    RequestExtensions,
    Rolling,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
    reports,
)
from ledger.core.axes import AXES, Axis
from ledger.reports.render import moment
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import DAY_US, Clock
from tests.conftest import STORES
from tests.fixtures import Run

STEPS = 70
AMOUNTS = (0, 1, 2, 3, 5, 8, 40)
TTLS = (timedelta(hours=1), timedelta(days=2), timedelta(days=400))
"""All of these holds have ended some hours ago, or end in a year."""


def policy(chance: random.Random, ends: int, *, limited: bool = False) -> SharedPoolBudgetOptions:
    """Return some policy; no window of it ends within a day of `ends`, but for sessions."""
    some: list[Callable[[], dict[str, Any]]] = [
        lambda: {"capacity_tokens": chance.choice([20, 60, 200])},
        lambda: {"capacity_cost_micros_usd": chance.choice([20, 60, 200])},
        lambda: {"capacity_requests": chance.choice([4, 9, 30])},
    ]
    chosen: dict[str, Any] = {}
    for choice in some:
        chosen |= choice() if limited or chance.random() < 0.7 else {}
    if chance.random() < 0.5:
        chosen["stop_threshold_tokens"] = 3
        chosen["thresholds"] = {"half": 50, "most": 90}
    if chance.random() < 0.6 and not limited:
        length = timedelta(days=chance.choice([3, 7, 20]))
        anchor = from_micros(ends - chance.randint(DAY_US, 2 * DAY_US))
        carries = chance.random() < 0.5
        chosen["window"] = chance.choice(
            [
                Window(period=length, anchor=anchor, carry_over=carries),
                Window(period=timedelta(days=chance.choice([3, 30])), session=True),
            ]
        )
    if chance.random() < 0.4 and not limited:
        chosen["limits"] = [rolling(chance), calendar(chance, ends)]
    if chance.random() < 0.4 and not limited:
        chosen["prepaid"] = [chance.choice([axis.name for axis in AXES])]
    return SharedPoolBudgetOptions(**chosen, settlement=chance.choice([*SettlementPolicy]))


def rolling(chance: random.Random) -> Limit:
    """Return a limit on any stretch of time."""
    length = timedelta(days=chance.choice([1, 8]), minutes=90)
    return Limit(name="any", period=Rolling(length), capacity_tokens=chance.choice([15, 50]))


def calendar(chance: random.Random, ends: int) -> Limit:
    """Return a limit whose period does not end within a day of `ends`."""
    anchor = from_micros(ends - chance.randint(DAY_US, 2 * DAY_US))
    period = Window(period=timedelta(days=chance.choice([3, 20])), anchor=anchor)
    return Limit(name="fixed", period=period, capacity_requests=chance.choice([3, 8]))


class Books:
    """Random books, and a pool in memory to which the same happened as to one of the store."""

    def __init__(self, url: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = int(time.time() * 1_000_000)
        self.clock = Clock(self.now - 40 * DAY_US)
        self.book = Ledger.open(url, clock=self.clock)
        alone = policy(self.chance, self.now)
        self.memory = SharedPoolBudgetManager(alone, clock=self.clock)
        self.held: list[tuple[LedgerBudgetManager, BudgetLease, BudgetLease | None]] = []
        self.budgets = [self.book.pool("alone", alone)]
        for name, parent in (("org", None), ("team", "org"), ("run", "team"), ("side", "org")):
            chosen = policy(self.chance, self.now)
            self.budgets.append(self.book.pool(name, chosen, parent=parent))
        box = replace(policy(self.chance, self.now, limited=True), capacity_requests=2)
        small = replace(box, capacity_tokens=9, capacity_cost_micros_usd=9)
        with contextlib.suppress(LedgerError):  # there may not be as much left
            self.budgets.append(self.book.pool("box", small, parent="org", carved=True))

    def live(self) -> None:
        """Let something happen for forty days, up to an hour ago."""
        for _ in range(STEPS):
            left_us = self.now - DAY_US // 24 - self.clock.now
            self.clock.now += self.chance.randint(0, 2 * left_us // STEPS)
            with contextlib.suppress(LedgerError, IndexError):
                self.step()
        for name in self.chance.sample(["side", "run", "box"], 1):
            with contextlib.suppress(LedgerError):
                self.book.close_pool(name)
        self.clock.now = self.now

    def top_up(self) -> None:
        """Give a credit to a pool that is prepaid."""
        budget = self.chance.choice([one for one in self.budgets if one.status().policy.prepaid])
        (axis,) = budget.status().policy.prepaid
        end = self.clock.now + self.chance.choice([2, 9, 100]) * DAY_US
        if abs(end - self.now) < DAY_US:
            end += 3 * DAY_US  # none expires while the test looks
        credit = Credit(
            name="paid",
            **{axis: self.chance.choice([5, 20, 60])},
            expires_at=self.chance.choice([None, from_micros(end)]),
        )
        self.book.credit(budget.name, credit)
        if budget is self.budgets[0]:
            self.memory.credit(credit)

    def step(self) -> None:
        """Make one call."""
        if self.chance.random() < 0.15:
            self.top_up()
            return
        amount, cost = self.chance.choices(AMOUNTS, k=2)
        if self.chance.random() < 0.1:
            budget = self.chance.choice(self.budgets[1:])  # none in memory can be corrected
            settled = [*self.book.entries(budget.name, kind=EntryKind.SETTLEMENT)]
            usage = Usage(total_tokens=amount, cost_micros_usd=cost)
            budget.correct(self.chance.choice(settled).seq, usage, "the invoice")
            return
        if not self.held or self.chance.random() < 0.6:
            budget = self.chance.choice(self.budgets)
            extensions = RequestExtensions(LeaseTtl(self.chance.choice(TTLS)))
            asked = extensions, UsageEstimate(total_tokens=amount, cost_micros_usd=cost), UNLIMITED
            twin = None
            if budget is self.budgets[0]:
                with contextlib.suppress(BudgetError):
                    twin = self.memory.reserve(*asked)
            self.held.append((budget, budget.reserve(*asked), twin))
            return
        place = self.chance.randrange(len(self.held))
        budget, lease, twin = self.held[place]
        what = self.chance.choice(["record_used", "observe", "release", "abandon"])
        used = (Usage(total_tokens=amount, cost_micros_usd=cost),) * (
            what in {"record_used", "observe"}
        )
        if what != "observe":
            del self.held[place]
        if twin is not None:
            with contextlib.suppress(BudgetError):
                getattr(self.memory, what)(twin, *used)
        getattr(budget, what)(lease, *used)


@pytest.fixture
def books(store_url: str) -> Iterator[Callable[[int], Books]]:
    """Return a function that makes random books, on each database in turn."""
    made: list[Books] = []

    def make(seed: int) -> Books:
        made.append(Books(store_url, seed))
        made[-1].live()
        return made[-1]

    yield make
    for one in made:
        one.book.close()
        one.memory._announcer.close()


def amounts(left: Remaining) -> dict[str, Any]:
    """Return what is left as JSON says it."""
    said: dict[str, Any] = {axis.name: axis.left(left) for axis in AXES}
    return {**said, "below_threshold": left.below_threshold}


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of all tables of a page, row by row."""
    return [
        [
            unescape(re.sub("<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        ]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    ]


def own_left(status: PoolStatus, axis: Axis) -> int | None:
    """Return what is left of a capacity by plain sums, None where it alone does not say it."""
    capacity, window = axis.limit(status.policy), status.window
    if (
        capacity is None
        or axis.name in status.policy.prepaid
        or any(not axis.is_unlimited(limit) for limit in status.policy.limits)
        or (window is not None and min(status.balance.committed.minus(window.base)) < 0)
    ):
        return None
    carried: int = 0 if window is None else getattr(window.carried, axis.name)
    used = getattr(status.spent, axis.name) + getattr(status.balance.reserved, axis.name)
    return max(0, capacity + carried - used)


@pytest.mark.parametrize(
    ("store_url", "seed"),
    [
        # 7 has carved pools, carry-over, closings and long windows, of which 24 has none.
        *((store, 7) for store in STORES),
        *(pytest.param(store, n, marks=pytest.mark.long) for store in STORES for n in (24, 4)),
    ],
    indirect=["store_url"],
)
def test_every_door_says_what_is_left(
    books: Callable[[int], Books], ledger: Run, store_url: str, folder: Path, seed: int
) -> None:
    """The call, the status, the reports and the command line, and then the next write."""
    some = books(seed)
    book, every = some.book, ("--state", "all", "--url", store_url)
    stands = {one.pool.name: one for one in reports.standing(book)}
    glance = {one.pool.name: one for one in reports.glance(book).pools}
    listed = {
        one["pool"]: one
        for one in json.loads(ledger("pool", "list", *every, "--format", "json").out)
    }
    table = ledger("pool", "list", *every).out
    assert table.strip() in ledger("top", "--once", *every).out
    page = folder / "page.html"
    ledger("report", "page", "--html", page, "--no-verify", *every)
    rows = rows_of(page.read_text())
    said = {}
    for budget in some.budgets:
        name = budget.name
        said[name] = left = budget.remaining(EXTENSIONS)
        status = budget.status()
        assert left == status.remaining
        assert status == stands[name] == glance[name]
        # The call says what is not spent; doors, that nothing can be reserved in a closed pool.
        left = status.reservable
        assert left == (Remaining(0, 0, True, 0) if status.closed else said[name])
        assert left == reports.statement(book, name).remaining
        forecast = reports.forecast(book, name)
        assert [axis.left(left) for axis in AXES] == [one.remaining for one in forecast.axes]
        point = reports.burn_down(book, name).points[-1]
        for axis in AXES:
            assert axis.left(status.own) == getattr(point, f"remaining_{axis.name}")
        assert status.balance == point.balance
        until = None if status.until is None else from_micros(status.until)
        for words in (("pool", "show", name), ("remaining", name)):
            (shown,) = json.loads(ledger(*words, "--url", store_url, "--format", "json").out)
            found = shown.get("remaining", shown)
            assert (until and until.isoformat(), amounts(left)) == (
                shown["until"],
                {key: found[key] for key in amounts(left)},
            ), words
            printed = ledger(*words, "--url", store_url).out
            assert until is None or f"until {moment(until)}" in printed
            sleeps = status.window is not None and not status.window.begun
            assert sleeps is ("No session lasts" in printed) or words[0] == "remaining"
        assert (amounts(left), status.spent._asdict()) == (
            listed[name]["remaining"],
            listed[name]["spent"],
        )
        assert (until and until.isoformat()) == listed[name]["until"]
        given = [(one.seq, one.used, one.left, one.lost) for one in status.credits]
        told = reports.credits(book, name)
        assert given == [(one.seq, one.used, one.left, one.lost) for one in told][-len(given) :]
        assert given == [] or len(told) == sum(1 for _ in book.entries(name, kind=EntryKind.CREDIT))
        row = next(row for row in rows if row and row[0] in {name, f"{name} (closed)"})
        assert moment(until) in row
        assert f"{status.spent.tokens:,}" in row
        for axis in AXES:
            assert own_left(status, axis) in {None, getattr(point, f"remaining_{axis.name}")}
    assert some.memory.remaining(EXTENSIONS) == said["alone"]
    # The next write finds them so, in whatever order the pools are written to.
    for budget in some.chance.sample(some.budgets, len(some.budgets)):
        book.expire_due(budget.name)
    assert said == {budget.name: budget.remaining(EXTENSIONS) for budget in some.budgets}
    assert all(one.ok for one in book.verify())
