"""Choosing pools by what they are: by their parent, by a pattern, open or closed."""

from __future__ import annotations

import io
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from ledger import Ledger, PoolStatus, SharedPoolBudgetOptions, Usage, UsageEstimate, reports
from ledger.core.errors import JournalDamagedError, LeftOut, UnknownPoolError
from ledger.reports import Filter, PoolState
from ledger.reports.meter import Meter
from ledger.reports.page import whole_page
from ledger.reports.render import pools_sheet
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.conformance.test_path_of_a_reserve import calls_of
from tests.conftest import STORES

POOLS = {"org": None, "a-1": "org", "a-2": "org", "B-1": None, "a-1-x": "a-1"}
SPENT = {name: 10**number for number, name in enumerate(POOLS)}


@pytest.fixture(scope="module", params=STORES)
def book(request: pytest.FixtureRequest, module_store: Callable[..., str]) -> Iterator[Ledger]:
    """Return pools at three levels, each with spend of its own; a-2 is closed."""
    with Ledger.open(module_store(request.param)) as opened:
        for name, parent in POOLS.items():
            budget = opened.pool(name, SharedPoolBudgetOptions(), parent=parent)
            lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
            budget.record_used(lease, Usage(total_tokens=SPENT[name]))
        opened.close_pool("a-2", reason="the customer left")
        yield opened


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (Filter(), set(POOLS)),
        (Filter(matching="a-*"), {"a-1", "a-2", "a-1-x"}),
        (Filter(matching="?-1"), {"a-1", "B-1"}),
        (Filter(matching="b-1"), set()),
        (Filter(parent="org"), {"a-1", "a-2"}),
        (Filter(state=PoolState.OPEN), set(POOLS) - {"a-2"}),
        (Filter(state=PoolState.CLOSED), {"a-2"}),
        (Filter(pools=["a-2", "a-1"], state=PoolState.OPEN), {"a-1"}),
        (Filter(pools=["org"], descendants=True, matching="a-1*"), {"a-1", "a-1-x"}),
        (Filter(pools=["a-1"], parent="org"), {"a-1"}),
    ],
)
def test_every_report_takes_the_same_choice(book: Ledger, where: Filter, names: set[str]) -> None:
    """Where pools stand, and what was spent from them."""
    assert names == {one.pool.name for one in reports.standing(book, where)}
    spend = reports.spend(book, where, by=["pool"])
    assert {name: SPENT[name] for name in names} == {
        str(row.group["pool"]): row.total_tokens for row in spend.rows
    }


def test_a_page_draws_the_pools_that_have_spent_most(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other burn-down is put together: each reads some hundred entries."""
    monkeypatch.setattr(sys.modules["ledger.reports.overview"], "BURN_DOWNS", 2)
    found = reports.overview(book, verify=False)
    most = sorted(found.pools, key=lambda one: one.balance.committed.tokens, reverse=True)
    assert [one.pool.name for one in most[:2]] == [one.pool for one in found.burn_downs]
    notes = [note for section in whole_page(found).sections for note in section.notes]
    assert "Drawn are the 2 of 4 pools that have spent most." in notes


LOOKS: dict[str, tuple[int, Callable[[Ledger], object]]] = {
    "standing": (90, reports.standing),
    "glance": (110, reports.glance),
    "meter": (110, lambda book: Meter(book).read()),
    "expire_due": (35, lambda book: book.expire_due()),
    "pool list": (195, lambda book: drawn(reports.standing(book))),
}
"""Looks at many pools, each with the most functions of the library that one pool more may run.

A hundred of them take about 0.1 ms.
"""


@pytest.mark.parametrize(("most", "look"), LOOKS.values(), ids=LOOKS)
def test_one_pool_more_is_cheap_to_look_at(
    new_store: Callable[..., str], most: int, look: Callable[[Ledger], object]
) -> None:
    """It runs few functions, and no statement is put together for it."""
    with Ledger.open(new_store("sqlite")) as book:
        book.pool("org", SharedPoolBudgetOptions())
        counts = []
        for number in range(60):
            book.pool(f"pool {number}", SharedPoolBudgetOptions(), parent="org")
            if number in {19, 59}:
                look(book)  # statements are put together once
                counts.append(calls_of(partial(look, book)))
    assert (counts[1] - counts[0]) / 40 <= most


def drawn(found: list[PoolStatus]) -> None:
    """Print the pools as `ledger pool list` does."""
    Console(file=io.StringIO(), width=500).print(pools_sheet(found).fitted())


def test_a_page_lists_open_pools_and_counts_all(book: Ledger) -> None:
    """Its totals must not shrink when a pool is closed."""
    found = reports.overview(book)
    assert set(POOLS) - {"a-2"} == {one.pool.name for one in found.pools}
    assert 1 == found.closed
    assert sum(SPENT.values()) == found.spend.total.total_tokens
    notes = [note for section in whole_page(found).sections for note in section.notes]
    assert "Not listed, and counted below: 1 closed pool." in notes
    for where in (Filter(pools=["a-2"]), Filter(state=PoolState.CLOSED)):
        found = reports.overview(book, where)
        assert (["a-2"], 0) == ([one.pool.name for one in found.pools], found.closed)


def test_a_parent_that_is_not_there(book: Ledger) -> None:
    """It is named, since an empty list would say that it has no pools below."""
    with pytest.raises(UnknownPoolError, match="nowhere"):
        reports.standing(book, Filter(parent="nowhere"))


def test_a_damaged_pool_below_hides_no_other(tmp_path: Path) -> None:
    """Not even one whose leases that are due hold of the pool above; it is named, or raised."""
    clock = Clock()
    file = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{file}", clock=clock) as book:
        limits = SharedPoolBudgetOptions(capacity_tokens=100, lease_ttl=timedelta(minutes=1))
        book.pool("org", limits)
        for name in ("a", "b"):
            budget = book.pool(name, limits, parent="org")
            budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=10), UNLIMITED)
        with closing(sqlite3.connect(file)) as raw, raw:
            raw.execute("PRAGMA ignore_check_constraints = on")
            raw.execute("DROP TRIGGER pools_no_update")
            raw.execute("UPDATE pools SET name = '' WHERE name = 'a'")
        clock.minutes(2)
        for look in (
            lambda lost: reports.standing(book, left_out=lost),
            lambda lost: [one.status for one in Meter(book).read(left_out=lost)],
        ):
            lost: LeftOut = []
            assert ["org", "b"] == [one.pool.name for one in look(lost)]
            assert [""] == [error.pool for error in lost]
        assert ["org", "b"] == [one.pool.name for one in reports.glance(book).pools]
        with pytest.raises(JournalDamagedError, match="cannot be read"):
            reports.spend(book, Filter(pools=["org"], descendants=True))
