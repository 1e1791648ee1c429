"""The contract of a budget manager as tests: for threads, and for asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any, cast

import pytest

from ledger import AsyncBudgetManager, BudgetManager, SharedPoolBudgetOptions
from ledger.testing.awaited import Awaited
from ledger.testing.calls import Make
from ledger.testing.concurrency import ConcurrencyContract
from ledger.testing.reservations import ReservationContract
from ledger.testing.settlements import SettlementContract


class ManagerContract(ReservationContract, SettlementContract, ConcurrencyContract):
    """What every `BudgetManager` must do.

    A subclass, named `Test...`, has a fixture `make_manager`: a function that takes
    `SharedPoolBudgetOptions` and returns a manager of a new pool. Of the options the tests set
    the capacities and stop thresholds of tokens and cost, and no others.
    """

    @pytest.fixture
    def make(self, make_manager: Make) -> Make:
        """Return a function that makes the manager under test."""
        return make_manager

    def test_it_has_the_calls_of_the_contract(self, make_manager: Make) -> None:
        """It is a `BudgetManager`."""
        assert isinstance(make_manager(SharedPoolBudgetOptions()), BudgetManager)


class AsyncManagerContract(ReservationContract, SettlementContract, ConcurrencyContract):
    """The same contract, for every `AsyncBudgetManager`.

    The function that the fixture `make_manager` returns may be a coroutine function. All calls run
    as tasks of one event loop, in a thread of its own; where tests call at once, so do the tasks.
    """

    @pytest.fixture
    def run(self) -> Iterator[Callable[..., Any]]:
        """Return a function that runs a coroutine on the loop of the test, from any thread."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            thread = Thread(target=loop.run_forever, name="loop of the test")
            thread.start()
            yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    @pytest.fixture
    def make_awaited(
        self, make_manager: Callable[..., Any], run: Callable[..., Any]
    ) -> Callable[[SharedPoolBudgetOptions], AsyncBudgetManager]:
        """Return a function that makes the manager under test, on the loop of the test."""

        async def made(options: SharedPoolBudgetOptions) -> Any:  # noqa: ANN401 - under test
            found = make_manager(options)
            return await found if inspect.isawaitable(found) else found

        return lambda options: cast("AsyncBudgetManager", run(made(options)))

    @pytest.fixture
    def make(
        self, make_awaited: Callable[..., AsyncBudgetManager], run: Callable[..., Any]
    ) -> Make:
        """Return a function that makes the manager under test, to be called from threads."""
        return lambda options: cast("BudgetManager", Awaited(make_awaited(options), run))

    def test_it_has_the_calls_of_the_contract(
        self, make_awaited: Callable[..., AsyncBudgetManager]
    ) -> None:
        """It is an `AsyncBudgetManager`, and its calls are coroutine functions."""
        budget = make_awaited(SharedPoolBudgetOptions())
        assert isinstance(budget, AsyncBudgetManager)
        for name in ("reserve", "record_used", "remaining"):
            assert inspect.iscoroutinefunction(getattr(budget, name)), name
