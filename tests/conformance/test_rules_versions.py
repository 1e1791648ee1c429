"""A pool keeps the rules under which its policy was set, and its journal is judged by them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from ledger import (
    BudgetLease,
    EntryKind,
    Ledger,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.core.errors import UnknownRulesError
from ledger.core.rules import released
from ledger.store.policies import Terms
from ledger.store.statements import rows_of_each
from ledger.testing.calls import UNLIMITED
from tests.leases import OF_HUNDRED

NOW = released.CURRENT
NEXT = NOW + 1


def halved(policy: SharedPoolBudgetOptions, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - those of `admit`
    """Decide as if a pool had half its tokens: a rule that differs from the present one."""
    half = SharedPoolBudgetOptions(capacity_tokens=policy.capacity_tokens // 2)
    return released.RELEASED[NOW].admit(half, *arguments, **more)


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that releases another version of the rules."""

    def another() -> None:
        monkeypatch.setitem(released.RELEASED, NEXT, released.Released("7.5", halved))
        monkeypatch.setattr(released, "CURRENT", NEXT)

    return another


def ask(pool: Any, tokens: int) -> BudgetLease:  # noqa: ANN401 - a manager of any kind
    """Reserve tokens."""
    lease: BudgetLease = pool.reserve(
        RequestExtensions(), UsageEstimate(total_tokens=tokens), UNLIMITED
    )
    return lease


def refused(pool: Any, tokens: int) -> bool:  # noqa: ANN401 - likewise
    """Tell whether so many tokens are refused; what is granted goes back."""
    with suppress(ThresholdExceededError):
        pool.release(ask(pool, tokens))
        return False
    return True


def versions(book: Ledger, pool: str) -> list[int]:
    """Return the versions that the entries of a pool name which set a policy."""
    return [one.detail["rules"]["version"] for one in book.entries(pool) if one.policy is not None]


def test_an_old_journal_is_verified_under_the_rules_of_its_time(
    store_url: str, release: Callable[[], None]
) -> None:
    """What one version admitted is good, although the next one would have refused it."""
    with Ledger.open(store_url, record_denials=True) as book:
        pool = book.pool("team", OF_HUNDRED)
        pool.record_used(ask(pool, 80), Usage(total_tokens=80))
        assert refused(pool, 30)
    release()
    with Ledger.open(store_url, record_denials=True) as book:
        pool = book.pool("team")
        assert not refused(pool, 20), "the pool was not adjusted: its rules are as before"
        assert refused(pool, 21)
        assert [NOW] == versions(book, "team")
        assert all(one.ok for one in book.verify())
        assert book.replay("team").balance == pool.status().balance


def test_a_new_pool_goes_by_the_new_rules(store_url: str, release: Callable[[], None]) -> None:
    """Its verdicts, and their proof, are those of the next version."""
    release()
    with Ledger.open(store_url, record_denials=True) as book:
        pool = book.pool("team", OF_HUNDRED)
        assert refused(pool, 51)
        assert not refused(pool, 50)
        assert [NEXT] == versions(book, "team")
        assert all(one.ok for one in book.verify())


def test_an_adjustment_puts_a_pool_under_the_new_rules(
    store_url: str, release: Callable[[], None]
) -> None:
    """One journal of two versions: each entry is decided by the one that held."""
    with Ledger.open(store_url, record_denials=True) as book:
        pool = book.pool("team", OF_HUNDRED)
        assert not refused(pool, 80)
        release()
        assert not refused(pool, 80)
        book.adjust("team", OF_HUNDRED)
        assert refused(pool, 80)
        assert not refused(pool, 50)
        assert [NOW, NEXT] == versions(book, "team")
        assert all(one.ok for one in book.verify())


def test_each_pool_of_a_lineage_goes_by_its_own_rules(
    store_url: str, release: Callable[[], None]
) -> None:
    """A pool under the new rules asks one under the old."""
    with Ledger.open(store_url) as book:
        book.pool("org", OF_HUNDRED)
        release()
        pool = book.pool("team", OF_HUNDRED, parent="org")
        assert refused(pool, 51)
        assert not refused(pool, 50)
        ask(book.pool("org"), 60)
        assert refused(pool, 50), "what the pool above has left"
        assert not refused(pool, 40)
        assert all(one.ok for one in book.verify())


def test_memory_goes_by_the_newest_rules(release: Callable[[], None]) -> None:
    """A manager in memory was made by this library, and has no older entries."""
    assert not refused(SharedPoolBudgetManager(OF_HUNDRED), 80)
    release()
    assert refused(SharedPoolBudgetManager(OF_HUNDRED), 80)


def test_rules_that_this_library_does_not_have_are_named(
    store_url: str, release: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decided, written or told to be damaged beyond what the library cannot know."""
    release()
    with Ledger.open(store_url) as book:
        ask(book.pool("team", OF_HUNDRED), 10)
        size = book.size("team")
    monkeypatch.undo()
    named = rf"version {NEXT} .* budget-ledger 7\.5"
    with Ledger.open(store_url) as book:
        for call in (lambda: ask(book.pool("team"), 1), lambda: book.pool("team").status()):
            with pytest.raises(UnknownRulesError, match=named) as error:
                call()
            assert (NEXT, "7.5") == (error.value.version, error.value.since)
        (found,) = book.verify("team")
        assert found.damage is not None
        assert 1 == found.damage.seq
        assert "budget-ledger 7.5" in found.damage.reason
        assert size == book.size("team")


def test_credits_under_rules_that_this_library_does_not_have_are_not_damaged(
    store_url: str, release: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the credits are read before the policy, too, the version is named."""
    release()
    with Ledger.open(store_url) as book:
        book.pool("team", SharedPoolBudgetOptions(prepaid=["tokens"]))
        (opening,) = book.entries("team")
    monkeypatch.undo()
    with Ledger.open(store_url) as book:
        with pytest.raises(UnknownRulesError, match=f"version {NEXT}"):
            next(iter(reports.credits(book)))
        with book._database.engine.connect() as connection:
            terms = Terms(opening.pool_id, "team")
            with pytest.raises(UnknownRulesError, match=f"version {NEXT}"):
                terms.book(partial(rows_of_each, connection), opening.seq)


def test_the_version_is_part_of_the_policy_entry(store_url: str) -> None:
    """Both openings and adjustments name it, and no other entry does."""
    with Ledger.open(store_url) as book:
        pool = book.pool("team", OF_HUNDRED)
        book.adjust("team", OF_HUNDRED, reason="again")
        ask(pool, 1)
        for one in book.entries("team"):
            sets = one.kind in {EntryKind.OPENING, EntryKind.ADJUSTMENT}
            expected = {"version": NOW, "since": "0.1.0"} if sets else None
            assert expected == one.detail.get("rules")
    assert released.current() == NOW
