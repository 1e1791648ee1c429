"""Opening, adjusting and naming pools, and a book that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ledger import (
    U64_MAX,
    AsyncLedger,
    Balance,
    EntryKind,
    InvalidInputError,
    Ledger,
    LedgerUnavailableError,
    ParentConflictError,
    PoolClosedError,
    PoolConflictError,
    Remaining,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UnknownPoolError,
    Usage,
)
from ledger.engine.operations import Operation
from ledger.store.journal import PoolJournal
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

FIRST, SECOND, THIRD, OTHER = (
    SharedPoolBudgetOptions(capacity_tokens=number, stop_threshold_cost_micros_usd=1)
    for number in (100, 200, 300, 400)
)


def test_a_pool_begins_with_its_opening(shared_book: Ledger, fresh_name: str) -> None:
    """The first entry holds the policy, and nothing is spent."""
    budget = shared_book.pool(fresh_name, FIRST)
    (opening,) = shared_book.entries(fresh_name)
    assert (EntryKind.OPENING, 1, FIRST, Balance()) == (
        opening.kind,
        opening.seq,
        opening.policy,
        opening.balance,
    )
    assert (1, None) == (opening.policy_seq, opening.window_seq)
    status = budget.status()
    assert (1, FIRST, Balance()) == (status.seq, status.policy, status.balance)
    assert (fresh_name, budget.identity) == (status.pool.name, status.pool.identity)


def test_opening_again_changes_nothing(shared_book: Ledger, fresh_name: str) -> None:
    """With the same options or with none it is the same pool."""
    budget = shared_book.pool(fresh_name, FIRST)
    for again in (shared_book.pool(fresh_name, FIRST), shared_book.pool(fresh_name)):
        assert (budget.name, budget.identity) == (again.name, again.identity)
    assert 1 == budget.status().seq


def test_every_pool_has_an_identity_of_its_own(shared_book: Ledger, fresh_name: str) -> None:
    """So that a lease of one is never taken for a lease of another."""
    names = [f"{fresh_name} {number}" for number in range(4)]
    identities = {shared_book.pool(name, FIRST).identity for name in names}
    assert 4 == len(identities)


def test_the_opening_and_the_current_policy_are_accepted(
    shared_book: Ledger, fresh_name: str
) -> None:
    """A program restarted after a top-up does not fail; anything else is a conflict."""
    shared_book.pool(fresh_name, FIRST)
    for options in (SECOND, THIRD):
        shared_book.adjust(fresh_name, options)
    for accepted in (FIRST, THIRD, None):
        assert THIRD == shared_book.pool(fresh_name, accepted).status().policy
    for refused in (SECOND, OTHER, SharedPoolBudgetOptions()):
        with pytest.raises(PoolConflictError) as conflict:
            shared_book.pool(fresh_name, refused)
        error = conflict.value
        assert (fresh_name, FIRST, THIRD, refused) == (
            error.name,
            error.opening,
            error.current,
            error.given,
        )
        for policy in (FIRST, THIRD):
            assert f"{policy.capacity_tokens:,} tokens" in str(error)
        assert "capacity_tokens" in str(error)
        assert (refused == SharedPoolBudgetOptions()) == ("stop_threshold_cost" in str(error))
    assert 3 == shared_book.pool(fresh_name).status().seq


def test_a_program_with_another_policy_in_its_code_goes_on(
    shared_book: Ledger, fresh_name: str
) -> None:
    """The pool is made, then adjusted; a policy that is in force is not written again."""
    for options in (FIRST, FIRST, SECOND, SECOND, FIRST):
        budget = shared_book.ensure(fresh_name, options, reason="deployed", actor="ci")
        assert options == budget.status().policy
    assert [
        (EntryKind.OPENING, FIRST, "deployed", "ci"),
        (EntryKind.ADJUSTMENT, SECOND, "deployed", "ci"),
        (EntryKind.ADJUSTMENT, FIRST, "deployed", "ci"),
    ] == [
        (entry.kind, entry.policy, entry.detail.get("reason"), entry.actor and entry.actor.name)
        for entry in shared_book.entries(fresh_name)
    ]


def test_of_two_programs_that_start_at_once_one_adjusts(
    book: Ledger, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one saw the old policy, and finds its own in force when it comes to write."""
    book.pool("pool", FIRST)
    run = book._writer.run

    def overtaken(pool: PoolJournal, operation: Operation[None], *, began_s: float) -> None:
        asyncio.run(first())
        run(pool, operation, began_s=began_s)

    async def first() -> None:
        async with AsyncLedger.open(store_url) as elsewhere:
            budget = await elsewhere.ensure("pool", SECOND, reason="first")
            assert SECOND == (await budget.status()).policy

    monkeypatch.setattr(book._writer, "run", overtaken)
    assert SECOND == book.ensure("pool", SECOND, reason="second").status().policy
    assert ["first"] == [
        entry.detail.get("reason") for entry in book.entries("pool", kind=EntryKind.ADJUSTMENT)
    ]


def test_a_pool_is_ensured_where_it_is_and_while_it_is_open(
    shared_book: Ledger, fresh_name: str
) -> None:
    """Its parent never changes, and one that is closed keeps its policy; nothing is written."""
    shared_book.pool(fresh_name, FIRST)
    above = f"{fresh_name} above"
    shared_book.pool(above, FIRST)
    with pytest.raises(ParentConflictError):
        shared_book.ensure(fresh_name, SECOND, parent=above)
    with pytest.raises(InvalidInputError, match="reason"):
        shared_book.ensure(fresh_name, FIRST, reason="")
    shared_book.close_pool(fresh_name)
    assert 2 == shared_book.ensure(fresh_name, FIRST).status().seq
    with pytest.raises(PoolClosedError):
        shared_book.ensure(fresh_name, SECOND)
    assert 2 == shared_book.pool(fresh_name).status().seq


def test_an_adjustment_replaces_the_whole_policy(shared_book: Ledger, fresh_name: str) -> None:
    """Fields that are not given are the defaults, not what they were before."""
    budget = shared_book.pool(fresh_name, FIRST)
    shared_book.adjust(fresh_name, SharedPoolBudgetOptions(capacity_cost_micros_usd=7))
    assert Remaining(U64_MAX, 7, False) == budget.remaining(EXTENSIONS)


def test_an_adjustment_is_an_entry_with_its_reason(shared_book: Ledger, fresh_name: str) -> None:
    """Later entries stand under it; the reason is optional."""
    budget = shared_book.pool(fresh_name, FIRST)
    budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    reason = "caf\u00e9 \U0001f4b6 " + "x" * 1_900
    shared_book.adjust(fresh_name, SECOND, reason=reason)
    shared_book.adjust(fresh_name, THIRD)
    budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    entries = list(shared_book.entries(fresh_name))
    assert [1, 1, 3, 4, 4] == [entry.policy_seq for entry in entries]
    assert [EntryKind.ADJUSTMENT] * 2 == [entry.kind for entry in entries[2:4]]
    assert [SECOND, THIRD] == [entry.policy for entry in entries[2:4]]
    assert [reason, None] == [entry.detail.get("reason") for entry in entries[2:4]]
    assert [Balance(reserved=Totals(10, 0, 1))] * 2 == [entry.balance for entry in entries[2:4]]


def test_an_adjustment_below_what_is_spent_revokes_nothing(
    shared_book: Ledger, fresh_name: str
) -> None:
    """Remaining is 0, leases stay open and are settled as ever, and a top-up brings room back."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(capacity_tokens=100))
    spent = budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
    budget.record_used(spent, Usage(total_tokens=30))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    shared_book.adjust(fresh_name, SharedPoolBudgetOptions(capacity_tokens=20))
    assert Remaining(0, U64_MAX, True) == budget.remaining(EXTENSIONS)
    assert Balance(Totals(30, 0, 1), Totals(40, 0, 1)) == budget.status().balance
    with pytest.raises(ThresholdExceededError) as denied:
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert 0 == denied.value.remaining_tokens
    assert lease == budget.lease(lease.token)
    budget.record_used(lease, Usage(total_tokens=45))
    assert Balance(Totals(75, 0, 2)) == budget.status().balance
    shared_book.adjust(fresh_name, SharedPoolBudgetOptions(capacity_tokens=80))
    assert 5 == budget.remaining(EXTENSIONS).tokens
    assert shared_book.verify(fresh_name)[0].ok


def test_an_adjustment_is_seen_by_every_manager_at_once(book: Ledger, store_url: str) -> None:
    """Policies are cached by their entry, so that nobody works under an old one."""
    budget = book.pool("pool", FIRST)
    with Ledger.open(store_url) as other:
        there = other.pool("pool")
        assert 100 == there.remaining(EXTENSIONS).tokens
        book.adjust("pool", SECOND)
        assert 200 == there.remaining(EXTENSIONS).tokens
        there.reserve(EXTENSIONS, tokens(150), UNLIMITED)
        other.adjust("pool", THIRD)
        assert 150 == budget.remaining(EXTENSIONS).tokens


def test_pools_are_listed_oldest_first(book: Ledger) -> None:
    """With number, identity and name; none has a parent yet."""
    assert [] == book.pools()
    budgets = [book.pool(name, FIRST) for name in ("b", "a", "c")]
    assert [("b", 1), ("a", 2), ("c", 3)] == [(info.name, info.pool_id) for info in book.pools()]
    assert [budget.identity for budget in budgets] == [info.identity for info in book.pools()]
    assert {None} == {info.parent_id for info in book.pools()}


@pytest.mark.parametrize("name", ["x", "x" * 255, "\U0001f600" * 255, " ", "a'b\"c;--%s\n", "NULL"])
def test_a_pool_may_have_any_name(shared_book: Ledger, fresh_name: str, name: str) -> None:
    """1 to 255 characters, whatever they are; it is found again by exactly that name."""
    name = (fresh_name[-12:] + name)[-255:]
    identity = shared_book.pool(name, FIRST).identity
    assert identity == shared_book.pool(name).identity
    assert name in [info.name for info in shared_book.pools()]


@pytest.mark.parametrize(
    "call",
    [
        lambda book, name: book.pool(name),
        lambda book, name: book.adjust(name, SECOND),
        lambda book, name: book.entries(name),
        lambda book, name: book.open_leases(name),
        lambda book, name: book.replay(name),
        lambda book, name: book.verify(name),
    ],
    ids=["pool", "adjust", "entries", "open_leases", "replay", "verify"],
)
class TestNames:
    """Everything that takes a pool's name treats it alike."""

    def test_an_unknown_pool_is_named(
        self, shared_book: Ledger, fresh_name: str, call: Callable[[Ledger, Any], object]
    ) -> None:
        """The error names no other pool, which may be another tenant's; a prefix is not enough."""
        shared_book.pool(f"{fresh_name} known", FIRST)
        with pytest.raises(UnknownPoolError, match=f"no pool '{fresh_name}'") as unknown:
            call(shared_book, fresh_name)
        assert fresh_name == unknown.value.name
        assert f"{fresh_name} known" not in str(unknown.value)

    @pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "\ud800", b"x", 1, ["x"]])
    def test_what_is_no_name_is_refused(
        self, shared_book: Ledger, call: Callable[[Ledger, Any], object], name: object
    ) -> None:
        """Empty, over-long, NUL, lone surrogates and other types."""
        with pytest.raises(InvalidInputError, match="name"):
            call(shared_book, name)


@pytest.mark.parametrize(
    "call",
    [
        lambda book, name: book.pool(f"{name} new", {"capacity_tokens": 5}),
        lambda book, name: book.pool(f"{name} new", 5),
        lambda book, name: book.adjust(name, None),
        lambda book, name: book.adjust(name, 5),
        lambda book, name: book.adjust(name, SECOND, reason=""),
        lambda book, name: book.adjust(name, SECOND, reason="x" * 2_001),
        lambda book, name: book.adjust(name, SECOND, reason="a\0b"),
        lambda book, name: book.adjust(name, SECOND, reason=5),
        lambda book, name: book.entries(name, after=-1),
        lambda book, name: book.entries(name, after=1.5),
        lambda book, name: book.entries(name, after=2**63),
        lambda book, name: book.pool(name).lease("1"),
        lambda book, name: book.pool(name).lease(None),
        lambda book, name: book.pool(name).record_used(
            book.pool(name).reserve(EXTENSIONS, tokens(0), UNLIMITED),
            Usage(),
            report={"model": "m"},
        ),
    ],
)
def test_what_is_no_argument_is_refused(
    shared_book: Ledger, fresh_name: str, call: Callable[[Ledger, str], object]
) -> None:
    """A typed error names the mistake, and no entry or pool comes of it."""
    budget = shared_book.pool(fresh_name, FIRST)
    with pytest.raises(InvalidInputError):
        call(shared_book, fresh_name)
    assert FIRST == budget.status().policy
    assert {EntryKind.OPENING, EntryKind.RESERVATION} >= {
        entry.kind for entry in shared_book.entries(fresh_name)
    }
    with pytest.raises(UnknownPoolError):
        shared_book.pool(f"{fresh_name} new")


def test_a_closed_book_says_so(store_url: str) -> None:
    """Nothing hangs, nothing is guessed, nothing is written; closing twice is harmless."""
    book = Ledger.open(store_url)
    budget = book.pool("pool", FIRST)
    lease = budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    book.close()
    book.close()
    calls: list[Callable[[], object]] = [
        lambda: book.pool("pool"),
        lambda: book.pool("new", FIRST),
        lambda: book.adjust("pool", SECOND),
        book.pools,
        lambda: list(book.entries("pool")),
        lambda: list(book.open_leases("pool")),
        lambda: book.replay("pool"),
        book.verify,
        lambda: budget.remaining(EXTENSIONS),
        budget.status,
        lambda: budget.lease(lease.token),
        lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED),
        lambda: budget.record_used(lease, Usage()),
    ]
    for call in calls:
        with pytest.raises(LedgerUnavailableError, match="closed"):
            call()
    with Ledger.open(store_url) as again:
        assert (2, lease) == (
            again.pool("pool").status().seq,
            again.pool("pool").lease(lease.token),
        )
        assert ["pool"] == [info.name for info in again.pools()]
