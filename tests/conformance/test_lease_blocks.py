"""One object of `lease(...)` is good for one block, and reserves when that is entered."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    InvalidInputError,
    Ledger,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.testing.calls import EXTENSIONS
from tests.leases import TEN

pytestmark = pytest.mark.usefixtures("few_objects")

USED = Usage(total_tokens=3)
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, settlement=SettlementPolicy.RELEASE)
ADVICE = r"nothing is reserved; write '(async )?with budget\.lease\(\.\.\.\) as lease:'"
ONCE = "one object is good for one block"


@pytest.fixture(
    params=["memory", "sqlite", "postgresql", "router on sqlite", "router on postgresql"]
)
def budget(request: pytest.FixtureRequest, fresh_name: str) -> Any:  # noqa: ANN401 - any manager
    """Return a manager of each kind in turn, for threads."""
    router, _, kind = request.param.rpartition(" on ")
    if kind == "memory":
        return SharedPoolBudgetManager(OPTIONS)
    book: Ledger = request.getfixturevalue(f"shared_{kind}")
    pool = book.pool(fresh_name, OPTIONS)
    return book.router(lambda _extensions: fresh_name) if router else pool


@pytest.fixture(params=["sqlite", "postgresql", "router on sqlite", "router on postgresql"])
def in_task(request: pytest.FixtureRequest, fresh_name: str) -> Callable[..., None]:
    """Return a function that has a task use a manager of each kind in turn."""
    router, _, kind = request.param.rpartition(" on ")
    book: Ledger = request.getfixturevalue(f"shared_{kind}")
    book.pool(fresh_name, OPTIONS)

    def run(use: Callable[[Any], Awaitable[None]]) -> None:
        async def main() -> None:
            store = AsyncLedger(book)
            if router:
                await use(store.router(lambda _extensions: fresh_name))
            else:
                await use(await store.pool(fresh_name))

        asyncio.run(main())

    return run


def told_when_dropped(objects: list[Any]) -> str:
    """Return the one warning that an object gives when a list that holds it is emptied."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        objects.clear()
        gc.collect()
    (one,) = told
    assert one.category is RuntimeWarning
    return str(one.message)


def test_a_block_that_is_never_entered_warns(budget: Any) -> None:  # noqa: ANN401 - any manager
    """As a coroutine that is never awaited does: the program believes that it holds something."""
    assert re.search(ADVICE, told_when_dropped([budget.lease(TEN)]))
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_a_block_that_is_entered_does_not_warn(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Nor does one that was denied on entry, or that could not be made at all."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with budget.lease(TEN) as lease:
            lease.record(USED)
        with (
            pytest.raises(ThresholdExceededError),
            budget.lease(UsageEstimate(total_tokens=101)),
        ):
            pass
        with pytest.raises(InvalidInputError):
            budget.lease(TEN, extensions=7)
        del lease
        gc.collect()
    assert [] == [str(one.message) for one in told]


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "its id": lambda _budget, block: block.id,
    "its lease": lambda _budget, block: block.lease,
    "a record of it": lambda _budget, block: block.record(USED),
    "an observation of it": lambda _budget, block: block.observe(USED),
    "its release": lambda _budget, block: block.release(),
    "a record under the budget": lambda budget, block: budget.record_used(block, USED),
    "an observation under the budget": lambda budget, block: budget.observe(block, USED),
    "its release by the budget": lambda budget, block: budget.release(block),
    "its end by the budget": lambda budget, block: budget.abandon(block),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_block_that_is_not_entered_is_no_lease(budget: Any, call: str) -> None:  # noqa: ANN401 - any manager
    """Used as if it were one, it says what to write instead."""
    blocks = [budget.lease(TEN)]
    with pytest.raises(InvalidInputError, match=ADVICE) as refused:
        CALLS[call](budget, blocks[0])
    assert "or call reserve()" in str(refused.value)
    del refused
    assert re.search(ADVICE, told_when_dropped(blocks))
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_a_budget_takes_the_lease_of_a_block_and_not_the_block(budget: Any) -> None:  # noqa: ANN401 - any manager
    """The error says how to get at it, and with it the call goes through."""
    with budget.lease(TEN) as lease:
        with pytest.raises(InvalidInputError, match=r"LeaseBlock.*pass its \.lease"):
            budget.record_used(lease, USED)
        budget.record_used(lease.lease, USED)
    assert 97 == budget.remaining(EXTENSIONS).tokens


def test_a_block_is_entered_once_one_after_the_other(budget: Any) -> None:  # noqa: ANN401 - any manager
    """The second time nothing is reserved, so that nothing can be left open."""
    block = budget.lease(TEN)
    with block:
        pass
    with pytest.raises(InvalidInputError, match=ONCE), block:
        pytest.fail("entered again")
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_a_block_is_entered_once_one_inside_the_other(budget: Any) -> None:  # noqa: ANN401 - any manager
    """The outer block ends the one lease there is, as if anything else had failed in it."""
    block = budget.lease(TEN)
    with pytest.raises(InvalidInputError, match=ONCE), block:  # noqa: PT012 - the block is what is left
        assert 90 == budget.remaining(EXTENSIONS).tokens
        with block:
            pytest.fail("entered again")
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_a_block_is_entered_by_one_of_many_threads(budget: Any) -> None:  # noqa: ANN401 - any manager
    """The others are refused, whoever comes first."""
    block, gate, refused = budget.lease(TEN), threading.Barrier(8), threading.Semaphore(0)

    def enter() -> bool:
        gate.wait()
        try:
            with block as lease:
                for _ in range(7):
                    assert refused.acquire(timeout=60)
                lease.record(USED)
        except InvalidInputError as error:
            refused.release()
            return ONCE not in str(error)
        return True

    with ThreadPoolExecutor(8) as threads:
        entered = [each.result() for each in [threads.submit(enter) for _ in range(8)]]
    assert 1 == entered.count(True)
    assert 97 == budget.remaining(EXTENSIONS).tokens


def test_a_block_that_was_denied_is_not_entered_again(budget: Any) -> None:  # noqa: ANN401 - any manager
    """One object, one entry, whatever came of it."""
    block = budget.lease(UsageEstimate(total_tokens=101))
    with pytest.raises(ThresholdExceededError), block:
        pytest.fail("entered")
    with pytest.raises(InvalidInputError, match=ONCE), block:
        pytest.fail("entered again")


def test_after_the_block_its_lease_is_known_and_ended(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Its id is there for a log; a call is answered as for any lease that has ended."""
    with budget.lease(TEN) as lease:
        inside = lease.id, lease.lease
    assert inside == (lease.id, lease.lease)
    for call in (lease.record, lease.observe):
        with pytest.raises(UnknownLeaseError) as unknown:
            call(USED)
        assert lease.id == unknown.value.lease_id
    with pytest.raises(UnknownLeaseError):
        lease.release()
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_an_async_block_that_is_never_entered_warns(in_task: Callable[..., None]) -> None:
    """And says how tasks enter one."""

    async def use(budget: Any) -> None:  # noqa: ANN401 - any manager
        assert "'async with budget" in told_when_dropped([budget.lease(TEN)])
        assert 100 == (await budget.remaining(EXTENSIONS)).tokens

    in_task(use)


def test_an_async_block_is_not_awaited(in_task: Callable[..., None]) -> None:
    """A lease by its id is, so it is easily mistaken; the error says what to write."""

    async def use(budget: Any) -> None:  # noqa: ANN401 - any manager
        with pytest.raises(InvalidInputError, match="'async with budget"):
            await budget.lease(TEN)
        blocks = [budget.lease(TEN)]
        with pytest.raises(InvalidInputError, match=ADVICE):
            await budget.record_used(blocks[0], USED)
        with pytest.raises(InvalidInputError, match=ADVICE):
            await blocks[0].record(USED)
        assert "'async with budget" in told_when_dropped(blocks)
        assert 100 == (await budget.remaining(EXTENSIONS)).tokens

    in_task(use)


def test_an_async_block_is_entered_once(in_task: Callable[..., None]) -> None:
    """One after the other, one inside the other, and from several tasks at once."""

    async def enter(block: Any) -> bool:  # noqa: ANN401 - of any manager
        try:
            async with block:
                await asyncio.sleep(0)
        except InvalidInputError as error:
            return ONCE not in str(error)
        return True

    async def use(budget: Any) -> None:  # noqa: ANN401 - any manager
        block = budget.lease(TEN)
        entered = await asyncio.gather(*(enter(block) for _ in range(8)))
        assert [True] + [False] * 7 == entered
        assert not await enter(block)
        nested = budget.lease(TEN)
        with pytest.raises(InvalidInputError, match=ONCE):
            async with nested, nested:
                pytest.fail("entered again")
        assert 100 == (await budget.remaining(EXTENSIONS)).tokens

    in_task(use)


def test_after_an_async_block_its_lease_is_known_and_ended(in_task: Callable[..., None]) -> None:
    """After the block its number can be read, and the lease takes no further usage."""

    async def use(budget: Any) -> None:  # noqa: ANN401 - any manager
        async with budget.lease(TEN) as lease:
            inside = lease.id
        assert inside == lease.id
        with pytest.raises(UnknownLeaseError):
            await lease.record(USED)
        assert 100 == (await budget.remaining(EXTENSIONS)).tokens

    in_task(use)


def test_a_store_is_opened_by_await_or_by_async_with(store_url: str) -> None:
    """Both give the store; the block closes it, and a task may do the opening."""

    async def main() -> None:
        async with AsyncLedger.open(store_url) as book:
            assert isinstance(book, AsyncLedger)
            budget = await book.pool("pool", OPTIONS)
            async with budget.lease(TEN) as lease:
                await lease.record(USED)
        with pytest.raises(Exception, match="closed"):
            await budget.remaining(EXTENSIONS)
        again = await AsyncLedger.open(store_url, create=False)
        assert 97 == (await (await again.pool("pool")).remaining(EXTENSIONS)).tokens
        await again.close()
        async with await AsyncLedger.open(store_url) as book:
            await book.pool("pool")
        async with await asyncio.create_task(AsyncLedger.open(store_url)) as book:
            await book.pool("pool")
        with pytest.raises(InvalidInputError, match="timeout_s"):
            async with AsyncLedger.open(store_url, timeout_s=0):
                pytest.fail("opened")

    asyncio.run(main())


def test_a_store_that_is_never_opened_warns(store_url: str) -> None:
    """Python says of it, as of any coroutine, that it was never awaited."""

    async def main() -> None:
        assert "never awaited" in told_when_dropped([AsyncLedger.open(store_url)])

    asyncio.run(main())
