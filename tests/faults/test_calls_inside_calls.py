"""A call that a signal handler or a finaliser makes in the middle of another one of its thread.

It cannot wait for what it broke into: the end of a lease is left to the next leader, and what
needs an answer is refused at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection

from ledger import (
    BudgetLease,
    ContentionError,
    Ledger,
    LedgerBudgetManager,
    OutcomeUnknownError,
    SharedPoolBudgetManager,
    UnknownLeaseError,
    Usage,
)
from ledger.aio import AsyncLedger
from ledger.core import collecting
from ledger.engine import call_queue
from ledger.store.dialects import postgresql
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import LATE_S, until
from tests.leases import OF_THOUSAND, ONE, numbered
from tests.threads import in_thread

pytestmark = pytest.mark.usefixtures("few_objects")

TIMEOUT_S = 60
BOUND_S = LATE_S
"""What a call takes at most that does not wait: less than the time-out."""


@pytest.fixture
def book(store_url: str) -> Iterator[Ledger]:
    """Return an open ledger on a new store, on each database in turn."""
    with Ledger.open(store_url, timeout_s=TIMEOUT_S) as opened:
        yield opened


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool of the book."""
    return book.pool("pool", OF_THOUSAND)


def reserve(budget: Any) -> BudgetLease:  # noqa: ANN401 - any manager
    """Reserve a token."""
    lease: BudgetLease = budget.reserve(EXTENSIONS, ONE, UNLIMITED)
    return lease


def at_commit(book: Ledger, then: Callable[[], object]) -> None:
    """Do something in the leader's thread, in its transaction, before the next COMMIT."""
    dialect, commit = book._database.dialect, book._database.dialect.commit

    def spied(connection: Connection) -> None:
        dialect.commit = commit
        then()
        commit(connection)

    dialect.commit = spied


@contextmanager
def handler(work: Callable[[], object]) -> Iterator[list[object]]:
    """Let SIGUSR1 do some work in the main thread; yield what came of it each time."""
    came: list[object] = []

    def handle(*_: object) -> None:
        began = time.monotonic()
        try:
            came.append(work())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            came.append(error)
        assert time.monotonic() - began < BOUND_S, "it waited"

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        yield came
    finally:
        signal.signal(signal.SIGUSR1, previous)


def strike() -> None:
    """Send this thread the signal; its handler runs before this returns."""
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    time.sleep(0)


def wait_until_ended(budget: LedgerBudgetManager, lease: BudgetLease) -> None:
    """Wait until a lease has really ended."""
    deadline = time.monotonic() + LATE_S
    while time.monotonic() < deadline:
        try:
            budget.lease(lease.token)
        except UnknownLeaseError:
            return
        time.sleep(0.005)
    pytest.fail("the lease was not ended")


def generator(budget: Any, leases: list[BudgetLease]) -> Iterator[None]:  # noqa: ANN401 - any manager
    """Hold a lease for as long as this lives."""
    with budget.lease(ONE) as held:
        leases.append(held.lease)
        yield


def garbage(
    budget: Any,  # noqa: ANN401 - any manager
    make: Callable[[Any, list[BudgetLease]], Iterator[None]] = generator,
) -> BudgetLease:
    """Leave a generator that holds a lease to the garbage collector; return the lease."""
    leases: list[BudgetLease] = []
    made = make(budget, leases)
    next(made)
    cycle: list[object] = [made]
    cycle.append(cycle)
    return leases[0]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Let the garbage collector run only where the test says."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_handler_that_reserves_inside_a_commit_is_refused_at_once(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """ContentionError says that it is a call of this thread; the call it broke into goes on."""
    with handler(lambda: reserve(budget)) as came:
        at_commit(book, strike)
        lease = reserve(budget)
    (error,) = came
    assert isinstance(error, ContentionError)
    assert "another call of this thread" in str(error)
    assert 2 == lease.id
    assert 3 == reserve(budget).id


def test_a_handler_opens_no_pool_inside_a_commit(book: Ledger, budget: LedgerBudgetManager) -> None:
    """Neither does what takes no place in the queue wait for its own thread."""
    for work in (lambda: book.pool("another", OF_THOUSAND), lambda: book.expire_due("pool")):
        with handler(work) as came:
            at_commit(book, strike)
            reserve(budget)
        assert [ContentionError] == [type(error) for error in came]
    assert "another" == book.pool("another", OF_THOUSAND).name


@pytest.mark.parametrize("how", ["release", "abandon"])
def test_a_handler_inside_a_commit_ends_a_lease(
    book: Ledger, budget: LedgerBudgetManager, how: str
) -> None:
    """It does not wait for it, and the lease is ended by whoever leads next."""
    lease = reserve(budget)
    with handler(lambda: getattr(budget, how)(lease)) as came:
        at_commit(book, strike)
        reserve(budget)
    assert [None] == came
    wait_until_ended(budget, lease)
    assert [None] == [found.damage for found in book.verify()]


def test_a_handler_is_served_while_its_thread_waits(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """Another thread leads: a call from a handler of one that waits takes its turn."""
    go, queued = threading.Event(), []

    def hold() -> None:
        queued.append(True)
        assert go.wait(60)

    at_commit(book, hold)
    leader = in_thread(lambda: reserve(budget))
    while not queued:
        time.sleep(0.001)
    main = threading.get_ident()

    def send() -> None:
        while not book._writer._queue:
            time.sleep(0.001)
        threading.Timer(0.1, go.set).start()
        signal.pthread_kill(main, signal.SIGUSR1)

    with handler(lambda: reserve(budget).id) as came:
        sender = in_thread(send)
        lease = reserve(budget)
        sender.result(LATE_S)
    assert {2, 3, 4} == {leader.result(LATE_S).id, lease.id, *came}


@pytest.mark.usefixtures("no_collection")
def test_a_lease_that_is_collected_inside_a_commit_is_ended(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """The finaliser does not wait for the batch that its own thread commits."""
    lease = garbage(budget)
    took_s = []

    def collect() -> None:
        began = time.monotonic()
        gc.collect()
        took_s.append(time.monotonic() - began)

    at_commit(book, collect)
    reserve(budget)
    assert took_s[0] < BOUND_S
    wait_until_ended(budget, lease)
    assert ["opening", "reservation", "reservation", "settlement"] == [
        str(entry.kind) for entry in book.entries("pool")
    ]


@pytest.mark.usefixtures("no_collection")
def test_a_lease_of_another_ledger_on_the_store_is_ended_too(
    book: Ledger, budget: LedgerBudgetManager, store_url: str
) -> None:
    """Collected inside a commit of the one, a lease of the other does not wait for its lock."""
    with Ledger.open(store_url, timeout_s=TIMEOUT_S) as another:
        lease = garbage(another.pool("pool"))
        took_s = []

        def collect() -> None:
            began = time.monotonic()
            gc.collect()
            took_s.append(time.monotonic() - began)

        at_commit(book, collect)
        reserve(budget)
        assert took_s[0] < BOUND_S
        wait_until_ended(budget, lease)


def releasing(budget: Any, leases: list[BudgetLease]) -> Iterator[None]:  # noqa: ANN401 - any manager
    """Release a lease once this ends."""
    leases.append(reserve(budget))
    try:
        yield
    finally:
        budget.release(leases[0])


def recording(budget: Any, leases: list[BudgetLease]) -> Iterator[None]:  # noqa: ANN401 - any manager
    """Record the usage of a lease once this ends."""
    leases.append(reserve(budget))
    try:
        yield
    finally:
        budget.record_used(leases[0], Usage(total_tokens=7))


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("make", "kind", "tokens"),
    [(generator, "settlement", 1), (releasing, "release", 0), (recording, "settlement", 7)],
)
def test_a_collection_waits_for_no_other_thread(
    book: Ledger,
    budget: LedgerBudgetManager,
    make: Callable[[Any, list[BudgetLease]], Iterator[None]],
    kind: str,
    tokens: int,
) -> None:
    """Its thread may hold what the leader needs: a lock of `logging`, say, or of the program."""
    lease = garbage(budget, make)
    held, collected = threading.Event(), threading.Event()

    def need_what_is_held() -> None:
        held.set()
        assert collected.wait(LATE_S)

    at_commit(book, need_what_is_held)
    leader = in_thread(lambda: reserve(budget))
    assert held.wait(LATE_S)
    gc.collect()
    assert not leader.done()
    collected.set()
    leader.result(LATE_S)
    wait_until_ended(budget, lease)
    end = next(one for one in book.entries("pool") if str(one.kind) in {"settlement", "release"})
    assert (kind, tokens) == (str(end.kind), budget.status().balance.committed.tokens)


@pytest.mark.usefixtures("no_collection")
def test_what_a_collection_leaves_and_the_store_fails_is_logged(
    book: Ledger, budget: LedgerBudgetManager, caplog: pytest.LogCaptureFixture
) -> None:
    """No caller is told of it."""
    lease = garbage(budget)

    def fail(*_given: object, **_named: object) -> None:
        raise OSError(5, "the disk failed")

    book._database.dialect.begin = fail
    gc.collect()
    until(lambda: "left in the queue" in caplog.text)
    left = f"close of lease {lease.token} in pool 'pool' (no usage), left in the queue"
    assert f"{left}, is kept" in caplog.text
    book.close()
    assert f"{left}, failed" in caplog.text


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("then", ["another call", "close"])
def test_usage_that_a_collection_leaves_outlives_an_outage(
    book: Ledger,
    budget: LedgerBudgetManager,
    store_url: str,
    caplog: pytest.LogCaptureFixture,
    then: str,
) -> None:
    """It is recorded once the store answers; the log says meanwhile what is not recorded yet."""
    lease = garbage(budget, recording)
    begin = book._database.dialect.begin

    def fail(*_given: object, **_named: object) -> None:
        raise OSError(5, "the disk failed")

    book._database.dialect.begin = fail
    gc.collect()
    until(lambda: "left in the queue" in caplog.text)
    shown = f"of lease {lease.token} in pool 'pool' (total_tokens 7), left in the queue, is kept: "
    assert shown in caplog.text
    assert ["WARNING"] == [one.levelname for one in caplog.records if shown in one.getMessage()]
    until(lambda: book._writer._leader is None)
    book._database.dialect.begin = begin
    if then == "close":
        book.close()
    else:
        reserve(budget)
        wait_until_ended(budget, lease)
    with Ledger.open(store_url) as another:
        assert 7 == another.pool("pool").status().balance.committed.tokens
        assert [None] == [found.damage for found in another.verify()]


@pytest.mark.usefixtures("no_collection")
def test_usage_that_is_left_and_fails_again_and_again_is_given_up(
    book: Ledger, budget: LedgerBudgetManager, caplog: pytest.LogCaptureFixture
) -> None:
    """After three times the log names what was not recorded, as an error."""
    lease = garbage(budget, recording)
    writer, begin = book._writer, book._database.dialect.begin

    def fail(*given: object, **named: object) -> None:
        if any(one.operation.lease_id == lease.id for one in writer._batch):
            raise OSError(5, "the disk failed")
        begin(*given, **named)  # type: ignore[arg-type]

    book._database.dialect.begin = fail
    gc.collect()
    until(lambda: "left in the queue" in caplog.text)
    for _ in range(2):
        until(lambda: writer._kept and writer._leader is None)
        reserve(budget)
    shown = f"of lease {lease.token} in pool 'pool' (total_tokens 7), left in the queue, failed: "
    until(lambda: shown in caplog.text)
    assert ["WARNING", "WARNING", "ERROR"] == [
        one.levelname for one in caplog.records if "left in the queue" in one.getMessage()
    ]
    assert not writer._kept


@pytest.fixture
def nothing_left_is_done(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody do what a finaliser leaves in the queue."""
    monkeypatch.setattr(book._writer, "_call_worker", lambda: None)


@pytest.mark.usefixtures("nothing_left_is_done")
def test_usage_is_durable_after_a_note_of_a_collection_was_left(
    budget: LedgerBudgetManager, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note was not taken back when the collection ended: it is found out at the next call."""
    lease = reserve(budget)
    monkeypatch.setattr(collecting, "_thread", threading.get_ident())
    budget.record_used(lease, Usage(total_tokens=7))
    with Ledger.open(store_url) as another:
        assert 7 == another.pool("pool").status().balance.committed.tokens


@pytest.mark.usefixtures("no_collection", "nothing_left_is_done")
def test_usage_is_durable_after_an_interrupt_at_the_end_of_a_collection(
    budget: LedgerBudgetManager, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that comes during a collection is handled in the first Python code behind it."""
    lease = reserve(budget)
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: ignored.append(found.object))
    others = [one for one in gc.callbacks if one is not collecting._note]
    gc.collect()
    gc.freeze()  # the next one meets no finaliser in Python, which would be interrupted first
    many: list[object] = [[] for _ in range(2_000_000)]
    previous = signal.signal(signal.SIGVTALRM, signal.default_int_handler)
    gc.callbacks[:] = [collecting._note]
    try:
        # By the processor's time: a busy machine does not make it come before the collection.
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.005)
        gc.collect()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
        gc.callbacks.extend(others)
        gc.unfreeze()
    del many
    assert [collecting._note] == ignored
    assert threading.get_ident() == collecting._thread
    budget.record_used(lease, Usage(total_tokens=7))
    with Ledger.open(store_url) as another:
        assert 7 == another.pool("pool").status().balance.committed.tokens
    assert collecting._thread is None


@pytest.mark.usefixtures("no_collection")
def test_a_collection_is_known_as_long_as_it_lasts() -> None:
    """To ask for it, as often as one likes, ends neither it nor the note of it."""

    class Asking:
        def __del__(self) -> None:
            told.extend(collecting.is_collecting() for _ in range(3))

    told: list[bool] = []
    cycle: list[object] = [Asking()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert [True] * 3 == told
    assert not collecting.is_collecting()


def test_a_call_that_comes_as_its_thread_has_the_turn_waits_for_nothing(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """A handler that ends a lease there does not wait for a leader that waits for this turn."""
    lease, writer = reserve(budget), book._writer

    class Turn:
        """Is interrupted as soon as it is taken."""

        def __init__(self) -> None:
            self._lock = writer.transactions._turn
            self.leader: Future[Any] | None = None
            self._is_owned, self.release = self._lock._is_owned, self._lock.release

        def acquire(self, timeout: float) -> bool:
            taken = self._lock.acquire(timeout=timeout)
            if self.leader is None:
                self.leader = in_thread(lambda: reserve(budget))
                until(lambda: writer._leader is not None)
                budget.release(lease)
                assert not self.leader.done()
            return taken

    writer.transactions._turn = turn = Turn()
    in_thread(lambda: book.expire_due("pool")).result(LATE_S)
    assert turn.leader is not None
    turn.leader.result(LATE_S)
    wait_until_ended(budget, lease)


@pytest.mark.usefixtures("no_collection")
def test_a_lease_that_is_collected_inside_a_batch_of_tasks_is_ended(store_url: str) -> None:
    """Their batches are committed by a thread of the queue's own, where a collection may come."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url, timeout_s=TIMEOUT_S) as book:
            budget = await book.pool("pool", OF_THOUSAND)
            sync = book.sync.pool("pool")
            lease = garbage(sync)
            at_commit(book.sync, gc.collect)
            began = time.monotonic()
            await budget.reserve(EXTENSIONS, ONE, UNLIMITED)
            assert time.monotonic() - began < BOUND_S
            await asyncio.to_thread(wait_until_ended, sync, lease)

    asyncio.run(main())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("inside", ["nothing", "a commit", "another loop"])
def test_a_coroutine_that_is_collected_ends_its_lease(
    book: Ledger, budget: LedgerBudgetManager, inside: str
) -> None:
    """Its loop is closed, and it can await nothing: the lease is ended all the same."""
    leases: list[str] = []

    async def work() -> None:
        async with (await AsyncLedger(book).pool("pool")).lease(ONE) as held:
            leases.append(held.lease.token)
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    task = loop.create_task(work())
    while not leases:
        loop.run_until_complete(asyncio.sleep(0.001))
    lease = budget.lease(leases[0])
    task._log_destroy_pending = False
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    del task, loop

    async def elsewhere() -> None:
        gc.collect()

    if inside == "nothing":
        gc.collect()
    elif inside == "a commit":
        at_commit(book, gc.collect)
        reserve(budget)
    else:
        asyncio.run(elsewhere())
    wait_until_ended(budget, lease)


def test_in_memory_a_handler_is_refused_and_a_finaliser_is_heard() -> None:
    """The lock is the same thread's: neither waits for it, and what was left is done at the end."""
    doing: list[Callable[[], object]] = []
    came: list[object] = []

    budget = SharedPoolBudgetManager(OF_THOUSAND)
    expire = budget._state._expire

    def inside_a_change(*given: Any) -> None:  # noqa: ANN401 - passed on
        while doing:
            try:
                came.append(doing.pop()())
            except Exception as error:  # noqa: BLE001 - the test looks at it
                came.append(error)
        expire(*given)

    budget._state._expire = inside_a_change

    def call() -> None:
        reserve(budget)

    for work in (lambda: reserve(budget), lambda: budget.remaining(EXTENSIONS).tokens):
        doing.append(work)
        done = in_thread(call)
        done.result(LATE_S)
    refused, remaining = came
    assert isinstance(refused, ContentionError)
    assert remaining in {0, 999}
    garbage(budget)
    doing.append(gc.collect)
    in_thread(call).result(LATE_S)
    assert 1_000 - 3 - 1 == budget.remaining(EXTENSIONS).tokens  # by default it counts as used


@pytest.fixture
def impatient(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Return a ledger that waits half a second, and as long again for a leader."""
    monkeypatch.setattr(call_queue, "_GRACE_S", 0.1)
    monkeypatch.setattr(postgresql, "_STILL_MIN_S", 60)  # the server would end what stands still
    with Ledger.open(store_url, timeout_s=0.4) as book:
        book.pool("pool", OF_THOUSAND)
        yield book


@contextmanager
def stuck(book: Ledger) -> Iterator[None]:
    """Let a leader stand still in the middle of its COMMIT, as on a disk that hangs."""
    stands, go = threading.Event(), threading.Event()

    def stand() -> None:
        stands.set()
        assert go.wait(60)

    at_commit(book, stand)
    leader = in_thread(lambda: reserve(book.pool("pool")))
    assert stands.wait(LATE_S)
    try:
        yield
    finally:
        go.set()
        leader.exception(LATE_S)


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_who_waits_for_a_leader_that_stands_still_is_told_in_time(
    impatient: Ledger, kind: str
) -> None:
    """ContentionError names the thread; no task waits without a deadline either."""

    async def main() -> None:
        budget = await AsyncLedger(impatient).pool("pool")
        await budget.reserve(EXTENSIONS, ONE, UNLIMITED)

    with stuck(impatient):
        began = time.monotonic()
        with pytest.raises(ContentionError, match="of this process"):
            asyncio.run(main()) if kind == "task" else reserve(impatient.pool("pool"))
        assert time.monotonic() - began < LATE_S


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_who_is_in_the_batch_of_a_leader_that_stands_still_is_told_in_time(
    impatient: Ledger, kind: str
) -> None:
    """Whether it will be done is not known: OutcomeUnknownError with the key to ask again by."""
    joined = threading.Event()
    budget = impatient.pool("pool")
    dialect, begin = impatient._database.dialect, impatient._database.dialect.begin

    def wait_for_company(*args: Any, **words: Any) -> None:  # noqa: ANN401 - passed on
        begin(*args, **words)
        dialect.begin = begin
        joined.set()
        while not impatient._writer._queue:
            time.sleep(0.001)

    async def main() -> None:
        same = await AsyncLedger(impatient).pool("pool")
        await same.reserve(EXTENSIONS, ONE, UNLIMITED)

    dialect.begin = wait_for_company
    go = threading.Event()
    at_commit(impatient, lambda: go.wait(60))
    leader = in_thread(lambda: reserve(budget))
    assert joined.wait(LATE_S)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknownError) as unknown:
        asyncio.run(main()) if kind == "task" else reserve(budget)
    assert time.monotonic() - began < LATE_S
    go.set()
    assert 2 == leader.result(LATE_S).id
    found = impatient.entry_with_key("pool", unknown.value.idempotency_key)
    assert found is not None
    budget.record_used(numbered(budget, found.seq), Usage(total_tokens=1))


def test_a_batch_that_fails_late_is_not_tried_call_by_call(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """A server that breaks the protocol may take the whole time of each try: one is all there is.

    Whether a call took effect is then not known.
    """
    number, begun, writer, dialect = 8, [], book._writer, book._database.dialect
    committing = threading.Event()

    def broken(*_given: object, **_named: object) -> None:
        begun.append(len(writer._batch))
        for one in writer._batch:  # the time passes
            one.entered_s -= TIMEOUT_S + 1
        raise ValueError("no message of the protocol")

    def during() -> None:
        committing.set()
        until(lambda: len(writer._queue) == number)
        dialect.begin = broken

    at_commit(book, during)
    first = in_thread(lambda: reserve(budget))
    assert committing.wait(LATE_S)
    others = [in_thread(lambda: reserve(budget)) for _ in range(number)]
    assert 2 == first.result(LATE_S).id
    errors = [one.exception(LATE_S) for one in others]
    assert [OutcomeUnknownError] * number == [type(error) for error in errors]
    assert [number] == begun


def test_closing_waits_no_longer_than_a_call_may_take(impatient: Ledger) -> None:
    """A leader that stands still does not keep a program from closing its ledger."""

    async def main() -> None:
        budget = await AsyncLedger(impatient).pool("pool")
        await budget.reserve(EXTENSIONS, ONE, UNLIMITED)

    go = threading.Event()
    at_commit(impatient, lambda: go.wait(60))
    task = in_thread(lambda: asyncio.run(main()))
    assert isinstance(task.exception(LATE_S), OutcomeUnknownError)
    began = time.monotonic()
    impatient.close()
    assert time.monotonic() - began < LATE_S
    go.set()


def test_a_fork_does_not_wait_for_what_its_own_thread_has_begun(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """A signal handler that forks in the middle of a call: both go on."""
    codes: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    at_commit(book, fork)
    began = time.monotonic()
    assert 2 == reserve(budget).id
    assert time.monotonic() - began < LATE_S
    assert [7] == codes
    assert 3 == reserve(budget).id
