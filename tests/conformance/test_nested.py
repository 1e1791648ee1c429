"""Pools below pools: one reservation holds in all of them, and what is spent is spent in all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    Attribution,
    Balance,
    BudgetLease,
    EntryFlag,
    EntryKind,
    IdempotencyKey,
    InvalidInputError,
    LeaseTtl,
    Ledger,
    OpenLeasesError,
    ParentConflictError,
    Period,
    PoolClosedError,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UncorrectableEntryError,
    UnknownLeaseError,
    UnknownPoolError,
    Unpriced,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
)
from ledger.core.tokens import token_of
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.fixtures import Vandal


def limit(tokens: int | None = None, **more: Any) -> SharedPoolBudgetOptions:  # noqa: ANN401 - any option
    """Return a policy of tokens; a hold that ends is given back."""
    more.setdefault("settlement", SettlementPolicy.RELEASE)
    if tokens is not None:
        more["capacity_tokens"] = tokens
    return SharedPoolBudgetOptions(**more)


def tree(book: Ledger, **leaf: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - any option
    """Return an organisation, a team below it, and a run below that."""
    return (
        book.pool("org", limit(1_000)),
        book.pool("team", limit(100), parent="org"),
        book.pool("run", limit(50, **leaf), parent="team"),
    )


def reserve(budget: Any, tokens: int, *carried: object) -> BudgetLease:  # noqa: ANN401 - any manager
    """Reserve tokens."""
    lease: BudgetLease = budget.reserve(
        RequestExtensions(*carried), UsageEstimate(total_tokens=tokens), UNLIMITED
    )
    return lease


def used(tokens: int) -> Usage:
    """Return a usage of tokens."""
    return Usage(total_tokens=tokens)


def spend(budget: Any, tokens: int) -> None:  # noqa: ANN401 - any manager
    """Reserve and record."""
    budget.record_used(reserve(budget, tokens), used(tokens))


def held(book: Ledger, *names: str) -> list[tuple[int, int]]:
    """Return what is committed and reserved of each pool's tokens."""
    found = [book.pool(name).status().balance for name in names]
    return [(one.committed.tokens, one.reserved.tokens) for one in found]


def sound(book: Ledger) -> None:
    """Prove that every journal is whole, and that they agree with each other."""
    assert [None] * len(book.pools()) == [found.damage for found in book.verify()]


LEVELS = ("run", "team", "org")


def test_a_lease_holds_in_every_pool_up_to_the_root(book: Ledger) -> None:
    """Reserve, observe, settle, release: each moves all three, and the leaf's lease is the one."""
    org, team, run = tree(book)
    lease = reserve(run, 30)
    assert [(0, 30)] * 3 == held(book, *LEVELS)
    run.observe(lease, used(10))
    assert [(10, 20)] * 3 == held(book, *LEVELS)
    run.record_used(lease, used(15))
    assert [(25, 0)] * 3 == held(book, *LEVELS)
    other = reserve(team, 40)
    assert [(25, 0), (25, 40), (25, 40)] == held(book, *LEVELS)
    team.release(other)
    spend(org, 7)
    assert [(25, 0), (25, 0), (32, 0)] == held(book, *LEVELS)
    sound(book)


@pytest.mark.parametrize(
    ("spent", "asked", "who", "left"), [(0, 51, "run", 50), (60, 45, "team", 40), (50, 50, None, 0)]
)
def test_the_error_names_the_pool_that_refused(
    book: Ledger, spent: int, asked: int, who: str | None, left: int
) -> None:
    """The first from the leaf to the root; nothing is written in any of them."""
    _, team, leaf = tree(book)
    spend(team, spent)
    before = [book.pool(name).status().seq for name in LEVELS]
    if who is None:
        assert reserve(leaf, asked).id > 0
        return
    with pytest.raises(ThresholdExceededError, match=f"pool '{who}'") as denied:
        reserve(leaf, asked)
    assert (who, left) == (denied.value.pool, denied.value.remaining_tokens)
    assert before == [book.pool(name).status().seq for name in LEVELS]


def test_what_remains_is_what_all_of_them_leave(book: Ledger) -> None:
    """The least on each axis; the status says so too, and what the pool's own capacity leaves."""
    org, team, run = tree(book)
    spend(team, 80)
    assert (20, 20, 920) == tuple(one.remaining(EXTENSIONS).tokens for one in (run, team, org))
    assert (20, 50) == (run.status().remaining.tokens, run.status().own.tokens)
    book.adjust("org", limit(1_000, stop_threshold_tokens=920))
    for pool in (run, team):
        status = pool.status()
        assert pool.remaining(EXTENSIONS) == status.remaining
        assert (True, False) == (status.remaining.below_threshold, status.own.below_threshold)


def test_a_denial_above_is_kept_where_the_call_was_made(book: Ledger) -> None:
    """Under its key it is the same denial again, by the same pool."""
    _, team, run = tree(book)
    spend(team, 70)
    for _ in range(2):
        with pytest.raises(ThresholdExceededError) as denied:
            reserve(run, 40, IdempotencyKey("once"))
        assert ("team", 30) == (denied.value.pool, denied.value.remaining_tokens)
    (kept,) = book.entries("run", kind=EntryKind.DENIAL)
    expected = {"reason": "threshold", "remaining_tokens": 30, "pool": "team"}
    assert expected | {"uncounted": {"cost_micros_usd": 0}} == kept.detail["denial"]
    assert [] == list(book.entries("team", kind=EntryKind.DENIAL))
    sound(book)


def test_the_request_s_own_budget_comes_first(book: Ledger) -> None:
    """Before any pool, and it names none."""
    _, _, run = tree(book)
    with pytest.raises(RequestBudgetExceededError):
        run.reserve(EXTENSIONS, UsageEstimate(total_tokens=60), RequestBudget.from_tokens(10))
    lease = run.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), RequestBudget.from_tokens(10))
    with pytest.raises(RequestBudgetExceededError):
        run.record_used(lease, used(300))
    assert [(300, 0)] * 3 == held(book, *LEVELS)
    sound(book)


def test_entries_above_repeat_what_happened_below(book: Ledger) -> None:
    """Mirrors name their original, carry its attribution and have no key of their own."""
    _, _, run = tree(book)
    call = Attribution(run_id="r", tenant="t", tags={"a": "b"})
    lease = reserve(run, 5, call, IdempotencyKey("k"))
    run.record_used(lease, used(4), report=UsageReport(model="m", request_id="q"))
    for name in ("team", "org"):
        mirrors = [one for one in book.entries(name) if one.origin is not None]
        originals = [one for one in book.entries("run") if one.lease is not None]
        assert [(one.kind, one.usage, one.attribution, one.request_id) for one in originals] == [
            (one.kind, one.usage, one.attribution, one.request_id) for one in mirrors
        ]
        assert [(one.pool_id, one.seq) for one in originals] == [one.origin for one in mirrors]
        assert [None, None] == [one.idempotency_key for one in mirrors]
    assert [] == list(book.open_leases("org"))


def test_a_key_makes_a_nested_call_happen_once(book: Ledger) -> None:
    """Reservation and settlement, with the mirrors."""
    _, _, run = tree(book)
    first = reserve(run, 20, IdempotencyKey("k"))
    assert first == reserve(run, 20, IdempotencyKey("k"))
    for _ in range(2):
        run.record_used(first, used(9), report=UsageReport(idempotency_key="s"))
    assert [(9, 0)] * 3 == held(book, *LEVELS)


def test_a_mirror_is_nobody_s_lease(book: Ledger) -> None:
    """It is settled through the pool that granted it, and by no other way."""
    org, _, run = tree(book)
    lease = reserve(run, 5)
    (mirror,) = book.entries("org", kind=EntryKind.RESERVATION)
    with pytest.raises(UnknownLeaseError):
        org.lease(token_of(mirror.seq, mirror.hash))
    forged = BudgetLease(
        id=mirror.seq,
        reserved=lease.reserved,
        request_budget=UNLIMITED,
        pool=org.identity,
        proof=mirror.hash,
    )
    for call in (org.release, lambda one: org.record_used(one, used(1)), org.abandon):
        with pytest.raises(UnknownLeaseError):
            call(forged)
    run.release(lease)
    assert [(0, 0)] * 3 == held(book, *LEVELS)


def test_other_processes_find_the_mirrors(store_url: str) -> None:
    """A ledger that remembers nothing settles what another one reserved."""
    with Ledger.open(store_url) as book:
        _, _, run = tree(book)
        lease = reserve(run, 30)
    with Ledger.open(store_url) as book:
        run = book.pool("run")
        run.renew(lease, timedelta(minutes=5))
        run.observe(lease, used(1))
    with Ledger.open(store_url) as book:
        book.pool("run").record_used(lease, used(2))
        assert [(3, 0)] * 3 == held(book, *LEVELS)
        sound(book)


def test_the_origin_s_sweep_expires_a_lease_in_all_its_pools(timed: Ledger, clock: Clock) -> None:
    """A write to a parent does not; late usage is recorded in all of them."""
    org, _, run = tree(timed, lease_ttl=timedelta(minutes=1))
    lease = reserve(run, 30)
    clock.minutes(2)
    spend(org, 1)
    assert [(0, 0), (0, 0), (1, 0)] == held(timed, *LEVELS)  # as the next write will find them
    assert [] == [entry for name in LEVELS for entry in timed.entries(name, kind=EntryKind.EXPIRY)]
    assert (1, 0) == (timed.expire_due("run"), timed.expire_due())
    assert [(0, 0), (0, 0), (1, 0)] == held(timed, *LEVELS)
    run.record_used(lease, used(12))
    assert [(12, 0), (12, 0), (13, 0)] == held(timed, *LEVELS)
    late = [list(timed.entries(name))[-1].flags for name in LEVELS]
    assert [EntryFlag.LATE | EntryFlag.AT_EXPIRY] * 3 == late
    sound(timed)


def test_a_parent_that_would_deny_first_expires_what_is_due_below(
    timed: Ledger, clock: Clock
) -> None:
    """Whoever asks: a sibling, or the parent itself."""
    org = timed.pool("org", limit(100))
    ttl = {"lease_ttl": timedelta(minutes=1)}
    leaves = [timed.pool(f"leaf {n}", limit(**ttl), parent="org") for n in range(3)]
    reserve(leaves[0], 60)
    reserve(leaves[1], 30, LeaseTtl(timedelta(minutes=3)))
    with pytest.raises(ThresholdExceededError):
        reserve(leaves[2], 50)
    clock.minutes(2)
    reserve(leaves[2], 50, LeaseTtl(timedelta(minutes=9)))
    assert [(0, 0), (0, 30), (0, 50), (0, 80)] == held(
        timed, *(f"leaf {n}" for n in range(3)), "org"
    )
    clock.minutes(2)
    reserve(org, 45)
    with pytest.raises(ThresholdExceededError) as denied:
        reserve(org, 6)
    assert ("org", 5) == (denied.value.pool, denied.value.remaining_tokens)
    sound(timed)


def test_a_parent_never_changes(book: Ledger) -> None:
    """Whoever asks for another one is told; without one, the pool is opened as it is."""
    tree(book)
    book.pool("other", limit(5))
    assert "run" == book.pool("run").name
    assert "run" == book.pool("run", limit(50), parent="team").name
    for parent, carved in (("org", False), ("other", False), ("team", True)):
        with pytest.raises(ParentConflictError) as refused:
            book.pool("run", limit(50), parent=parent, carved=carved)
        assert ("run", "team", False) == (
            refused.value.name,
            refused.value.parent,
            refused.value.carved,
        )
    with pytest.raises(ParentConflictError):
        book.pool("org", limit(1_000), parent="other")
    with pytest.raises(UnknownPoolError):
        book.pool("new", limit(1), parent="nobody")
    with pytest.raises(InvalidInputError):
        book.pool("new", limit(1), carved=True)
    assert ["org", "team", "run", "other"] == [info.name for info in book.pools()]


def test_a_carved_pool_holds_its_capacity_in_its_parent(book: Ledger) -> None:
    """Its own traffic never touches the parent; its rest flows back when it is closed."""
    _, team, _ = tree(book)
    free = {"capacity_cost_micros_usd": 0, "unpriced": Unpriced.FLAG}
    options = limit(40, capacity_requests=3, **free)
    worker = book.pool("worker", options, parent="team", carved=True)
    assert [(0, 0), (0, 40), (0, 40)] == held(book, "worker", "team", "org")
    before = team.status().seq
    spend(worker, 25)
    with pytest.raises(ThresholdExceededError, match="pool 'worker'"):
        reserve(worker, 16)
    lease = reserve(worker, 5)
    assert before == team.status().seq
    assert 10 == worker.remaining(EXTENSIONS).tokens
    with pytest.raises(OpenLeasesError) as busy:
        book.close_pool("worker")
    assert 1 == busy.value.open_leases
    worker.release(lease)
    book.close_pool("worker", reason="done")
    assert [(25, 0)] * 3 == held(book, "worker", "team", "org")
    assert Balance(Totals(25, 0, 1), Totals()) == team.status().balance
    sound(book)


def test_a_closed_carved_pool_overran_only_what_was_set_aside(book: Ledger) -> None:
    """Cost, which nobody limits there, is spent without an overrun; its tokens are what they are.

    A correction after the closing, in the pool above, says the same.
    """
    _, team, _ = tree(book)
    worker = book.pool("worker", limit(40), parent="team", carved=True)
    lease = worker.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED)
    worker.record_used(lease, Usage(total_tokens=9, cost_micros_usd=700))
    settled = worker.status().seq
    book.close_pool("worker")

    def flags() -> list[EntryFlag]:
        return [one.flags & EntryFlag.OVERRUN for one in book.entries("team") if one.usage]

    assert [EntryFlag.NONE] == flags()
    worker.correct(settled, Usage(total_tokens=40, cost_micros_usd=900), "invoice")
    worker.correct(settled, Usage(total_tokens=41, cost_micros_usd=900), "invoice")
    assert [EntryFlag.NONE, EntryFlag.NONE, EntryFlag.OVERRUN] == flags()
    assert (41, 900) == team.status().balance.committed[:2]
    sound(book)


def test_a_capacity_of_nothing_is_not_told_from_none_when_its_pool_is_closed(book: Ledger) -> None:
    """What was used on that axis flags the pool's own settlement, and not the one above."""
    team = book.pool("team", limit(100, capacity_cost_micros_usd=9))
    worker = book.pool("worker", limit(0, capacity_cost_micros_usd=5), parent="team", carved=True)
    lease = worker.reserve(EXTENSIONS, UsageEstimate(cost_micros_usd=5), UNLIMITED)
    worker.record_used(lease, Usage(total_tokens=70, cost_micros_usd=5))
    book.close_pool("worker")
    flags = [
        one.flags & EntryFlag.OVERRUN
        for name in ("worker", "team")
        for one in book.entries(name, kind=EntryKind.SETTLEMENT)
    ]
    assert [EntryFlag.OVERRUN, EntryFlag.NONE] == flags
    assert 30 == team.remaining(EXTENSIONS).tokens
    sound(book)


def test_a_carved_pool_needs_room_and_limits(book: Ledger) -> None:
    """What its parents limit it must limit; and they must have as much left."""
    tree(book)
    with pytest.raises(ThresholdExceededError) as denied:
        book.pool("worker", limit(101), parent="team", carved=True)
    assert ("team", 100) == (denied.value.pool, denied.value.remaining_tokens)
    with pytest.raises(InvalidInputError, match="capacity_tokens"):
        book.pool("worker", limit(capacity_requests=5), parent="team", carved=True)
    assert "worker" not in {info.name for info in book.pools()}
    assert [(0, 0)] * 3 == held(book, *LEVELS)
    book.pool("worker", limit(60), parent="team", carved=True)
    with pytest.raises(InvalidInputError, match="carved out"):
        book.adjust("worker", limit(61))
    book.adjust("worker", limit(10))
    sound(book)


def test_the_lease_that_funds_a_pool_is_nobody_s(book: Ledger) -> None:
    """Neither listed, nor found, nor expired."""
    org = book.pool("org", limit(100, lease_ttl=timedelta(seconds=1)))
    book.pool("worker", limit(60), parent="org", carved=True)
    (funding,) = book.entries("org", kind=EntryKind.RESERVATION)
    assert None is (funding.lease and funding.lease.expires_at)
    with pytest.raises(UnknownLeaseError):
        org.lease(token_of(funding.seq, funding.hash))
    assert [] == list(book.open_leases("org"))


def test_carved_pools_below_carved_pools(book: Ledger) -> None:
    """Each level is closed by itself, the lowest first."""
    book.pool("org", limit(1_000))
    book.pool("region", limit(500), parent="org", carved=True)
    book.pool("machine", limit(200), parent="region", carved=True)
    process = book.pool("process", limit(100), parent="machine")
    spend(process, 70)
    names = ("process", "machine", "region", "org")
    assert [(70, 0), (70, 0), (0, 200), (0, 500)] == held(book, *names)
    with pytest.raises(OpenLeasesError):
        book.close_pool("region")
    book.close_pool("machine")
    assert [(70, 0), (70, 0), (70, 0), (0, 500)] == held(book, *names)
    with pytest.raises(PoolClosedError, match="machine"):
        spend(process, 1)
    book.close_pool("region")
    assert [(70, 0)] * 4 == held(book, *names)
    sound(book)


def test_a_closed_pool_takes_what_is_open_and_nothing_new(timed: Ledger, clock: Clock) -> None:
    """Settlements, observations, releases and expiries."""
    _, team, run = tree(timed)
    leases = [reserve(run, 5) for _ in range(3)]
    due = reserve(run, 5, LeaseTtl(timedelta(minutes=1)))
    timed.close_pool("run", reason="over", idempotency_key="k")
    timed.close_pool("run", reason="over", idempotency_key="k")
    assert (True, False) == (run.status().closed, team.status().closed)
    refused: list[Callable[[], object]] = [
        lambda: reserve(run, 0),
        lambda: run.renew(leases[0], timedelta(minutes=1)),
        lambda: timed.adjust("run", limit(7)),
        lambda: timed.close_pool("run"),
        lambda: timed.pool("below", limit(1), parent="run"),
    ]
    for call in refused:
        with pytest.raises(PoolClosedError, match="'run' is closed"):
            call()
    run.observe(leases[0], used(1))
    run.record_used(leases[0], used(2))
    run.release(leases[1])
    clock.minutes(2)
    assert 1 == timed.expire_due("run")
    run.record_used(due, used(4))
    run.abandon(leases[2])
    assert [(7, 0)] * 3 == held(timed, *LEVELS)
    spend(team, 1)
    kinds = [one.kind for one in timed.entries("run") if EntryFlag.CLOSED in one.flags]
    assert ["closing", "observation", "settlement", "release", "expiry", "settlement"] == kinds[:-1]
    timed.close_pool("org")
    with pytest.raises(PoolClosedError, match="'org' is closed"):
        reserve(team, 1)
    sound(timed)


def test_nested_pools_in_asyncio(store_url: str) -> None:
    """An awaited reservation is held in the pools above, too."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url) as book:
            await book.pool("org", limit(100))
            leaves = [await book.pool(f"leaf {n}", limit(60), parent="org") for n in range(2)]
            worker = await book.pool("worker", limit(10), parent="org", carved=True)
            calls = [
                leaf.reserve(EXTENSIONS, UsageEstimate(total_tokens=30), UNLIMITED)
                for leaf in leaves * 2
            ]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            denied = [one for one in outcomes if isinstance(one, ThresholdExceededError)]
            assert ["org"] == [one.pool for one in denied]
            for leaf in leaves:
                for one in outcomes:
                    if isinstance(one, BudgetLease) and one.pool == leaf.identity:
                        await leaf.record_used(one, used(20))
            await worker.record_used(
                await worker.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED), used(3)
            )
            await book.close_pool("worker")
            left = [(await leaf.remaining(EXTENSIONS)).tokens for leaf in leaves]
            assert [20, 37] == left
            sound(book.sync)

    asyncio.run(main())


def test_a_correction_is_passed_on(book: Ledger) -> None:
    """In every pool above; the mirror itself cannot be corrected."""
    org, _, run = tree(book)
    spend(run, 30)
    (settlement,) = book.entries("run", kind=EntryKind.SETTLEMENT)
    for tokens in (12, 20):
        run.correct(settlement, used(tokens), "invoice")
        assert [(tokens, 0)] * 3 == held(book, *LEVELS)
    (mirror,) = book.entries("org", kind=EntryKind.SETTLEMENT)
    assert [mirror.seq] * 2 == [
        one.detail["corrects"] for one in book.entries("org", kind=EntryKind.CORRECTION)
    ]
    origin = rf"repeats entry {settlement.seq} of pool 'run': correct that one"
    with pytest.raises(UncorrectableEntryError, match=origin):
        org.correct(mirror, used(1), "no")
    sound(book)


def test_what_comes_late_to_a_closed_carved_pool_is_spent_in_its_parent(
    timed: Ledger, clock: Clock
) -> None:
    """Usage of a lease that had expired, and corrections: in the same transaction, at any depth."""
    timed.pool("org", limit(1_000, capacity_requests=50))
    timed.pool("team", limit(500, capacity_requests=30), parent="org")
    options = limit(100, capacity_requests=10, lease_ttl=timedelta(minutes=1))
    worker = timed.pool("worker", options, parent="team", carved=True)
    spend(worker, 10)
    late = [reserve(worker, 20) for _ in range(3)]
    clock.minutes(2)
    timed.close_pool("worker")
    names = ("worker", "team", "org")
    assert [(10, 0)] * 3 == held(timed, *names)
    worker.record_used(late[0], used(15))
    assert [(25, 0)] * 3 == held(timed, *names)
    worker.observe(late[1], used(1))
    worker.record_used(late[1], used(0))
    worker.record_used(late[2], used(300))
    (settlement, *_) = timed.entries("worker", kind=EntryKind.SETTLEMENT)
    worker.correct(settlement, used(4), "invoice")
    balances = [timed.pool(name).status().balance for name in names]
    assert [Balance(Totals(320, 0, 4), Totals())] * 3 == balances
    sound(timed)


def test_a_closing_and_what_comes_late_in_one_batch(store_url: str, clock: Clock) -> None:
    """Tasks whose calls share a transaction."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url, clock=clock) as book:
            await book.pool("org", limit(100))
            worker = await book.pool("worker", limit(50), parent="org", carved=True)
            due = RequestExtensions(LeaseTtl(timedelta(minutes=1)))
            leases = [
                await worker.reserve(due, UsageEstimate(total_tokens=5), UNLIMITED)
                for _ in range(3)
            ]
            clock.minutes(2)
            await asyncio.gather(
                book.close_pool("worker"), *(worker.record_used(one, used(7)) for one in leases)
            )
            assert [(21, 0)] * 2 == held(book.sync, "worker", "org")
            sound(book.sync)

    asyncio.run(main())


def test_a_damaged_pool_below_keeps_nobody_waiting(
    store_url: str, clock: Clock, vandal: Vandal
) -> None:
    """What is due there cannot expire: the pool above denies, and does not look for ever."""
    with Ledger.open(store_url, clock=clock) as book:
        book.pool("org", limit(100))
        below = book.pool("below", limit(100), parent="org")
        due = RequestExtensions(LeaseTtl(timedelta(minutes=1)))
        below.reserve(due, UsageEstimate(total_tokens=50), UNLIMITED)
    vandal.run("UPDATE entries SET detail = '{}' WHERE pool_id = 2 AND seq = 1")
    clock.minutes(2)
    with Ledger.open(store_url, clock=clock) as book, pytest.raises(ThresholdExceededError):
        book.pool("org").reserve(RequestExtensions(), UsageEstimate(total_tokens=80), UNLIMITED)


def test_an_original_that_nothing_repeats_is_found(book: Ledger, vandal: Vandal) -> None:
    """The mirror's row was made into an original of the pool above: its own journal is sound."""
    _, _, run = tree(book)
    spend(run, 5)
    vandal.run(
        # Seq 2 is the reservation, which each of its entries goes along with.
        "UPDATE entries SET origin_pool_id = NULL, origin_seq = NULL, payload_digest = hash,"
        " idempotency_key = 'k' || seq WHERE pool_id = 2 AND seq > 1"
    )
    vandal.rechain_all()
    found = {one.pool.name: one.damage for one in book.verify()}
    assert None is found["org"]
    for name, above in (("run", "team"), ("team", "org")):
        damage = found[name]
        assert damage is not None
        assert (2, f"pool '{above}' above does not repeat it") == (damage.seq, damage.reason)


@pytest.mark.parametrize("change", ["origin_seq = 7", "usage_reasoning_tokens = 9"])
def test_a_mirror_of_nothing_is_found(book: Ledger, vandal: Vandal, change: str) -> None:
    """It names an entry that is not there, or says otherwise than the one that is."""
    org, _, run = tree(book)
    spend(run, 5)
    before = org.status()
    vandal.run(f"UPDATE entries SET {change} WHERE pool_id = 1 AND seq = 3")
    vandal.rechain_all()
    found = {one.pool.name: one.damage for one in book.verify()}
    assert found["org"] is not None
    assert 3 == found["org"].seq
    assert "it repeats entry" in found["org"].reason
    assert before == org.status()


def test_a_funding_that_was_forged_is_found(book: Ledger, vandal: Vandal) -> None:
    """The parent's settlement of a closed pool says what that pool had spent."""
    book.pool("org", limit(100))
    worker = book.pool("worker", limit(40), parent="org", carved=True)
    spend(worker, 25)
    book.close_pool("worker")
    sound(book)
    vandal.run(
        "UPDATE entries SET usage_total_tokens = 24, committed_tokens = 24 "
        "WHERE pool_id = 1 AND seq = 3"
    )
    vandal.rechain_all()
    (org,) = book.verify("org")
    assert org.damage is not None
    assert 3 == org.damage.seq
    assert "it repeats entry 4 of pool 2 wrongly: usage should be" in org.damage.reason


def test_a_pool_that_was_moved_is_found(book: Ledger, vandal: Vandal) -> None:
    """Its opening says where it was made."""
    tree(book)
    vandal.run("UPDATE pools SET parent_id = 1 WHERE name = 'run'")
    with pytest.raises(ParentConflictError):
        book.pool("run", limit(50), parent="team")
    found = {one.pool.name: one.damage for one in book.verify()}
    assert found["run"] is not None
    assert (1, True) == (found["run"].seq, "in another place" in found["run"].reason)


def test_a_reservation_waits_for_the_pools_above_too(book: Ledger) -> None:
    """It is woken by what comes back in any of them."""
    org = book.pool("org", limit(50))
    run = book.pool("run", limit(90), parent="org")
    lease = reserve(org, 40)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(
            run.reserve, EXTENSIONS, UsageEstimate(total_tokens=20), UNLIMITED, wait_s=30
        )
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        org.release(lease)
        assert run.identity == waiting.result(timeout=10).pool
    with pytest.raises(ThresholdExceededError, match="'org'"):
        run.reserve(EXTENSIONS, UsageEstimate(total_tokens=40), UNLIMITED, wait_s=0.2)


def test_a_carving_first_expires_what_is_due_below(store_url: str, clock: Clock) -> None:
    """It crosses thresholds of its parent, and is told of, like any reservation."""
    heard: list[tuple[str | None, str]] = []
    tell = lambda one: heard.append((one.pool, str(one.direction)))  # noqa: E731 - short
    with Ledger.open(store_url, clock=clock, on_threshold=tell) as book:
        book.pool("org", limit(100, thresholds={"half": 50}))
        due = limit(lease_ttl=timedelta(minutes=1))
        leaves = [book.pool(f"leaf {n}", due, parent="org") for n in range(6)]
        for leaf in leaves:
            reserve(leaf, 15)
        clock.minutes(2)
        worker = book.pool("worker", limit(80), parent="org", carved=True)
        assert [(0, 80), (0, 0)] == held(book, "org", "leaf 0")
        assert 80 == worker.remaining(EXTENSIONS).tokens
        with pytest.raises(ThresholdExceededError, match="'org'"):
            book.pool("other", limit(21), parent="org", carved=True)
        sound(book)
    assert [("org", "reached"), ("org", "left")] == heard


def test_a_parent_first_expires_what_is_due_below_when_a_pool_is_carved_out(
    timed: Ledger, clock: Clock
) -> None:
    """What a linked child no longer holds is there to be set aside."""
    timed.pool("org", limit(100))
    team = timed.pool("team", limit(), parent="org")
    reserve(team, 90, LeaseTtl(timedelta(minutes=5)))
    with pytest.raises(ThresholdExceededError):
        timed.pool("machine", limit(50), parent="org", carved=True)
    clock.minutes(6)
    timed.pool("machine", limit(50), parent="org", carved=True)
    assert [(0, 50), (0, 0)] == held(timed, "org", "team")
    sound(timed)


def test_what_comes_late_and_counts_for_nothing_is_recorded_below_alone(
    timed: Ledger, clock: Clock
) -> None:
    """The parent has nothing to correct, and that refuses neither a part nor a correction."""
    timed.pool("org", limit(100))
    machine = timed.pool("machine", limit(50), parent="org", carved=True)
    lease = reserve(machine, 20, LeaseTtl(timedelta(minutes=5)))
    clock.minutes(6)
    timed.expire_due()
    timed.close_pool("machine")
    before = timed.size("org")
    machine.observe(lease, Usage(reasoning_tokens=3))
    assert before == timed.size("org")
    machine.record_used(lease, used(7))
    assert [(7, 0), (7, 0)] == held(timed, "org", "machine")
    settlement = machine.status().seq
    machine.correct(settlement, Usage(total_tokens=7, reasoning_tokens=1), "the invoice")
    assert (before + 1, settlement + 1) == (timed.size("org"), machine.status().seq)
    sound(timed)


def test_a_busier_pool_hides_nothing_that_is_due_below(timed: Ledger, clock: Clock) -> None:
    """Each pool is swept as far as its own newest entry says."""
    timed.pool("org", limit(100))
    leaf = timed.pool("leaf", limit(lease_ttl=timedelta(minutes=1)), parent="org")
    other = timed.pool("other", limit(), parent="org")
    busy = timed.pool("busy", limit(lease_ttl=timedelta(minutes=1)))
    reserve(leaf, 90)
    clock.minutes(5)
    for _ in range(6):
        spend(busy, 1)
    reserve(other, 80)
    assert [(0, 80), (0, 0)] == held(timed, "org", "leaf")
    sound(timed)


def test_what_comes_late_below_a_closed_carved_pool_is_passed_on(
    timed: Ledger, clock: Clock
) -> None:
    """From a pool that shares with it, up to the root; the journals say so to each other."""
    timed.pool("org", limit(1_000))
    timed.pool("team", limit(500), parent="org", carved=True)
    run = timed.pool("run", limit(lease_ttl=timedelta(minutes=1)), parent="team")
    spend(run, 50)
    late = reserve(run, 20)
    clock.minutes(2)
    timed.close_pool("team", reason="the lease in run is due: it expires first")
    assert [(50, 0)] * 3 == held(timed, "run", "team", "org")
    run.observe(late, used(20))
    run.record_used(late, used(100))
    (settlement, *_) = timed.entries("run", kind=EntryKind.SETTLEMENT)
    run.correct(settlement, used(40), "invoice")
    assert [(160, 0)] * 3 == held(timed, "run", "team", "org")
    sound(timed)


def test_what_a_parent_was_not_told_is_found(book: Ledger, vandal: Vandal) -> None:
    """A settlement behind the closing whose correction the parent lacks."""
    book.pool("org", limit(100))
    worker = book.pool("worker", limit(40), parent="org", carved=True)
    spend(worker, 5)
    book.close_pool("worker")
    sound(book)
    vandal.run("UPDATE entries SET origin_pool_id = 7 WHERE pool_id = 1 AND seq = 3")
    vandal.rechain_all()
    (found,) = book.verify("worker")
    assert found.damage is not None
    assert (4, True) == (found.damage.seq, "was not told" in found.damage.reason)


def test_a_lease_that_funds_another_pool_is_found(book: Ledger, vandal: Vandal) -> None:
    """Whoever points a pool at somebody else's lease is caught before it is closed."""
    org = book.pool("org", limit(100))
    book.pool("worker", limit(40), parent="org", carved=True)
    lease = reserve(org, 7)
    vandal.run(f"UPDATE pools SET carved_lease = {lease.id} WHERE name = 'worker'")
    (found,) = book.verify("worker")
    assert found.damage is not None
    assert (1, True) == (found.damage.seq, "does not fund it" in found.damage.reason)


def test_a_carved_pool_has_no_windows(book: Ledger) -> None:
    """What was set aside once would come back with each; it is refused, and nothing is written."""
    book.pool("org", limit(100))
    daily = limit(40, window=Window(period=Period.DAY))
    with pytest.raises(InvalidInputError, match="window"):
        book.pool("worker", daily, parent="org", carved=True)
    book.pool("worker", limit(40), parent="org", carved=True)
    with pytest.raises(InvalidInputError, match="window"):
        book.adjust("worker", daily)
    assert [(0, 40), (0, 0)] == held(book, "org", "worker")
