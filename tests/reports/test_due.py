"""Leases that are due: reports that add up entries name what balances count already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger import Ledger, SettlementPolicy, SharedPoolBudgetOptions, Usage, UsageEstimate, reports
from ledger.core.checks import from_micros
from ledger.core.entries import Totals
from ledger.reports import DueLeases, Filter
from ledger.reports.page import whole_page
from ledger.reports.render.values import not_yet_charged
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import MINUTE, Clock

CAPACITY, SPENT, HELD = 4_500, 3_900, 453
SAID = "1 lease is due and not yet charged with 40 tokens and 0.000453 USD: run 'ledger expire'"
ONE = DueLeases(leases=1, held=Totals(40, HELD, 1), charged=Totals(40, HELD, 1))


@pytest.fixture
def book(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """Return books: 3,900 micro-USD are spent in `kid`, and a lease over 453 is due there.

    Above it is `top`; `other` has spent 7.
    """
    with Ledger.open(store_url, clock=clock) as opened:
        opened.pool("top", SharedPoolBudgetOptions())
        opened.pool("other", SharedPoolBudgetOptions())
        options = SharedPoolBudgetOptions(capacity_cost_micros_usd=CAPACITY, lease_ttl=MINUTE)
        opened.pool("kid", options, parent="top")
        for pool, micros in (("kid", SPENT), ("other", 7)):
            budget = opened.pool(pool)
            lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED)
            budget.record_used(lease, Usage(cost_micros_usd=micros))
        clock.minutes(1)
        estimate = UsageEstimate(total_tokens=40, cost_micros_usd=HELD)
        opened.pool("kid").reserve(EXTENSIONS, estimate, UNLIMITED)
        clock.minutes(2)
        yield opened


def test_what_is_due_is_named_where_it_was_granted(book: Ledger) -> None:
    """With how much it comes to, each once; after the sweep spend has it, and none is due."""
    assert ONE == reports.due(book) == reports.due(book, "kid")
    assert DueLeases() == reports.due(book, "top") == reports.due(book, "other")
    assert ONE == reports.due(book, Filter(pools=["top"], descendants=True))
    before = reports.spend(book).total.cost_micros_usd
    (kid,) = reports.standing(book, "kid")
    assert SPENT + HELD == kid.spent.cost_micros_usd
    book.expire_due()
    assert before + HELD == reports.spend(book).total.cost_micros_usd
    assert DueLeases() == reports.due(book)


def test_a_report_that_ends_before_names_none(book: Ledger, clock: Clock) -> None:
    """Its figures stay as they are when the expiry is written, which is later."""
    now = from_micros(clock.now)
    assert DueLeases() == reports.due(book, Filter(until=now))
    assert ONE == reports.due(book, Filter(until=now + MINUTE))
    assert DueLeases() == reports.due(book, Filter(pools=["kid"], as_of=2))
    assert DueLeases() == reports.due(book, now=now - 2 * MINUTE)


@pytest.mark.parametrize(
    ("settlement", "charged"),
    [
        (SettlementPolicy.OBSERVED, Totals(requests=1)),
        (SettlementPolicy.RELEASE, Totals()),
    ],
)
def test_what_is_charged_is_as_the_pool_says(
    book: Ledger, clock: Clock, settlement: SettlementPolicy, charged: Totals
) -> None:
    """Not always what was held."""
    options = SharedPoolBudgetOptions(lease_ttl=MINUTE, settlement=settlement)
    lavish = book.pool("lavish", options)
    lavish.reserve(EXTENSIONS, UsageEstimate(total_tokens=5), UNLIMITED)
    clock.minutes(2)
    found = reports.due(book, "lavish")
    assert (1, Totals(5, 0, 1), charged) == (found.leases, found.held, found.charged)


def test_a_forecast_adds_up(book: Ledger) -> None:
    """Capacity is what was spent and what remains; the pool above says what is due below."""
    found = reports.forecast(book, "kid")
    (cost,) = (one for one in found.axes if one.axis == "cost_micros_usd")
    assert cost.remaining is not None
    assert (CAPACITY, 0, SPENT + HELD) == (cost.capacity, cost.held, cost.spent)
    assert cost.capacity == cost.spent + cost.held + cost.remaining
    assert ONE == found.due == reports.forecast(book, "top").due
    assert DueLeases() == reports.forecast(book, "kid", as_of=2).due


def test_a_statement_names_the_gap_to_the_balance_by_now(book: Ledger) -> None:
    """Also that of a pool above; a statement of then has none."""
    for pool in ("kid", "top"):
        found = reports.statement(book, pool)
        assert found.closing.committed.plus(found.due.charged) == found.balance.committed
        assert ONE == found.due
    assert DueLeases() == reports.statement(book, "kid", as_of=2).due


def test_the_page_says_so_beside_what_was_spent(book: Ledger) -> None:
    """Its headline leaves out what its table of pools counts."""
    found = reports.overview(book, verify=False)
    assert ONE == found.due
    shown = whole_page(found)
    assert SAID in shown.tiles[0].note
    assert shown.tiles[0].bad
    assert SAID in shown.sections[1].notes


def test_nothing_is_said_of_holds_that_are_given_back() -> None:
    """A policy that releases charges nothing for them."""
    assert [] == not_yet_charged(DueLeases(leases=1, held=Totals(40, HELD, 1)))
    assert [SAID] == not_yet_charged(ONE)
