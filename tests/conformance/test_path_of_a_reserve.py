"""The way of a `reserve` from its call to its verdict is short enough to be read down."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import ledger
from ledger import BudgetLease, Ledger, SharedPoolBudgetOptions, Usage
from ledger.core.rules.released import RELEASED
from ledger.store.drafts import ENTRY_COLUMNS
from ledger.store.statements import driver_of
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock

ROOT = str(Path(ledger.__file__).parent)
USED = Usage(total_tokens=1)

CALLS_MAX = 135
"""The most functions of the library that a call runs in all: a reservation, or a settlement."""

FRAMES_MAX = 10
"""The most functions of the library that are entered and not left when `admit` is asked."""

FILES_MAX = 20
"""The most files of the library that a reservation on SQLite has entered by then."""


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions of the library some work runs."""
    calls = 0

    def note(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(ROOT)

    gc.disable()  # what a collection finalises is not this call's
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def test_a_call_alone_runs_few_functions(new_store: Callable[..., str]) -> None:
    """On a pool that has nothing but a capacity, and where nothing is due.

    A session with a server waits in turns, so that their number is not the same each time. By a
    clock that stands still, it is known between the calls that nothing is due. The least of some
    counts: what is remembered of values is forgotten now and then.
    """
    with Ledger.open(new_store("sqlite"), clock=Clock()) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
        budget.record_used(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED), USED)
        leases: list[BudgetLease] = []
        reserved, settled = [], []
        for _ in range(3):
            reserve = partial(budget.reserve, EXTENSIONS, tokens(1), UNLIMITED)
            reserved.append(calls_of(lambda: leases.append(reserve())))  # noqa: B023 - called now
            settled.append(calls_of(partial(budget.record_used, leases[-1], USED)))
    assert CALLS_MAX >= max(min(reserved), min(settled)), (reserved, settled)


def test_a_reserve_is_decided_in_twenty_files(new_store: Callable[..., str]) -> None:
    """All that happens from the call on is read there: connections, locks and reads included."""
    admit = RELEASED[1].admit.__code__  # type: ignore[attr-defined]
    entered: dict[str, None] = {}
    decided: list[bool] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(ROOT) and not decided:
            entered[file.removeprefix(ROOT)] = None
            decided.extend([True] * (frame.f_code is admit))

    with Ledger.open(new_store("sqlite")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
        estimate = tokens(1)
        budget.release(budget.reserve(EXTENSIONS, estimate, UNLIMITED))
        gc.disable()  # what a collection ends runs in rooms of its own
        sys.setprofile(note)
        try:
            budget.reserve(EXTENSIONS, estimate, UNLIMITED)
        finally:
            sys.setprofile(None)
            gc.enable()
    assert decided
    assert len(entered) <= FILES_MAX, list(entered)


def test_a_row_needs_no_temporary_table(new_store: Callable[..., str]) -> None:
    """SQLite makes one for a list of three kinds or more in the condition of an index."""
    with Ledger.open(new_store("sqlite")) as book, book._database.connect() as connection:
        row = dict.fromkeys(ENTRY_COLUMNS, "0")
        insert = f"INSERT INTO entries ({', '.join(row)}) VALUES ({', '.join(row.values())})"
        program = driver_of(connection).execute(f"EXPLAIN {insert}").fetchall()
    assert "OpenEphemeral" not in {step[1] for step in program}


def test_a_reserve_is_decided_ten_frames_down(store_url: str) -> None:
    """No closure and no lambda is on the way: the path is listed in docs/architecture.md."""
    admit = RELEASED[1].admit.__code__  # type: ignore[attr-defined]
    way: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or way or not frame.f_code.co_filename.startswith(ROOT):
            return
        above: FrameType | None = frame
        while frame.f_code is admit and above is not None:
            if above.f_code.co_filename.startswith(ROOT):
                way.append(above.f_code.co_qualname)
            above = above.f_back

    with Ledger.open(store_url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
        budget.release(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))
        sys.setprofile(note)
        try:
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        finally:
            sys.setprofile(None)
    assert "admit" == way[0]
    assert len(way) <= FRAMES_MAX, way
    assert [] == [name for name in way if "<" in name]
