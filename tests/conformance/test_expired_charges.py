"""A call whose outcome was not recorded is charged when its hold expires, and replaced later."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    Attribution,
    Balance,
    EntryFlag,
    EntryKind,
    LeasePhase,
    LeaseTtl,
    Ledger,
    Period,
    Provenance,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UncorrectableEntryError,
    UnknownLeaseError,
    Unpriced,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
)
from ledger.store import journal
from ledger.testing import Awaited
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import MINUTE, Clock
from tests.conformance.conftest import Vandal
from tests.roles import worker_budgets

OPTIONS = SharedPoolBudgetOptions(
    capacity_tokens=100,
    capacity_cost_micros_usd=100,
    capacity_requests=10,
    lease_ttl=MINUTE,
    unpriced=Unpriced.FLAG,
)
ESTIMATE = UsageEstimate(input_tokens=30, output_tokens=10, total_tokens=40, cost_micros_usd=20)
ASSUMED = Usage.from_estimate(ESTIMATE)

KINDS = ["memory", "sqlite", "postgresql", "async sqlite", "async postgresql", "worker"]


@pytest.fixture(params=KINDS)
def make(
    request: pytest.FixtureRequest, new_store: Callable[[str], str], clock: Clock
) -> Iterator[Callable[[SharedPoolBudgetOptions], Any]]:
    """Return a function that makes a manager of each kind in turn, for threads and for tasks."""
    if request.param == "memory":
        yield lambda options: SharedPoolBudgetManager(options, clock=clock)
        return
    if request.param == "worker":
        with worker_budgets(request.getfixturevalue("role_urls"), clock=clock) as made:
            yield made
        return
    face, _, kind = request.param.rpartition(" ")
    with Ledger.open(new_store(kind), clock=clock) as book:
        if face == "async":
            runner, store = request.getfixturevalue("runner"), AsyncLedger(book)
            yield lambda options: Awaited(runner.run(store.pool("pool", options)), runner.run)
        else:
            yield lambda options: book.pool("pool", options)
        assert [] == [one.damage for one in book.verify() if not one.ok]


def left(manager: Any) -> tuple[int, int, int]:  # noqa: ANN401 - any manager
    """Return what remains on each axis."""
    found = manager.remaining(EXTENSIONS)
    return found.tokens, found.cost_micros_usd, found.requests


def expire(manager: Any) -> None:  # noqa: ANN401 - any manager
    """Write something that changes nothing: due leases expire first."""
    manager.release(manager.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED))


def entries(book: Ledger, name: str = "pool", after: int = 0) -> list[tuple[str, EntryFlag, int]]:
    """Return the kind, the flags and the tokens of each entry."""
    return [
        (
            one.kind,
            one.flags & ~EntryFlag.UNPRICED,
            0 if one.usage is None else one.usage.total_tokens,
        )
        for one in book.entries(name, after=after)
    ]


def good(book: Ledger) -> None:
    """The whole store is proved, and made again from its entries alone."""
    assert [] == [one.damage for one in book.verify() if not one.ok]
    for pool in book.pools():
        assert book.replay(pool.name).balance == book.pool(pool.name).status().balance


# What an expiry charges


def test_programs_that_die_cannot_spend_the_budget_again(
    make: Callable[[SharedPoolBudgetOptions], Any], clock: Clock
) -> None:
    """Five programs would each take all of one cent, and end without a record."""
    manager = make(
        SharedPoolBudgetOptions(capacity_cost_micros_usd=10_000, strict=True, lease_ttl=MINUTE)
    )
    call = UsageEstimate(cost_micros_usd=10_000)
    manager.reserve(EXTENSIONS, call, UNLIMITED)
    for _ in range(4):
        clock.minutes(2)
        with pytest.raises(ThresholdExceededError):
            manager.reserve(EXTENSIONS, call, UNLIMITED)
    assert 0 == manager.remaining(EXTENSIONS).cost_micros_usd


@pytest.mark.parametrize("observed", [Usage(), Usage(total_tokens=5, cost_micros_usd=30)])
@pytest.mark.parametrize(
    ("policy", "charged"),
    [
        (SettlementPolicy.ESTIMATED, lambda seen: (max(40, seen[0]), max(20, seen[1]), 1)),
        (SettlementPolicy.OBSERVED, lambda seen: (*seen, 1)),
        (SettlementPolicy.RELEASE, lambda seen: (*seen, 0)),
    ],
)
def test_a_due_lease_follows_the_settlement_policy(
    make: Callable[[SharedPoolBudgetOptions], Any],
    clock: Clock,
    policy: SettlementPolicy,
    charged: Callable[[tuple[int, int]], tuple[int, int, int]],
    observed: Usage,
) -> None:
    """It is charged the larger of observed and estimated, what was observed, or nothing more.

    A call that is charged counts as a request that was made.
    """
    manager = make(replace(OPTIONS, settlement=policy))
    lease = manager.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    if observed != Usage():
        manager.observe(lease, observed)
    clock.minutes(2)
    cost = charged((observed.total_tokens, observed.cost_micros_usd))
    remains = tuple(of - one for of, one in zip((100, 100, 10), cost, strict=True))
    assert remains == left(manager)  # before anything is written, as after it
    expire(manager)
    assert remains == left(manager)


@pytest.mark.parametrize(
    ("observed", "usage", "provenance"),
    [
        (None, ASSUMED, Provenance.ESTIMATED),
        (Usage(input_tokens=8, total_tokens=8), replace(ASSUMED, input_tokens=22, total_tokens=32),
         Provenance.ESTIMATED),
        (replace(ASSUMED, reasoning_tokens=3), Usage(), Provenance.REPORTED),
    ],
)  # fmt: skip
def test_the_expiry_says_what_it_assumes(
    timed: Ledger, clock: Clock, observed: Usage | None, usage: Usage, provenance: str
) -> None:
    """By which policy, from where the figure is, and that the hold expired."""
    budget = timed.pool("pool", OPTIONS)
    lease = budget.reserve(RequestExtensions(Attribution(run_id="r")), ESTIMATE, UNLIMITED)
    if observed is not None:
        budget.observe(lease, observed)
    clock.minutes(2)
    assert 1 == timed.expire_due("pool")
    *_, expiry = timed.entries("pool")
    assert (EntryKind.EXPIRY, EntryFlag.EXPIRED | EntryFlag.AT_EXPIRY) == (
        expiry.kind,
        expiry.flags,
    )
    assert (usage, provenance) == (expiry.usage, expiry.provenance)
    assert {"settlement": "estimated"} == expiry.detail
    assert expiry.attribution is not None
    assert "r" == expiry.attribution.run_id
    assert expiry.lease is not None
    assert (LeasePhase.EXPIRED, Totals()) == (expiry.lease.phase, expiry.lease.held)
    good(timed)


def test_a_policy_may_give_the_hold_back(timed: Ledger, clock: Clock) -> None:
    """By name; the entry records no usage then, and is not flagged."""
    budget = timed.pool("pool", replace(OPTIONS, settlement=SettlementPolicy.RELEASE))
    budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    timed.expire_due("pool")
    *_, expiry = timed.entries("pool")
    assert (None, None, EntryFlag.NONE) == (expiry.usage, expiry.provenance, expiry.flags)
    assert {"settlement": "release"} == expiry.detail
    assert Balance() == budget.status().balance
    good(timed)


# Usage that arrives later


@pytest.mark.parametrize("policy", SettlementPolicy)
@pytest.mark.parametrize("used", [0, 7, 40, 300])
def test_usage_that_arrives_late_replaces_what_was_assumed(
    make: Callable[[SharedPoolBudgetOptions], Any],
    clock: Clock,
    policy: SettlementPolicy,
    used: int,
) -> None:
    """Once: whatever the policy assumed, what was really used is all that is spent."""
    manager = make(replace(OPTIONS, settlement=policy))
    lease = manager.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    expire(manager)
    usage = Usage(total_tokens=used, cost_micros_usd=3)
    manager.record_used(lease, usage)
    assert (max(0, 100 - used), 97, 9) == left(manager)
    for call in (
        lambda: manager.record_used(lease, usage),
        lambda: manager.observe(lease, usage),
        lambda: manager.release(lease),
        lambda: manager.abandon(lease),
    ):
        with pytest.raises(UnknownLeaseError):
            call()
    assert (max(0, 100 - used), 97, 9) == left(manager)


def test_the_replacement_is_appended(timed: Ledger, clock: Clock) -> None:
    """What was assumed is taken back by a correction, and the late settlement is as any other."""
    budget = timed.pool("pool", OPTIONS)
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    timed.expire_due()
    usage, report = Usage(total_tokens=55), UsageReport(model="m", idempotency_key="k")
    for _ in range(2):  # a call is done once under its key
        budget.record_used(lease, usage, report=report)
    _, _, expiry, correction, settlement = timed.entries("pool")
    assert {
        "corrects": expiry.seq,
        "from": {
            "input_tokens": 30,
            "output_tokens": 10,
            "total_tokens": 40,
            "cost_micros_usd": 20,
        },
        "to": {},
        "reason": "settlement after the expiry",
        "late": "settlement",
    } == correction.detail
    assert (None, EntryFlag.LATE | EntryFlag.AT_EXPIRY) == (
        correction.idempotency_key,
        correction.flags,
    )
    assert Balance() == correction.balance
    assert (usage, "reported", "k") == (
        settlement.usage,
        settlement.provenance,
        settlement.idempotency_key,
    )
    flags = EntryFlag.LATE | EntryFlag.AT_EXPIRY | EntryFlag.OVERRUN | EntryFlag.UNPRICED
    assert flags == settlement.flags
    assert settlement.lease is not None
    assert usage == settlement.lease.used
    assert Balance(Totals(55, 0, 1)) == budget.status().balance
    assert (Usage(), usage) == (budget.usage_of(expiry), budget.usage_of(settlement))
    good(timed)


def test_parts_that_arrive_late_take_the_place_of_as_much(
    make: Callable[[SharedPoolBudgetOptions], Any], clock: Clock
) -> None:
    """A stream that goes on stays charged with its estimate until it is over that, or ends."""
    manager = make(OPTIONS)
    lease = manager.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    manager.observe(lease, Usage(total_tokens=5, cost_micros_usd=1))
    clock.minutes(2)
    for used, remains in ((15, 60), (20, 60), (10, 50), (0, 50)):
        manager.observe(lease, Usage(total_tokens=used))
        expire(manager)
        assert (remains, 80, 9) == left(manager)
    manager.record_used(lease, Usage(total_tokens=1, cost_micros_usd=2))
    assert (49, 97, 9) == left(manager)


def test_a_part_that_replaces_nothing_is_one_entry(timed: Ledger, clock: Clock) -> None:
    """Nothing is taken back where nothing of the kind was assumed."""
    budget = timed.pool("pool", OPTIONS)
    lease = budget.reserve(EXTENSIONS, tokens(4), UNLIMITED)
    clock.minutes(2)
    timed.expire_due()
    budget.observe(lease, Usage(total_tokens=4))
    budget.observe(lease, Usage(total_tokens=5))
    budget.record_used(lease, Usage())
    late, expired = EntryFlag.LATE | EntryFlag.AT_EXPIRY, EntryFlag.EXPIRED | EntryFlag.AT_EXPIRY
    assert [
        ("expiry", expired, 4),
        ("correction", late, -4),
        ("observation", late, 4),
        ("observation", late | EntryFlag.OVERRUN, 5),
        ("correction", late | EntryFlag.OVERRUN, 0),  # it takes back that a call was assumed
        ("settlement", late | EntryFlag.OVERRUN, 0),
    ] == entries(timed, after=2)
    assert Balance(Totals(9, 0, 1)) == budget.status().balance
    good(timed)


@pytest.mark.parametrize("policy", SettlementPolicy)
def test_a_release_gives_back_what_was_assumed_once(
    make: Callable[[SharedPoolBudgetOptions], Any], clock: Clock, policy: SettlementPolicy
) -> None:
    """Somebody says that nothing was used; what was observed stays, and the call was not made."""
    manager = make(replace(OPTIONS, settlement=policy))
    lease, seen = (manager.reserve(EXTENSIONS, ESTIMATE, UNLIMITED) for _ in range(2))
    manager.observe(seen, Usage(total_tokens=3))
    clock.minutes(2)
    expire(manager)
    for one in (lease, seen):
        manager.release(one)
        with pytest.raises(UnknownLeaseError):
            manager.release(one)
        with pytest.raises(UnknownLeaseError):
            manager.record_used(one, Usage(total_tokens=1))
    assert (97, 100, 10) == left(manager)


@pytest.mark.parametrize("policy", SettlementPolicy)
def test_the_policy_is_applied_once(
    make: Callable[[SharedPoolBudgetOptions], Any], clock: Clock, policy: SettlementPolicy
) -> None:
    """A lease that has expired is neither abandoned nor renewed; its usage can be recorded."""
    manager = make(replace(OPTIONS, settlement=policy))
    lease = manager.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    expire(manager)
    before = left(manager)
    with pytest.raises(UnknownLeaseError, match="has expired"):
        manager.abandon(lease)
    with pytest.raises(UnknownLeaseError):
        manager.renew(lease, MINUTE)
    assert before == left(manager)
    manager.record_used(lease, Usage(total_tokens=1))
    assert (99, 100, 9) == left(manager)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_of_many_late_records_counts(
    new_store: Callable[[str], str], clock: Clock, kind: str
) -> None:
    """Threads of two ledgers record the same late call at once, and another one releases it."""
    url = new_store(kind)
    with Ledger.open(url, clock=clock) as one, Ledger.open(url, clock=clock) as two:
        budgets = [one.pool("pool", OPTIONS), two.pool("pool", OPTIONS)]
        leases = [budgets[0].reserve(EXTENSIONS, ESTIMATE, UNLIMITED) for _ in range(2)]
        clock.minutes(2)

        def record(number: int) -> int:
            for lease in leases:
                try:
                    budgets[number % 2].record_used(lease, Usage(total_tokens=11))
                except UnknownLeaseError:
                    continue
                return 1
            return 0

        with ThreadPoolExecutor(8) as threads:
            assert 2 == sum(threads.map(record, range(24)))
        assert Balance(Totals(22, 0, 2)) == budgets[0].status().balance
        good(one)


def test_what_expires_in_a_batch_is_replaced_in_it(timed: Ledger, clock: Clock) -> None:
    """A call behind a reservation that lets its lease expire, mostly in the same transaction."""
    parent = timed.pool("team", SharedPoolBudgetOptions(capacity_tokens=100))
    released = replace(OPTIONS, settlement=SettlementPolicy.OBSERVED)
    budget = timed.pool("pool", released, parent="team")
    for _ in range(20):
        lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
        clock.minutes(2)
        with ThreadPoolExecutor(3) as threads:
            asked = threads.submit(budget.reserve, EXTENSIONS, tokens(70), UNLIMITED)
            threads.submit(budget.record_used, lease, Usage(total_tokens=2)).result()
            granted = asked.result()
        budget.release(granted)
        timed.adjust("pool", replace(released, capacity_tokens=10_000, capacity_requests=10_000))
        timed.adjust("team", SharedPoolBudgetOptions(capacity_tokens=10_000))
    assert Totals(40, 0, 20) == parent.status().balance.committed
    good(timed)


# Windows


def test_an_assumed_charge_counts_where_it_expired_and_the_difference_where_it_arrives(
    make: Callable[[SharedPoolBudgetOptions], Any], clock: Clock
) -> None:
    """A lease of yesterday that is due is charged to yesterday, and today only by what is more.

    The clock is at ten at night.
    """
    options = replace(OPTIONS, capacity_tokens=200, capacity_cost_micros_usd=200)
    manager = make(replace(options, window=Window(period=Period.DAY)))
    cheap, dear, open_still = (
        manager.reserve(RequestExtensions(LeaseTtl(ttl * MINUTE)), ESTIMATE, UNLIMITED)
        for ttl in (10, 10, 300)
    )
    clock.minutes(180)
    assert (160, 180, 9) == left(manager)  # one hold alone goes on into today
    expire(manager)
    assert (160, 180, 9) == left(manager)
    manager.record_used(cheap, Usage(total_tokens=30, cost_micros_usd=20))
    assert (160, 180, 9) == left(manager)  # ten less than was assumed: they are yesterday's
    manager.record_used(dear, Usage(total_tokens=60, cost_micros_usd=20))
    assert (140, 180, 9) == left(manager)  # twenty more
    manager.record_used(open_still, Usage(total_tokens=40, cost_micros_usd=20))
    assert (140, 180, 9) == left(manager)


# Pools that share, and carved ones


@pytest.mark.parametrize("late", ["record", "observe", "release"])
def test_ancestors_are_charged_and_told_the_difference(
    timed: Ledger, clock: Clock, late: str
) -> None:
    """Each entry is repeated above, at every level."""
    top = timed.pool("top", SharedPoolBudgetOptions(capacity_tokens=1_000))
    middle = timed.pool("middle", SharedPoolBudgetOptions(), parent="top")
    budget = timed.pool("pool", OPTIONS, parent="middle")
    middle.reserve(EXTENSIONS, tokens(7), UNLIMITED)
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    timed.expire_due()
    for one in (top, middle, budget):
        assert Totals(40, 20, 1) == one.status().balance.committed
    usage = Usage(total_tokens=12, cost_micros_usd=2)
    if late == "release":
        budget.release(lease)
    else:
        (budget.record_used if late == "record" else budget.observe)(lease, usage)
    expected = {"record": Totals(12, 2, 1), "observe": Totals(40, 20, 1), "release": Totals()}
    for one in (top, middle, budget):
        assert expected[late] == one.status().balance.committed
    assert Totals(7, 0, 1) == top.status().balance.reserved
    good(timed)


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("late", ["record", "release"])
def test_what_comes_late_to_a_closed_carved_pool_replaces_what_its_parent_was_charged(
    timed: Ledger,
    clock: Clock,
    late: str,
    below: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The carved pool is settled at what was assumed, and corrected once usage arrives."""
    parent = timed.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
    budget = carved = timed.pool("carved", OPTIONS, parent="team", carved=True)
    if below:
        budget = timed.pool("pool", OPTIONS, parent="carved")
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    timed.close_pool("carved")
    assert Balance(Totals(40, 20, 1)) == parent.status().balance
    if late == "record":
        budget.record_used(lease, Usage(total_tokens=50, cost_micros_usd=1))
    else:
        budget.release(lease)
    expected = Balance(Totals(50, 1, 1) if late == "record" else Totals())
    assert expected == parent.status().balance == carved.status().balance
    good(timed)


# Corrections


def test_an_invoice_may_correct_what_was_assumed(timed: Ledger, clock: Clock) -> None:
    """Until usage arrives and replaces it; from then on the settlement is what is corrected."""
    budget = timed.pool("pool", OPTIONS)
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    timed.expire_due()
    expiry = 3
    assert -35 == budget.correct(expiry, Usage(total_tokens=5), "invoice").total_tokens
    assert -5 == budget.correct(expiry, Usage(), "not billed").total_tokens
    assert (Usage(), Totals(0, 0, 1)) == (
        budget.usage_of(expiry),
        budget.status().balance.committed,
    )
    assert [LeasePhase.EXPIRED] == [one.phase for one in timed.open_leases("pool")]
    budget.correct(expiry, Usage(total_tokens=6), "billed after all")
    budget.record_used(lease, Usage(total_tokens=9))
    assert Totals(9, 0, 1) == budget.status().balance.committed
    with pytest.raises(UncorrectableEntryError, match="replaced what it assumed"):
        budget.correct(expiry, Usage(total_tokens=1), "again")
    budget.correct(
        next(reversed(list(timed.entries("pool")))).seq, Usage(total_tokens=8), "invoice"
    )
    assert Totals(8, 0, 1) == budget.status().balance.committed
    assert [None] * 3 == [one.occurred_at for one in timed.entries("pool") if one.kind in PLAIN]
    good(timed)


PLAIN = {EntryKind.RESERVATION, EntryKind.EXPIRY, EntryKind.SETTLEMENT}
"""Kinds whose entries have the time of the call, which no call of these tests says."""


def test_an_expiry_that_gave_back_cannot_be_corrected(timed: Ledger, clock: Clock) -> None:
    """It assumed nothing."""
    budget = timed.pool("pool", replace(OPTIONS, settlement=SettlementPolicy.RELEASE))
    budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    timed.expire_due()
    with pytest.raises(UncorrectableEntryError, match="assumed nothing"):
        budget.correct(3, Usage(total_tokens=5), "invoice")


# Thresholds


def test_a_replacement_crosses_no_threshold_in_between(timed: Ledger, clock: Clock) -> None:
    """What is taken back is spent again at once; only what is left of both is reported."""
    heard: list[Any] = []
    options = replace(OPTIONS, thresholds={"half": 50, "most": 80})
    with Ledger.open(timed.url, clock=clock, on_threshold=heard.append) as told:
        budget = told.pool("pool", options)
        lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
        clock.minutes(2)
        told.expire_due()
        budget.observe(lease, Usage(total_tokens=10))
        budget.record_used(lease, Usage(total_tokens=75))
    assert [("half", "reached"), ("most", "reached")] == [
        (one.threshold, one.direction) for one in heard
    ]
    kinds = [kind for kind, _, _ in entries(timed)]
    assert [2, 2] == [kinds.count(kind) for kind in (EntryKind.CORRECTION, EntryKind.THRESHOLD)]
    good(timed)


# What remains


@pytest.mark.parametrize("policy", SettlementPolicy)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_what_remains_counts_what_is_due_as_the_next_write_would(
    timed: Ledger, clock: Clock, policy: SettlementPolicy, depth: int
) -> None:
    """In the pool, in those above it, and beside it; before anything is written."""
    options = replace(OPTIONS, settlement=policy)
    roots = replace(options, capacity_tokens=200, capacity_requests=20, lease_ttl=None)
    pools = [timed.pool("0", roots)]
    pools += [timed.pool(str(number + 1), roots, parent=str(number)) for number in range(depth)]
    budget = timed.pool("pool", options, parent=str(depth))
    beside = timed.pool("beside", roots, parent="0")
    for _ in range(3):
        lease = budget.reserve(EXTENSIONS, tokens(9), UNLIMITED)
        budget.observe(lease, Usage(total_tokens=2))
    budget.renew(lease, 60 * MINUTE)
    budget.record_used(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED), Usage(total_tokens=1))
    clock.minutes(2)
    polled = [left(one) for one in (*pools, budget, beside)]
    entries_before = budget.status().seq
    timed.expire_due()
    assert entries_before + 2 == budget.status().seq
    assert polled == [left(one) for one in (*pools, budget, beside)]


def test_whoever_polls_does_not_wait_for_ever(timed: Ledger, clock: Clock) -> None:
    """More is due than one transaction expires, nothing is written, and the poller sees it all."""
    budget = timed.pool("pool", replace(OPTIONS, capacity_requests=10_000, capacity_tokens=1_000,
                                        settlement=SettlementPolicy.RELEASE))  # fmt: skip
    for _ in range(journal.ENDING_PAGE + 9):
        budget.reserve(EXTENSIONS, tokens(3), UNLIMITED)
    with Ledger.open(timed.url, clock=clock) as other:
        polls = other.pool("pool")
        assert 1_000 - 3 * (journal.ENDING_PAGE + 9) == left(polls)[0]
        clock.minutes(2)
        assert 1_000 == left(polls)[0]
        assert 1_000 == polls.reserve(EXTENSIONS, tokens(1_000), UNLIMITED).reserved.total_tokens


# The proof


def story(book: Ledger, clock: Clock) -> None:
    """Write a lease that expires, is observed late, and is settled late: entries 2 to 7."""
    budget = book.pool("pool", OPTIONS)
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    clock.minutes(2)
    book.expire_due()
    budget.observe(lease, Usage(total_tokens=11))
    budget.record_used(lease, Usage(total_tokens=30))


FORGERIES: dict[str, Callable[[Any], object]] = {
    "an expiry that charges less": lambda vandal: vandal.forge(3, usage_total_tokens=39),
    "an expiry under another policy": lambda vandal: vandal.forge(
        3, detail='{"settlement":"observed"}'
    ),
    "an expiry without its flag": lambda vandal: vandal.forge(3, flags=0),
    "an expiry whose figure is said to be reported": lambda vandal: vandal.forge(
        3, provenance="reported"
    ),
    "a correction for another entry": lambda vandal: vandal.forge(
        4, detail=vandal.row(4)["detail"].replace("observation", "settlement")
    ),
    "a late part without its flag": lambda vandal: vandal.forge(5, flags=0),
    "a late settlement without its flag": lambda vandal: vandal.forge(7, flags=0),
    "a correction under a key": lambda vandal: vandal.forge(
        6, idempotency_key="k", payload_digest=b"d" * 32
    ),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_replacement_is_found(
    store_url: str, clock: Clock, forge: Callable[[Any], object], request: pytest.FixtureRequest
) -> None:
    """Although the chain of hashes fits again."""
    with Ledger.open(store_url, clock=clock) as book:
        story(book, clock)
        assert book.verify()[0].ok
        request.getfixturevalue("vandal_of")(store_url, forge)
        assert not book.verify()[0].ok


@pytest.fixture
def vandal_of() -> Callable[[str, Callable[[Any], object]], None]:
    """Return a function that lets somebody edit a store."""

    def edit(url: str, forge: Callable[[Any], object]) -> None:
        vandal = Vandal(url)
        try:
            forge(vandal)
        finally:
            vandal.close()

    return edit


def test_an_assumed_charge_that_stands_beside_its_usage_is_found(
    store_url: str,
    clock: Clock,
    vandal_of: Callable[[str, Callable[[Any], object]], None],
) -> None:
    """A settlement that is booked as if nothing had been assumed: both would be counted."""
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("pool", OPTIONS)
        lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
        clock.minutes(2)
        book.expire_due()
        expired = budget.status().balance.committed
        budget.record_used(lease, Usage(total_tokens=30))

        def skip(vandal: Any) -> None:  # noqa: ANN401 - the vandal
            vandal.loosen()
            twice = expired.plus(Totals(30, 0, 1))
            vandal.run("DELETE FROM entries WHERE seq = 4")
            vandal.run("UPDATE entries SET seq = 4 WHERE seq = 5")
            vandal.edit(
                4,
                committed_tokens=twice.tokens,
                committed_cost_micros_usd=twice.cost_micros_usd,
                committed_requests=twice.requests,
                used_total_tokens=70,
                used_input_tokens=30,
                used_output_tokens=10,
                used_cost_micros_usd=20,
                flags=int(EntryFlag.LATE | EntryFlag.OVERRUN | EntryFlag.AT_EXPIRY),
            )
            vandal.rechain()

        vandal_of(store_url, skip)
        (found,) = book.verify()
        assert found.damage is not None
        assert "still assumes" in found.damage.reason


def test_a_charge_that_is_taken_back_and_not_replaced_is_found(
    store_url: str,
    clock: Clock,
    vandal_of: Callable[[str, Callable[[Any], object]], None],
) -> None:
    """The settlement behind the correction is cut off."""
    with Ledger.open(store_url, clock=clock) as book:
        story(book, clock)

    def cut(vandal: Any) -> None:  # noqa: ANN401 - the vandal
        vandal.run("DELETE FROM entries WHERE seq = 7")

    vandal_of(store_url, cut)
    with Ledger.open(store_url, clock=clock) as book:
        (found,) = book.verify()
        assert found.damage is not None
        assert "no settlement follows" in found.damage.reason


def test_every_end_of_many_leases_adds_up(
    make: Callable[[SharedPoolBudgetOptions], Any], clock: Clock
) -> None:
    """Observed early, late, both or never; settled, released or left: what is spent is right."""
    manager = make(
        replace(OPTIONS, capacity_tokens=10**6, capacity_cost_micros_usd=10**6,
                capacity_requests=10**6)
    )  # fmt: skip
    cases = list(itertools.product((0, 3, 50), (0, 7, 60), ("record", "release", "leave")))
    leases = [manager.reserve(EXTENSIONS, ESTIMATE, UNLIMITED) for _ in cases]
    for lease, (early, _, _) in zip(leases, cases, strict=True):
        if early:
            manager.observe(lease, Usage(total_tokens=early))
    clock.minutes(2)
    spent = requests = 0
    for lease, (early, late, end) in zip(leases, cases, strict=True):
        expire(manager)
        if late:
            manager.observe(lease, Usage(total_tokens=late))
        if end == "record":
            manager.record_used(lease, Usage(total_tokens=9))
            spent += early + late + 9
        elif end == "release":
            manager.release(lease)
            spent += early + late
        else:
            spent += max(40, early + late)
        requests += end != "release"
    found = left(manager)
    assert (10**6 - spent, 10**6 - requests) == (found[0], found[2])
