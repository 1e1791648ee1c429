"""Callers that share a transaction: who is told what, whoever fails, is interrupted or killed."""

from __future__ import annotations

import asyncio
import dis
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url, select

import ledger
from ledger import (
    Attribution,
    BudgetError,
    BudgetLease,
    ContentionError,
    EntryFlag,
    EntryKind,
    IdempotencyConflictError,
    IdempotencyKey,
    JournalDamagedError,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    OutcomeUnknownError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageReport,
)
from ledger.engine import call_queue, callers, group_commit, outcomes, transaction
from ledger.engine.operations import Release
from ledger.engine.perform import perform
from ledger.managers.tasks import AsyncLedgerBudgetManager
from ledger.store import connections, journal, statements, writing
from ledger.store.dialects import CommitInDoubtError, postgresql, session, sqlite, writerlock
from ledger.store.schema import entries
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests import programs
from tests.clocks import LATE_S, Clock, impatient, until
from tests.threads import in_thread

if TYPE_CHECKING:
    from ledger import Entry
    from tests.conftest import Wiretap

    Check = Callable[..., list[Entry]]

LEADER = Path(__file__).parent / "leader.py"
CALLERS = 8

INSERT = "SELECT"
"""The first word of what inserts a few rows: a function of the server."""


def keyed(key: str) -> RequestExtensions:
    """Return what a request with this idempotency key carries."""
    return RequestExtensions(IdempotencyKey(key), Attribution(request_id=key))


def outcome(future: Future[Any]) -> object:
    """Return what a caller was told: its answer or its error."""
    error = future.exception(timeout=20)
    return future.result() if error is None else error


def told(call: Callable[[], object]) -> object:
    """Return what a call ends in, as values that compare."""
    try:
        return told_as(call())
    except BudgetError as error:
        return told_as(error)


def told_as(answer: object) -> object:
    """Return an answer or error without what differs between two managers."""
    if isinstance(answer, BudgetLease):
        return answer.reserved, answer.request_budget
    if isinstance(answer, UnknownLeaseError):
        return type(answer)
    if isinstance(answer, Exception):
        return type(answer), {**vars(answer), "pool": None, "kept_since": None}
    return answer


class Commits:
    """Stands before a ledger's COMMIT: counts, holds, and does what it is told."""

    def __init__(self, book: Ledger) -> None:
        self._dialect = book._database.dialect
        self._writer = book._writer
        self.really = self._dialect.commit
        self._dialect.commit = self
        self.instead: Callable[[Connection], None] = self.really
        self.calls = 0
        self.gates: dict[int, threading.Event] = {}

    def __call__(self, connection: Connection) -> None:
        """Count, wait for leave to go on, and commit."""
        self.calls += 1
        if self.calls in self.gates:
            assert self.gates[self.calls].wait(30)
        self.instead(connection)

    def hold_next(self) -> threading.Event:
        """Let the next COMMIT wait, until the event that this returns is set."""
        return self.gates.setdefault(self.calls + 1, threading.Event())

    @contextmanager
    def held(self, leading: Callable[[], object]) -> Iterator[Future[Any]]:
        """Hold the batch of one caller at its COMMIT, while others come."""
        number, gate = self.calls + 1, self.hold_next()
        leader = in_thread(leading)
        try:
            until(lambda: self.calls == number)
            yield leader
        finally:
            gate.set()

    def line_up(self, calls: Sequence[Callable[[], object]]) -> list[Future[Any]]:
        """Let callers come in this order, and wait until all of them stand in the queue."""
        futures = []
        for number, call in enumerate(calls, start=len(self._writer._queue) + 1):
            futures.append(in_thread(call))
            until(lambda number=number: len(self._writer._queue) == number)
        return futures


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool of the book, of a million tokens."""
    return book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=1_000_000))


@pytest.fixture
def commits(book: Ledger, budget: LedgerBudgetManager) -> Commits:  # noqa: ARG001 - the pool is made before anything is counted
    """Return the watch over the book's commits."""
    return Commits(book)


def kinds(book: Ledger, pool: str = "pool") -> list[str]:
    """Return the kinds of a pool's entries in order, without its opening."""
    return [str(entry.kind) for entry in book.entries(pool)][1:]


def held_tokens(book: Ledger, pool: str = "pool") -> int:
    """Return what the newest entry holds."""
    return list(book.entries(pool))[-1].balance.reserved.tokens


def is_idle(book: Ledger) -> bool:
    """Tell whether nothing waits, and nothing is being done."""
    return not book._writer._queue and not book._writer._batch


def assert_sound(book: Ledger) -> None:
    """Check that the store verifies."""
    assert [None] * len(book.pools()) == [found.damage for found in book.verify()]


# Batches


def test_those_who_wait_share_one_transaction(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """32 callers that come while one commits need one more COMMIT, and each gets its own lease."""
    with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)) as first:
        waiting = commits.line_up(
            [
                partial(budget.reserve, keyed(f"key-{number}"), tokens(10 + number), UNLIMITED)
                for number in range(32)
            ]
        )
    leases = [outcome(each) for each in (first, *waiting)]
    assert 2 == commits.calls
    assert list(range(2, 35)) == [lease.id for lease in leases]
    assert [1, *range(10, 42)] == [lease.reserved.total_tokens for lease in leases]
    requests = {entry.seq: entry.request_id for entry in book.entries("pool")}
    assert [f"key-{n}" for n in range(32)] == [requests[lease.id] for lease in leases[1:]]
    assert_sound(book)


def test_busy_threads_need_few_transactions(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """16 threads that reserve and settle commit less than once in four operations."""

    def slowly(connection: Connection) -> None:
        time.sleep(0.003)
        commits.really(connection)

    def work() -> None:
        for _ in range(10):
            lease = budget.reserve(EXTENSIONS, tokens(2), UNLIMITED)
            budget.record_used(lease, Usage(total_tokens=1))

    commits.instead = slowly
    assert [None] * 16 == [outcome(each) for each in [in_thread(work) for _ in range(16)]]
    assert 320 == len(kinds(book))
    assert 80 > commits.calls
    assert (160, 0) == (list(book.entries("pool"))[-1].balance.committed.tokens, held_tokens(book))
    assert_sound(book)


def test_a_batch_is_bounded(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than `BATCH_MAX` callers share a transaction; the rest go with the next one."""
    monkeypatch.setattr(group_commit, "BATCH_MAX", 4)
    with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
        waiting = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)] * 10)
    assert list(range(3, 13)) == [outcome(each).id for each in waiting]
    assert 1 + 3 == commits.calls
    assert 11 == len(kinds(book))


def test_one_batch_decides_as_one_after_the_other(book: Ledger) -> None:
    """In a batch, everybody is told what the manager in memory tells them one by one."""
    options = SharedPoolBudgetOptions(capacity_tokens=100, stop_threshold_tokens=5)
    stored, oracle = book.pool("tight", options), SharedPoolBudgetManager(options)
    before = [(m, m.reserve(EXTENSIONS, tokens(20), UNLIMITED)) for m in (stored, oracle)]

    def calls(budget: Any, lease: BudgetLease) -> list[Callable[[], object]]:  # noqa: ANN401 - either manager
        reserve = partial(budget.reserve, EXTENSIONS)
        return [
            partial(reserve, tokens(70), UNLIMITED),
            partial(reserve, tokens(6), UNLIMITED),
            partial(reserve, tokens(5), RequestBudget(tokens=4)),
            partial(budget.record_used, lease, Usage(total_tokens=9)),
            partial(budget.record_used, lease, Usage(total_tokens=8)),
            partial(reserve, tokens(17), UNLIMITED),
            partial(reserve, tokens(16), UNLIMITED),
            partial(reserve, tokens(1), UNLIMITED),
        ]

    expected = [told(call) for call in calls(*before[1])]
    commits = Commits(book)
    other = book.pool("other", SharedPoolBudgetOptions())
    commits.calls = 0
    with commits.held(lambda: other.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
        waiting = commits.line_up(calls(*before[0]))
    assert expected == [told_as(outcome(each)) for each in waiting]
    assert 2 == commits.calls
    assert [] == [
        entry.seq
        for entry in book.entries("tight")
        if entry.balance.committed.tokens + entry.balance.reserved.tokens > 100
    ]
    assert {ThresholdExceededError, UnknownLeaseError} < {
        each[0] if isinstance(each, tuple) else each for each in expected
    }
    assert_sound(book)


def spied_begins(book: Ledger) -> list[tuple[int, ...]]:
    """Return a list of the pools of every transaction from now on, by their ids."""
    begun: list[tuple[int, ...]] = []
    begin = book._database.dialect.begin

    def spied(connection: Connection, *, pool_ids: Sequence[int], **given: Any) -> None:  # noqa: ANN401 - passed on
        begun.append(tuple(pool_ids))
        begin(connection, pool_ids=pool_ids, **given)

    book._database.dialect.begin = spied
    return begun


def test_several_pools_share_a_transaction(book: Ledger, commits: Commits) -> None:
    """A batch over three pools is one transaction on them, sorted; each pool decides alone."""
    pools = [book.pool(f"p{n}", SharedPoolBudgetOptions(capacity_tokens=10)) for n in range(3)]
    commits.calls, begun = 0, spied_begins(book)
    with commits.held(lambda: pools[0].reserve(EXTENSIONS, tokens(1), UNLIMITED)):
        waiting = commits.line_up(
            [
                partial(pools[number].reserve, EXTENSIONS, tokens(amount), UNLIMITED)
                for number, amount in [(2, 10), (0, 10), (1, 7), (0, 9), (2, 1), (1, 3)]
            ]
        )
    told = [told_as(outcome(each)) for each in waiting]
    ids = [pool._journal.info.pool_id for pool in pools]
    assert [(ids[0],), tuple(sorted(ids))] == begun
    assert 2 == commits.calls
    assert [10, None, 7, 9, None, 3] == [
        None if one[0] is ThresholdExceededError else one[0].total_tokens for one in told
    ]
    assert (9, 0) == (told[1][1]["remaining_tokens"], told[4][1]["remaining_tokens"])
    assert [10, 10, 10] == [held_tokens(book, f"p{n}") for n in range(3)]
    assert_sound(book)


def test_a_batch_over_several_pools_waits_for_few_answers(
    new_store: Callable[..., str], wiretap: Wiretap
) -> None:
    """PostgreSQL gets one message for each kind of thing, however many pools and callers there are.

    The heads behind the locks; what others wrote since; the leases that are not known; the rows.
    """
    url = new_store("postgresql")
    with Ledger.open(url) as elsewhere, Ledger.open(url) as book:
        options = SharedPoolBudgetOptions()
        pools = [book.pool(f"p{number}", options) for number in range(5)]
        theirs = [
            elsewhere.pool(pool.name).reserve(EXTENSIONS, tokens(2), UNLIMITED) for pool in pools
        ]
        mine = [pool.reserve(EXTENSIONS, tokens(2), UNLIMITED) for pool in pools]
        for pool in pools:
            elsewhere.pool(pool.name).reserve(EXTENSIONS, tokens(2), UNLIMITED)
        commits = Commits(book)
        calls = [
            partial(pool.record_used, lease, Usage(total_tokens=1))
            for leases in (theirs, mine)
            for pool, lease in zip(pools, leases, strict=True)
        ]
        plug = book.pool("plug", options)
        with commits.held(partial(plug.reserve, EXTENSIONS, tokens(1), UNLIMITED)):
            waiting = commits.line_up(calls)
            wiretap.tap(*book._database.dialect._made)
        assert [None] * 10 == [outcome(each) for each in waiting]
        plugs, *batch = wiretap.sent()
        assert INSERT == plugs
        assert ["BEGIN", "SELECT", "SELECT", "COPY", "CopyDone", "COMMIT"] == batch
        assert [2] * 5 == [pool.status().balance.committed.tokens for pool in pools]


def test_pools_that_are_new_to_a_process_are_learnt_together(
    new_store: Callable[..., str], wiretap: Wiretap
) -> None:
    """Five policies come with one message, and with them all that is stored of an attribution."""
    url = new_store("postgresql")
    who = RequestExtensions(Attribution(run_id="run"))
    with Ledger.open(url) as elsewhere, Ledger.open(url) as book:
        names = [f"p{number}" for number in range(5)]
        for name in names:
            elsewhere.pool(name, SharedPoolBudgetOptions(capacity_tokens=5))
        elsewhere.pool("p0").reserve(who, tokens(1), UNLIMITED)  # whose attribution is there
        pools = [book.pool(name) for name in names]
        assert [{}] * 5 == [pool._journal.terms._policies for pool in pools]
        commits = Commits(book)
        plug = book.pool("plug", SharedPoolBudgetOptions())
        with commits.held(partial(plug.reserve, EXTENSIONS, tokens(1), UNLIMITED)):
            waiting = commits.line_up(
                [partial(pool.reserve, who, tokens(4), UNLIMITED) for pool in pools]
            )
            wiretap.tap(*book._database.dialect._made)
        assert [3, 2, 2, 2, 2] == [outcome(each).id for each in waiting]
        _, *batch = wiretap.sent()
        # Attributions that are stored now travel with the entries.
        assert ["BEGIN", "SELECT", INSERT] == batch
        assert [0, 1, 1, 1, 1] == [pool.remaining(EXTENSIONS).tokens for pool in pools]
        assert_sound(book)


@pytest.mark.parametrize(
    ("granted_by", "another", "closes"),
    [("worker", False, True), ("below", False, True), ("worker", True, False)],
)
def test_what_is_due_keeps_no_pool_from_being_closed(
    store_url: str, granted_by: str, *, another: bool, closes: bool
) -> None:
    """Though its usage comes with the same batch, behind the closing: it comes late.

    Where the pool holds something else, which keeps it open, the usage is in time.
    """
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        book.pool("org", SharedPoolBudgetOptions(capacity_tokens=100))
        options = SharedPoolBudgetOptions(capacity_tokens=50)
        worker = book.pool("worker", options, parent="org", carved=True)
        budgets = {"worker": worker, "below": book.pool("below", options, parent="worker")}
        budget = budgets[granted_by]
        due = RequestExtensions(LeaseTtl(timedelta(minutes=1)))
        lease = budget.reserve(due, tokens(5), UNLIMITED)
        if another:
            worker.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        commits = Commits(book)
        plug = book.pool("plug", SharedPoolBudgetOptions())
        clock.minutes(2)
        with commits.held(partial(plug.reserve, EXTENSIONS, tokens(1), UNLIMITED)):
            waiting = commits.line_up(
                [
                    partial(book.close_pool, "worker"),
                    partial(budget.record_used, lease, Usage(total_tokens=7)),
                ]
            )
        closing, recording = (outcome(each) for each in waiting)
        assert recording is None
        assert closes is (closing is None)
        settled = [one for one in book.entries(budget.name) if one.kind == EntryKind.SETTLEMENT]
        assert [closes] == [EntryFlag.LATE in one.flags for one in settled]
        assert ("closing" in kinds(book, "worker")) is closes
        assert_sound(book)


# Joining: who comes while a batch waits for its turn


def when_it_begins(book: Ledger, then: Callable[[], object]) -> None:
    """Do something once, in the leader's thread, when the next batch has begun."""
    dialect, begin = book._database.dialect, book._database.dialect.begin

    def spied(*args: Any, **words: Any) -> None:  # noqa: ANN401 - passed on
        begin(*args, **words)
        dialect.begin = begin
        then()

    dialect.begin = spied


def test_those_who_come_while_a_batch_waits_for_the_lock_go_with_it(store_url: str) -> None:
    """Another process's turn: who comes meanwhile is served in the same transaction, in order.

    The entries are of the time when the turn came, and not of when the first began to wait.
    """
    time_us = [1_700_000_000_000_000]
    with (
        Ledger.open(store_url) as elsewhere,
        Ledger.open(store_url, clock=lambda: time_us[0]) as book,
    ):
        theirs = elsewhere.pool("pool", SharedPoolBudgetOptions())
        budget, commits = book.pool("pool"), Commits(book)
        begun = spied_begins(book)
        with Commits(elsewhere).held(
            partial(theirs.reserve, EXTENSIONS, tokens(1), UNLIMITED)
        ) as one:
            leader = in_thread(partial(budget.reserve, EXTENSIONS, tokens(2), UNLIMITED))
            until(lambda: begun and not book._writer._queue)
            time.sleep(0.05)  # to be waiting for the lock
            calls = [
                partial(budget.reserve, EXTENSIONS, tokens(n), UNLIMITED) for n in range(3, 23)
            ]
            waiting = commits.line_up(calls)
            time_us[0] = 4_000_000_000_000_000
        leases = [outcome(each) for each in (one, leader, *waiting)]
        assert [(n + 1, n) for n in range(1, 23)] == [
            (lease.id, lease.reserved.total_tokens) for lease in leases
        ]
        assert 1 == commits.calls
        assert {time_us[0]} == {entry.recorded_at for entry in book.entries("pool", after=2)}
        assert_sound(book)


def test_a_batch_that_is_joined_is_bounded(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than `BATCH_MAX` share a transaction, the joining included; the order is kept."""
    monkeypatch.setattr(group_commit, "BATCH_MAX", 4)
    waiting: list[Future[Any]] = []
    calls = [partial(budget.reserve, EXTENSIONS, tokens(n), UNLIMITED) for n in range(1, 11)]
    when_it_begins(book, lambda: waiting.extend(commits.line_up(calls)))
    sizes: list[int] = []

    def counted(connection: Connection) -> None:
        sizes.append(len(book._writer._batch))
        commits.really(connection)

    commits.instead = counted
    assert 2 == budget.reserve(EXTENSIONS, tokens(99), UNLIMITED).id
    assert list(range(3, 13)) == [outcome(each).id for each in waiting]
    assert [4, 4, 3] == sizes


def test_a_batch_takes_in_whom_its_locks_cover(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """Callers of its own pools join; of others only where it is alone on the whole store."""
    other = book.pool("other", SharedPoolBudgetOptions())
    ids = [pool._journal.info.pool_id for pool in (budget, other)]
    waiting: list[Future[Any]] = []
    calls = [
        partial(pool.reserve, EXTENSIONS, tokens(n), UNLIMITED)
        for n, pool in enumerate([other, budget, other, budget], start=1)
    ]
    commits.calls, begun = 0, spied_begins(book)
    when_it_begins(book, lambda: waiting.extend(commits.line_up(calls)))
    assert 2 == budget.reserve(EXTENSIONS, tokens(9), UNLIMITED).id
    assert [2, 3, 3, 4] == [outcome(each).id for each in waiting]
    alone = book.url.startswith("sqlite")
    assert [(ids[0],), (ids[1],)][: 1 if alone else 2] == begun
    assert len(begun) == commits.calls
    assert_sound(book)


def test_a_caller_that_is_gone_does_not_join(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """A task whose loop is closed gets no lease; a settlement is recorded, for it was spent."""
    lease = budget.reserve(EXTENSIONS, tokens(5), UNLIMITED)
    asynchronous, left = AsyncLedgerBudgetManager(budget), []

    def come_and_go() -> None:
        loop = asyncio.new_event_loop()
        calls = [
            asynchronous.reserve(EXTENSIONS, tokens(1), UNLIMITED),
            asynchronous.record_used(lease, Usage(total_tokens=5)),
        ]
        left.extend(map(loop.create_task, calls))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert 2 == len(book._writer._queue)

    when_it_begins(book, come_and_go)
    commits.calls = 0
    budget.reserve(EXTENSIONS, tokens(2), UNLIMITED)
    until(partial(is_idle, book))
    assert ["reservation", "reservation", "settlement"] == kinds(book)
    assert 1 == commits.calls
    for task in left:
        task.get_coro().close()
        task._log_destroy_pending = False


def test_who_came_to_a_batch_that_failed_is_told_of_it_too(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """COMMIT in doubt: whoever joined gets an error of its own, with the key to repeat under."""
    waiting: list[Future[Any]] = []
    calls = [partial(budget.reserve, keyed(f"key-{n}"), tokens(n), UNLIMITED) for n in (1, 2)]
    when_it_begins(book, lambda: waiting.extend(commits.line_up(calls)))

    def doubtful(connection: Connection) -> None:
        commits.really(connection)
        commits.instead = commits.really
        raise CommitInDoubtError("no standby")

    commits.instead = doubtful
    with pytest.raises(OutcomeUnknownError):
        budget.reserve(EXTENSIONS, tokens(9), UNLIMITED)
    told = [outcome(each) for each in waiting]
    assert [OutcomeUnknownError] * 2 == [type(error) for error in told]
    assert ["key-1", "key-2"] == [error.idempotency_key for error in told]
    assert [3, 4] == [call().id for call in calls]
    assert 12 == held_tokens(book)


# Faults


class Broken(Release):
    """An operation with a bug."""

    __slots__ = ()

    def decide(self, batch: object, pool: object) -> Any:  # noqa: ANN401, ARG002 - it never answers
        """Fail as only a bug does."""
        raise ZeroDivisionError


def test_a_bug_is_not_met_again_by_everybody_who_comes(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """What failed in a batch is tried once more, alone; who comes meanwhile does not join it."""
    waiting: list[Future[Any]] = []
    begun = spied_begins(book)

    def come(more: int) -> None:
        waiting.extend(commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)]))
        if more:
            when_it_begins(book, partial(come, more - 1))

    when_it_begins(book, partial(come, 3))
    with pytest.raises(ZeroDivisionError):
        book._writer.run(budget._journal, Broken(lease=1))
    assert [2, 3, 4, 5] == sorted(outcome(each).id for each in waiting)
    assert 4 == len(begun)
    assert_sound(book)


def test_a_bug_in_one_call_is_that_caller_s_alone(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """One operation of a batch raises a plain exception: its caller gets it, the others leases."""
    broken = partial(book._writer.run, budget._journal, Broken(lease=1))
    fine = partial(budget.reserve, EXTENSIONS, tokens(2), UNLIMITED)
    with commits.held(fine):
        waiting = commits.line_up([fine, broken, fine, broken, fine])
    told = [outcome(each) for each in waiting]
    assert [3, None, 4, None, 5] == [getattr(one, "id", None) for one in told]
    assert [ZeroDivisionError] * 2 == [type(told[1]), type(told[3])]
    assert told[1] is not told[3]
    assert ["reservation"] * 4 == kinds(book)
    assert 6 == budget.reserve(EXTENSIONS, tokens(2), UNLIMITED).id
    assert_sound(book)


def append_forged(book: Ledger, pool: LedgerBudgetManager, **changes: object) -> None:
    """Append a copy of a pool's newest entry that the rules cannot have written."""
    mine = entries.c.pool_id == pool._journal.info.pool_id
    newest = select(entries).where(mine).order_by(entries.c.seq.desc()).limit(1)
    with book._database.connect() as connection:
        row = dict(connection.execute(newest).mappings().one())
        fresh = {"seq": row["seq"] + 1, "idempotency_key": None, "hash": bytes(32)}
        connection.execute(entries.insert(), row | fresh | changes)


def test_a_damaged_pool_is_its_own_callers_affair(book: Ledger, commits: Commits) -> None:
    """In a batch over three pools, callers of the one that cannot be read are told; no others."""
    pools = [book.pool(f"p{n}", SharedPoolBudgetOptions(capacity_tokens=10)) for n in range(3)]
    append_forged(book, pools[1], seq=9, policy_seq=9, detail=None)
    commits.calls = 0
    reserve = [partial(pool.reserve, EXTENSIONS, tokens(2), UNLIMITED) for pool in pools]
    with commits.held(reserve[0]):
        waiting = commits.line_up([reserve[n] for n in (0, 1, 2, 1, 2)])
    told = [outcome(each) for each in waiting]
    assert [3, None, 2, None, 3] == [getattr(one, "id", None) for one in told]
    assert [("p1", 9)] * 2 == [(one.pool, one.seq) for one in (told[1], told[3])]
    assert told[1] is not told[3]
    assert 2 == commits.calls
    assert [4, 4] == [held_tokens(book, name) for name in ("p0", "p2")]


def test_a_lease_that_cannot_be_read_is_its_own_caller_s_affair(
    book: Ledger, commits: Commits
) -> None:
    """One lease of a batch is damaged: its caller is told, the pool's and others' are served."""
    pools = [book.pool(f"p{n}", SharedPoolBudgetOptions(capacity_tokens=99)) for n in range(2)]
    torn, whole = (pools[0].reserve(EXTENSIONS, tokens(2), UNLIMITED) for _ in range(2))
    other = pools[1].reserve(EXTENSIONS, tokens(2), UNLIMITED)
    lost = replace(whole, id=4)
    append_forged(book, pools[0], lease=4, attribution_id=77)
    # What it holds is there on one axis alone.
    append_forged(book, pools[0], lease=torn.id, kind="renewal", held_requests=1)
    commits.calls = 0
    with commits.held(partial(book.pool("pool").reserve, EXTENSIONS, tokens(1), UNLIMITED)):
        waiting = commits.line_up(
            [
                partial(pools[number].record_used, lease, Usage(total_tokens=1))
                for number, lease in [(0, lost), (0, torn), (0, whole), (1, other)]
            ]
        )
    told = [outcome(each) for each in waiting]
    assert [JournalDamagedError, JournalDamagedError, None, None] == [
        one and type(one) for one in told
    ]
    assert [("p0", 4), ("p0", 5)] == [(one.pool, one.seq) for one in told[:2]]
    assert 2 == commits.calls
    assert [1, 1] == [pool.status().balance.committed.tokens for pool in pools]


@contextmanager
def lock_taken(book: Ledger, url: str, pool_id: int) -> Iterator[None]:
    """Hold, from another connection, the lock that a writer of this pool needs."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(address.database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        return
    assert book._database.dialect.name == "postgresql"
    with psycopg.connect(url) as server:
        server.execute(f"LOCK TABLE pool_lock_{pool_id % 16:02} IN EXCLUSIVE MODE")
        yield
        server.rollback()


def test_a_failed_batch_is_reported_to_each_of_its_callers(store_url: str) -> None:
    """The store stays busy past the deadline: each caller gets an error of its own, and no lease.

    One that waits for its turn longer than the deadline is told the same.
    """
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        begun: list[float] = []
        begin = book._database.dialect.begin

        def spied(*args: Any, **words: Any) -> None:  # noqa: ANN401 - passed on
            begun.append(words["timeout_s"])
            begin(*args, **words)

        book._database.dialect.begin = spied
        reserve = partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)
        with lock_taken(book, store_url, budget._journal.info.pool_id), impatient(book, 2):
            leader = in_thread(reserve)
            until(lambda: begun)
            time.sleep(1)
            waiting = [in_thread(reserve) for _ in range(CALLERS)]
            errors = [outcome(each) for each in (leader, *waiting)]
        assert [ContentionError] * (1 + CALLERS) == [type(error) for error in errors]
        assert 1 + CALLERS == len({id(error) for error in errors})
        assert 1 <= min(error.attempts for error in errors)
        assert {error.attempts for error in errors[1:]} == {errors[1].attempts}
        assert [] == [error for error in errors if error.__cause__ is None]
        assert len(begun) == errors[0].attempts + errors[1].attempts
        assert [] == kinds(book)
        assert 2 == reserve().id
        assert_sound(book)


def test_who_waits_in_the_queue_too_long_is_turned_away(store_url: str) -> None:
    """A call that is not begun within `timeout_s` gets ContentionError, and is not done."""
    with Ledger.open(store_url, timeout_s=60) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        commits = Commits(book)
        with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)) as first:
            late = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(2), UNLIMITED)] * 2)
            for caller in book._writer._queue:
                caller.entered_s -= 61
            in_time = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(3), UNLIMITED)])
        errors = [outcome(each) for each in late]
        assert [(ContentionError, 60, 0)] * 2 == [
            (type(error), error.timeout_s, error.attempts) for error in errors
        ]
        assert errors[0] is not errors[1]
        assert [1, 3] == [outcome(each).reserved.total_tokens for each in (first, *in_time)]
        assert 4 == held_tokens(book)
        assert 2 == commits.calls


@pytest.mark.parametrize("took_effect", [False, True])
def test_an_unknown_outcome_carries_each_caller_s_own_key(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits, *, took_effect: bool
) -> None:
    """COMMIT in doubt: every caller gets its own key, and with it the call happens once."""

    def doubtful(connection: Connection) -> None:
        if commits.calls == 2:
            if took_effect:
                commits.really(connection)
            raise CommitInDoubtError("no standby")
        commits.really(connection)

    commits.instead = doubtful
    with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
        given = [keyed(f"key-{number}") for number in range(3)]
        waiting = commits.line_up(
            [
                partial(budget.reserve, extensions, tokens(5), UNLIMITED)
                for extensions in (*given, EXTENSIONS, EXTENSIONS)
            ]
        )
    errors = [outcome(each) for each in waiting]
    assert [OutcomeUnknownError] * 5 == [type(error) for error in errors]
    keys = [error.idempotency_key for error in errors]
    assert ["key-0", "key-1", "key-2"] == keys[:3]
    assert 5 == len(set(keys))
    assert [CommitInDoubtError] * 5 == [type(error.__cause__) for error in errors]
    again = [*given, *(RequestExtensions(IdempotencyKey(key)) for key in keys[3:])]
    ids = [budget.reserve(one, tokens(5), UNLIMITED).id for one in again]
    assert [3, 4, 5, 6, 7] == ids
    assert 26 == held_tokens(book)
    assert_sound(book)


def test_a_batch_whose_answer_was_lost_is_looked_up(new_store: Callable[..., str]) -> None:
    """The connection dies in COMMIT: the second try finds the batch, and everybody's verdict."""
    with Ledger.open(new_store("postgresql")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=10))
        commits = Commits(book)

        def lose(connection: Connection) -> None:
            commits.really(connection)
            if commits.calls == 2:
                raise psycopg.OperationalError("the connection is gone")

        commits.instead = lose
        with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
            waiting = commits.line_up(
                [partial(budget.reserve, EXTENSIONS, tokens(n), UNLIMITED) for n in (4, 6, 5)]
            )
        assert [3, ThresholdExceededError, 4] == [
            getattr(one, "id", type(one)) for one in map(outcome, waiting)
        ]
        assert ["reservation"] * 3 == kinds(book)
        assert_sound(book)


# Twins


def test_twins_in_one_batch_get_one_answer(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """The same key twice in a batch happens once; with other arguments it is a conflict."""
    lease = budget.reserve(EXTENSIONS, tokens(9), UNLIMITED)
    report = UsageReport(idempotency_key="settle")
    with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
        waiting = commits.line_up(
            [
                partial(budget.reserve, keyed("key"), tokens(5), UNLIMITED),
                partial(budget.reserve, keyed("key"), tokens(5), UNLIMITED),
                partial(budget.reserve, keyed("key"), tokens(6), UNLIMITED),
                partial(budget.reserve, keyed("no"), tokens(2_000_000), UNLIMITED),
                partial(budget.reserve, keyed("no"), tokens(2_000_000), UNLIMITED),
                partial(budget.record_used, lease, Usage(total_tokens=3), report=report),
                partial(budget.record_used, lease, Usage(total_tokens=3), report=report),
            ]
        )
    told = [outcome(each) for each in waiting]
    assert (4, 4) == (told[0].id, told[1].id)
    assert (IdempotencyConflictError, 4) == (type(told[2]), told[2].seq)
    assert told_as(told[3]) == told_as(told[4])
    assert (ThresholdExceededError, 999_985) == (type(told[3]), told[3].remaining_tokens)
    assert told[3] is not told[4]
    assert [None, None] == told[5:]
    assert ["reservation"] * 3 + ["denial", "settlement"] == kinds(book)
    assert_sound(book)


# Interruptions


@contextmanager
def interrupted(when: Callable[[], object]) -> Iterator[None]:
    """Expect a SIGINT in the main thread, sent once a condition holds."""
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    def strike() -> None:
        until(when)
        time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the block is the caller's
            sender = in_thread(strike)
            yield
        assert sender.result(20) is None
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_thread_interrupted_in_the_queue_leaves_it(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """KeyboardInterrupt while waiting for a turn: nothing is done, and the others go on."""
    with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)) as first:
        before = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(2), UNLIMITED)])
        with interrupted(lambda: len(book._writer._queue) == 2):
            budget.reserve(EXTENSIONS, tokens(100), UNLIMITED)
        after = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(3), UNLIMITED)])
    assert [2, 3, 4] == [outcome(each).id for each in (first, *before, *after)]
    assert ["reservation"] * 3 == kinds(book)
    assert 6 == held_tokens(book)


def test_the_next_leader_is_interrupted_before_it_leads(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits
) -> None:
    """KeyboardInterrupt for the head of the queue: the one behind it leads."""
    with commits.held(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
        with interrupted(lambda: len(book._writer._queue) == 1):
            budget.reserve(EXTENSIONS, tokens(100), UNLIMITED)
        after = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(3), UNLIMITED)] * 2)
    assert [3, 4] == [outcome(each).id for each in after]
    assert 7 == held_tokens(book)


@pytest.mark.parametrize("call", ["reserve", "record_used"])
def test_a_thread_interrupted_while_its_batch_runs_leaves_no_lease(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits, call: str
) -> None:
    """KeyboardInterrupt while another leads one's batch: usage stays, a lease is released."""
    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    with commits.held(partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)):
        first, second = commits.calls, commits.hold_next()
        leader = commits.line_up([partial(budget.reserve, EXTENSIONS, tokens(2), UNLIMITED)])

        def batch_runs() -> bool:
            if len(book._writer._queue) == 2:
                commits.gates[first].set()
            return commits.calls == first + 1

        with interrupted(batch_runs):
            if call == "reserve":
                budget.reserve(EXTENSIONS, tokens(100), UNLIMITED)
            budget.record_used(lease, Usage(total_tokens=7))
        second.set()
    assert 4 == outcome(leader[0]).id
    until(partial(is_idle, book))
    last = ["reservation", "release"] if call == "reserve" else ["settlement"]
    assert ["reservation"] * 3 + last == kinds(book)
    assert (13 if call == "reserve" else 3) == held_tokens(book)
    assert_sound(book)


@pytest.mark.parametrize("when", ["before COMMIT", "after COMMIT"])
@pytest.mark.parametrize("call", ["reserve", "record_used"])
def test_a_leader_is_interrupted(
    book: Ledger, budget: LedgerBudgetManager, commits: Commits, call: str, when: str
) -> None:
    """KeyboardInterrupt for who leads: the others get their verdicts, and nothing is leaked."""
    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    reserve = partial(budget.reserve, EXTENSIONS)
    running = threading.Event()

    def stuck(connection: Connection) -> None:
        commits.instead = commits.really
        if when == "after COMMIT":
            commits.really(connection)
        running.set()
        time.sleep(20)

    with commits.held(partial(reserve, tokens(1), UNLIMITED)):
        commits.instead, plug = commits.really, commits.calls
        waiting: list[Future[Any]] = []

        def batch_runs() -> bool:
            if len(book._writer._queue) == 1 and not waiting:
                waiting.extend(
                    commits.line_up([partial(reserve, tokens(n), UNLIMITED) for n in (2, 3)])
                )
                hold_second(commits, plug, stuck)
            return running.is_set()

        with interrupted(batch_runs):
            if call == "reserve":
                reserve(tokens(100), UNLIMITED)
            budget.record_used(lease, Usage(total_tokens=7))
    told = [outcome(each) for each in waiting]
    until(partial(is_idle, book))
    assert [2, 3] == [one.reserved.total_tokens for one in told]
    found = kinds(book)
    assert 1 == found.count("settlement" if call == "record_used" else "release")
    assert (6 + (10 if call == "reserve" else 0)) == held_tokens(book)
    assert {2, 3} == {
        entry.estimate.total_tokens for entry in book.entries("pool") if entry.seq in ids_of(told)
    }
    assert isinstance(reserve(tokens(1), UNLIMITED), BudgetLease)
    assert_sound(book)


def hold_second(commits: Commits, plug: int, stuck: Callable[[Connection], None]) -> None:
    """Let the plug commit as usual, and the batch behind it in another way."""

    def choose(connection: Connection) -> None:
        (commits.really if commits.calls == plug else stuck)(connection)

    commits.instead = choose
    commits.gates[plug].set()


def ids_of(leases: list[BudgetLease]) -> set[int]:
    """Return the ids of leases."""
    return {lease.id for lease in leases}


def name_of(module: ModuleType) -> str:
    """Return a module's own name."""
    return module.__name__.rpartition(".")[2]


class Interrupter:
    """Raises KeyboardInterrupt in this thread, where the interpreter would look for signals.

    That is on entering a function, on going round a loop, and behind a call of what is not
    written in Python. Only such places in some files are counted.
    """

    def __init__(self, files: set[str], at: int) -> None:
        self._files = files
        self._left = at
        self._looks = False
        self.struck: str | None = None

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401 - as sys.settrace has it
        """Count, and strike once."""
        code = frame.f_code
        if event == "call":
            self._looks = code.co_filename in self._files
        if self.struck is not None or code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= self._looks
            if self._looks and self._left < 0:
                self.struck = f"{Path(code.co_filename).name} {code.co_name} {frame.f_lineno}"
                raise KeyboardInterrupt
            name = dis.opname[code.co_code[frame.f_lasti]]
            self._looks = name.startswith(("CALL", "JUMP_BACKWARD"))
        return self


def lead_interrupted(url: str, files: set[str], at: int) -> tuple[str | None, list[str]]:
    """Interrupt a leader at its place number `at`; return where that was, and what went wrong."""
    wrong: list[str] = []
    book = Ledger.open(url, timeout_s=60)
    budget = book.pool("pool", SharedPoolBudgetOptions())
    reserve = partial(budget.reserve, EXTENSIONS)

    def held() -> int:
        return budget.status().balance.reserved.tokens

    before = held()
    interrupter = Interrupter(files, at)

    def traced() -> object:
        sys.settrace(interrupter)
        try:
            return reserve(tokens(100), UNLIMITED)
        finally:
            sys.settrace(None)

    commits = Commits(book)
    waiting: list[Future[Any]] = []

    def one_more_comes() -> None:
        waiting.append(in_thread(partial(reserve, tokens(1), UNLIMITED)))
        until(lambda: book._writer._queue)

    with commits.held(partial(reserve, tokens(1), UNLIMITED)):
        when_it_begins(book, one_more_comes)
        leader = in_thread(traced)
        until(lambda: len(book._writer._queue) == 1 or interrupter.struck)
        time.sleep(0.003)  # for it to fall asleep, or to be gone
        number = len(book._writer._queue)
        waiting += [in_thread(partial(reserve, tokens(1), UNLIMITED)) for _ in range(2)]
        until(lambda: len(book._writer._queue) == number + 2)
    until(lambda: len(waiting) == 3)
    deadline = time.monotonic() + LATE_S  # less than any call's time-out
    for each in waiting:
        with suppress(TimeoutError):
            each.exception(timeout=max(0, deadline - time.monotonic()))
    wrong += ["a caller waits for ever" for each in waiting if not each.done()]
    wrong += [repr(each.exception()) for each in waiting if each.done() and each.exception()]
    if wrong:
        return interrupter.struck, wrong
    expected = before + (104 if leader.exception(20) is None else 4)
    deadline = time.monotonic() + LATE_S
    while held() != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    if held() != expected:
        wrong.append(f"{held() - expected} tokens too many are held")
    book.close()
    return interrupter.struck, wrong


def new_pool(new_store: Callable[..., str], kind: str) -> str:
    """Return the URL of a new store with a pool."""
    url = new_store(kind)
    with Ledger.open(url) as book:
        book.pool("pool", SharedPoolBudgetOptions())
    return url


@pytest.mark.parametrize(
    "module",
    [
        *(group_commit, call_queue, outcomes, callers, transaction, writing, connections),
        *(sqlite, writerlock),
        *(journal, sys.modules[perform.__module__]),
        *(session, postgresql, statements),
    ],
    ids=name_of,
)
@pytest.mark.parametrize(
    "step", [7, pytest.param(1, marks=pytest.mark.long)], ids=["some places", "every place"]
)
def test_a_leader_may_be_interrupted_anywhere(
    new_store: Callable[..., str], module: ModuleType, step: int
) -> None:
    """KeyboardInterrupt wherever it can come: every call ends, and nothing leaks."""
    kind = "postgresql" if module in {session, postgresql, statements} else "sqlite"
    url, wrong = new_pool(new_store, kind), []
    for number in count(step=step):
        where, found = lead_interrupted(url, {str(module.__file__)}, number)
        if where is None:
            break
        if found:
            wrong.append((where, found))
            url = new_pool(new_store, kind)  # the old one may be locked for ever
    assert 2 < number
    assert [] == wrong


# Processes


def run_leader(url: str, log: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run `leader.py` to its end."""
    mode, *rest = map(str, words)
    return programs.run(
        [sys.executable, str(LEADER), mode, url, str(log), *rest],
        check=False,
        text=True,
        capture_output=True,
        timeout=LATE_S,
        env={**os.environ, "PYTHONPATH": str(Path(ledger.__file__).parents[1])},
    )


def lines_of(log: Path) -> list[list[str]]:
    """Return what the program was told."""
    return [line.split() for line in log.read_text().splitlines()]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_leader_is_killed_in_the_middle_of_a_batch(
    store_url: str, tmp_path: Path, check: Check, when: str
) -> None:
    """SIGKILL between INSERT and COMMIT: nothing of the batch; behind COMMIT: all, and nobody told.

    Whoever repeats the calls with their keys gets every one of them done once.
    """
    with Ledger.open(store_url) as book:
        book.pool("pool", SharedPoolBudgetOptions())
    log = tmp_path / "log"
    assert -signal.SIGKILL == run_leader(store_url, log, "die", when).returncode
    lines = lines_of(log)
    assert set() == {line[1] for line in lines} - {"first"}

    with Ledger.open(store_url, timeout_s=2) as book:
        budget = book.pool("pool")
        done = {str(e.request_id): e.seq for e in book.entries("pool", after=1)}
        batch = {f"caller-{number}" for number in range(CALLERS)}
        assert ({"first"} if when == "before" else {"first"} | batch) == set(done)
        assert [[str(done["first"])]] * len(lines) == [line[2:3] for line in lines]
        again = {who: budget.reserve(keyed(who), tokens(3), UNLIMITED).id for who in sorted(batch)}
        assert {who: done.get(who, again[who]) for who in again} == again
        assert CALLERS == len(set(again.values()))
    found = check(store_url, [], lost=1 + CALLERS)
    assert 2 + CALLERS == len(found)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_program_that_is_interrupted_releases_before_it_closes(
    store_url: str, tmp_path: Path, when: str
) -> None:
    """SIGINT while the main thread commits, and then `with` closes: no lease is left behind."""
    with Ledger.open(store_url) as book:
        book.pool("pool", SharedPoolBudgetOptions())
        log = tmp_path / "log"
        ended = run_leader(store_url, log, "interrupt", when)
        assert (0, "") == (ended.returncode, ended.stderr)
        assert [["interrupted"]] == lines_of(log)
        assert [] == list(book.open_leases("pool"))
        assert_sound(book)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_callers_outlive_the_main_thread(store_url: str, tmp_path: Path, kind: str) -> None:
    """While the interpreter shuts down, threads are still served and tasks told; none hangs."""
    with Ledger.open(store_url) as book:
        book.pool("pool", SharedPoolBudgetOptions())
        log = tmp_path / "log"
        ended = run_leader(store_url, log, "outlive-main", kind)
        assert 0 == ended.returncode
        *reserved, done = lines_of(log)
        assert (["reserved", "thread"], ["done"]) == (reserved[-1][:2], done)
        open_ids = [str(lease.lease.id) for lease in book.open_leases("pool")]
        assert [line[2] for line in reserved] == open_ids
        assert_sound(book)


@pytest.mark.parametrize("how", ["settle", "release"])
@pytest.mark.parametrize("between", [False, True])
def test_a_lease_ended_by_another_process_is_not_remembered(
    book: Ledger, store_url: str, tmp_path: Path, how: str, *, between: bool
) -> None:
    """Another process ends a lease that this one keeps in memory: here it is unknown from then on.

    So it is when this process did something `between`, and remembers what it did then.
    """
    budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
    lease, other = (budget.reserve(EXTENSIONS, tokens(10), UNLIMITED) for _ in range(2))
    assert {lease.id, other.id} == set(budget._journal._leases)
    assert 0 == run_leader(store_url, tmp_path / "log", "end", how, lease.id).returncode
    if between:
        budget.record_used(other, Usage(total_tokens=2))
    with pytest.raises(UnknownLeaseError):
        budget.record_used(lease, Usage(total_tokens=5))
    with pytest.raises(UnknownLeaseError):
        budget.release(lease)
    used = (1 if how == "settle" else 0) + (2 if between else 0)
    newest = list(book.entries("pool"))[-1].balance
    assert (used, 0 if between else 10) == (newest.committed.tokens, newest.reserved.tokens)
    if not between:
        budget.release(other)
    assert_sound(book)


def test_leases_are_remembered(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settlement behind this process's own entry reads no lease again."""
    budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    monkeypatch.setattr("ledger.store.queries.LEASE", None)
    budget.record_used(lease, Usage(total_tokens=2))
    assert {} == budget._journal._leases
    assert 98 == budget.remaining(EXTENSIONS).tokens


# Closing


def test_closing_lets_who_is_being_served_finish_and_turns_away_the_rest(store_url: str) -> None:
    """`close` while one commits and others wait: that one gets its lease, the others an error."""
    book = Ledger.open(store_url)
    budget = book.pool("pool", SharedPoolBudgetOptions())
    commits = Commits(book)
    reserve = partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)
    with commits.held(reserve) as first:
        waiting = commits.line_up([reserve] * 3)
        closing_thread = in_thread(book.close)
        until(lambda: book._database._closed)
    assert 2 == outcome(first).id
    assert [LedgerUnavailableError] * 3 == [type(outcome(each)) for each in waiting]
    assert closing_thread.result(20) is None
    for call in (
        reserve,
        partial(budget.record_used, outcome(first), Usage()),
        partial(budget.release, outcome(first)),
        partial(budget.remaining, EXTENSIONS),
        budget.status,
    ):
        with pytest.raises(LedgerUnavailableError):
            call()
    with Ledger.open(store_url) as again:
        assert ["reservation"] == kinds(again)
        assert 3 == again.pool("pool").reserve(EXTENSIONS, tokens(1), UNLIMITED).id
        assert_sound(again)
    gc.collect()  # a connection that is still open would warn, and the warning is an error


def test_an_answer_of_a_certain_age_is_given_from_memory(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`remaining(max_age_s=...)` reads nothing while its answer is young, and then reads anew."""
    with Ledger.open(store_url) as book, Ledger.open(store_url) as elsewhere:
        options = SharedPoolBudgetOptions(capacity_tokens=10)
        budget, theirs = book.pool("pool", options), elsewhere.pool("pool")
        now = [1_000.0]
        monkeypatch.setattr("ledger.managers.pool.time.monotonic", lambda: now[0])
        assert 10 == budget.remaining(EXTENSIONS, max_age_s=5).tokens
        theirs.reserve(EXTENSIONS, tokens(4), UNLIMITED)
        now[0] += 4.9
        assert 10 == budget.remaining(EXTENSIONS, max_age_s=5).tokens
        assert 6 == budget.remaining(EXTENSIONS).tokens
        theirs.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        assert 6 == budget.remaining(EXTENSIONS, max_age_s=5).tokens
        now[0] += 5
        assert 5 == budget.remaining(EXTENSIONS, max_age_s=5).tokens
