"""A finaliser may come between any two instructions: while the leader takes calls, and elsewhere.

Where it waits for a batch, the leader of that batch may be in need of what its thread holds.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ledger
from ledger import (
    BudgetLease,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    UnknownLeaseError,
)
from ledger.engine.announcements import Announcer
from ledger.engine.capacity_queue import CapacityQueues
from ledger.engine.group_commit import Writer
from ledger.store.directory import Directory
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import LATE_S

BOUND_S = 30.0
"""Within what time the leases must have ended."""


class Finaliser:
    """Ends leases as a finaliser does: one as a batch begins, one before a certain instruction.

    So the queue holds a call when the second one comes.
    """

    def __init__(self, end: Callable[[], object], method: str, number: int) -> None:
        self._end = end
        self._method = getattr(Writer, method).__code__
        self._left = number
        self._began = False

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401 - as sys.settrace has it
        """Count the instructions of the method, and of the loops in it."""
        code = frame.f_code
        if code is Writer._commit.__code__ and not self._began:
            self._began = True
            self._end()
        if code is not self._method and code not in self._method.co_consts:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                self._end()
        return self

    @property
    def came(self) -> bool:
        """Whether there is an instruction of that number."""
        return self._left <= 0


@pytest.mark.parametrize("method", ["_lead", "_join"])
def test_a_lease_may_be_ended_between_any_two_instructions(book: Ledger, method: str) -> None:
    """The call that the finaliser interrupts gets its answer, and the leases end."""
    budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=1_000_000))

    def reserve() -> BudgetLease:
        return budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)

    all_leases: list[BudgetLease] = []
    number, came = 0, True
    while came:
        number += 1
        leases = [reserve(), reserve()]
        all_leases += leases
        finaliser = Finaliser(lambda leases=leases: budget.release(leases.pop()), method, number)
        sys.settrace(finaliser)
        try:
            lease = reserve()
        finally:
            sys.settrace(None)
        came = finaliser.came
        for one in (lease, *leases):
            budget.release(one)
    assert number > 40
    wait_until_ended(budget)
    assert {UnknownLeaseError} == {_error(budget, lease) for lease in all_leases}


def wait_until_ended(budget: LedgerBudgetManager) -> None:
    """Wait until the pool holds nothing."""
    until_s = time.monotonic() + BOUND_S
    while budget.status().balance.reserved.tokens and time.monotonic() < until_s:
        time.sleep(0.01)
    assert 0 == budget.status().balance.reserved.tokens


def _error(budget: LedgerBudgetManager, lease: BudgetLease) -> type[Exception] | None:
    try:
        budget.lease(lease.token)
    except UnknownLeaseError as error:
        return type(error)
    return None


class Inside:
    """Does something before each instruction of some methods, and of what they call."""

    def __init__(self, strike: Callable[[], object], *methods: Any) -> None:  # noqa: ANN401 - functions
        self._strike = strike
        self._methods = {method.__code__ for method in methods}
        self._outermost: FrameType | None = None
        self.struck = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401 - as sys.settrace has it
        """Follow the calls of this thread."""
        if self._outermost is None:
            if frame.f_code not in self._methods:
                return None
            self._outermost = frame
        if not frame.f_code.co_filename.startswith(LOCKING):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.struck += 1
            self._strike()
        if event == "return" and frame is self._outermost:
            self._outermost = None
        return self

    def during(self, call: Callable[[], object]) -> None:
        """Make a call."""
        sys.settrace(self)
        try:
            call()
        finally:
            sys.settrace(None)


LOCKING = tuple(str(Path(package.__file__).parent) for package in (ledger, concurrent.futures))
WAITING = (CapacityQueues._enter, CapacityQueues._action_of, CapacityQueues._leave)


def elsewhere(work: Callable[[], object]) -> None:
    """Have another thread do something, in time."""
    threads = concurrent.futures.ThreadPoolExecutor(1)
    threads.submit(work).result(LATE_S)
    threads.shutdown()


@pytest.mark.parametrize(
    "inside", [(CapacityQueues.free,), (Announcer.tell,), WAITING, (Directory.of,)]
)
def test_a_thread_holds_nothing_that_a_leader_needs(
    new_store: Callable[..., str], inside: tuple[Any, ...]
) -> None:
    """Whatever a call is interrupted in, apart from a batch, another thread does whole calls.

    So a finaliser that comes there may wait for that thread.
    """
    numbers = itertools.count()
    options = SharedPoolBudgetOptions(
        capacity_tokens=1_000, thresholds={"half": 50}, settlement=SettlementPolicy.OBSERVED
    )
    heard: list[object] = []
    with Ledger.open(new_store("sqlite"), on_threshold=heard.append) as book:
        budget = book.pool("pool", options)
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED, wait_s=1)
        budget.reserve(
            RequestExtensions(LeaseTtl(timedelta(microseconds=1))), tokens(990), UNLIMITED
        )

        def call() -> None:
            new = book.pool(f"new {next(numbers)}", options)
            new.release(new.reserve(EXTENSIONS, tokens(990), UNLIMITED))

        def calls() -> None:
            book.pool("pool")
            book.expire_due("pool")
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED, wait_s=1)

        striker = Inside(partial(elsewhere, call), *inside)
        striker.during(calls)
        made = next(numbers)
    assert made == striker.struck > 10
    assert len(heard) > made


def test_in_memory_a_thread_holds_nothing_that_another_needs() -> None:
    """Nor does one that waits for capacity."""
    budget = SharedPoolBudgetManager(SharedPoolBudgetOptions(capacity_tokens=10))

    def call() -> None:
        budget.release(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))

    striker = Inside(partial(elsewhere, call), *WAITING)
    striker.during(lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED, wait_s=1))
    assert striker.struck > 10
