"""A lease in a `with` block: by whatever way the block is left, the lease is ended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    EntryKind,
    Ledger,
    Provenance,
    RequestBudget,
    RequestBudgetExceededError,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.testing.calls import EXTENSIONS
from tests.clocks import impatient, until

ESTIMATE = UsageEstimate(total_tokens=40)
OBSERVED = 15
LEFT = {
    SettlementPolicy.ESTIMATED: 60,
    SettlementPolicy.OBSERVED: 85,
    SettlementPolicy.RELEASE: 85,
}
"""What remains of 100 tokens when a block was left in which 15 of 40 were observed."""


class AwayError(Exception):
    """What leaves a block."""


def by_return(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave by returning from the function."""
    with budget.lease(ESTIMATE) as lease:
        lease.observe(Usage(total_tokens=OBSERVED))
        return


def by_exception(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave by an exception, which comes through."""
    error = AwayError()
    with pytest.raises(AwayError) as caught, budget.lease(ESTIMATE) as lease:  # noqa: PT012 - the block is what is left
        lease.observe(Usage(total_tokens=OBSERVED))
        raise error
    assert error is caught.value


def by_interrupt(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave by what is no Exception."""
    with pytest.raises(KeyboardInterrupt), budget.lease(ESTIMATE) as lease:  # noqa: PT012 - the block is what is left
        lease.observe(Usage(total_tokens=OBSERVED))
        raise KeyboardInterrupt


def by_generator_close(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave because nobody asks for the next chunk."""

    def chunks() -> Iterator[int]:
        with budget.lease(ESTIMATE) as lease:
            lease.observe(Usage(total_tokens=OBSERVED))
            yield 1
            yield 2

    stream = chunks()
    assert 1 == next(stream)
    stream.close()


@pytest.mark.parametrize("policy", SettlementPolicy)
@pytest.mark.parametrize("leave", [by_return, by_exception, by_interrupt, by_generator_close])
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_a_block_that_is_left_follows_the_policy(
    request: pytest.FixtureRequest,
    fresh_name: str,
    kind: str,
    leave: Callable[[Any], None],
    policy: SettlementPolicy,
) -> None:
    """The larger of both, what was observed, or nothing more; nothing is held any longer."""
    options = SharedPoolBudgetOptions(capacity_tokens=100, settlement=policy)
    budget: Any = SharedPoolBudgetManager(options)
    if kind != "memory":
        budget = request.getfixturevalue(f"shared_{kind}").pool(fresh_name, options)
    leave(budget)
    assert LEFT[policy] == budget.remaining(EXTENSIONS).tokens
    if kind != "memory":
        assert 0 == budget.status().balance.reserved.requests


async def task_returns(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave by returning from the coroutine."""
    async with budget.lease(ESTIMATE) as lease:
        await lease.observe(Usage(total_tokens=OBSERVED))
        return


async def task_fails(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave by an exception, which comes through."""
    with pytest.raises(AwayError):  # noqa: PT012 - the block is what is left
        async with budget.lease(ESTIMATE) as lease:
            await lease.observe(Usage(total_tokens=OBSERVED))
            raise AwayError


async def task_is_cancelled(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave by a cancellation, which goes on once the lease is ended."""
    inside = asyncio.Event()

    async def work() -> None:
        async with budget.lease(ESTIMATE) as lease:
            await lease.observe(Usage(total_tokens=OBSERVED))
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def stream_is_closed(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Leave because nobody asks for the next chunk."""

    async def chunks() -> AsyncIterator[int]:
        async with budget.lease(ESTIMATE) as lease:
            await lease.observe(Usage(total_tokens=OBSERVED))
            yield 1
            yield 2

    stream: Any = chunks()
    assert 1 == await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("policy", SettlementPolicy)
@pytest.mark.parametrize("leave", [task_returns, task_fails, task_is_cancelled, stream_is_closed])
def test_an_async_block_that_is_left_follows_the_policy(
    shared_book: Ledger,
    fresh_name: str,
    leave: Callable[[Any], Any],
    policy: SettlementPolicy,
) -> None:
    """An `async with` block has settled or released its lease by the time it is left."""

    async def main() -> int:
        options = SharedPoolBudgetOptions(capacity_tokens=100, settlement=policy)
        budget = await AsyncLedger(shared_book).pool(fresh_name, options)
        await leave(budget)
        assert 0 == (await budget.status()).balance.reserved.requests
        return (await budget.remaining(EXTENSIONS)).tokens

    assert LEFT[policy] == asyncio.run(main())


@pytest.mark.parametrize("error", [None, ConnectionRefusedError], ids=["cancelled", "unbilled"])
@pytest.mark.parametrize("steps", range(6))
def test_a_block_is_left_while_its_loop_is_shut_down(
    shared_book: Ledger, fresh_name: str, steps: int, error: type[Exception] | None
) -> None:
    """`asyncio.run` cancels every task, also the end of a block that a cancelled task leaves.

    If the error that the block was left by says that nothing was used, nothing is charged.
    """

    async def main() -> None:
        options = SharedPoolBudgetOptions(capacity_tokens=100)
        budget = await AsyncLedger(shared_book).pool(fresh_name, options)
        entered = asyncio.Event()

        async def hold() -> None:
            async with budget.lease(ESTIMATE):
                entered.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if error is not None:
                        raise error from None
                    raise

        task = asyncio.ensure_future(hold())
        await entered.wait()
        task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)

    asyncio.run(main())
    budget = shared_book.pool(fresh_name)
    until(lambda: budget.status().balance.reserved.requests == 0)
    *_, last = shared_book.entries(fresh_name)
    if error is not None:
        assert "release" == last.kind
    else:
        assert last.usage is not None
        assert ("settlement", ESTIMATE.total_tokens) == (last.kind, last.usage.total_tokens)


def test_a_record_or_a_release_ends_it(shared_book: Ledger, fresh_name: str) -> None:
    """Leaving the block then adds nothing, also where the record was over its limit."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(capacity_tokens=100))
    with budget.lease(ESTIMATE) as lease:
        lease.record(Usage(total_tokens=10))
    with budget.lease(ESTIMATE) as lease:
        lease.release()
    limit = RequestBudget.from_tokens(40)
    with (
        pytest.raises(RequestBudgetExceededError),
        budget.lease(ESTIMATE, request_budget=limit) as lease,
    ):
        lease.record(Usage(total_tokens=50))
    assert (40, 7) == (budget.remaining(EXTENSIONS).tokens, budget.status().seq)


def test_a_store_that_fails_does_not_hide_why_the_block_was_left(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    """The exception comes through, with a note of the lease that could not be ended."""
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        other = sqlite3.connect(path, isolation_level=None)
        with pytest.raises(AwayError) as caught, ExitStack() as hurry, budget.lease(ESTIMATE):  # noqa: PT012 - the block is what is left
            other.execute("BEGIN IMMEDIATE")
            hurry.enter_context(impatient(book, 0.2))
            raise AwayError
        other.close()
        assert "could not be ended" in caught.value.__notes__[0]
        assert [2] == [one.lease.id for one in book.open_leases("pool")]


@pytest.mark.parametrize(
    ("policy", "observed", "provenance"),
    [
        (SettlementPolicy.ESTIMATED, 0, Provenance.ESTIMATED),
        (SettlementPolicy.ESTIMATED, 15, Provenance.ESTIMATED),
        (SettlementPolicy.ESTIMATED, 50, Provenance.REPORTED),
        (SettlementPolicy.OBSERVED, 0, Provenance.UNKNOWN),
        (SettlementPolicy.OBSERVED, 15, Provenance.REPORTED),
        (SettlementPolicy.RELEASE, 15, None),
    ],
)
def test_what_nobody_recorded_says_where_its_figure_is_from(
    shared_book: Ledger,
    fresh_name: str,
    policy: SettlementPolicy,
    observed: int,
    provenance: Provenance | None,
) -> None:
    """A figure that was made up is estimated; nothing reported at all is unknown."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(settlement=policy))
    with budget.lease(ESTIMATE) as lease:
        if observed:
            lease.observe(Usage(total_tokens=observed))
    *_, last = shared_book.entries(fresh_name)
    assert provenance == last.provenance


def test_zero_reported_is_not_nothing_reported(shared_book: Ledger, fresh_name: str) -> None:
    """Both commit nothing, and the books tell them apart."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(settlement="observed"))
    with budget.lease(ESTIMATE) as lease:
        lease.record(Usage.zero())
    with budget.lease(ESTIMATE):
        pass
    with budget.lease(ESTIMATE) as lease:
        lease.record(Usage.zero(), report=UsageReport(provenance=Provenance.UNKNOWN))
    found = list(shared_book.entries(fresh_name, kind=EntryKind.SETTLEMENT))
    assert ["reported", "unknown", "unknown"] == [one.provenance for one in found]
    assert [Usage.zero()] * 3 == [one.usage for one in found]
