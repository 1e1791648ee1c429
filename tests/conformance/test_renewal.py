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
    LeasePhase,
    LeaseTtl,
    Ledger,
    LedgerUnavailableError,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
)
from ledger.renewal import renewer
from ledger.testing.calls import EXTENSIONS, tokens
from tests.clocks import until

TTL = timedelta(seconds=0.6)
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, lease_ttl=TTL)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def budget(request: pytest.FixtureRequest, new_store: Callable[[str], str]) -> Iterator[Any]:
    """Return a manager of each kind in turn, of a pool whose leases hold for 0.6 seconds."""
    if request.param == "memory":
        yield SharedPoolBudgetManager(OPTIONS)
        return
    with Ledger.open(new_store(request.param)) as book:
        yield book.pool("pool", OPTIONS)
        assert all(one.ok for one in book.verify())


def phase(budget: Any, lease: Any) -> LeasePhase:  # noqa: ANN401 - any manager
    """Return where a lease stands, once all that is due has expired."""
    budget.release(budget.reserve(EXTENSIONS, tokens(0), lease.lease.request_budget))
    if isinstance(budget, SharedPoolBudgetManager):
        return budget._leases[lease.id].phase
    (found,) = budget._writer.database.read(
        lambda connection: budget._journal.leases(connection, [lease.id]).values()
    )
    state: LeasePhase = found.state.phase
    return state


def test_a_block_outlives_its_time(budget: Any) -> None:  # noqa: ANN401 - any manager
    """It holds on until it is left, and then no longer than it was renewed last."""
    with budget.lease(tokens(40)) as lease:
        for _ in range(4):
            time.sleep(TTL.total_seconds() / 2)
            assert LeasePhase.OPEN is phase(budget, lease)
        lease.record(Usage(total_tokens=30))
    assert 70 == budget.remaining(EXTENSIONS).tokens


def test_one_thread_renews_all(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Forty blocks at once need no more threads than one."""
    with budget.lease(tokens(1)):
        before = threading.active_count(), len(sys._current_frames())
        blocks = [budget.lease(tokens(1)) for _ in range(40)]
        leases = [block.__enter__() for block in blocks]
        time.sleep(2 * TTL.total_seconds())
        assert before == (threading.active_count(), len(sys._current_frames()))
        assert [LeasePhase.OPEN] * 40 == [phase(budget, lease) for lease in leases]
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


def test_a_lost_block_is_renewed_no_longer(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Nobody will leave it; its lease expires and is charged."""
    block = budget.lease(tokens(40))
    block.__enter__()
    del block
    gc.collect()
    until(lambda: not renewer()._kept)
    time.sleep(1.1 * TTL.total_seconds())
    assert 60 == budget.remaining(EXTENSIONS).tokens


def test_a_lease_that_holds_for_ever_is_not_renewed(new_store: Callable[[str], str]) -> None:
    """Without a time to live a block costs nothing more."""
    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=10))
        with budget.lease(tokens(1)) as lease:
            assert None is lease.lease.ttl
            assert {} == renewer()._kept


def test_a_renewal_by_hand_counts_from_then_on(new_store: Callable[[str], str]) -> None:
    """A block that asks for a longer time is not cut back to the pool's."""
    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", OPTIONS)
        with budget.lease(tokens(1)) as lease:
            until_then = lease.renew(timedelta(hours=1))
            time.sleep(TTL.total_seconds())
            (found,) = book.open_leases("pool")
            assert until_then == found.expires_at


def test_a_lease_of_its_own_time_is_renewed_by_that(new_store: Callable[[str], str]) -> None:
    """Whatever the pool's policy is."""
    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=10))
        own = RequestExtensions(LeaseTtl(TTL))
        with budget.lease(tokens(1), extensions=own) as lease:
            assert TTL == lease.lease.ttl
            time.sleep(1.5 * TTL.total_seconds())
            assert 1 <= len(list(book.entries("pool", kind=EntryKind.RENEWAL)))
            assert LeasePhase.OPEN is phase(budget, lease)


def test_a_failure_is_logged_and_the_block_goes_on(
    budget: Any,  # noqa: ANN401 - any manager
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
    with caplog.at_level(logging.WARNING, "ledger.renewal"), budget.lease(tokens(1)) as lease:
        until(lambda: len(tries) > 2)
        assert LeasePhase.OPEN is phase(budget, lease)
    assert 2 == sum("could not be renewed" in one.getMessage() for one in caplog.records)


def test_a_hold_that_ended_is_not_renewed_for_ever(
    new_store: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else ended the lease: that is logged once."""
    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", OPTIONS)
        with caplog.at_level(logging.WARNING, "ledger.renewal"), budget.lease(tokens(1)) as lease:
            budget.release(lease.lease)
            until(lambda: caplog.records)
            assert {} == renewer()._kept
    assert 1 == len(caplog.records)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_blocks_of_tasks_are_renewed_without_a_thread_each(
    new_store: Callable[[str], str], kind: str
) -> None:
    """By timers of the loop, until the blocks are left; a cancelled one, too."""
    url = new_store(kind)

    async def run() -> None:
        async with AsyncLedger.open(url) as book:
            budget = await book.pool("pool", OPTIONS)

            async def hold() -> None:
                async with budget.lease(tokens(1)) as lease:
                    await asyncio.sleep(3 * TTL.total_seconds())
                    await lease.record(Usage(total_tokens=1))

            async def leave() -> None:
                async with budget.lease(tokens(1)):
                    await asyncio.sleep(60)

            left = asyncio.create_task(leave())
            held = [asyncio.create_task(hold()) for _ in range(20)]
            await asyncio.sleep(TTL.total_seconds() / 3)
            threads = threading.active_count()
            left.cancel()
            await asyncio.gather(*held)
            assert threads >= threading.active_count() - 1
            with pytest.raises(asyncio.CancelledError):
                await left

    asyncio.run(run())
    with Ledger.open(url) as book:
        assert [] == list(book.entries("pool", kind=EntryKind.EXPIRY))
        assert 40 <= len(list(book.entries("pool", kind=EntryKind.RENEWAL)))
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
    url = new_store("sqlite")
    with Ledger.open(url) as book:
        budget = book.pool("pool", OPTIONS)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert b"in\n" == process.stdout.readline()
            until(lambda: len(list(book.entries("pool", kind=EntryKind.RENEWAL))) > 2)
            assert 0 == book.expire_due()
            process.send_signal(signal.SIGKILL)
        until(book.expire_due)
        assert 40 == budget.status().balance.committed.tokens


@pytest.mark.parametrize("budget", ["memory"], indirect=True)
def test_a_child_process_renews_its_own_blocks(budget: SharedPoolBudgetManager) -> None:
    """It inherits no thread, and not its parent's blocks."""
    with budget.lease(tokens(1)):
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            code = 1
            try:
                own = SharedPoolBudgetManager(OPTIONS)
                with own.lease(tokens(1)) as lease:
                    time.sleep(2 * TTL.total_seconds())
                    open_still = phase(own, lease) is LeasePhase.OPEN
                    code = 0 if open_still and len(renewer()._kept) == 1 else 2
            finally:
                os._exit(code)
        assert (child, 0) == os.waitpid(child, 0)
