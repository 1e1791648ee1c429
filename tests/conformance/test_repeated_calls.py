"""A call repeated under its key is answered again, and nothing at all is written for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    IdempotencyConflictError,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    LedgerError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
)
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock

POLICY = SharedPoolBudgetOptions(
    capacity_tokens=100, lease_ttl=timedelta(days=9), window=Window(period=timedelta(hours=1))
)
Call = Callable[[Ledger, dict[str, Any]], object]


def outcome(call: Callable[[], object]) -> object:
    """Return what a call answers, or the class and the figures of its error."""
    try:
        return call()
    except LedgerError as error:
        return type(error), vars(error)


def reserving(tokens: int) -> Call:
    """Return a call that reserves, under a key."""
    return lambda book, _leases: book.pool("pool").reserve(
        RequestExtensions(IdempotencyKey("k")), UsageEstimate(total_tokens=tokens), UNLIMITED
    )


def report() -> UsageReport:
    """Return a report with the key."""
    return UsageReport(idempotency_key="k")


CALLS: dict[str, Call] = {
    "reserve": reserving(5),
    "a denial": reserving(101),
    "record_used": lambda book, leases: book.pool("pool").record_used(
        leases["open"], Usage(total_tokens=1), report=report()
    ),
    "observe": lambda book, leases: book.pool("pool").observe(
        leases["open"], Usage(total_tokens=1), report=report()
    ),
    "renew": lambda book, leases: book.pool("pool").renew(
        leases["open"], timedelta(days=1), idempotency_key="k"
    ),
    "release": lambda book, leases: book.pool("pool").release(leases["open"], idempotency_key="k"),
    "correct": lambda book, leases: book.pool("pool").correct(
        leases["settled"], Usage(total_tokens=3), "because", idempotency_key="k"
    ),
    "adjust": lambda book, _leases: book.adjust("pool", POLICY, reason="r", idempotency_key="k"),
    "close_pool": lambda book, _leases: book.close_pool("pool", idempotency_key="k"),
}


@pytest.fixture
def leases(timed: Ledger) -> dict[str, Any]:
    """Open a pool below another with an open lease, a settled one, and one that is due soon."""
    timed.pool("above", POLICY)
    budget = timed.pool("pool", POLICY, parent="above")
    estimate = UsageEstimate(total_tokens=2)
    settled = budget.reserve(RequestExtensions(), estimate, UNLIMITED)
    budget.record_used(settled, Usage(total_tokens=2))
    seq = next(entry.seq for entry in timed.entries("pool") if entry.kind == "settlement")
    budget.reserve(RequestExtensions(LeaseTtl(timedelta(minutes=1))), estimate, UNLIMITED)
    return {"open": budget.reserve(RequestExtensions(), estimate, UNLIMITED), "settled": seq}


@pytest.mark.parametrize("name", CALLS)
def test_a_repeated_call_writes_nothing(
    timed: Ledger, clock: Clock, leases: dict[str, Any], name: str
) -> None:
    """No hold expires and no window begins for it, here or above; the next call does both."""
    call = CALLS[name]
    first = outcome(lambda: call(timed, leases))
    clock.minutes(200)
    sizes = {pool: timed.size(pool) for pool in ("above", "pool")}
    for _ in range(2):
        assert first == outcome(lambda: call(timed, leases))
        assert sizes == {pool: timed.size(pool) for pool in ("above", "pool")}
    assert 1 == timed.expire_due("pool")
    assert {"expiry", "rollover"} <= {
        entry.kind for entry in timed.entries("above", after=sizes["above"])
    }
    assert all(found.ok for found in timed.verify())


@pytest.mark.usefixtures("leases")
def test_a_key_of_another_call_writes_nothing_either(timed: Ledger, clock: Clock) -> None:
    """The conflict is found before what is due expires, and before a window begins."""
    reserving(5)(timed, {})
    clock.minutes(200)
    size = timed.size()
    with pytest.raises(IdempotencyConflictError):
        reserving(6)(timed, {})
    assert size == timed.size()
    assert 1 == timed.expire_due("pool")
