"""What is due expires before a window rolls over, in pools below, too: read and written alike."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger import (
    EntryKind,
    Ledger,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    UsageEstimate,
    Window,
)
from ledger.store.snapshot import POOLS_PAGE
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import HOUR, Clock

TEN = UsageEstimate(total_tokens=10)
ABOVE = SharedPoolBudgetOptions(capacity_tokens=10_000, window=Window(period=HOUR, carry_over=True))
BELOW = SharedPoolBudgetOptions(capacity_tokens=50, lease_ttl=timedelta(minutes=5))


@pytest.mark.parametrize(
    ("children", "first"), [(2, "org"), (2, "team 1"), (POOLS_PAGE + 2, "org")]
)
def test_an_expiry_counts_in_the_window_that_remaining_said(
    store_url: str, children: int, first: str
) -> None:
    """Whichever pool is written to first, and however many pools below have leases that are due."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        org = book.pool("org", ABOVE)
        for number in range(children):
            team = book.pool(f"team {number}", BELOW, parent="org")
            team.reserve(EXTENSIONS, TEN, UNLIMITED)
        clock.minutes(75)
        expected = 20_000 - 10 * children
        assert expected == org.remaining(EXTENSIONS).tokens
        budget = book.pool(first)
        lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
        assert expected - 10 == org.remaining(EXTENSIONS).tokens
        book.expire_due()
        assert expected - 10 == org.remaining(EXTENSIONS).tokens
        budget.release(lease)
        kinds = [entry.kind for entry in book.entries("org")]
        rollover = kinds.index(EntryKind.ROLLOVER)
        assert children == kinds[:rollover].count(EntryKind.EXPIRY)
        assert all(one.ok for one in book.verify())


def test_a_refusal_counts_what_more_than_a_page_of_pools_give_back(store_url: str) -> None:
    """A reservation is decided as if all that is due had expired."""
    clock = Clock()
    gives_back = SharedPoolBudgetOptions(
        lease_ttl=timedelta(minutes=5), settlement=SettlementPolicy.RELEASE
    )
    with Ledger.open(store_url, clock=clock) as book:
        org = book.pool("org", SharedPoolBudgetOptions(capacity_tokens=10 * (POOLS_PAGE + 2)))
        for number in range(POOLS_PAGE + 2):
            book.pool(f"team {number}", gives_back, parent="org").reserve(
                EXTENSIONS, TEN, UNLIMITED
            )
        clock.minutes(75)
        everything = UsageEstimate(total_tokens=org.remaining(EXTENSIONS).tokens)
        assert 10 * (POOLS_PAGE + 2) == everything.total_tokens
        org.reserve(EXTENSIONS, everything, UNLIMITED)
