"""What is due expires before a window rolls over, in pools below, too: read and written alike."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger import (
    EntryKind,
    LeaseTtl,
    Ledger,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
)
from ledger.store import journal
from ledger.store.snapshot import POOLS_PAGE
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import HOUR, Clock
from tests.leases import TEN

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


@pytest.mark.parametrize("settlement", SettlementPolicy)
def test_a_window_says_the_same_whoever_writes_and_when(
    store_url: str, settlement: SettlementPolicy
) -> None:
    """One pool is written to at every step, its twin is only asked, and gets its usage late."""
    clock = Clock(1_699_999_200_000_000)
    hourly = Window(period=HOUR)
    above = SharedPoolBudgetOptions(capacity_tokens=1_000, window=Window(period=3 * HOUR))
    policy = SharedPoolBudgetOptions(capacity_tokens=100, window=hourly, settlement=settlement)
    with Ledger.open(store_url, clock=clock) as book:
        twins = []
        for name in ("busy", "quiet"):
            parent = book.pool(f"{name} org", above)
            twins.append((parent, book.pool(name, policy, parent=f"{name} org")))
        leases = {}
        for minutes in (20, 50, 70, 100, 130, 200):
            held = RequestExtensions(LeaseTtl(timedelta(minutes=minutes)))
            leases[minutes] = [pool.reserve(held, TEN, UNLIMITED) for _, pool in twins]
        late = {3: (20, 4), 5: (50, 13), 9: (100, 10), 11: (130, 30), 15: (200, 1)}
        for step in range(20):
            clock.minutes(14)
            busy = twins[0][1]
            busy.release(busy.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED))
            if step in late:
                lease, used = late[step]
                for (_, pool), one in zip(twins, leases[lease], strict=True):
                    pool.record_used(one, Usage(total_tokens=used))
            found = [[one.remaining(EXTENSIONS).tokens for one in pools] for pools in twins]
            assert found[0] == found[1], step
        assert all(one.ok for one in book.verify())


def test_more_than_one_transaction_expires_wait_for_their_windows(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two pools below, one has many holds of the window before, the other one of this window."""
    monkeypatch.setattr(journal, "ENDING_PAGE", 4)
    clock = Clock(1_699_999_200_000_000)
    with Ledger.open(store_url, clock=clock) as book:
        org = book.pool(
            "org", SharedPoolBudgetOptions(capacity_tokens=200, window=Window(period=HOUR))
        )
        many, few = (book.pool(name, BELOW, parent="org") for name in ("many", "few"))
        for _ in range(5):
            many.reserve(EXTENSIONS, TEN, UNLIMITED)
        few.reserve(RequestExtensions(LeaseTtl(timedelta(minutes=65))), TEN, UNLIMITED)
        clock.minutes(75)
        assert 190 == org.remaining(EXTENSIONS).tokens
        assert 1 == book.expire_due("few")
        assert 190 == org.remaining(EXTENSIONS).tokens
        kinds = [str(entry.kind) for entry in book.entries("org")]
        rollover = kinds.index(EntryKind.ROLLOVER)
        assert (5, 1) == (kinds[:rollover].count("expiry"), kinds[rollover:].count("expiry"))
        assert 0 == book.expire_due()
        assert all(one.ok for one in book.verify())
