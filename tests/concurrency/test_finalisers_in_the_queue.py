"""A finaliser may end a lease while the leader takes calls from the queue."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from ledger import (
    BudgetLease,
    Ledger,
    LedgerBudgetManager,
    SharedPoolBudgetOptions,
    UnknownLeaseError,
)
from ledger.engine.group_commit import Writer
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

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
