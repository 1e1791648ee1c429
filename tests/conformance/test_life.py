"""The life of a lease: parts of its usage, the end of its hold, and what comes late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    Balance,
    EntryFlag,
    EntryKind,
    LeasePhase,
    LeaseTtl,
    Ledger,
    PoolClosedError,
    Provenance,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Totals,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
    UsageReport,
    from_micros,
)
from ledger.testing import Awaited
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.clocks import MINUTE, Clock
from tests.roles import worker_budgets

OPTIONS = SharedPoolBudgetOptions(
    capacity_tokens=100, lease_ttl=10 * MINUTE, settlement=SettlementPolicy.RELEASE
)
"""A hold that ends is given back; test_expired_charges.py shows what other policies charge."""

Make = Callable[..., Any]


@pytest.fixture(
    params=["memory", "sqlite", "postgresql", "async sqlite", "async postgresql", "worker"]
)
def manager(
    request: pytest.FixtureRequest, new_store: Callable[[str], str], clock: Clock
) -> Iterator[Any]:
    """Return a manager of each kind in turn, of 100 tokens that leases hold for ten minutes."""
    if request.param == "memory":
        yield SharedPoolBudgetManager(OPTIONS, clock=clock)
        return
    if request.param == "worker":
        with worker_budgets(request.getfixturevalue("role_urls"), clock=clock) as made:
            yield made(OPTIONS)
        return
    face, _, kind = request.param.rpartition(" ")
    with Ledger.open(new_store(kind), clock=clock) as book:
        if face == "async":
            runner = request.getfixturevalue("runner")
            yield Awaited(runner.run(AsyncLedger(book).pool("pool", OPTIONS)), runner.run)
        else:
            yield book.pool("pool", OPTIONS)


def reserve(budget: Any, tokens: int, *carried: object, limit: int | None = None) -> Any:  # noqa: ANN401 - any manager
    """Reserve tokens."""
    return budget.reserve(
        RequestExtensions(*carried),
        UsageEstimate(total_tokens=tokens),
        UNLIMITED if limit is None else RequestBudget.from_tokens(limit),
    )


def used(tokens: int) -> Usage:
    """Return a usage of tokens."""
    return Usage(total_tokens=tokens)


def left(budget: Any) -> int:  # noqa: ANN401 - any manager
    """Return what remains of the tokens."""
    remains: int = budget.remaining(EXTENSIONS).tokens
    return remains


# Parts


def test_parts_are_committed_at_once_and_shrink_what_is_held(manager: Any) -> None:  # noqa: ANN401 - any manager
    """What remains stays as it is until the parts are more than was estimated."""
    lease = reserve(manager, 40)
    for tokens, remains in ((15, 60), (20, 60), (10, 55), (0, 55)):
        manager.observe(lease, used(tokens))
        assert remains == left(manager)
    manager.record_used(lease, used(1))
    assert 54 == left(manager)
    for call in (manager.observe, manager.record_used):
        with pytest.raises(UnknownLeaseError):
            call(lease, used(1))


def test_the_request_s_budget_is_held_against_the_sum(manager: Any) -> None:  # noqa: ANN401 - any manager
    """The part that goes over it is recorded, the lease stays open, and the last one says so."""
    lease = reserve(manager, 10, limit=10)
    manager.observe(lease, used(10))
    for call, tokens in ((manager.observe, 1), (manager.observe, 0), (manager.record_used, 2)):
        with pytest.raises(RequestBudgetExceededError) as caught:
            call(lease, used(tokens))
    assert (13, 10) == (caught.value.requested_tokens, caught.value.budget_tokens)
    assert 87 == left(manager)


def test_what_was_observed_stays_when_the_lease_is_released(manager: Any) -> None:  # noqa: ANN401 - any manager
    """Only the rest goes back."""
    lease = reserve(manager, 40)
    manager.observe(lease, used(15))
    manager.release(lease)
    assert 85 == left(manager)


def test_each_attempt_is_an_entry_of_its_own(timed: Ledger) -> None:
    """With its provider's request id and provenance, all under one lease; requests count once."""
    budget = timed.pool("pool", OPTIONS)
    lease = reserve(budget, 40)
    budget.observe(lease, used(5), report=UsageReport(request_id="a"))
    recovered = UsageReport(request_id="b", provenance=Provenance.RECOVERED)
    budget.record_used(lease, used(7), report=recovered)
    _, *parts = timed.entries("pool", after=1)
    assert [("observation", "a", "reported"), ("settlement", "b", "recovered")] == [
        (part.kind, part.request_id, part.provenance) for part in parts
    ]
    assert [lease.id] * 2 == [part.lease and part.lease.lease for part in parts]
    assert Totals(12, 0, 1) == budget.status().balance.committed


STREAM = """
import sys
from ledger import Ledger, RequestBudget, RequestExtensions, Usage, UsageEstimate
with Ledger.open(sys.argv[1], create=False) as book:
    with book.pool("pool").lease(UsageEstimate(total_tokens=40)) as lease:
        lease.observe(Usage(total_tokens=15))
        print(lease.id, flush=True)
        sys.stdin.read()
"""


def test_a_process_killed_in_mid_stream_loses_nothing_it_observed(
    timed: Ledger, store_url: str, clock: Clock
) -> None:
    """Its chunk is committed; what it still holds goes back when its time is over."""
    budget = timed.pool("pool", OPTIONS)
    with programs.Popen(
        [sys.executable, "-c", STREAM, store_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lease_id = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert Balance(Totals(15), Totals(25, 0, 1)) == budget.status().balance
    (found,) = timed.open_leases("pool")
    assert (lease_id, used(15)) == (found.lease.id, found.used)
    assert found.expires_at is not None
    clock.now = int(found.expires_at.timestamp() * 1_000_000) + 1
    assert 1 == timed.expire_due()
    assert Balance(Totals(15), Totals()) == budget.status().balance
    assert timed.verify("pool")[0].ok


# Expiry


def test_a_due_lease_expires_inside_the_next_write(manager: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """Exactly when its time is over, so that the write finds the capacity."""
    reserve(manager, 60)
    clock.minutes(10)
    clock.now -= 1
    reserve(manager, 10)
    assert 30 == left(manager)
    clock.now += 1
    reserve(manager, 90)
    assert 0 == left(manager)


def test_usage_after_expiry_is_recorded_in_full_and_once(manager: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """In parts too; and it is not renewed."""
    lease = reserve(manager, 60)
    clock.minutes(11)
    manager.release(reserve(manager, 0))
    assert 100 == left(manager)
    with pytest.raises(UnknownLeaseError):
        manager.renew(lease, MINUTE)
    manager.observe(lease, used(30))
    manager.record_used(lease, used(40))
    with pytest.raises(UnknownLeaseError):
        manager.record_used(lease, used(40))
    assert 30 == left(manager)


def test_late_usage_is_flagged_and_linked(timed: Ledger, clock: Clock) -> None:
    """The journal says that it came late, and of which lease it is."""
    budget = timed.pool("pool", OPTIONS)
    lease = reserve(budget, 60)
    clock.minutes(11)
    assert [1, 0] == [timed.expire_due("pool"), timed.expire_due()]
    budget.record_used(lease, used(40))
    *_, expiry, settlement = timed.entries("pool")
    assert ("expiry", LeasePhase.EXPIRED) == (expiry.kind, expiry.lease and expiry.lease.phase)
    assert (EntryFlag.LATE | EntryFlag.AT_EXPIRY, lease.id) == (
        settlement.flags,
        settlement.lease.lease,
    )
    assert timed.verify("pool")[0].ok


ABOUT: dict[str, tuple[Callable[[Any, Any], object], int]] = {
    "settle": (lambda budget, lease: budget.record_used(lease, used(5)), 95),
    "observe": (lambda budget, lease: budget.observe(lease, used(5)), 95),
    "renew": (lambda budget, lease: budget.renew(lease, MINUTE), 40),
    "release": (lambda budget, lease: budget.release(lease), 100),
    "abandon": (lambda budget, lease: budget.abandon(lease), 100),
}


@pytest.mark.parametrize(("call", "remains"), ABOUT.values(), ids=ABOUT)
def test_a_write_never_expires_the_lease_it_is_about(
    manager: Any,  # noqa: ANN401 - any manager
    clock: Clock,
    call: Callable[[Any, Any], object],
    remains: int,
) -> None:
    """Its own time is over, like that of another one, which does expire."""
    lease, _other = reserve(manager, 60), reserve(manager, 30)
    clock.minutes(11)
    call(manager, lease)
    assert remains == left(manager)


def test_a_renewal_counts_from_now(manager: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """It may be sooner than before, too; and a lease may have a time of its own."""
    lease, short = reserve(manager, 60), reserve(manager, 20, LeaseTtl(2 * MINUTE))
    clock.minutes(1)
    assert from_micros(clock.now + 30 * 60_000_000) == manager.renew(lease, 30 * MINUTE)
    clock.minutes(1)
    manager.release(reserve(manager, 0))
    assert 40 == left(manager)
    with pytest.raises(UnknownLeaseError):
        manager.renew(short, MINUTE)
    manager.renew(lease, MINUTE)
    clock.minutes(1)
    manager.release(reserve(manager, 0))
    assert 100 == left(manager)


def test_leases_expire_in_the_order_of_their_times(timed: Ledger, clock: Clock) -> None:
    """A renewed one in its new turn, whether or not somebody has swept meanwhile."""
    budget = timed.pool("pool", OPTIONS)
    first, second = reserve(budget, 1), reserve(budget, 2, LeaseTtl(12 * MINUTE))
    budget.renew(first, 20 * MINUTE)
    clock.minutes(30)
    assert 2 == timed.expire_due("pool")
    found = timed.entries("pool", kind=EntryKind.EXPIRY)
    assert [second.id, first.id] == [entry.lease and entry.lease.lease for entry in found]


def test_in_memory_leases_expire_in_the_order_of_their_times_too(clock: Clock) -> None:
    """The larger one is last since it was renewed, and only what it gives back leaves the half."""
    heard: list[int] = []
    budget = SharedPoolBudgetManager(
        SharedPoolBudgetOptions(
            capacity_tokens=100, thresholds={"half": 50}, settlement=SettlementPolicy.RELEASE
        ),
        clock=clock,
        on_threshold=lambda crossing: heard.append(crossing.remaining.tokens),
    )
    first = reserve(budget, 60, LeaseTtl(10 * MINUTE))
    reserve(budget, 30, LeaseTtl(12 * MINUTE))
    budget.renew(first, 20 * MINUTE)
    clock.minutes(30)
    reserve(budget, 0)
    budget._announcer.close()
    assert [40, 100] == heard


def test_a_clock_that_is_behind_holds_nothing_for_ever(
    timed: Ledger, store_url: str, clock: Clock
) -> None:
    """A time counts from the newest entry, up to which the pool may have been swept."""
    budget = timed.pool("pool", OPTIONS)
    budget.release(reserve(budget, 1))
    with Ledger.open(store_url, clock=lambda: clock.now - 20 * 60_000_000) as late:
        behind = late.pool("pool")
        lease, renewed = reserve(behind, 50), reserve(behind, 20)
        assert from_micros(clock.now + 60_000_000) == behind.renew(renewed, MINUTE)
    assert lease.id == budget.lease(lease.token).id
    clock.minutes(11)
    assert 2 == timed.expire_due("pool")
    assert 100 == left(budget)


def test_a_renewal_below_a_closed_pool_is_refused(timed: Ledger) -> None:
    """The pool above would have to repeat it, and takes nothing new."""
    timed.pool("org", OPTIONS)
    budget = timed.pool("team", OPTIONS, parent="org")
    lease = reserve(budget, 10)
    timed.close_pool("org")
    with pytest.raises(PoolClosedError) as caught:
        budget.renew(lease, MINUTE)
    assert "org" == caught.value.pool
    budget.record_used(lease, used(5))
    assert [None, None] == [found.damage for found in timed.verify()]


RACE = """
import sys
from ledger import Ledger, LedgerError, Usage
with Ledger.open(sys.argv[1], create=False, clock=lambda: int(sys.argv[4])) as book:
    budget = book.pool("pool")
    found = {one.lease.id: one.lease for one in book.open_leases("pool")}
    leases = [found[int(each)] for each in sys.argv[3].split(",")]
    calls = {
        "settle": lambda lease: budget.record_used(lease, Usage(total_tokens=3)),
        "release": budget.release,
        "expire": lambda lease: book.expire_due("pool"),
    }
    print("ready", flush=True)
    sys.stdin.readline()
    for lease in leases:
        try:
            calls[sys.argv[2]](lease)
        except LedgerError as error:
            print(lease.id, type(error).__name__)
        else:
            print(lease.id, "done")
"""


def race(url: str, leases: list[int], now: int, *what: str) -> list[dict[int, str]]:
    """Let processes do their calls at once, lease by lease; return what each was told."""
    running = [
        programs.Popen(
            [sys.executable, "-c", RACE, url, each, ",".join(map(str, leases)), str(now)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for each in what
    ]
    for program in running:
        assert program.stdout is not None
        assert "ready\n" == program.stdout.readline()
    for program in running:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    told = [program.communicate(timeout=60)[0] for program in running]
    assert [0] * len(running) == [program.returncode for program in running]
    return [
        {int(lease): said for lease, said in (line.split() for line in text.splitlines())}
        for text in told
    ]


def test_a_settlement_and_an_expiry_race(timed: Ledger, store_url: str, clock: Clock) -> None:
    """From two processes: whichever comes first, the usage is recorded, and the hold is gone."""
    budget = timed.pool("pool", OPTIONS)
    leases = [reserve(budget, 4).id for _ in range(25)]
    settling, _ = race(store_url, leases, clock.now + 3_600_000_000, "settle", "expire")
    assert dict.fromkeys(leases, "done") == settling
    assert Balance(Totals(75, 0, 25), Totals()) == budget.status().balance
    settled = list(timed.entries("pool", kind=EntryKind.SETTLEMENT))
    expired = {one.lease.lease for one in timed.entries("pool", kind=EntryKind.EXPIRY)}
    assert expired == {one.lease.lease for one in settled if one.flags & EntryFlag.LATE}
    assert leases == [one.lease.lease for one in settled]
    assert timed.verify("pool")[0].ok


def test_a_release_and_a_settlement_race(timed: Ledger, store_url: str, clock: Clock) -> None:
    """From two processes: one of them wins each lease, and the other one is told."""
    budget = timed.pool("pool", OPTIONS)
    leases = [reserve(budget, 4).id for _ in range(25)]
    told = race(store_url, leases, clock.now, "settle", "release")
    assert [["UnknownLeaseError", "done"]] * 25 == [
        sorted(each[lease] for each in told) for lease in leases
    ]
    settled = sum(said == "done" for said in told[0].values())
    assert Balance(Totals(3 * settled, 0, settled), Totals()) == budget.status().balance
    assert timed.verify("pool")[0].ok
