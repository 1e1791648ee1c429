"""Tasks on one pool: batches, cancellation, loops that end, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from ledger import (
    AsyncLedger,
    ContentionError,
    IdempotencyKey,
    Ledger,
    LedgerUnavailableError,
    OutcomeUnknownError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
)
from ledger.engine.operations import Release
from ledger.managers.tasks import AsyncLedgerBudgetManager
from ledger.store.dialects import CommitInDoubtError
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=1_000_000)


class Commits:
    """Stands before a ledger's COMMIT: counts, and holds the next ones until let go."""

    def __init__(self, book: Ledger) -> None:
        self.book = book
        dialect = book._database.dialect
        self.really = dialect.commit
        self.instead: Callable[[Connection], None] = self.really
        dialect.commit = self
        self.calls = 0
        self.gates: dict[int, threading.Event] = {}

    def __call__(self, connection: Connection) -> None:
        """Count, wait for leave to go on, and commit."""
        self.calls += 1
        if self.calls in self.gates:
            assert self.gates[self.calls].wait(30)
        self.instead(connection)

    def hold_next(self, ahead: int = 1) -> threading.Event:
        """Let the next COMMIT, or one further ahead, wait for the event that this returns."""
        return self.gates.setdefault(self.calls + ahead, threading.Event())

    async def line_up(self, *calls: Any) -> list[asyncio.Task[Any]]:  # noqa: ANN401 - coroutines
        """Let tasks come in this order, and wait until all of them stand in the queue."""
        queue = self.book._writer._queue
        tasks = []
        for number, call in enumerate(calls, start=len(queue) + 1):
            tasks.append(asyncio.create_task(call))
            await until(lambda number=number: len(queue) == number)
        return tasks


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        await asyncio.sleep(0.001)


async def idle(book: Ledger) -> None:
    """Wait until nothing waits, and nothing is being done."""
    await until(lambda: not book._writer._queue and not book._writer._batch)


def kinds(book: Ledger) -> list[str]:
    """Return the kinds of the pool's entries in order, without its opening."""
    return [str(entry.kind) for entry in book.entries("pool")][1:]


def held_tokens(book: Ledger) -> int:
    """Return what the newest entry holds."""
    return list(book.entries("pool"))[-1].balance.reserved.tokens


def assert_sound(book: Ledger) -> None:
    """Check that the store verifies."""
    assert [None] == [found.damage for found in book.verify()]


@asynccontextmanager
async def opened(
    url: str, *, timeout_s: float = 10.0
) -> AsyncIterator[tuple[Ledger, AsyncLedgerBudgetManager, Commits]]:
    """Open a store with one pool, and watch over its commits."""
    async with await AsyncLedger.open(url, timeout_s=timeout_s) as store:
        budget = await store.pool("pool", OPTIONS)
        commits = Commits(store.sync)
        yield store.sync, budget, commits
        for gate in commits.gates.values():
            gate.set()


@asynccontextmanager
async def plugged(commits: Commits, budget: AsyncLedgerBudgetManager) -> AsyncIterator[Any]:
    """Hold the batch of one caller at its COMMIT, while others come."""
    number, gate = commits.calls + 1, commits.hold_next()
    leader = asyncio.create_task(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))
    await until(lambda: commits.calls == number)
    try:
        yield leader
    finally:
        gate.set()


async def told(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """Return what each task ended in."""
    async with asyncio.timeout(20):
        return await asyncio.gather(*tasks, return_exceptions=True)


def test_tasks_share_transactions_and_get_their_own_verdicts(store_url: str) -> None:
    """64 tasks behind one commit need one more; each gets its own lease or its own figures."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            async with plugged(commits, budget):
                asked = [tokens(10 + n) for n in range(64)]
                asked[40] = tokens(2_000_000)
                tasks = await commits.line_up(
                    *(budget.reserve(EXTENSIONS, amount, UNLIMITED) for amount in asked)
                )
            leases = await told(tasks)
            assert 2 == commits.calls
            denied = leases.pop(40)
            assert (ThresholdExceededError, 2_000_000) == (type(denied), denied.requested_tokens)
            assert 999_999 - sum(range(10, 50)) == denied.remaining_tokens
            assert list(range(3, 66)) == [lease.id for lease in leases]
            assert asked[:40] + asked[41:] == [lease.reserved for lease in leases]
            assert_sound(book)

    asyncio.run(main())


def test_tasks_never_get_more_than_there_is(store_url: str) -> None:
    """50 tasks want 2 of 60 tokens each: 30 get them; far fewer transactions than calls."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url) as store:
            budget = await store.pool("pool", SharedPoolBudgetOptions(capacity_tokens=60))
            commits = Commits(store.sync)
            found = await asyncio.gather(
                *(budget.reserve(EXTENSIONS, tokens(2), UNLIMITED) for _ in range(50)),
                return_exceptions=True,
            )
            granted = [lease for lease in found if not isinstance(lease, Exception)]
            assert 30 == len({lease.id for lease in granted})
            assert 20 == sum(type(one) is ThresholdExceededError for one in found)
            assert 10 > commits.calls
            assert 0 == (await budget.remaining(EXTENSIONS)).tokens
            await asyncio.gather(
                *(budget.record_used(lease, Usage(total_tokens=1)) for lease in granted)
            )
            assert 20 > commits.calls
            assert 30 == (await budget.remaining(EXTENSIONS)).tokens
            assert_sound(store.sync)

    asyncio.run(main())


class Broken(Release):
    """An operation with a bug."""

    __slots__ = ()

    def decide(self, batch: object, pool: object) -> Any:  # noqa: ANN401, ARG002 - it never answers
        """Fail as only a bug does."""
        raise ZeroDivisionError


def test_failures_are_each_task_s_own(store_url: str) -> None:
    """A bug is one caller's; a COMMIT in doubt is told to each, with its own key."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            journal = budget._budget._journal
            async with plugged(commits, budget):
                tasks = await commits.line_up(
                    budget.reserve(EXTENSIONS, tokens(1), UNLIMITED),
                    book._writer.run_async(journal, Broken(lease=1)),
                    budget.reserve(EXTENSIONS, tokens(1), UNLIMITED),
                )
            found = await told(tasks)
            assert [3, ZeroDivisionError, 4] == [getattr(one, "id", type(one)) for one in found]

            plug = commits.calls + 1

            def second_in_doubt(connection: Connection) -> None:
                if commits.calls > plug:
                    raise CommitInDoubtError("no standby")
                commits.really(connection)

            commits.instead = second_in_doubt
            async with plugged(commits, budget):
                keys = [RequestExtensions(IdempotencyKey(f"key-{n}")) for n in range(3)]
                tasks = await commits.line_up(
                    *(budget.reserve(key, tokens(1), UNLIMITED) for key in keys)
                )
            errors = await told(tasks)
            assert [OutcomeUnknownError] * 3 == [type(error) for error in errors]
            assert ["key-0", "key-1", "key-2"] == [error.idempotency_key for error in errors]
            assert 4 == len(kinds(book))

    asyncio.run(main())


def test_a_task_cancelled_in_the_queue_is_not_done(store_url: str) -> None:
    """Cancelled before its batch begins: nothing is written, and the others go on."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            lease = await budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
            async with plugged(commits, budget):
                tasks = await commits.line_up(
                    budget.reserve(EXTENSIONS, tokens(100), UNLIMITED),
                    budget.record_used(lease, Usage(total_tokens=9)),
                    budget.reserve(EXTENSIONS, tokens(2), UNLIMITED),
                )
                tasks[0].cancel()
                tasks[1].cancel()
                await until(lambda: len(book._writer._queue) == 1)
            found = await told(tasks)
            assert [asyncio.CancelledError] * 2 == [type(one) for one in found[:2]]
            assert 4 == found[2].id
            await idle(book)
            assert ["reservation"] * 3 == kinds(book)
            assert 13 == held_tokens(book)

    asyncio.run(main())


@pytest.mark.parametrize("end", ["release", "abandon"])
def test_the_end_of_a_lease_that_is_cancelled_in_the_queue_is_done(
    store_url: str, end: str
) -> None:
    """Without usage, the lease would only stay open; what was used can be recorded again."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            lease = await budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
            async with plugged(commits, budget):
                (task,) = await commits.line_up(getattr(budget, end)(lease))
                task.cancel()
                await asyncio.wait([task])
                assert 1 == len(book._writer._queue)
            assert [asyncio.CancelledError] == [type(one) for one in await told([task])]
            await until(lambda: len(kinds(book)) == 3)
            assert {"release": "release", "abandon": "settlement"}[end] == kinds(book)[-1]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["cancel", "wait_for"])
def test_a_task_cancelled_while_its_batch_runs_leaves_no_lease(store_url: str, how: str) -> None:
    """Cancelled or timed out at COMMIT: usage stays recorded, and the lease is released."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            lease = await budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
            second = commits.hold_next(2)
            calls: list[Any] = [
                budget.reserve(EXTENSIONS, tokens(100), UNLIMITED),
                budget.record_used(lease, Usage(total_tokens=9)),
            ]
            if how == "wait_for":
                calls = [asyncio.wait_for(call, 0.3) for call in calls]
            async with plugged(commits, budget) as leader:
                tasks = await commits.line_up(
                    *calls, budget.reserve(EXTENSIONS, tokens(2), UNLIMITED)
                )
            await until(lambda: commits.calls == 3)
            if how == "cancel":
                tasks[0].cancel()
                tasks[1].cancel()
            ended = asyncio.CancelledError if how == "cancel" else TimeoutError
            assert [ended] * 2 == [type(one) for one in await told(tasks[:2])]
            assert [] == [kind for kind in kinds(book) if kind == "settlement"]
            second.set()
            assert 6 == (await tasks[2]).id
            assert 3 == (await leader).id
            await idle(book)
            expected = ["reservation"] * 3 + ["settlement", "reservation", "release"]
            assert expected == kinds(book)
            assert 3 == held_tokens(book)
            assert_sound(book)

    asyncio.run(main())


def test_a_cancelled_call_with_a_key_can_be_asked_for_again(store_url: str) -> None:
    """Cancelled at COMMIT, the same call with the same key gives the lease that was granted."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            reserve = partial(
                budget.reserve, RequestExtensions(IdempotencyKey("key")), tokens(7), UNLIMITED
            )
            gate = commits.hold_next()
            task = asyncio.create_task(reserve())
            await until(lambda: commits.calls == 1)
            task.cancel()
            assert asyncio.CancelledError is type((await told([task]))[0])
            gate.set()
            await idle(book)
            assert 2 == (await reserve()).id
            assert ["reservation"] == kinds(book)
            assert 7 == held_tokens(book)

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["run", "close"])
def test_a_loop_that_ends_with_calls_pending_leaves_no_lease(store_url: str, ends: str) -> None:
    """A loop ends while its tasks' batch commits and others wait: nothing is held at the end."""
    with Ledger.open(store_url) as book:
        budget = AsyncLedgerBudgetManager(book.pool("pool", OPTIONS))
        commits = Commits(book)
        gate = commits.hold_next()

        async def main() -> list[asyncio.Task[Any]]:
            reserve = partial(budget.reserve, EXTENSIONS, tokens(5), UNLIMITED)
            tasks = [asyncio.create_task(reserve())]
            await until(lambda: commits.calls == 1)
            return tasks + await commits.line_up(reserve(), reserve())

        if ends == "run":
            asyncio.run(main())
        else:
            loop = asyncio.new_event_loop()
            tasks = loop.run_until_complete(main())
            loop.set_debug(enabled=False)
            loop.close()
            del tasks
            gc.collect()
        gate.set()
        deadline = time.monotonic() + 20
        while held_tokens(book) or book._writer._queue or book._writer._batch:
            assert time.monotonic() < deadline, "a lease is leaked"
            time.sleep(0.005)
        found = kinds(book)
        assert found.count("reservation") == found.count("release")
        assert book.pool("pool").reserve(EXTENSIONS, tokens(1), UNLIMITED)
        assert_sound(book)


def test_a_task_cancelled_before_it_hears_of_its_lease_leaves_none(store_url: str) -> None:
    """Cancelled between the verdict and the loop's next turn: the lease is released."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            gate = commits.hold_next()
            task = asyncio.create_task(budget.reserve(EXTENSIONS, tokens(5), UNLIMITED))
            await until(lambda: commits.calls == 1)
            gate.set()
            deadline = time.monotonic() + 20
            while book._writer._batch:
                assert time.monotonic() < deadline
                time.sleep(0.001)  # noqa: ASYNC251 - the loop must not turn meanwhile
            task.cancel()
            assert asyncio.CancelledError is type((await told([task]))[0])
            await until(lambda: kinds(book) == ["reservation", "release"])
            assert 0 == held_tokens(book)

    asyncio.run(main())


def test_a_closed_loop_does_not_hurt_who_leads(store_url: str) -> None:
    """A thread leads a batch with a task whose loop is closed meanwhile: it gets its lease."""
    with Ledger.open(store_url) as book, ThreadPoolExecutor(2) as threads:
        sync = book.pool("pool", OPTIONS)
        budget = AsyncLedgerBudgetManager(sync)
        commits = Commits(book)
        gate = commits.hold_next()
        reserve = partial(sync.reserve, EXTENSIONS, tokens(1), UNLIMITED)

        async def main() -> Any:  # noqa: ANN401 - threads and tasks
            first = threads.submit(reserve)
            await until(lambda: commits.calls == 1)
            second = threads.submit(reserve)
            await until(lambda: len(book._writer._queue) == 1)
            task = asyncio.create_task(budget.reserve(EXTENSIONS, tokens(5), UNLIMITED))
            await until(lambda: len(book._writer._queue) == 2)
            return first, second, task

        loop = asyncio.new_event_loop()
        first, second, task = loop.run_until_complete(main())
        loop.close()
        gate.set()
        assert [2, 3] == [first.result(20).id, second.result(20).id]
        assert 3 < reserve().id
        del task
        gc.collect()


def test_a_busy_store_does_not_block_the_loop(store_url: str) -> None:
    """64 tasks reserve, read and settle, and share their COMMITs, none of them in the loop."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):

            def slowly(connection: Connection) -> None:
                time.sleep(0.02)
                threads_used.add(threading.get_ident())
                commits.really(connection)

            async def work() -> None:
                for _ in range(5):
                    lease = await budget.reserve(EXTENSIONS, tokens(2), UNLIMITED)
                    await budget.remaining(EXTENSIONS, max_age_s=0.01)
                    await budget.record_used(lease, Usage(total_tokens=1))

            threads_used: set[int] = set()
            commits.instead = slowly
            await asyncio.gather(*(work() for _ in range(64)))
            assert threads_used
            assert threading.get_ident() not in threads_used
            assert 0 == held_tokens(book)
            assert 640 / 4 > commits.calls

    asyncio.run(main())


def test_slow_reads_do_not_block_the_loop(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer a read yet keeps its caller waiting, not the loop."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, _):
            read = book._database.retried
            begun, go = threading.Event(), threading.Event()

            def slowly(*arguments: Any) -> Any:  # noqa: ANN401 - passed on
                begun.set()
                assert go.wait(30), "the loop stands still"
                return read(*arguments)

            monkeypatch.setattr(book._database, "retried", slowly)
            asked = asyncio.gather(budget.remaining(EXTENSIONS), budget.status())
            await until(begun.is_set)
            go.set()
            remaining, status = await asked
            assert 1_000_000 == remaining.tokens == status.remaining.tokens

    asyncio.run(main())


def test_a_locked_store_does_not_block_the_loop(store_url: str) -> None:
    """Another connection holds the write lock: calls wait for the loop to free it."""

    def take_lock(pool_id: int) -> Callable[[], None]:
        address = make_url(store_url)
        if address.get_backend_name() == "sqlite":
            file = sqlite3.connect(address.database, isolation_level=None, check_same_thread=False)
            file.execute("BEGIN IMMEDIATE")
            return file.close
        server = psycopg.connect(store_url)
        server.execute(f"LOCK TABLE pool_lock_{pool_id % 16:02} IN EXCLUSIVE MODE")
        return server.close

    async def main() -> None:
        async with opened(store_url) as (_, budget, commits):
            lease = await budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
            unlock = take_lock(budget._budget._journal.info.pool_id)
            waiting = [
                asyncio.create_task(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)),
                asyncio.create_task(budget.record_used(lease, Usage())),
                asyncio.create_task(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)),
            ]
            await asyncio.sleep(0.2)
            assert [False] * 3 == [task.done() for task in waiting]
            assert 1 == commits.calls
            assert 999_999 == (await budget.remaining(EXTENSIONS)).tokens
            unlock()
            assert [] == [one for one in await told(waiting) if isinstance(one, BaseException)]

    asyncio.run(main())


def test_threads_and_tasks_use_one_store_at_once(store_url: str) -> None:
    """8 threads and 32 tasks, on one ledger, share batches and one capacity."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, commits):
            sync = book.pool("pool")

            def in_thread() -> None:
                for _ in range(5):
                    lease = sync.reserve(EXTENSIONS, tokens(3), UNLIMITED)
                    sync.record_used(lease, Usage(total_tokens=1))

            async def in_task() -> None:
                for _ in range(5):
                    lease = await budget.reserve(EXTENSIONS, tokens(3), UNLIMITED)
                    await budget.record_used(lease, Usage(total_tokens=1))

            async with asyncio.timeout(30):
                await asyncio.gather(
                    *(asyncio.to_thread(in_thread) for _ in range(8)),
                    *(in_task() for _ in range(32)),
                )
            assert 400 == len(kinds(book))
            assert 200 > commits.calls
            assert 999_800 == (await budget.remaining(EXTENSIONS)).tokens

            # One batch of both kinds, led by a task and then by a thread.
            threads = []
            async with plugged(commits, budget):
                tasks = await commits.line_up(
                    budget.reserve(EXTENSIONS, tokens(3), UNLIMITED),
                    budget.reserve(EXTENSIONS, tokens(3), UNLIMITED),
                )
                threads.append(
                    asyncio.create_task(
                        asyncio.to_thread(sync.reserve, EXTENSIONS, tokens(3), UNLIMITED)
                    )
                )
                await until(lambda: len(book._writer._queue) == 3)
                number = commits.calls
            assert [403, 404, 405] == [one.id for one in await told(tasks + threads)]
            assert number + 1 == commits.calls
            assert_sound(book)

    asyncio.run(main())


def test_a_store_is_opened_used_and_closed(store_url: str) -> None:
    """`async with` closes; every call after that is refused as `LedgerUnavailableError`."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url) as store:
            budget = await store.pool("pool", OPTIONS)
            lease = await budget.reserve(EXTENSIONS, tokens(5), UNLIMITED)
            assert lease == await budget.lease(lease.token)
            assert 999_995 == (await budget.status()).remaining.tokens
            await budget.release(lease)
            with pytest.raises(UnknownLeaseError):
                await budget.lease(lease.token)
            await store.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=7), reason="less")
            assert 7 == (await budget.remaining(EXTENSIONS)).tokens
            assert ("pool", store.sync.pool("pool").identity) == (budget.name, budget.identity)
        for call in (
            budget.reserve(EXTENSIONS, tokens(5), UNLIMITED),
            budget.record_used(lease, Usage()),
            budget.release(lease),
            budget.remaining(EXTENSIONS),
            budget.status(),
            store.adjust("pool", OPTIONS),
        ):
            with pytest.raises(LedgerUnavailableError):
                await call

    asyncio.run(main())


def test_closing_while_calls_run_and_wait(store_url: str) -> None:
    """`close` lets the batch that commits finish; who waits is told, and told the truth."""

    async def main() -> None:
        store = await AsyncLedger.open(store_url)
        budget = await store.pool("pool", OPTIONS)
        commits = Commits(store.sync)
        async with plugged(commits, budget) as leader:
            waiting = await commits.line_up(
                *(budget.reserve(EXTENSIONS, tokens(5), UNLIMITED) for _ in range(3))
            )
            closing = asyncio.create_task(store.close())
            await until(lambda: store.sync._writer._worker is None)
        assert [2, None] == [getattr(one, "id", None) for one in await told([leader, closing])]
        found = await told(waiting)
        granted = [one for one in found if not isinstance(one, BaseException)]
        refused = [one for one in found if isinstance(one, LedgerUnavailableError)]
        assert 3 == len(granted) + len(refused)
        async with await AsyncLedger.open(store_url) as again:
            assert 1 + len(granted) == len(kinds(again.sync))
            assert_sound(again.sync)

    asyncio.run(main())
    gc.collect()  # a connection that is still open would warn, and the warning is an error


def test_a_task_that_waits_too_long_is_turned_away(store_url: str) -> None:
    """A task whose call is not begun within `timeout_s` gets ContentionError; it is not done."""

    async def main() -> None:
        async with opened(store_url, timeout_s=60) as (book, budget, commits):
            async with plugged(commits, budget) as leader:
                late = await commits.line_up(
                    *(budget.reserve(EXTENSIONS, tokens(5), UNLIMITED) for _ in range(2))
                )
                for caller in book._writer._queue:
                    caller.entered_s -= 61
                in_time = await commits.line_up(budget.reserve(EXTENSIONS, tokens(3), UNLIMITED))
            errors = await told(late)
            assert [ContentionError] * 2 == [type(error) for error in errors]
            assert errors[0] is not errors[1]
            assert [2, 3] == [lease.id for lease in await told([leader, *in_time])]
            assert 4 == held_tokens(book)

    asyncio.run(main())


def test_an_answer_of_a_certain_age_is_given_from_memory(store_url: str) -> None:
    """`remaining(max_age_s=...)` does not see what came since; without it, it does."""

    async def main() -> None:
        async with opened(store_url) as (book, budget, _):
            theirs = book.pool("pool")
            assert 1_000_000 == (await budget.remaining(EXTENSIONS)).tokens
            theirs.reserve(EXTENSIONS, tokens(4), UNLIMITED)
            assert 1_000_000 == (await budget.remaining(EXTENSIONS, max_age_s=60)).tokens
            await asyncio.sleep(0.02)
            assert 999_996 == (await budget.remaining(EXTENSIONS, max_age_s=0.01)).tokens

    asyncio.run(main())
