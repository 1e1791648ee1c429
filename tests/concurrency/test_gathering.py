"""Who shares a batch with whom, and who wakes whom: a leader's pause, chains, one call a turn."""

from __future__ import annotations

import asyncio
import dis
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import FrameType
from typing import Any

import pytest

from ledger import AsyncLedger, BudgetLease, Ledger, LedgerBudgetManager, SharedPoolBudgetOptions
from ledger.engine import call_queue
from ledger.engine.callers import ThreadCaller
from ledger.engine.worker import Worker
from ledger.managers.tasks import AsyncLedgerBudgetManager
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import LATE_S, until
from tests.threads import in_thread

COMMIT_S = 1.0
PAUSE_S = COMMIT_S / 2


class Batches:
    """Stands before a ledger's COMMIT: notes how many callers each batch has, and takes a while."""

    def __init__(self, book: Ledger) -> None:
        self._writer = book._writer
        self._really = book._database.dialect.commit
        book._database.dialect.commit = self  # type: ignore[method-assign]
        self.sizes: list[int] = []
        self.commit_s = COMMIT_S
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, connection: Any) -> None:  # noqa: ANN401 - as the dialect's
        """Note, wait, and commit."""
        self.sizes.append(len(self._writer._batch))
        assert self.gate.wait(30)
        time.sleep(self.commit_s)
        self._really(connection)

    def share(self, call: Callable[[], object], number: int) -> list[Future[Any]]:
        """Let callers share a batch, behind one whose COMMIT is held until all of them wait."""
        self.gate.clear()
        before = len(self.sizes)
        first = in_thread(call)
        until(lambda: len(self.sizes) == before + 1)
        futures = []
        for waiting in range(1, number + 1):
            futures.append(in_thread(call))
            until(lambda waiting=waiting: len(self._writer._queue) == waiting)  # type: ignore[misc]
        self.gate.set()
        first.result(20)
        return futures


@pytest.fixture
def book(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a generator
    """Return a ledger whose leaders may pause for as long as half a transaction."""
    monkeypatch.setattr(call_queue, "_PAUSE_MAX_S", 10.0)
    with Ledger.open(store_url) as opened:
        yield opened


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool without a limit."""
    return book.pool("pool", SharedPoolBudgetOptions())


@pytest.fixture
def reserve(budget: LedgerBudgetManager) -> Callable[[], BudgetLease]:
    """Return a call that reserves a token."""
    return partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)


@pytest.fixture
def batches(book: Ledger, reserve: Callable[[], BudgetLease]) -> Batches:  # noqa: ARG001 - the pool is made before anything is counted
    """Return the watch over the book's commits."""
    return Batches(book)


def rested(batches: Batches, pause_s: float) -> None:
    """Wait until nobody leads, and let the next leader pause for so long."""
    until(lambda: not batches._writer._batch)
    batches._writer._pause_s = pause_s


def took_s(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    began_s = time.monotonic()
    call()
    return time.monotonic() - began_s


def after_each_other(calls: Sequence[Callable[[], object]]) -> list[Future[Any]]:
    """Start calls, each a little after the one before."""
    futures = []
    for call in calls:
        futures.append(in_thread(call))
        time.sleep(0.02)
    return futures


def test_callers_that_come_back_share_the_next_batch_too(
    reserve: Callable[[], BudgetLease], batches: Batches
) -> None:
    """Without the pause, the first of them would begin a transaction for itself."""
    for one in batches.share(reserve, 4):
        one.result(20)
    rested(batches, 600.0)
    leases = [one.result(20) for one in after_each_other([reserve] * 4)]
    assert [1, 4, 4] == batches.sizes
    assert 4 == len({lease.id for lease in leases})


def test_the_pause_ends_as_soon_as_all_are_there(
    reserve: Callable[[], BudgetLease], batches: Batches
) -> None:
    """It is as long as it may be only if somebody is missing."""
    for one in batches.share(reserve, 4):
        one.result(20)
    batches.commit_s = 0.0
    rested(batches, 600.0)
    assert [one.result(20) for one in after_each_other([reserve] * 4)]


def test_a_caller_that_did_not_come_is_not_waited_for_again(
    reserve: Callable[[], BudgetLease], batches: Batches
) -> None:
    """Three of four come: the leader pauses once, and the next batch of three is whole."""
    for one in batches.share(reserve, 4):
        one.result(20)
    assert COMMIT_S + PAUSE_S <= took_s(
        lambda: [one.result(20) for one in after_each_other([reserve] * 3)]
    )
    assert COMMIT_S + PAUSE_S > took_s(
        lambda: [one.result(20) for one in after_each_other([reserve] * 3)]
    )
    assert [1, 4, 3, 3] == batches.sizes


@pytest.mark.parametrize("number", [1, 2])
def test_one_or_two_callers_are_not_waited_for(
    reserve: Callable[[], BudgetLease], batches: Batches, number: int
) -> None:
    """A pause would cost them more than it saves."""
    for one in batches.share(reserve, number):
        one.result(20)
    batches.commit_s = 0.0
    assert PAUSE_S > took_s(reserve)


def test_an_idle_caller_never_waits(reserve: Callable[[], BudgetLease], batches: Batches) -> None:
    """Those of the last batch are waited for only right after it."""
    for one in batches.share(reserve, 4):
        one.result(20)
    batches.commit_s = 0.0
    time.sleep(1.5 * PAUSE_S)
    assert PAUSE_S > took_s(reserve)


def test_a_leader_may_be_interrupted_while_it_gathers(
    budget: LedgerBudgetManager, reserve: Callable[[], BudgetLease], batches: Batches
) -> None:
    """KeyboardInterrupt at any place of the queue: who came meanwhile is served, nothing leaks."""
    batches.commit_s = 0.02

    def held() -> int:
        return budget.status().balance.reserved.tokens

    struck: str | None = "nothing yet"
    place, places = 0, set()
    while struck is not None:
        before = held() + 4
        for one in batches.share(reserve, 3):  # behind one
            one.result(20)
        interrupter = Interrupter(str(call_queue.__file__), place)
        leader = in_thread(partial(interrupter.during, reserve))
        other = in_thread(reserve)
        other.result(4)
        expected = before + 1 + (leader.exception(20) is None)
        until(lambda expected=expected: held() == expected)  # type: ignore[misc]
        struck, place = interrupter.struck, place + 3
        places.add(struck)
    assert "_gather" in places


class Interrupter:
    """Raises KeyboardInterrupt at one of the places of a file where signals are looked for."""

    def __init__(self, file: str, at: int) -> None:
        self._file = file
        self._left = at
        self._looks = False
        self.struck: str | None = None
        """The function in which it did."""

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401 - as sys.settrace has it
        """Count, and strike once."""
        code = frame.f_code
        if event == "call":
            self._looks = code.co_filename == self._file
        if self.struck is not None or code.co_filename != self._file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= self._looks
            if self._looks and self._left < 0:
                self.struck = code.co_name
                raise KeyboardInterrupt
            name = dis.opname[code.co_code[frame.f_lasti]]
            self._looks = name.startswith(("CALL", "JUMP_BACKWARD"))
        return self

    def during(self, call: Callable[[], object]) -> object:
        """Make a call."""
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(None)


def test_each_thread_of_a_batch_wakes_another(
    reserve: Callable[[], BudgetLease], batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader of twelve wakes one of them, and each wakes the next."""
    batches.commit_s = 0.01
    wakers: Counter[int] = Counter()
    wake = ThreadCaller.wake

    def noted(self: ThreadCaller) -> None:
        wakers[threading.get_ident()] += 1
        wake(self)

    monkeypatch.setattr(ThreadCaller, "wake", noted)
    for one in batches.share(reserve, 12):
        one.result(20)
    assert [1, 12] == batches.sizes
    # Eleven, and the thread that was woken to lead them.
    assert 12 == wakers.total()
    assert [1] * 12 == list(wakers.values())


def test_a_thread_that_dies_in_the_chain_costs_the_others_one_look(
    reserve: Callable[[], BudgetLease], batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes no other; these look for themselves, and the rest of the chain goes on."""
    batches.commit_s = 0.01
    dead: list[ThreadCaller] = []
    wake_behind = ThreadCaller.wake_behind

    def dies(self: ThreadCaller) -> None:
        if self.behind is not None and not dead:
            dead.append(self)
        else:
            wake_behind(self)

    monkeypatch.setattr(ThreadCaller, "wake_behind", dies)
    futures = batches.share(reserve, 13)
    began_s = time.monotonic()
    assert 13 == len({one.result(20).id for one in futures})
    assert 1 == len(dead)
    assert LATE_S > time.monotonic() - began_s


def test_an_interrupted_thread_of_a_chain_still_wakes_the_next(
    budget: LedgerBudgetManager,
    reserve: Callable[[], BudgetLease],
    batches: Batches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C as it awakes is its own affair: its lease is released, and the others go on."""
    batches.commit_s = 0.01
    monkeypatch.setattr("ledger.engine.group_commit._LOOK_S", 10.0)
    wait, struck = ThreadCaller.wait, []

    def interrupted(self: ThreadCaller, timeout_s: float) -> None:
        wait(self, timeout_s)
        if self.behind is not None and not struck:
            struck.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(ThreadCaller, "wait", interrupted)
    futures = batches.share(reserve, 12)
    began_s = time.monotonic()
    errors = [type(error) for one in futures if (error := one.exception(20)) is not None]
    assert [KeyboardInterrupt] == errors
    assert 5.0 > time.monotonic() - began_s
    until(lambda: budget.status().balance.reserved.tokens == 12)


@pytest.mark.parametrize("number", [1, 50])
def test_tasks_of_one_turn_call_the_worker_once(
    store_url: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """And all of them share one transaction: the worker begins when the last of them has come."""
    called: list[int] = []
    call = Worker.call

    def noted(self: Worker, work: Callable[[], object]) -> bool:
        called.append(1)
        return call(self, work)

    monkeypatch.setattr(Worker, "call", noted)

    async def one(budget: AsyncLedgerBudgetManager) -> BudgetLease:
        time.sleep(0.001)  # noqa: ASYNC251 - so that the worker could begin before the next one
        return await budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)

    async def main() -> list[int]:
        async with await AsyncLedger.open(store_url) as store:
            budget = await store.pool("pool", SharedPoolBudgetOptions())
            before = store.sync._database.transactions
            leases = await asyncio.gather(*(one(budget) for _ in range(number)))
            assert 1 == store.sync._database.transactions - before
            return [lease.id for lease in leases]

    assert list(range(2, number + 2)) == asyncio.run(main())
    assert 1 == len(called)
