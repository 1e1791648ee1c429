"""A bill names a call whose outcome was not recorded: its lease expired, and was charged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    Attribution,
    LeaseTtl,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)
from ledger.reconcile import Bill, Outcome, Status, apply, reconcile
from ledger.reconcile.applying import ASSUMED
from ledger.reconcile.sheets import matches_sheet, next_steps, summary_sheet
from ledger.reports import Filter
from tests.clocks import Clock
from tests.leases import numbered

HEADER = "request_id,at,model,input_tokens,output_tokens,cost_usd\n"
LINE = "lost,2023-11-14T22:14:00Z,m,20,10,0.000005\n"


@pytest.fixture
def timed(store_url: str) -> Iterator[Ledger]:
    """Return a ledger in which a call expired, and is charged 40 tokens and 9 micro-USD."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        asked = RequestExtensions(
            Attribution(model="m", request_id="lost"), LeaseTtl(timedelta(minutes=1))
        )
        estimate = UsageEstimate(
            input_tokens=30, output_tokens=10, total_tokens=40, cost_micros_usd=9
        )
        budget.reserve(asked, estimate, RequestBudget.unlimited())
        clock.minutes(2)
        assert 1 == book.expire_due()
        yield book
        assert all(one.ok for one in book.verify())


def test_what_was_assumed_is_held_against_the_bill(
    timed: Ledger, bill: Callable[..., Bill]
) -> None:
    """It differs, and is not corrected as long as the call's own record may come.

    Somebody may say that it will not: what was assumed is then corrected by hand.
    """
    found = apply(timed, reconcile(timed, bill(HEADER + LINE), Filter()))
    (match,) = found.of(Status.DIFFERING)
    assert (Outcome.NOT_APPLIED, ASSUMED) == (match.outcome, match.reason)
    budget = timed.pool("team")
    assert 40 == budget.status().balance.committed.tokens
    usage = Usage(input_tokens=20, output_tokens=10, total_tokens=30, cost_micros_usd=5)
    budget.correct(3, usage, "the bill")
    again = reconcile(timed, bill(HEADER + LINE), Filter())
    assert [] == list(again.of(Status.DIFFERING))


def test_a_billed_call_whose_lease_is_open_is_no_call_that_is_missing(
    timed: Ledger, bill: Callable[..., Bill]
) -> None:
    """It is named with what its leases hold, in every pool; a part that is recorded differs."""
    held = UsageEstimate(total_tokens=40, cost_micros_usd=9)
    budgets = [timed.pool(name, SharedPoolBudgetOptions()) for name in ("team", "other")]
    for budget in budgets:
        whom = Attribution(model="m", request_id="open")
        lease = budget.reserve(RequestExtensions(whom), held, RequestBudget.unlimited())
    read = bill(HEADER + LINE.replace("lost", "open") + LINE.replace("lost", "none"))
    found = reconcile(timed, read)
    (match,) = found.of(Status.OPEN)
    assert ("open", "other", lease.id) == (match.request_id, match.pool, match.lease)
    assert (80, 18, 0) == (match.held_tokens, match.held_cost_micros_usd, match.entries)
    assert ["none"] == [one.request_id for one in found.of(Status.BILLED_ONLY)]
    assert not found.agrees
    assert "Billed, lease still open" in [row[0] for row in summary_sheet(found).rows if row]
    (row,) = matches_sheet(found, Status.OPEN, top=9).rows
    assert row is not None
    assert ("80", "0.000018") == tuple(row[-2:])
    (said, *_) = next_steps(found)
    assert "'ledger leases settle POOL LEASE'" in said
    before = Filter(pools=["team"], as_of=3)
    assert [] == reconcile(timed, read, before).of(Status.OPEN)
    # What nobody was billed for is no difference.
    nothing = bill(HEADER + "open,2023-11-14T22:14:00Z,m,0,0,0\n")
    assert [] == reconcile(timed, nothing).of(Status.OPEN)
    budget.observe(lease, Usage(total_tokens=1))
    assert [] == reconcile(timed, read).of(Status.OPEN)


def test_once_it_is_settled_the_bill_agrees(timed: Ledger, bill: Callable[..., Bill]) -> None:
    """What was assumed and what took it back cancel each other out."""
    budget = timed.pool("team")
    usage = Usage(input_tokens=20, output_tokens=10, total_tokens=30, cost_micros_usd=5)
    budget.record_used(numbered(budget, 2), usage)
    found: Any = reconcile(timed, bill(HEADER + LINE), Filter())
    assert [] == list(found.of(Status.DIFFERING))
    assert 1 == len(list(found.of(Status.MATCHED)))


def test_a_settled_call_is_corrected_by_the_bill(timed: Ledger, bill: Callable[..., Bill]) -> None:
    """The settlement is corrected, and not the expiry that it replaced."""
    budget = timed.pool("team")
    usage = Usage(input_tokens=25, output_tokens=10, total_tokens=35, cost_micros_usd=5)
    budget.record_used(numbered(budget, 2), usage)
    apply(timed, reconcile(timed, bill(HEADER + LINE), Filter()))
    assert 30 == timed.pool("team").status().balance.committed.tokens
    assert 30 == budget.usage_of(5).total_tokens


def test_a_retry_that_was_settled_does_not_hide_what_is_assumed(
    timed: Ledger, bill: Callable[..., Bill]
) -> None:
    """One attempt of a request is assumed, another one recorded: no entry can say the bill."""
    budget = timed.pool("team")
    again = RequestExtensions(Attribution(model="m", request_id="lost"))
    lease = budget.reserve(again, UsageEstimate(), RequestBudget.unlimited())
    budget.record_used(lease, Usage(total_tokens=30, cost_micros_usd=6))
    read = bill(HEADER + LINE)
    (match,) = apply(timed, reconcile(timed, read)).of(Status.DIFFERING)
    assert (Outcome.NOT_APPLIED, ASSUMED) == (match.outcome, match.reason)
    assert 15 == budget.status().balance.committed.cost_micros_usd
    (lost,) = timed.open_leases("team")
    budget.record_used(lost.lease, Usage())
    (match,) = apply(timed, reconcile(timed, read)).of(Status.DIFFERING)
    assert Outcome.APPLIED is match.outcome
    assert 5 == budget.status().balance.committed.cost_micros_usd
