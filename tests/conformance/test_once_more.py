"""Every other write happens once under a key, whoever repeats it, threads and tasks alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    BudgetLease,
    IdempotencyConflictError,
    Ledger,
    LedgerError,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.testing import Awaited
from tests.clocks import MINUTE
from tests.leases import OF_HUNDRED

MORE = SharedPoolBudgetOptions(capacity_tokens=200)

Call = Callable[[Any, Any, BudgetLease, int], object]
"""A call to a store and to a pool, about a lease; the number makes it another call."""


def report() -> UsageReport:
    """Return a report with the key."""
    return UsageReport(idempotency_key="k")


CALLS: dict[str, Call] = {
    "observe": lambda _book, budget, lease, number: budget.observe(
        lease, Usage(total_tokens=10 + number), report=report()
    ),
    "observe over its limit": lambda _book, budget, lease, number: budget.observe(
        lease, Usage(total_tokens=31 + number), report=report()
    ),
    "settle": lambda _book, budget, lease, number: budget.record_used(
        lease, Usage(total_tokens=10 + number), report=report()
    ),
    "renew": lambda _book, budget, lease, number: budget.renew(
        lease, (1 + number) * MINUTE, idempotency_key="k"
    ),
    "correct": lambda _book, budget, _lease, number: budget.correct(
        3, Usage(total_tokens=8 + number), "because", idempotency_key="k"
    ),
    "adjust": lambda book, budget, _lease, number: book.adjust(
        budget.name, MORE, reason=f"because {number}", idempotency_key="k"
    ),
    "close": lambda book, budget, _lease, number: book.close_pool(
        budget.name, reason=f"because {number}", idempotency_key="k"
    ),
}


def release(_book: object, budget: Any, lease: BudgetLease, _number: int) -> None:  # noqa: ANN401 - of either face
    """Release the lease; there is no other way to do it."""
    budget.release(lease, idempotency_key="k")


@pytest.fixture(params=["threads", "tasks"])
def store(request: pytest.FixtureRequest, shared_book: Ledger) -> Any:  # noqa: ANN401 - of either face
    """Return each store in turn, by each face in turn."""
    if request.param == "threads":
        return shared_book
    return Awaited(AsyncLedger(shared_book), request.getfixturevalue("runner").run)


@pytest.fixture
def budget(request: pytest.FixtureRequest, store: Any, fresh_name: str) -> Any:  # noqa: ANN401 - of either face
    """Return a pool whose second entry is a lease that the third has settled."""
    made = store.pool(fresh_name, OF_HUNDRED)
    if isinstance(store, Awaited):
        made = Awaited(made, request.getfixturevalue("runner").run)
    made.record_used(reserve(made), Usage(total_tokens=7))
    return made


def reserve(budget: Any) -> BudgetLease:  # noqa: ANN401 - of either face
    """Reserve under a limit."""
    lease: BudgetLease = budget.reserve(
        RequestExtensions(), UsageEstimate(total_tokens=20), RequestBudget.from_tokens(30)
    )
    return lease


def told(call: Callable[[], object]) -> tuple[object, object]:
    """Return what a call returned, or its error's class and figures."""
    try:
        return None, call()
    except LedgerError as error:
        return type(error), vars(error)


@pytest.mark.parametrize("call", [*CALLS.values(), release], ids=[*CALLS, "release"])
def test_a_repeated_call_gets_the_first_answer(
    shared_book: Ledger,
    store: Any,  # noqa: ANN401 - of either face
    budget: Any,  # noqa: ANN401 - likewise
    call: Call,
) -> None:
    """And nothing is written, also when it is repeated by another manager, and much later."""
    lease = reserve(budget)
    first = told(lambda: call(store, budget, lease, 0))
    assert first[0] in {None, RequestBudgetExceededError}
    status = budget.status()
    again = shared_book.pool(budget.name)
    for repeat in (
        lambda: call(store, budget, lease, 0),
        lambda: call(shared_book, again, lease, 0),
    ):
        assert first == told(repeat)
        assert status == budget.status()
    assert shared_book.verify(budget.name)[0].ok


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_another_call_under_the_key_is_a_conflict(
    shared_book: Ledger,
    store: Any,  # noqa: ANN401 - of either face
    budget: Any,  # noqa: ANN401 - likewise
    call: Call,
) -> None:
    """It names the entry that holds the key, and nothing is written."""
    lease = reserve(budget)
    told(lambda: call(store, budget, lease, 0))
    status = budget.status()
    found = shared_book.entry_with_key(budget.name, "k")
    assert found is not None
    for other in (
        lambda: call(store, budget, lease, 1),
        lambda: budget.release(lease, idempotency_key="k"),
    ):
        with pytest.raises(IdempotencyConflictError) as caught:
            other()
        assert ("k", found.seq) == (caught.value.idempotency_key, caught.value.seq)
    assert status == budget.status()


@pytest.mark.parametrize("call", [*CALLS.values(), release], ids=[*CALLS, "release"])
def test_twins_get_one_answer(shared_book: Ledger, fresh_name: str, call: Call) -> None:
    """All at once, so that they ride in the same batches: one entry, and the same for all."""
    budget = shared_book.pool(fresh_name, OF_HUNDRED)
    budget.record_used(reserve(budget), Usage(total_tokens=7))
    lease, start = reserve(budget), threading.Barrier(8)
    before = budget.status().seq

    def twin() -> tuple[object, object]:
        start.wait(20)
        return told(lambda: call(shared_book, budget, lease, 0))

    with ThreadPoolExecutor(8) as threads:
        answers = [one.result(20) for one in [threads.submit(twin) for _ in range(8)]]
    assert answers[:1] * 8 == answers
    assert answers[0][0] in {None, RequestBudgetExceededError}
    assert before + 1 == budget.status().seq
    assert shared_book.verify(fresh_name)[0].ok
