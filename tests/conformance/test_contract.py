"""Every manager keeps the contract: in memory, on SQLite and PostgreSQL, for threads and tasks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import pytest

from ledger import (
    AsyncLedger,
    AsyncLedgerBudgetManager,
    Ledger,
    LedgerBudgetManager,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
)
from ledger.testing import AsyncManagerContract, ManagerContract, ReleaseContract


class TestMemory(ManagerContract, ReleaseContract):
    """The manager without a store."""

    @pytest.fixture
    def make_manager(self) -> type[SharedPoolBudgetManager]:
        """Return what makes a manager."""
        return SharedPoolBudgetManager


class TestStores(ManagerContract, ReleaseContract):
    """Pools of a store, called from threads."""

    @pytest.fixture
    def make_manager(
        self, shared_book: Ledger
    ) -> Callable[[SharedPoolBudgetOptions], LedgerBudgetManager]:
        """Return a function that makes a pool, on each database in turn."""
        return lambda options: shared_book.pool(f"pool {uuid4().hex}", options)


class TestStoresInAsyncio(AsyncManagerContract, ReleaseContract):
    """Pools of a store, called from tasks."""

    @pytest.fixture
    def make_manager(
        self, shared_book: Ledger
    ) -> Callable[[SharedPoolBudgetOptions], Coroutine[Any, Any, AsyncLedgerBudgetManager]]:
        """Return a coroutine function that makes a pool, on each database in turn."""
        book = AsyncLedger(shared_book)
        return lambda options: book.pool(f"pool {uuid4().hex}", options)
