"""Waiting for capacity: the order, what wakes a waiter, and every way in which it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    BudgetLease,
    Credit,
    EntryKind,
    IdempotencyKey,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
)
from ledger.engine import capacity_queue
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests import programs
from tests.clocks import LATE_S, until
from tests.leases import OF_HUNDRED

LONG_S = 120.0
PROMPT_S = LATE_S
"""Far below LONG_S, and time enough for a busy machine."""

Manager = LedgerBudgetManager | SharedPoolBudgetManager


def take(
    budget: Manager, amount: int, wait_s: float = 0, extensions: RequestExtensions = EXTENSIONS
) -> BudgetLease:
    """Reserve tokens."""
    return budget.reserve(extensions, tokens(amount), UNLIMITED, wait_s=wait_s)


def waiters(book: Ledger | SharedPoolBudgetManager) -> int:
    """Return how many stand in line and sleep."""
    queues = book._waiting._queues if isinstance(book, Ledger) else book._queues
    waiting = [one for found in list(queues._queues.values()) for one in found]
    return sum(one._action is capacity_queue.Action.SLEEP for one in waiting)


async def standing(book: Ledger, number: int) -> None:
    """Wait until so many stand in line."""
    deadline = time.monotonic() + LATE_S
    while waiters(book) != number:
        assert time.monotonic() < deadline, "they do not come"
        await asyncio.sleep(0.001)


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look or ask by itself: what goes on then was woken."""
    for name in ("LOOK_MIN_S", "LOOK_MAX_S", "ASK_S"):
        monkeypatch.setattr(capacity_queue, name, LONG_S)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads enough for everybody."""
    with ThreadPoolExecutor(16) as made:
        yield made


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool of 100 tokens."""
    return book.pool("pool", OF_HUNDRED)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def full(request: pytest.FixtureRequest, new_store: Callable[..., str]) -> Iterator[Any]:
    """Return each kind of manager in turn, what keeps its line, and a lease of all it has."""
    if request.param == "memory":
        memory = SharedPoolBudgetManager(OF_HUNDRED)
        yield memory, memory, take(memory, 100)
        return
    with Ledger.open(new_store(request.param)) as book:
        budget = book.pool("pool", OF_HUNDRED)
        yield budget, book, take(budget, 100)


FREES: dict[str, Callable[[Ledger, LedgerBudgetManager, BudgetLease], object]] = {
    "settled": lambda _book, budget, lease: budget.record_used(lease, Usage(total_tokens=1)),
    "released": lambda _book, budget, lease: budget.release(lease),
    "abandoned": lambda _book, budget, lease: budget.abandon(lease),
    "adjusted": lambda book, _budget, _lease: book.adjust(
        "pool", SharedPoolBudgetOptions(capacity_tokens=1_000)
    ),
}


@pytest.mark.usefixtures("only_woken")
@pytest.mark.parametrize("free", FREES.values(), ids=FREES)
def test_what_gives_capacity_back_wakes_the_first(
    book: Ledger,
    budget: LedgerBudgetManager,
    threads: ThreadPoolExecutor,
    free: Callable[[Ledger, LedgerBudgetManager, BudgetLease], object],
) -> None:
    """A waiter that would sleep for two minutes is granted its lease at once."""
    kept, lease = take(budget, 40), take(budget, 60)
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=100, settlement="observed"))
    waiting = threads.submit(take, budget, 50, LONG_S)
    until(lambda: waiters(book) == 1)
    began_s = time.monotonic()
    free(book, budget, lease)
    granted = waiting.result(LONG_S)
    assert PROMPT_S > time.monotonic() - began_s
    assert granted.id > lease.id > kept.id


@pytest.mark.usefixtures("only_woken")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_credit_wakes_the_first(
    kind: str, new_store: Callable[..., str], threads: ThreadPoolExecutor
) -> None:
    """What waits for a top-up of a prepaid pool is granted at once."""
    prepaid, credit = SharedPoolBudgetOptions(prepaid=["tokens"]), Credit(name="paid", tokens=50)

    def check(book: Any, budget: Manager, top_up: Callable[[Credit], None]) -> None:  # noqa: ANN401 - of either kind
        waiting = threads.submit(take, budget, 50, LONG_S)
        until(lambda: waiters(book) == 1)
        top_up(credit)
        assert 50 == waiting.result(PROMPT_S).reserved.total_tokens

    if kind == "memory":
        memory = SharedPoolBudgetManager(prepaid)
        check(memory, memory, memory.credit)
        return
    with Ledger.open(new_store(kind)) as book:
        check(book, book.pool("pool", prepaid), lambda given: book.credit("pool", given))


@pytest.mark.usefixtures("only_woken")
def test_an_expiry_wakes_the_first(store_url: str, threads: ThreadPoolExecutor) -> None:
    """What `expire_due` gives back is granted at once."""
    now = [1_700_000_000_000_000]
    with Ledger.open(store_url, clock=lambda: now[0]) as book:
        options = SharedPoolBudgetOptions(
            capacity_tokens=100, lease_ttl=timedelta(seconds=5), settlement="release"
        )
        budget = book.pool("pool", options)
        take(budget, 100)
        waiting = threads.submit(take, budget, 50, LONG_S)
        until(lambda: waiters(book) == 1)
        now[0] += 5_000_000
        assert 1 == book.expire_due("pool")
        assert 50 == waiting.result(PROMPT_S).reserved.total_tokens


@pytest.mark.usefixtures("only_woken")
def test_threads_are_served_as_they_came(full: Any, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - see the fixture
    """Each lease that ends lets the next one in, in the order of their coming."""
    budget, book, lease = full
    order: list[int] = []

    def wait(number: int) -> BudgetLease:
        granted = take(budget, 100, LONG_S)
        order.append(number)
        return granted

    queue = []
    for number in range(5):
        queue.append(threads.submit(wait, number))
        until(lambda number=number: waiters(book) == number + 1)
    for waiting in queue:
        budget.release(lease)
        lease = waiting.result(LONG_S)
    assert [0, 1, 2, 3, 4] == order


@pytest.mark.usefixtures("only_woken")
def test_threads_and_tasks_stand_in_one_line(
    book: Ledger, budget: LedgerBudgetManager, threads: ThreadPoolExecutor
) -> None:
    """Tasks free what threads wait for, and the other way round; nobody is passed."""

    async def main() -> list[int]:
        tasks = await AsyncLedger(book).pool("pool")
        lease, queue = await tasks.reserve(EXTENSIONS, tokens(100), UNLIMITED), []
        for number in range(6):
            if number % 2:
                call: Any = tasks.reserve(EXTENSIONS, tokens(100), UNLIMITED, wait_s=LONG_S)
                queue.append(asyncio.ensure_future(call))
            else:
                queue.append(asyncio.wrap_future(threads.submit(take, budget, 100, LONG_S)))
            await standing(book, number + 1)
        order = []
        for number in range(6):
            if number % 2:
                await asyncio.to_thread(budget.release, lease)
            else:
                await tasks.release(lease)
            await asyncio.wait(queue, timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
            (done,) = [place for place, one in enumerate(queue) if one.done()]
            lease = queue[done].result()
            order.append(done)
            queue[done] = asyncio.get_running_loop().create_future()
        return order

    assert [0, 1, 2, 3, 4, 5] == asyncio.run(main())


@pytest.mark.usefixtures("only_woken")
def test_one_release_serves_as_many_as_it_holds(full: Any, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - see the fixture
    """Whoever is granted lets the next one ask at once."""
    budget, book, lease = full
    queue = [threads.submit(take, budget, 25, LONG_S) for _ in range(4)]
    until(lambda: waiters(book) == 4)
    budget.release(lease)
    assert [25] * 4 == [one.result(PROMPT_S).reserved.total_tokens for one in queue]


@pytest.mark.usefixtures("only_woken")
def test_a_large_one_at_the_head_is_not_passed(full: Any, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - see the fixture
    """A small one behind it waits, though there is enough for it; a plain reserve does not."""
    budget, book, lease = full
    budget.release(lease)
    first, second = take(budget, 60), take(budget, 30)
    large = threads.submit(take, budget, 80, LONG_S)
    until(lambda: waiters(book) == 1)
    small = threads.submit(take, budget, 5, LONG_S)
    until(lambda: waiters(book) == 2)
    assert 10 == take(budget, 10).reserved.total_tokens
    budget.release(second)
    time.sleep(0.2)
    assert (False, False) == (large.done(), small.done())
    budget.release(first)
    assert [80, 5] == [one.result(PROMPT_S).reserved.total_tokens for one in (large, small)]


def test_at_the_deadline_it_is_the_ordinary_denial(full: Any) -> None:  # noqa: ANN401 - see the fixture
    """The same error with the same figures, after the time and not much later."""
    budget, book, lease = full
    with pytest.raises(ThresholdExceededError) as plain:
        take(budget, 10)
    began_s = time.monotonic()
    with pytest.raises(ThresholdExceededError) as late:
        take(budget, 10, wait_s=0.3)
    assert 0.3 <= time.monotonic() - began_s < 0.3 + PROMPT_S
    assert (type(plain.value), vars(plain.value)) == (type(late.value), vars(late.value))
    assert 0 == waiters(book)
    budget.release(lease)


def test_a_denial_is_kept_once(store_url: str) -> None:
    """However often a waiter asked, the journal tells of the last time alone."""
    with Ledger.open(store_url, record_denials=True) as book:
        budget = book.pool("pool", OF_HUNDRED)
        take(budget, 100)
        began_s = time.monotonic()
        with pytest.raises(ThresholdExceededError):
            take(budget, 10, wait_s=1.3)
        assert 1.3 <= time.monotonic() - began_s
        assert 1 == len(list(book.entries("pool", kind=EntryKind.DENIAL)))
        assert 3 == book.size("pool")


def test_a_denial_under_a_key_stands(book: Ledger, budget: LedgerBudgetManager) -> None:
    """The same key gives the denial again, at once, though there is enough by now."""
    lease, keyed = take(budget, 100), RequestExtensions(IdempotencyKey("once"))
    with pytest.raises(ThresholdExceededError) as first:
        take(budget, 10, 0.3, keyed)
    budget.release(lease)
    began_s = time.monotonic()
    with pytest.raises(ThresholdExceededError) as again:
        take(budget, 10, LONG_S, keyed)
    assert PROMPT_S > time.monotonic() - began_s
    assert vars(first.value) == vars(again.value)
    assert 1 == len(list(book.entries("pool", kind=EntryKind.DENIAL)))


@pytest.mark.usefixtures("only_woken")
def test_an_answer_under_a_key_is_not_waited_for(
    book: Ledger, budget: LedgerBudgetManager, threads: ThreadPoolExecutor
) -> None:
    """Whoever repeats a call gets its lease again, past everybody who waits."""
    keyed = RequestExtensions(IdempotencyKey("once"))
    lease = take(budget, 100, 0, keyed)
    waiting = threads.submit(take, budget, 10, LONG_S)
    until(lambda: waiters(book) == 1)
    assert lease == take(budget, 100, LONG_S, keyed)
    budget.release(lease)
    waiting.result(PROMPT_S)


def test_a_lease_waited_for_is_the_key_s_answer(
    book: Ledger, budget: LedgerBudgetManager, threads: ThreadPoolExecutor
) -> None:
    """What was granted after a wait is granted again under its key."""
    lease, keyed = take(budget, 100), RequestExtensions(IdempotencyKey("once"))
    waiting = threads.submit(take, budget, 10, LONG_S, keyed)
    until(lambda: waiters(book) == 1)
    budget.release(lease)
    assert waiting.result(LONG_S) == take(budget, 10, 0, keyed)
    assert [1] == [found.entries - 3 for found in book.verify()]


def test_what_waiting_cannot_change_is_answered_at_once(full: Any) -> None:  # noqa: ANN401 - see the fixture
    """A request over its own budget, and a time that is none."""
    budget, _, _ = full
    began_s = time.monotonic()
    with pytest.raises(RequestBudgetExceededError):
        budget.reserve(EXTENSIONS, tokens(10), RequestBudget.from_tokens(9), wait_s=LONG_S)
    for wrong in (-1, float("nan"), "5", True, None):
        with pytest.raises(InvalidInputError, match="wait_s"):
            budget.reserve(EXTENSIONS, tokens(10), UNLIMITED, wait_s=wrong)
    assert PROMPT_S > time.monotonic() - began_s


def test_a_request_that_never_fits_does_not_wait(full: Any, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - see the fixture
    """It would keep those behind it waiting, too; one that the pool may have room for waits."""
    budget, book, lease = full
    began_s = time.monotonic()
    with pytest.raises(ThresholdExceededError) as refused:
        take(budget, 101, LONG_S)
    assert refused.value.too_large
    waiting = threads.submit(take, budget, 100, LONG_S)
    until(lambda: waiters(book) == 1)
    larger = threads.submit(take, budget, 101, LONG_S)
    until(lambda: waiters(book) == 2)
    budget.release(lease)
    assert 100 == waiting.result(PROMPT_S).reserved.total_tokens
    assert isinstance(larger.exception(PROMPT_S), ThresholdExceededError)
    assert LONG_S > time.monotonic() - began_s


def test_who_waits_does_nothing_much(
    book: Ledger, budget: LedgerBudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two seconds no more than four attempts and a few dozen cheap reads."""
    take(budget, 100)
    database, looks = book._database, []
    retried, before = database.retried, database.transactions
    monkeypatch.setattr(database, "retried", lambda *given: looks.append(1) or retried(*given))
    with pytest.raises(ThresholdExceededError):
        take(budget, 10, wait_s=2.5)
    assert 4 >= database.transactions - before
    assert 50 >= len(looks)


@pytest.mark.usefixtures("only_woken")
def test_two_managers_of_a_ledger_share_the_line(
    book: Ledger, budget: LedgerBudgetManager, threads: ThreadPoolExecutor
) -> None:
    """The pool has the line, not the object that was asked for it."""
    other, lease = book.pool("pool"), take(budget, 100)
    first = threads.submit(take, budget, 100, LONG_S)
    until(lambda: waiters(book) == 1)
    second = threads.submit(take, other, 100, LONG_S)
    until(lambda: waiters(book) == 2)
    other.release(lease)
    granted = first.result(PROMPT_S)
    assert not second.done()
    budget.release(granted)
    second.result(PROMPT_S)


@pytest.mark.usefixtures("only_woken")
def test_lines_of_two_pools_are_two(book: Ledger, threads: ThreadPoolExecutor) -> None:
    """Who waits for one pool is nothing to the other."""
    here, there = book.pool("here", OF_HUNDRED), book.pool("there", OF_HUNDRED)
    leases = [take(here, 100), take(there, 100)]
    waiting = [threads.submit(take, here, 10, LONG_S), threads.submit(take, there, 10, LONG_S)]
    until(lambda: waiters(book) == 2)
    there.release(leases[1])
    waiting[1].result(PROMPT_S)
    assert not waiting[0].done()
    here.release(leases[0])
    waiting[0].result(PROMPT_S)


ELSEWHERE = """
import sys
from ledger import Ledger, SharedPoolBudgetOptions
with Ledger.open(sys.argv[1], create=False) as book:
    budget = book.pool("pool")
    sys.stdin.readline()
    if sys.argv[2] == "adjusts":
        book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=200))
    else:
        budget.release(next(book.open_leases("pool")).lease)
    print("done", flush=True)
"""


@pytest.mark.parametrize("what", ["releases", "adjusts"])
def test_another_process_lets_the_first_go_on(
    store_url: str,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """What another process gives back is seen by looking, long before asking again."""
    monkeypatch.setattr(capacity_queue, "ASK_S", LONG_S)
    with (
        Ledger.open(store_url) as book,
        programs.Popen(
            [sys.executable, "-c", ELSEWHERE, store_url, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        budget = book.pool("pool", OF_HUNDRED)
        assert 2 == take(budget, 100).id
        waiting = threads.submit(take, budget, 50, LONG_S)
        until(lambda: waiters(book) == 1)
        out, _ = process.communicate("\n", timeout=LONG_S)
        assert "done\n" == out
        assert 50 == waiting.result(PROMPT_S).reserved.total_tokens
        assert [None] == [found.damage for found in book.verify()]


def test_a_lease_that_comes_due_lets_the_first_go_on(
    store_url: str, threads: ThreadPoolExecutor
) -> None:
    """Nobody writes anything: the waiter asks about once a second, and that expires what is due."""
    options = SharedPoolBudgetOptions(
        capacity_tokens=100, lease_ttl=timedelta(milliseconds=200), settlement="release"
    )
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", options)
        take(budget, 100)
        waiting = threads.submit(take, budget, 50, LONG_S)
        assert 50 == waiting.result(PROMPT_S).reserved.total_tokens


def test_in_memory_too(threads: ThreadPoolExecutor) -> None:
    """A lease of the in-memory manager that comes due lets the first go on."""
    now = [1_700_000_000_000_000]
    budget = SharedPoolBudgetManager(
        SharedPoolBudgetOptions(
            capacity_tokens=100, lease_ttl=timedelta(seconds=1), settlement="release"
        ),
        clock=lambda: now[0],
    )
    take(budget, 100)
    waiting = threads.submit(take, budget, 50, LONG_S)
    until(lambda: waiters(budget) == 1)
    now[0] += 1_000_000
    assert 50 == waiting.result(PROMPT_S).reserved.total_tokens


@pytest.mark.usefixtures("only_woken")
@pytest.mark.parametrize("place", [0, 1])
def test_a_cancelled_task_leaves_the_line(
    book: Ledger, budget: LedgerBudgetManager, threads: ThreadPoolExecutor, place: int
) -> None:
    """The first passes its turn on, and one further behind is not asked any more."""

    async def main() -> None:
        tasks = await AsyncLedger(book).pool("pool")
        lease = take(budget, 60)
        queue = []
        for number, amount in enumerate((100, 100)):
            call = tasks.reserve(EXTENSIONS, tokens(amount), UNLIMITED, wait_s=LONG_S)
            queue.append(asyncio.create_task(call))
            await standing(book, number + 1)
        small = asyncio.wrap_future(threads.submit(take, budget, 40, LONG_S))
        await standing(book, 3)
        queue[place].cancel()
        with pytest.raises(asyncio.CancelledError):
            await queue[place]
        assert 2 == waiters(book)
        queue[1 - place].cancel()
        granted = await asyncio.wait_for(small, PROMPT_S)
        assert 40 == granted.reserved.total_tokens
        budget.release(granted)
        budget.release(lease)

    asyncio.run(main())
    assert 0 == budget.status().balance.reserved.tokens


@pytest.mark.usefixtures("only_woken")
def test_an_interrupted_thread_leaves_the_line(full: Any, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - see the fixture
    """Ctrl-C reaches a thread that waits, and the next one has its turn."""
    budget, book, lease = full

    def interrupt() -> Future[BudgetLease]:
        until(lambda: waiters(book) == 1)
        behind = threads.submit(take, budget, 100, LONG_S)
        until(lambda: waiters(book) == 2)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        return behind

    behind = threads.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        take(budget, 100, LONG_S)
    until(lambda: waiters(book) == 1)
    budget.release(lease)
    assert 100 == behind.result().result(PROMPT_S).reserved.total_tokens


def test_a_loop_that_ended_is_passed_over(
    book: Ledger, budget: LedgerBudgetManager, threads: ThreadPoolExecutor
) -> None:
    """A task that nobody will run again does not keep threads waiting."""
    loop, lease = asyncio.new_event_loop(), take(budget, 100)
    tasks = loop.run_until_complete(AsyncLedger(book).pool("pool"))
    call = tasks.reserve(EXTENSIONS, tokens(100), UNLIMITED, wait_s=LONG_S)
    left = loop.create_task(call)
    with suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(asyncio.shield(left), 0.2))
    assert 1 == sum(map(len, book._waiting._queues._queues.values()))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    waiting = threads.submit(take, budget, 100, LONG_S)
    budget.release(lease)
    assert 100 == waiting.result(PROMPT_S).reserved.total_tokens
    left._log_destroy_pending = False  # it was left on purpose


@pytest.mark.usefixtures("only_woken")
def test_a_ledger_that_closes_turns_waiters_away(
    store_url: str, threads: ThreadPoolExecutor
) -> None:
    """Threads and tasks get the error of a closed ledger, at once."""

    async def main() -> None:
        with Ledger.open(store_url) as book:
            budget = book.pool("pool", OF_HUNDRED)
            take(budget, 100)
            tasks = await AsyncLedger(book).pool("pool")
            queue = [asyncio.wrap_future(threads.submit(take, budget, 10, LONG_S))]
            call = tasks.reserve(EXTENSIONS, tokens(10), UNLIMITED, wait_s=LONG_S)
            queue.append(asyncio.ensure_future(call))
            await standing(book, 2)
        for waiting in queue:
            with pytest.raises(LedgerUnavailableError, match="is closed"):
                await asyncio.wait_for(waiting, PROMPT_S)

    asyncio.run(main())


def test_a_waiting_task_does_not_block_its_loop(
    book: Ledger, budget: LedgerBudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While ten tasks wait, other threads look and ask for them; the loop only goes round."""
    lease, threads_used = take(budget, 100), set[int]()
    dialect, retried = book._database.dialect, book._database.retried
    commit = dialect.commit

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: object) -> object:
            threads_used.add(threading.get_ident())
            return call(*given)

        return called

    monkeypatch.setattr(dialect, "commit", noted(commit))
    monkeypatch.setattr(book._database, "retried", noted(retried))

    async def main() -> None:
        tasks = await AsyncLedger(book).pool("pool")
        queue = [
            asyncio.create_task(tasks.reserve(EXTENSIONS, tokens(10), UNLIMITED, wait_s=LONG_S))
            for _ in range(10)
        ]
        await standing(book, 10)
        threads_used.clear()
        await asyncio.to_thread(until, lambda: threads_used)
        await tasks.release(lease)
        await asyncio.wait_for(asyncio.gather(*queue), LONG_S)

    asyncio.run(main())
    assert threading.get_ident() not in threads_used
    assert 100 == budget.status().balance.reserved.tokens


@pytest.mark.usefixtures("only_woken")
def test_a_with_block_waits_on_entry(full: Any, threads: ThreadPoolExecutor) -> None:  # noqa: ANN401 - see the fixture
    """`lease(estimate, wait_s=...)` waits as `reserve` does."""
    budget, book, lease = full

    def block() -> int:
        with budget.lease(tokens(30), wait_s=LONG_S) as held:
            held.record(Usage(total_tokens=20))
        return 20

    waiting = threads.submit(block)
    until(lambda: waiters(book) == 1)
    budget.release(lease)
    assert 20 == waiting.result(PROMPT_S)
    assert 80 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.usefixtures("only_woken")
def test_an_async_with_block_waits_on_entry(book: Ledger, budget: LedgerBudgetManager) -> None:
    """A task that has to wait gets its lease once another one has ended."""

    async def main() -> None:
        tasks = await AsyncLedger(book).pool("pool")
        lease = await tasks.reserve(EXTENSIONS, tokens(100), UNLIMITED)

        async def block() -> None:
            async with tasks.lease(tokens(30), wait_s=LONG_S) as held:
                await held.record(Usage(total_tokens=20))

        waiting = asyncio.create_task(block())
        await standing(book, 1)
        await tasks.release(lease)
        await asyncio.wait_for(waiting, PROMPT_S)

    asyncio.run(main())
    assert 20 == budget.status().balance.committed.tokens


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_a_forked_child_has_a_line_of_its_own(kind: str, new_store: Callable[..., str]) -> None:
    """The parent's waiters are not there, and do not stand before the child's own."""
    program = FORK.format(kind=kind, url="" if kind == "memory" else new_store(kind))
    done = programs.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ("child granted\nparent granted\n", "") == (done.stdout, done.stderr)


FORK = """
import os, threading, time
from ledger import *
options = SharedPoolBudgetOptions(capacity_tokens=100)
if "{kind}" == "memory":
    budget = SharedPoolBudgetManager(options)
    queues = budget._queues
else:
    book = Ledger.open("{url}")
    budget, queues = book.pool("pool", options), book._waiting._queues

def reserve(tokens, **more):
    estimate = UsageEstimate(total_tokens=tokens)
    return budget.reserve(RequestExtensions(), estimate, RequestBudget.unlimited(), **more)

small, large = reserve(40), reserve(60)
granted = []
waiting = threading.Thread(target=lambda: granted.append(reserve(100, wait_s=120)))
waiting.start()
while not any(queues._queues.values()):
    time.sleep(0.001)
time.sleep(0.1)
child = os.fork()
if child == 0:
    threading.Timer(0.2, budget.release, [large]).start()
    mine = reserve(50, wait_s=120)  # which the parent's waiter cannot take: it asks for all
    print("child granted", flush=True)
    budget.release(mine)
    os._exit(0)
os.waitpid(child, 0)
if "{kind}" == "memory":
    budget.release(large)
budget.release(small)
waiting.join(120)
print("parent granted" if granted else "parent waits", flush=True)
"""


def test_many_waiters_lose_nothing(book: Ledger, budget: LedgerBudgetManager) -> None:
    """Sixteen threads share room for two, each ten times, and every one of them gets through."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with budget.lease(tokens(50), wait_s=60) as held:
                    held.record(Usage())
        except BaseException as failure:  # noqa: BLE001 - whatever it is
            failures.append(failure)

    crowd = [threading.Thread(target=work) for _ in range(16)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(120)
    assert [] == failures
    assert (0, 160) == (
        budget.status().balance.reserved.tokens,
        budget.status().balance.committed.requests,
    )
    assert [None] == [found.damage for found in book.verify()]
