"""A server on the loopback, and pools that pay for calls to it."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ledger import Ledger, LedgerBudgetManager, SharedPoolBudgetOptions, usd
from ledger.transport import budgeted
from tests.shared import numbers
from tests.transport import wire

if TYPE_CHECKING:
    import openai


@pytest.fixture(scope="session")
def the_server() -> Iterator[wire.Server]:
    """Run one server for all tests."""
    with wire.served() as server:
        yield server


@pytest.fixture
def server(the_server: wire.Server) -> wire.Server:
    """Return a server that nobody has called yet."""
    the_server.answers()
    return the_server


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Return a store for all tests: each has a pool of its own in it."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('transport')}/ledger.db") as book:
        yield book


@pytest.fixture
def new_pool(book: Ledger) -> Callable[..., LedgerBudgetManager]:
    """Return a function that makes a pool; it has a dollar unless it is told otherwise."""

    def make(**policy: object) -> LedgerBudgetManager:
        options = {"capacity_cost_micros_usd": usd("1"), **policy}
        return book.pool(f"pool {next(numbers)}", SharedPoolBudgetOptions(**options))

    return make


@pytest.fixture
def of_openai(server: wire.Server) -> Iterator[Callable[..., openai.OpenAI]]:
    """Return a function that makes clients of openai, which repeat requests without a pause."""
    import openai

    with ExitStack() as stack:

        def make(pool: Any, **options: Any) -> openai.OpenAI:
            client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1")
            client._calculate_retry_timeout = lambda *_: 0.0
            return budgeted(stack.enter_context(client), pool=pool, **options)

        yield make


@pytest.fixture
def pool(new_pool: Callable[..., LedgerBudgetManager]) -> LedgerBudgetManager:
    """Return a new pool."""
    return new_pool()


@pytest.fixture
def libraries(fetched: Path) -> Iterator[None]:
    """Let libraries be imported that were fetched, behind those that are installed."""
    sys.path.append(str(fetched))
    yield
    sys.path.remove(str(fetched))
    with warnings.catch_warnings():  # frameworks keep connections of loops that have ended
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
