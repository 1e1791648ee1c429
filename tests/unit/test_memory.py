"""The in-memory manager: the whole domain, threads, and what breaks into it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import pytest

from ledger import (
    U64_MAX,
    BudgetLease,
    InvalidInputError,
    PoisonedError,
    Remaining,
    RequestBudget,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    managers,
)
from ledger.core import rules
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

ROOM = str(Path(managers.__file__).parent)
"""The folder of the manager's modules."""


def manager(capacity: int = U64_MAX) -> SharedPoolBudgetManager:
    """Return a manager of a pool of tokens."""
    return SharedPoolBudgetManager(SharedPoolBudgetOptions(capacity_tokens=capacity))


def test_leases_are_counted_from_1() -> None:
    """A denied call takes no number, and a lease of memory has no pool identity."""
    budget = manager(10)
    first = budget.reserve(EXTENSIONS, tokens(4), RequestBudget.from_tokens(9))
    with pytest.raises(ThresholdExceededError):
        budget.reserve(EXTENSIONS, tokens(7), UNLIMITED)
    second = budget.reserve(EXTENSIONS, tokens(5), UNLIMITED)
    assert (1, 2) == (first.id, second.id)
    assert first == BudgetLease(
        id=1,
        reserved=tokens(4),
        request_budget=RequestBudget.from_tokens(9),
        proof=first.proof,
    )


@pytest.mark.parametrize("amount", [2**63, 2**64 - 2, 2**64 - 1])
def test_it_holds_what_no_store_can(amount: int) -> None:
    """Amounts over 2^63-1 are reserved, settled and given back exactly."""
    budget = manager(amount)
    lease = budget.reserve(EXTENSIONS, tokens(amount), RequestBudget.from_tokens(amount))
    assert 0 == budget.remaining(EXTENSIONS).tokens
    budget.record_used(lease, Usage(total_tokens=amount - 1))
    assert Remaining(1, U64_MAX, False) == budget.remaining(EXTENSIONS)


def test_committed_stops_at_the_end_of_the_domain() -> None:
    """Spend beyond 2^64-1 is not refused, and does not wrap around."""
    budget = manager()
    for _ in range(3):
        lease = budget.reserve(EXTENSIONS, tokens(0), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=U64_MAX, cost_micros_usd=U64_MAX - 1))
    assert Remaining(0, 0, True) == budget.remaining(EXTENSIONS)


def test_a_lease_of_a_store_s_pool_is_unknown() -> None:
    """A lease that names a pool was not granted in memory, whatever its number."""
    budget = manager(100)
    budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    foreign = BudgetLease(id=1, reserved=tokens(40), request_budget=UNLIMITED, pool=UUID(int=1))
    with pytest.raises(UnknownLeaseError):
        budget.record_used(foreign, Usage(total_tokens=1))
    assert 60 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize(
    "call",
    [
        lambda budget, _: budget.reserve(None, tokens(1), UNLIMITED),
        lambda budget, _: budget.reserve({}, tokens(1), UNLIMITED),
        lambda budget, _: budget.reserve(EXTENSIONS, 1, UNLIMITED),
        lambda budget, _: budget.reserve(EXTENSIONS, Usage(), UNLIMITED),
        lambda budget, _: budget.reserve(EXTENSIONS, tokens(1), None),
        lambda budget, _: budget.reserve(EXTENSIONS, tokens(1), 5),
        lambda budget, lease: budget.record_used(lease.id, Usage()),
        lambda budget, _: budget.record_used(None, Usage()),
        lambda budget, lease: budget.record_used(lease, tokens(1)),
        lambda budget, lease: budget.record_used(lease, None),
    ],
)
def test_arguments_of_another_type_are_refused_and_poison_nothing(
    call: Callable[[Any, BudgetLease], object],
) -> None:
    """The mistake is the caller's; the balance stays as it was, and the lease open."""
    budget = manager(100)
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    with pytest.raises(InvalidInputError):
        call(budget, lease)
    assert Remaining(60, U64_MAX, False) == budget.remaining(EXTENSIONS)
    budget.record_used(lease, Usage(total_tokens=1))
    assert 99 == budget.remaining(EXTENSIONS).tokens


def interrupted(*_: object, **__: object) -> None:
    """Stand in for a step that Ctrl-C breaks into."""
    raise KeyboardInterrupt


def is_poisoned(budget: SharedPoolBudgetManager, lease: BudgetLease) -> bool:
    """Tell whether the manager refuses to work; half a refusal fails the test."""
    if Remaining(0, 0, True) != budget.remaining(EXTENSIONS):
        return False
    with pytest.raises(PoisonedError):
        budget.reserve(EXTENSIONS, tokens(0), UNLIMITED)
    with pytest.raises(PoisonedError):
        budget.record_used(lease, Usage())
    return True


@pytest.mark.parametrize("step", ["current", "reserve"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ZeroDivisionError])
def test_an_exception_inside_a_reservation_poisons(
    step: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the manager holds may be half done, so it answers nothing any more, for good."""
    budget = manager(100)
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)

    def broken(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(rules, step, broken)
        with pytest.raises(error):
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert is_poisoned(budget, lease)
    assert is_poisoned(budget, lease)


def test_an_interrupt_inside_a_settlement_poisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settlement that was broken into may be half done: nothing is granted any more."""
    budget = manager(100)
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            budget.record_used(lease, Usage())
    assert is_poisoned(budget, lease)


def test_an_interrupt_outside_a_state_change_does_not_poison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asking what remains changes nothing, so nothing can be half done."""
    budget = manager(100)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "remaining", interrupted)
        with pytest.raises(KeyboardInterrupt):
            budget.remaining(EXTENSIONS)
    assert 100 == budget.remaining(EXTENSIONS).tokens


def interrupt_at(moment: int, call: Callable[[], object]) -> bool:
    """Run `call` with a KeyboardInterrupt at its n-th moment; tell whether it got that far.

    A moment is where CPython looks for signals: a function begins, or a built-in one returned.
    """
    seen = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal seen
        inside: FrameType | None = frame
        while inside is not None and not inside.f_code.co_filename.startswith(ROOM):
            inside = inside.f_back
        if inside is None or event not in {"call", "c_return"}:
            return
        seen += 1
        if seen == moment:
            raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False


@pytest.mark.parametrize(
    ("call", "after"),
    [
        (lambda budget, _: budget.reserve(EXTENSIONS, tokens(10), UNLIMITED), 50),
        (lambda budget, lease: budget.record_used(lease, Usage(total_tokens=25)), 75),
    ],
    ids=["reserve", "record_used"],
)
def test_wherever_an_interrupt_lands_the_books_are_whole_or_void(
    call: Callable[[SharedPoolBudgetManager, BudgetLease], object], after: int
) -> None:
    """At every moment: nothing happened, all of it happened, or the manager is poisoned."""
    outcomes = set()
    for moment in range(1, 1_000):
        budget = manager(100)
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        if not interrupt_at(moment, lambda budget=budget, lease=lease: call(budget, lease)):
            break
        assert not budget._lock._is_owned()
        if is_poisoned(budget, lease):
            outcomes.add("poisoned")
            continue
        left = budget.remaining(EXTENSIONS).tokens
        assert left in {60, after}
        outcomes.add(left)
        budget.reserve(EXTENSIONS, tokens(left), UNLIMITED)
    assert {60, after, "poisoned"} == outcomes


def test_threads_neither_overspend_nor_lose() -> None:
    """8 threads on one pool: what is admitted fits, and every settlement is counted once."""
    budget = manager(10_000)
    start = threading.Barrier(8)

    def work(_: int) -> tuple[int, set[int]]:
        spent, ids = 0, set()
        start.wait()
        for number in range(400):
            try:
                lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
            except ThresholdExceededError:
                continue
            ids.add(lease.id)
            budget.record_used(lease, Usage(total_tokens=number % 11))
            spent += number % 11
            with pytest.raises(UnknownLeaseError):
                budget.record_used(lease, Usage(total_tokens=1_000))
        return spent, ids

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(switching)
    spent = sum(spent for spent, _ in results)
    ids = [lease for _, leases in results for lease in leases]
    assert Remaining(10_000 - spent, U64_MAX, spent == 10_000) == budget.remaining(EXTENSIONS)
    assert list(range(1, len(ids) + 1)) == sorted(ids)


def test_open_reservations_of_threads_never_pass_the_capacity() -> None:
    """With nothing given back, exactly as many are admitted as fit."""
    budget = manager(1_000)

    def work(_: int) -> int:
        admitted = 0
        for _ in range(100):
            try:
                budget.reserve(EXTENSIONS, tokens(3), UNLIMITED)
            except ThresholdExceededError:
                continue
            admitted += 1
        return admitted

    with ThreadPoolExecutor(8) as threads:
        assert 333 == sum(threads.map(work, range(8)))
    assert 1 == budget.remaining(EXTENSIONS).tokens
