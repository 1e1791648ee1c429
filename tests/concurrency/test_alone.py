"""A transaction that others send back again and again locks the whole store, and gets through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from ledger import ContentionError, Ledger, SharedPoolBudgetOptions
from ledger.store.dialects.locks import POOL_LOCKS, lock_table
from ledger.store.dialects.postgresql import PostgreSQLDialect
from ledger.store.writing import _TRIES_BESIDE_OTHERS
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import impatient


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[int] | None]:
    """Send back what locks its own pools alone; these of each try."""
    tried: list[Sequence[int] | None] = []
    begin = PostgreSQLDialect.begin

    def sent_back(self: PostgreSQLDialect, connection: Any, **given: Any) -> None:  # noqa: ANN401 - as it is
        tried.append(given["pool_ids"])
        if given["pool_ids"] is not None:
            raise psycopg.errors.SerializationFailure
        begin(self, connection, **given)

    monkeypatch.setattr(PostgreSQLDialect, "begin", sent_back)
    return tried


@pytest.fixture
def url(new_store: Callable[..., str]) -> str:
    """A store with a pool."""
    made = new_store("postgresql")
    with Ledger.open(made) as book:
        book.pool("pool", SharedPoolBudgetOptions())
    return made


def test_who_is_sent_back_often_locks_the_whole_store(
    url: str, tried: list[Sequence[int] | None]
) -> None:
    """Not before: others would wait for a transaction that does not concern them."""
    with Ledger.open(url) as book:
        book.pool("pool").reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert [[1]] * _TRIES_BESIDE_OTHERS + [None] == tried


def test_the_holder_of_any_lock_is_named(url: str, tried: list[Sequence[int] | None]) -> None:
    """Another pool's lock is what it waits for then."""
    with Ledger.open(url) as book, psycopg.connect(url, application_name="other") as other:
        budget = book.pool("pool")
        other.execute(f"LOCK TABLE {lock_table(POOL_LOCKS - 1)} IN EXCLUSIVE MODE")
        with impatient(book, 5), pytest.raises(ContentionError) as contention:
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert tried[-1] is None
    assert "'other'" in str(contention.value.holder)
