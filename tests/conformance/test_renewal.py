"""A lease block renews its lease while it runs: in threads by one thread for all, and in tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    EntryKind,
    LeaseTtl,
    Ledger,
    LedgerUnavailableError,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
)
from ledger.core.entries import LeaseState
from ledger.lease import renewal
from ledger.lease.renewal import Renewer, renewer
from ledger.testing.calls import EXTENSIONS, tokens
from tests import programs
from tests.clocks import Clock, until

TTL = timedelta(seconds=0.2)
TTL_US = 200_000
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, lease_ttl=TTL)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def budget(
    request: pytest.FixtureRequest, new_store: Callable[[str], str], clock: Clock
) -> Iterator[Any]:
    """Return a manager of each kind in turn, of a pool whose leases hold for 0.2 seconds.

    Blocks are renewed as real time goes by, and leases expire as `clock` does: so a slow machine
    renews late, and nothing is lost by that.
    """
    if request.param == "memory":
        yield SharedPoolBudgetManager(OPTIONS, clock=clock)
        return
    with Ledger.open(new_store(request.param), clock=clock) as book:
        yield book.pool("pool", OPTIONS)
        assert all(one.ok for one in book.verify())


def state(budget: Any, lease: int) -> LeaseState:  # noqa: ANN401 - any manager
    """Return where a lease stands."""
    if isinstance(budget, SharedPoolBudgetManager):
        return budget._state._leases[lease]
    (found,) = budget._writer.database.read(
        lambda connection: budget._journal.leases(connection, [lease]).values()
    )
    stands: LeaseState = found.state
    return stands


def outlive(clock: Clock, budget: Any, *leases: int, ttl_us: int = TTL_US) -> None:  # noqa: ANN401 - any manager
    """Move on until the leases would soon expire, and wait until each has been renewed."""
    for _ in range(2):
        clock.now += ttl_us * 3 // 4
        for lease in leases:
            until(lambda lease=lease: state(budget, lease).expires_at == clock.now + ttl_us)


def test_a_block_outlives_its_time(budget: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """It holds on until it is left."""
    with budget.lease(tokens(40)) as lease:
        outlive(clock, budget, lease.id)
        lease.record(Usage(total_tokens=30))
    assert 70 == budget.remaining(EXTENSIONS).tokens


def test_one_thread_renews_all(budget: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """Forty blocks at once need no more threads than one."""
    with budget.lease(tokens(1)):
        before = threading.active_count(), len(sys._current_frames())
        blocks = [budget.lease(tokens(1)) for _ in range(40)]
        leases = [block.__enter__() for block in blocks]
        outlive(clock, budget, *(lease.id for lease in leases))
        assert before == (threading.active_count(), len(sys._current_frames()))
        for block in blocks:
            block.__exit__(None, None, None)


def test_a_block_that_was_left_is_renewed_no_longer(budget: Any) -> None:  # noqa: ANN401 - any manager
    """By whatever it was left; nothing of it stays behind."""
    kept = renewer()._kept
    with budget.lease(tokens(1)) as recorded:
        assert 1 == len(kept)
        recorded.record(Usage(total_tokens=1))
        assert 0 == len(kept)
    with budget.lease(tokens(1)) as released:
        released.release()
        assert 0 == len(kept)
    with pytest.raises(ZeroDivisionError), budget.lease(tokens(1)):
        _ = 1 // 0
    with budget.lease(tokens(1)):
        pass
    assert 0 == len(kept)


def test_a_lost_block_is_renewed_no_longer(budget: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """Nobody will leave it; its lease expires and is charged."""
    block = budget.lease(tokens(40))
    block.__enter__()
    del block
    gc.collect()
    until(lambda: not renewer()._kept)
    clock.now += TTL_US
    assert 60 == budget.remaining(EXTENSIONS).tokens


def test_a_lease_that_holds_for_ever_is_not_renewed(new_store: Callable[[str], str]) -> None:
    """Without a time to live a block costs nothing more."""
    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=10))
        with budget.lease(tokens(1)) as lease:
            assert None is lease.lease.ttl
            assert {} == renewer()._kept


def test_a_renewal_by_hand_counts_from_then_on(budget: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """A block that asks for a longer time is not cut back to the pool's."""
    longer_us = 3 * TTL_US
    with budget.lease(tokens(1)) as lease:
        lease.renew(timedelta(microseconds=longer_us))
        assert clock.now + longer_us == state(budget, lease.id).expires_at
        outlive(clock, budget, lease.id, ttl_us=longer_us)


def test_a_lease_of_its_own_time_is_renewed_by_that(
    new_store: Callable[[str], str], clock: Clock
) -> None:
    """Whatever the pool's policy is."""
    with Ledger.open(new_store("sqlite"), clock=clock) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=10))
        own = RequestExtensions(LeaseTtl(TTL))
        with budget.lease(tokens(1), extensions=own) as lease:
            assert TTL == lease.lease.ttl
            outlive(clock, budget, lease.id)


def test_a_failure_is_logged_and_the_block_goes_on(
    budget: Any,  # noqa: ANN401 - any manager
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store that cannot be reached is tried again soon; then the lease holds on."""
    tries, renew = [], type(budget).renew

    def failing(self: Any, *given: Any, **more: Any) -> Any:  # noqa: ANN401 - as it is
        tries.append(given)
        if len(tries) < 3:
            raise LedgerUnavailableError("sqlite:///gone.db", "gone")
        return renew(self, *given, **more)

    monkeypatch.setattr(type(budget), "renew", failing)
    with caplog.at_level(logging.WARNING, renewal.__name__), budget.lease(tokens(1)) as lease:
        clock.now += TTL_US // 2
        until(lambda: state(budget, lease.id).expires_at == clock.now + TTL_US)
    assert 2 == sum("could not be renewed" in one.getMessage() for one in caplog.records)


def test_a_hold_that_ended_is_not_renewed_for_ever(
    new_store: Callable[[str], str], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else ended the lease: that is logged once."""
    with Ledger.open(new_store("sqlite"), clock=clock) as book:
        budget = book.pool("pool", OPTIONS)
        with caplog.at_level(logging.WARNING, renewal.__name__), budget.lease(tokens(1)) as lease:
            budget.release(lease.lease)
            until(lambda: caplog.records)
            assert {} == renewer()._kept
    assert 1 == len(caplog.records)


def test_a_closed_ledger_is_not_asked_for_ever(
    new_store: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its block may go on; that its lease is renewed no longer is logged once."""
    book = Ledger.open(new_store("sqlite"))
    block = book.pool("pool", OPTIONS).lease(tokens(1))
    with caplog.at_level(logging.WARNING, renewal.__name__):
        block.__enter__()
        book.close()
        until(lambda: caplog.records and block._kept not in renewer()._kept)
    with pytest.raises(LedgerUnavailableError):
        block.__exit__(None, None, None)
    assert ["its ledger was closed"] == [one.getMessage()[-21:] for one in caplog.records]


def test_a_lease_that_is_let_go_at_the_last_moment_stays_so() -> None:
    """Between the look whether it is still kept, and the note when to renew it again."""

    class LetGo(dict[int, Any]):
        def __contains__(self, number: object) -> bool:
            return super().pop(number, None) is not None

    class Block:
        def renew(self, ttl: timedelta) -> None:
            assert TTL == ttl

    own, block = Renewer(), Block()
    own._begun.acquire()  # no thread: this test serves the lease by itself
    number = own.keep(1, TTL, block.renew)
    own._kept = LetGo(own._kept)
    kept = own._kept[number]
    kept.due_s = 0.0
    own._served(number, kept)
    assert {} == own._kept


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_blocks_of_tasks_are_renewed_without_a_thread_each(
    new_store: Callable[[str], str], clock: Clock, kind: str
) -> None:
    """By timers of the loop, until the blocks are left; a cancelled one, too."""
    url = new_store(kind)

    async def run() -> None:
        with Ledger.open(url, clock=clock) as book:
            budget = await AsyncLedger(book).pool("pool", OPTIONS)
            held_by, renewed = set[int](), asyncio.Event()

            async def hold() -> None:
                async with budget.lease(tokens(1)) as lease:
                    held_by.add(lease.id)
                    await renewed.wait()
                    await lease.record(Usage(total_tokens=1))

            async def leave() -> None:
                async with budget.lease(tokens(1)):
                    await asyncio.sleep(60)

            left = asyncio.create_task(leave())
            held = [asyncio.create_task(hold()) for _ in range(20)]
            await asyncio.to_thread(until, lambda: len(held_by) == 20)
            threads = threading.active_count()
            left.cancel()
            await asyncio.to_thread(outlive, clock, book.pool("pool"), *held_by)
            renewed.set()
            await asyncio.gather(*held)
            assert threads >= threading.active_count() - 1
            with pytest.raises(asyncio.CancelledError):
                await left

    asyncio.run(run())
    with Ledger.open(url) as book:
        assert [] == list(book.entries("pool", kind=EntryKind.EXPIRY))
        assert all(one.ok for one in book.verify())


PROGRAM = """
import sys, time
from ledger import Ledger, UsageEstimate
with Ledger.open(sys.argv[1], create=False) as book:
    with book.pool("pool").lease(UsageEstimate(total_tokens=40)):
        print("in", flush=True)
        time.sleep(60)
"""


def test_a_process_that_dies_stops_renewing(new_store: Callable[[str], str]) -> None:
    """While it lives its lease holds on; afterwards it expires, and is charged its estimate."""
    url, clock = new_store("sqlite"), Clock(time.time_ns() // 1_000)
    with Ledger.open(url, clock=clock) as book:
        budget = book.pool("pool", OPTIONS)
        with programs.Popen(
            [sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert b"in\n" == process.stdout.readline()
            until(lambda: len(list(book.entries("pool", kind=EntryKind.RENEWAL))) > 2)
            assert 0 == book.expire_due()
            process.send_signal(signal.SIGKILL)
        clock.now = time.time_ns() // 1_000 + TTL_US
        assert 1 == book.expire_due()
        assert 40 == budget.status().balance.committed.tokens


@pytest.mark.parametrize("budget", ["memory"], indirect=True)
def test_a_child_process_renews_its_own_blocks(
    budget: SharedPoolBudgetManager, clock: Clock
) -> None:
    """It inherits no thread, and not its parent's blocks."""
    with budget.lease(tokens(1)):
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            code = 1
            try:
                own = SharedPoolBudgetManager(OPTIONS, clock=clock)
                with own.lease(tokens(1)) as lease:
                    outlive(clock, own, lease.id)
                    code = 0 if len(renewer()._kept) == 1 else 2
            finally:
                os._exit(code)
        assert (child, 0) == os.waitpid(child, 0)


def test_a_child_process_does_not_end_its_parent_s_lease(new_store: Callable[[str], str]) -> None:
    """It was forked inside the block, and leaves it by an error."""
    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=10))
        with budget.lease(tokens(1)) as lease:
            child = os.fork()
            if child == 0:  # pragma: no cover - in the child
                code = 1
                try:
                    lease.__exit__(SystemExit, SystemExit(), None)
                    code = 0
                finally:
                    os._exit(code)
            assert (child, 0) == os.waitpid(child, 0)
            assert [lease.id] == [one.lease.id for one in book.open_leases("pool")]
            lease.record(Usage(total_tokens=1))
