"""A transaction that others send back again and again locks the whole store, and gets through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from ledger import Ledger, SharedPoolBudgetOptions
from ledger.store.dialects.postgresql import PostgreSQLDialect
from ledger.store.writing import _TRIES_BESIDE_OTHERS
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens


def test_who_is_sent_back_often_locks_the_whole_store(
    new_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: others would wait for a transaction that does not concern them."""
    tried: list[bool] = []
    begin = PostgreSQLDialect.begin

    def sent_back(self: PostgreSQLDialect, connection: Any, **given: Any) -> None:  # noqa: ANN401 - as it is
        tried.append(given["alone"])
        begin(self, connection, **given)
        if not given["alone"]:
            raise psycopg.errors.SerializationFailure

    with Ledger.open(new_store("postgresql")) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        monkeypatch.setattr(PostgreSQLDialect, "begin", sent_back)
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert [False] * _TRIES_BESIDE_OTHERS + [True] == tried
