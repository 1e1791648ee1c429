"""Interrupts and finalisers in the middle of a call: the store is free afterwards, for everybody.

The sweep strikes every place of every kind of call: by a KeyboardInterrupt, and by a collection
that finalises a generator which holds a lease. The default run takes a sample;
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
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection

import ledger
from ledger import (
    BudgetError,
    BudgetLease,
    EntryKind,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.store.statements import driver_of
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.clocks import LATE_S

pytestmark = pytest.mark.usefixtures("few_objects", "own_statements")

PROGRAM = Path(__file__).parent / "program.py"
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=1_000_000_000)
SMALL = SharedPoolBudgetOptions(capacity_tokens=10)
ESTIMATE = UsageEstimate(total_tokens=1)
USED = Usage(total_tokens=1)

SAMPLE = 1
"""How many places of each kind of call the default run strikes."""
EVERY_PLACE = sys.maxsize

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


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Run `work` in a thread that the process does not wait for."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def held(budget: LedgerBudgetManager, *, leases: list[BudgetLease]) -> Iterator[None]:
    """Hold a lease for as long as this generator lives."""
    with budget.lease(ESTIMATE) as inside:
        leases.append(inside.lease)
        yield


class Scene:
    """A store, this process's ledger on it, another process, and perhaps a busy thread."""

    def __init__(self, url: str, environment: dict[str, str], *, busy: bool) -> None:
        self.url = url
        self.book = Ledger.open(url, timeout_s=TIMEOUT_S)
        self.budget = self.book.pool("pool", OPTIONS)
        self.nested = self.book.pool("below", OPTIONS, parent="pool")
        self.other = OtherProcess(url, environment)
        self.wrong: list[str] = []
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._busy = in_thread(self._work) if busy else None

    def _work(self) -> None:
        while not self._stop.is_set():
            self.write()
            time.sleep(0.001)

    def write(self) -> None:
        """Write something, and take it back."""
        self.budget.release(self.budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED))

    def close(self) -> None:
        """End everything."""
        self._stop.set()
        if self._busy is not None:
            self._busy.result(BOUND_S)
        self.other.close()
        self.book.close()

    def calls(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """Return every kind of call; each is made ready before it is watched."""
        budget, nested, book = self.budget, self.nested, self.book

        def lease(of: LedgerBudgetManager = budget) -> BudgetLease:
            return of.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)

        def settled() -> int:
            budget.record_used(lease(), USED)
            return max(one.seq for one in book.entries("pool", after=1, kind=EntryKind.SETTLEMENT))

        def due() -> Callable[[], object]:
            pool = book.pool(f"due {next(self._numbers)}", OPTIONS)
            extensions = RequestExtensions(LeaseTtl(timedelta(microseconds=1)))
            pool.reserve(extensions, ESTIMATE, UNLIMITED)
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
            return partial(of.reserve, EXTENSIONS, ESTIMATE, UNLIMITED, **more)

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
            "correct": lambda: partial(budget.correct, settled(), Usage(total_tokens=3), "why"),
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
        answer = self.other.write()
        return wrong if answer is None else [*wrong, answer]

    def strike_interrupt(self, call: Callable[[], object], place: Place) -> list[str]:
        """Interrupt a call, and look who can write while the exception, in a cycle, is alive."""
        striker = Striker(interrupt, place)
        error = striker.during(call)
        cycle: list[object] = [error]
        cycle.append(cycle)
        if error is not None and not isinstance(error, KeyboardInterrupt):
            return [repr(error)]
        return self.everybody_writes()

    def strike_collection(self, call: Callable[[], object], place: Place) -> list[str]:
        """Collect a generator in the middle of a call, and look whether its lease has ended."""
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
        return wrong

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


def sweep(
    make: Callable[[], Scene], how: str, *, sample: int, chance: random.Random
) -> tuple[int, list[tuple[str, str, list[str]]]]:
    """Strike at so many places of each kind of call; return how often, and what went wrong."""
    scene, struck, wrong = make(), 0, []
    seen: set[Place] = set()
    try:
        for name in list(scene.calls()):
            recorder = Striker(interrupt)
            with suppress(BudgetError):
                recorder.during(scene.calls()[name]())
            places = [place for place in recorder.passed if place not in seen]
            if sample < len(places):
                places = chance.sample(places, sample)
            seen.update(places)
            for place in places:
                call = scene.calls()[name]()
                strike = scene.strike_interrupt if how == "interrupt" else scene.strike_collection
                found = strike(call, place)
                struck += 1
                if found:
                    code, at = place
                    where = f"{Path(code.co_filename).name} {code.co_qualname} +{at}"
                    wrong.append((name, where, found))
                    scene.other.close()  # the old store may be locked for good
                    scene = make()
    finally:
        gc.enable()
    with suppress(Exception):
        scene.close()
    return struck, wrong


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside a busy thread"])
@pytest.mark.parametrize("how", ["interrupt", "collection"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("sample", "least"),
    [(SAMPLE, 15), pytest.param(EVERY_PLACE, 400, marks=pytest.mark.sweep)],
    ids=["a sample", "every place"],
)
def test_no_interrupt_and_no_finaliser_locks_the_store(
    new_store: Callable[..., str],
    environment: dict[str, str],
    kind: str,
    how: str,
    *,
    busy: bool,
    sample: int,
    least: int,
) -> None:
    """Wherever it comes, this thread, another, and another process write soon afterwards."""
    seed = int(os.environ.get("LEDGER_TEST_SEED", "1"))
    gc.collect()
    gc.disable()  # a collection comes where this test says
    struck, wrong = sweep(
        lambda: Scene(new_store(kind), environment, busy=busy),
        how,
        sample=sample,
        chance=random.Random(seed),
    )
    assert [] == wrong, f"LEDGER_TEST_SEED={seed}"
    assert struck > least


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
        assert 2 == book.pool("pool").reserve(EXTENSIONS, ESTIMATE, UNLIMITED).id
