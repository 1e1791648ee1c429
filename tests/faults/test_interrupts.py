"""Interrupts and finalisers in the middle of a call: the store is free afterwards, for everybody.

The sweep strikes every place of every kind of call: by a KeyboardInterrupt, and by a collection
that finalises a generator which holds a lease. The default run strikes one place each of some
kinds, `-m long` some places of every kind, and
`python -m pytest -m sweep tests/faults/test_interrupts.py` strikes every place.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import itertools
import json
import os
import random
import select
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple, NoReturn

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection

import ledger
from ledger import (
    BudgetError,
    BudgetLease,
    Credit,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    Limit,
    PastCall,
    Period,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    UnknownLeaseError,
    Usage,
    Window,
    from_micros,
    reports,
)
from ledger.store.statements import Prepared, driver_of
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.clocks import LATE_S, Clock
from tests.faults.conftest import PROGRAM
from tests.leases import ONE
from tests.threads import in_thread

pytestmark = pytest.mark.usefixtures("few_objects", "own_statements")

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=1_000_000_000)
SMALL = SharedPoolBudgetOptions(capacity_tokens=10)
USED = Usage(total_tokens=1)

EVERY_PLACE = sys.maxsize
TRIES = 3
"""How many calls are made so that one of them passes a place: what was cached passes others."""
MISSED = Fraction(1, 10)
"""Which part of the strikes may miss: where a call passes depends on other threads, too."""

TIMEOUT_S = 60.0
BOUND_S = LATE_S
"""Within what time everybody must be able to write again: less than any call's time-out."""

SWEPT = (
    *(str(Path(package.__file__).parent) for package in (ledger, sqlalchemy, psycopg)),
    *(contextlib.__file__, threading.__file__),
)

Place = tuple[CodeType, int]


class Striker:
    """Does something once, at a place where the interpreter looks for signals.

    That is on entering a function, on going round a loop, and behind a call of what is not
    written in Python. Without a place it notes those that it passes.
    """

    def __init__(self, strike: Callable[[], object], at: Place | None = None) -> None:
        self._strike = strike
        self._at = at
        self._looks = False
        self._swept: dict[CodeType, bool] = {}
        self.passed: dict[Place, None] = {}
        self.struck = False

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401 - as sys.settrace has it
        """Look where the call is, and strike once."""
        code = frame.f_code
        swept = self._swept.get(code)
        if swept is None:
            swept = self._swept[code] = code.co_filename.startswith(SWEPT)
        if event == "call":
            self._looks = swept
        if self.struck or not swept:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            place = code, frame.f_lasti
            if self._looks:
                self.passed[place] = None
                if place == self._at:
                    self.struck = True
                    self._strike()
            name = dis.opname[code.co_code[frame.f_lasti]]
            self._looks = name.startswith(("CALL", "JUMP_BACKWARD"))
        return self

    def during(self, call: Callable[[], object]) -> BaseException | None:
        """Make a call, and return what it raised."""
        sys.settrace(self)
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is looked at, or kept
            return error
        finally:
            sys.settrace(None)
        return None


def interrupt() -> None:
    """Do as Ctrl-C does."""
    raise KeyboardInterrupt


class OtherProcess:
    """Another program that writes to the same store whenever it is told to."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self._process = programs.Popen(
            [sys.executable, str(PROGRAM), "write-when-told", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._said() == {"ready": True}

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 2 * BOUND_S)
        assert ready, "the other process says nothing"
        words: dict[str, Any] = json.loads(self._process.stdout.readline())
        return words

    def write(self) -> str | None:
        """Have it write; return what went wrong."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        said = self._said()
        if said["error"] is not None:
            return f"another process: {said['error']}: {said['message']}"
        return None if said["took_s"] < BOUND_S else f"another process: {said['took_s']:.1f} s"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def held(budget: LedgerBudgetManager, *, leases: list[BudgetLease]) -> Iterator[None]:
    """Hold a lease for as long as this generator lives."""
    with budget.lease(ONE) as inside:
        leases.append(inside.lease)
        yield


class Scene:
    """A store, this process's ledger on it, another process, and perhaps a busy thread."""

    def __init__(self, url: str, environment: dict[str, str], *, busy: bool) -> None:
        self.url = url
        self.book = Ledger.open(url, timeout_s=TIMEOUT_S)
        self.budget = self.book.pool("pool", OPTIONS)
        self.nested = self.book.pool("below", OPTIONS, parent="pool")
        self.clock = Clock(time.time_ns() // 1_000)
        self.timed = Ledger.open(url, timeout_s=TIMEOUT_S, clock=self.clock)
        self.other = OtherProcess(url, environment)
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._busy = in_thread(self._work) if busy else None

    def _work(self) -> None:
        while not self._stop.is_set():
            self.write()
            time.sleep(0.001)

    def write(self) -> None:
        """Write something, and take it back."""
        self.budget.release(self.budget.reserve(EXTENSIONS, ONE, UNLIMITED))

    def close(self) -> None:
        """End everything."""
        self._stop.set()
        if self._busy is not None:
            self._busy.result(BOUND_S)
        self.other.close()
        self.timed.close()
        self.book.close()

    def timed_calls(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Return calls on pools whose windows end and whose credits expire before each of them."""
        book, clock, day = self.timed, self.clock, 24 * 60
        limits = (
            Limit(name="five hours", period=Rolling(timedelta(hours=5)), capacity_tokens=1_000_000),
            Limit(name="a day", period=Window(Period.DAY), capacity_tokens=1_000_000),
        )
        pools = {
            "window": replace(OPTIONS, window=Window(Period.DAY, carry_over=True)),
            "session": replace(OPTIONS, window=Window(timedelta(hours=5), session=True)),
            "limits": replace(OPTIONS, limits=limits),
            "prepaid": SharedPoolBudgetOptions(prepaid=["tokens"]),
        }

        def later(
            kind: str, call: Callable[[LedgerBudgetManager, BudgetLease], Callable[[], object]]
        ) -> Callable[[], object]:
            of = book.pool(f"{kind} {next(self._numbers)}", pools[kind])
            if kind == "prepaid":
                soon = from_micros(clock()) + timedelta(hours=1)
                book.credit(of.name, Credit(name="soon", tokens=100, expires_at=soon))
                book.credit(of.name, Credit(name="paid", tokens=100))
            lease = of.reserve(RequestExtensions(LeaseTtl(timedelta(days=9))), ONE, UNLIMITED)
            of.record_used(of.reserve(EXTENSIONS, ONE, UNLIMITED), USED)
            made = call(of, lease)
            clock.minutes(day)
            return made

        found: dict[str, Callable[[], Callable[[], object]]] = {}
        for kind in pools:
            found |= {
                f"reserve {kind}": partial(
                    later, kind, lambda of, _: partial(of.reserve, EXTENSIONS, ONE, UNLIMITED)
                ),
                f"record_used {kind}": partial(
                    later, kind, lambda of, lease: partial(of.record_used, lease, USED)
                ),
                f"remaining {kind}": partial(
                    later, kind, lambda of, _: partial(of.remaining, EXTENSIONS)
                ),
                f"status {kind}": partial(later, kind, lambda of, _: of.status),
            }
        found["credit"] = partial(
            later,
            "prepaid",
            lambda of, _: partial(book.credit, of.name, Credit(name="more", tokens=5)),
        )
        return found

    def readers(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Return the calls that only read."""
        budget, book = self.budget, self.book

        def few() -> LedgerBudgetManager:
            made = book.pool(f"few {next(self._numbers)}", OPTIONS)
            made.record_used(made.reserve(EXTENSIONS, ONE, UNLIMITED), USED)
            made.reserve(EXTENSIONS, ONE, UNLIMITED)
            return made

        def of(read: Callable[[str], object]) -> Callable[[], Callable[[], object]]:
            return lambda: partial(read, few().name)

        def reading_alone() -> Callable[[], object]:
            def read() -> None:
                with Ledger.open(self.url, timeout_s=TIMEOUT_S, read_only=True) as reader:
                    reader.pool("pool").remaining(EXTENSIONS)

            return read

        return {
            "status": lambda: budget.status,
            "usage_of": lambda: partial(few().usage_of, 3),
            "entries": of(lambda name: list(book.entries(name))),
            "open leases": of(lambda name: list(book.open_leases(name))),
            "alerts": of(lambda name: list(book.alerts(pool=name))),
            "verify": of(book.verify),
            "standing": of(lambda name: reports.standing(book, name)),
            "glance": of(lambda name: reports.glance(book, name)),
            "spend": of(lambda name: reports.spend(book, name)),
            "read-only store": reading_alone,
        }

    def calls(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Return every kind of call; each is made ready before it is watched."""
        return self.common_calls() | self.rarer_calls() | self.timed_calls() | self.readers()

    def common_calls(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Return the calls on pools that nothing happens to by time."""
        budget, nested, book = self.budget, self.nested, self.book

        def lease(of: LedgerBudgetManager = budget) -> BudgetLease:
            return of.reserve(EXTENSIONS, ONE, UNLIMITED)

        def correcting() -> Callable[[], object]:
            pool = book.pool(f"correct {next(self._numbers)}", OPTIONS)
            pool.record_used(lease(pool), USED)
            return partial(pool.correct, 3, Usage(total_tokens=3), "why")

        def due() -> Callable[[], object]:
            pool = book.pool(f"due {next(self._numbers)}", OPTIONS)
            extensions = RequestExtensions(LeaseTtl(timedelta(microseconds=1)))
            pool.reserve(extensions, ONE, UNLIMITED)
            return partial(book.expire_due, pool.name)

        def closing() -> Callable[[], object]:
            name = f"closed {next(self._numbers)}"
            book.pool(name, SMALL, parent="pool", carved=True)
            return partial(book.close_pool, name)

        def adjusting() -> Callable[[], object]:
            capacity = 1_000_000_000 + next(self._numbers)
            return partial(book.adjust, "pool", SharedPoolBudgetOptions(capacity_tokens=capacity))

        def opening(**more: object) -> Callable[[], object]:
            return partial(book.pool, f"new {next(self._numbers)}", SMALL, **more)

        def reserving(of: LedgerBudgetManager, **more: float) -> Callable[[], object]:
            return partial(of.reserve, EXTENSIONS, ONE, UNLIMITED, **more)

        def opening_the_store() -> Callable[[], object]:
            return lambda: Ledger.open(self.url, timeout_s=TIMEOUT_S).close()

        return {
            "reserve": partial(reserving, budget),
            "reserve waiting": partial(reserving, budget, wait_s=1),
            "reserve nested": partial(reserving, nested),
            "record_used": lambda: partial(budget.record_used, lease(), USED),
            "record_used nested": lambda: partial(nested.record_used, lease(nested), USED),
            "observe": lambda: partial(budget.observe, lease(), USED),
            "renew": lambda: partial(budget.renew, lease(), timedelta(hours=1)),
            "release": lambda: partial(budget.release, lease()),
            "abandon": lambda: partial(budget.abandon, lease()),
            "correct": correcting,
            "adjust": adjusting,
            "close_pool": closing,
            "expire_due": due,
            "remaining": lambda: partial(budget.remaining, EXTENSIONS),
            "remaining nested": lambda: partial(nested.remaining, EXTENSIONS),
            "lease": lambda: partial(budget.lease, lease().token),
            "open pool": opening,
            "open pool nested": partial(opening, parent="pool"),
            "open pool carved": partial(opening, parent="pool", carved=True),
            "open store": opening_the_store,
        }

    def rarer_calls(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Return more of them."""
        budget, book = self.budget, self.book

        def losing() -> Callable[[], object]:
            lost = replace(budget.reserve(EXTENSIONS, ONE, UNLIMITED), proof=os.urandom(8))
            return partial(budget.record_lost, lost, USED)

        def ensuring() -> Callable[[], object]:
            capacity = 1_000_000_000 + next(self._numbers)
            options = SharedPoolBudgetOptions(capacity_tokens=capacity)
            return partial(book.ensure, "pool", options, reason="more")

        def importing() -> Callable[[], object]:
            key, at = f"call {next(self._numbers)}", datetime(2024, 1, 1, tzinfo=UTC)
            call = PastCall(usage=USED, occurred_at=at, idempotency_key=key)
            return partial(budget.import_calls, [call], "history")

        def replaying() -> Callable[[], object]:
            key = RequestExtensions(IdempotencyKey(f"known {next(self._numbers)}"))
            return partial(budget.reserve_and_settle, [(key, ONE, USED)])

        def with_block() -> Callable[[], object]:
            def call() -> None:
                with budget.lease(ONE) as held_here:
                    held_here.record(USED)

            return call

        return {
            "record_lost": losing,
            "ensure": ensuring,
            "import_calls": importing,
            "reserve_and_settle": replaying,
            "lease block": with_block,
        }

    def everybody_writes(self) -> list[str]:
        """Return who cannot write within the bound: this thread, another, another process."""
        wrong = []
        began_s = time.monotonic()
        try:
            in_thread(self.write).result(BOUND_S)
        except (Exception, TimeoutError) as error:  # noqa: BLE001 - it is what the test looks for
            wrong.append(f"another thread: {error!r}")
        else:
            try:
                self.write()
            except Exception as error:  # noqa: BLE001 - likewise
                wrong.append(f"this thread: {error!r}")
        if not wrong and time.monotonic() - began_s > BOUND_S:
            wrong.append(f"this process: {time.monotonic() - began_s:.1f} s")
        if self._busy is not None and self._busy.done():
            wrong.append(f"the busy thread died: {self._busy.exception()!r}")
        answer = self.other.write()
        return wrong if answer is None else [*wrong, answer]

    def strike_interrupt(self, call: Callable[[], object], place: Place) -> list[str] | None:
        """Interrupt a call, and look who can write while the exception, in a cycle, is alive.

        Return what is wrong, or None if the call did not pass there.
        """
        striker = Striker(interrupt, place)
        error = striker.during(call)
        cycle: list[object] = [error]
        cycle.append(cycle)
        if error is not None and not isinstance(error, KeyboardInterrupt):
            return [repr(error)]
        return self.everybody_writes() if striker.struck else None

    def strike_collection(self, call: Callable[[], object], place: Place) -> list[str] | None:
        """Collect a generator in the middle of a call, and look whether its lease has ended.

        Return what is wrong, or None if the call did not pass there.
        """
        leases: list[BudgetLease] = []
        generator = held(self.budget, leases=leases)
        next(generator)
        cycle: list[object] = [generator]
        cycle.append(cycle)
        del generator, cycle
        took_s: list[float] = []

        def collect() -> None:
            began_s = time.monotonic()
            gc.collect()
            took_s.append(time.monotonic() - began_s)

        striker = Striker(collect, place)
        error = striker.during(call)
        if not striker.struck:
            collect()
        wrong = [] if error is None else [repr(error)]
        if took_s[0] > BOUND_S:
            wrong.append(f"the finaliser took {took_s[0]:.1f} s")
        wrong += self.everybody_writes()
        if not wrong and not self.has_ended(leases[0]):
            wrong.append("the lease was not ended")
        return wrong if wrong or striker.struck else None

    def has_ended(self, lease: BudgetLease) -> bool:
        """Tell whether a lease ends within the bound."""
        deadline = time.monotonic() + BOUND_S
        while time.monotonic() < deadline:
            try:
                self.budget.lease(lease.token)
            except UnknownLeaseError:
                return True
            time.sleep(0.002)
        return False


class Swept(NamedTuple):
    """What a sweep came to: how many strikes there were, which missed, and what went wrong."""

    struck: int
    missed: list[str]
    wrong: list[tuple[str, str, list[str]]]


def sweep(
    make: Callable[[], Scene], how: str, *, kinds: slice, sample: int, chance: random.Random
) -> Swept:
    """Strike at so many places of some kinds of calls."""
    scene, struck = make(), 0
    missed: list[str] = []
    wrong: list[tuple[str, str, list[str]]] = []
    seen: set[Place] = set()
    try:
        for name in list(scene.calls())[kinds]:
            first, usual = Striker(interrupt), Striker(interrupt)
            for recorder in (first, usual):
                with suppress(BudgetError):
                    recorder.during(scene.calls()[name]())
            places = [place for place in first.passed | usual.passed if place not in seen]
            if sample < len(places):
                places = [place for place in places if place in usual.passed]
                places = chance.sample(places, min(sample, len(places)))
            seen.update(places)
            for place in places:
                code, at = place
                where = f"{Path(code.co_filename).name} {code.co_qualname} +{at}"
                for _ in range(TRIES):
                    call = scene.calls()[name]()
                    strike = (
                        scene.strike_interrupt if how == "interrupt" else scene.strike_collection
                    )
                    found = strike(call, place)
                    if found is not None:
                        break
                if found is None and place in usual.passed:
                    missed.append(f"{name}: {where}")
                struck += found is not None
                if found:
                    wrong.append((name, where, found))
                    scene.other.close()  # the old store may be locked for good
                    scene = make()
    finally:
        gc.enable()
    with suppress(Exception):
        scene.close()
    return Swept(struck, missed, wrong)


CASES = list(
    itertools.product(("sqlite", "postgresql"), ("interrupt", "collection"), (False, True))
)
NAMES = [f"{kind}-{how}-{'beside a busy thread' if busy else 'alone'}" for kind, how, busy in CASES]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
@pytest.mark.parametrize(
    ("sample", "least"),
    [
        (1, 8),
        pytest.param(2, 80, marks=pytest.mark.long),
        pytest.param(EVERY_PLACE, 2_000, marks=pytest.mark.sweep),
    ],
    ids=["a sample", "every kind", "every place"],
)
def test_no_interrupt_and_no_finaliser_locks_the_store(
    new_store: Callable[..., str],
    environment: dict[str, str],
    case: int,
    sample: int,
    least: int,
) -> None:
    """Wherever it comes, this thread, another, and another process write soon afterwards."""
    kind, how, busy = CASES[case]
    seed = int(os.environ.get("LEDGER_TEST_SEED", "1"))
    gc.collect()
    gc.disable()  # a collection comes where this test says
    struck, missed, wrong = sweep(
        lambda: Scene(new_store(kind), environment, busy=busy),
        how,
        kinds=slice(case % 4, None, 4) if sample == 1 else slice(None),
        sample=sample,
        chance=random.Random(seed),
    )
    sys.stdout.write(f"{NAMES[case]}: {struck:,} strikes, {len(missed):,} missed\n")
    assert [] == wrong, f"LEDGER_TEST_SEED={seed}"
    assert struck > least
    assert len(missed) <= MISSED * struck + 1, missed


def test_what_sqlalchemy_gave_up_keeps_no_lock(new_store: Callable[..., str]) -> None:
    """It closes a connection that was interrupted; an unfinished SELECT keeps that one open.

    The exception's traceback holds the cursor, so the lock would last as long as the exception.
    """
    url = new_store("sqlite")
    with Ledger.open(url) as book:
        book.pool("pool", OPTIONS)

        def work(connection: Connection, *_given: object, **_named: object) -> NoReturn:
            raw = driver_of(connection)
            unfinished = raw.execute("SELECT * FROM pools UNION ALL SELECT * FROM pools")
            assert unfinished.fetchone()
            connection.invalidate()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as kept:
            book._writer.transactions.run(work, [], key="key")
        path = url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        assert kept.value is not None
        assert 2 == book.pool("pool").reserve(EXTENSIONS, ONE, UNLIMITED).id


@pytest.mark.parametrize("call", ["reserve", "remaining"])
def test_a_select_that_is_interrupted_keeps_no_lock(
    call: str, new_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its execution and its rows, on the cursor that all statements share.

    The read lock would keep the write-ahead log from being emptied, and the file open after the
    close, until a collection comes.
    """
    url = new_store("sqlite")
    path = Path(url.removeprefix("sqlite:///"))

    def strike(*_given: object) -> NoReturn:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with Ledger.open(url) as book:
        budget = book.pool("pool", OPTIONS)
        budget.reserve(EXTENSIONS, ONE, UNLIMITED)
        calls = {
            "reserve": partial(budget.reserve, EXTENSIONS, ONE, UNLIMITED),
            "remaining": partial(budget.remaining, EXTENSIONS),
        }
        gc.disable()
        monkeypatch.setattr(Prepared, "rows_on", strike)
        try:
            with pytest.raises(KeyboardInterrupt):
                calls[call]()
            with contextlib.closing(sqlite3.connect(path)) as other:
                assert (0, 0, 0) == other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            book.close()
            assert not path.with_name(f"{path.name}-wal").exists()
        finally:
            gc.enable()
