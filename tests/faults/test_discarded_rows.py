"""A trigger that drops rows without an error: the call fails, and nothing is committed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from ledger import (
    Attribution,
    EntryKind,
    Ledger,
    RequestExtensions,
    RowsDiscardedError,
    Usage,
    UsageEstimate,
)
from ledger.store.dialects import dialect_for
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock
from tests.leases import OF_THOUSAND


def discard(url: str, table: str, condition: str) -> None:
    """Let the database drop rows of a table that fulfil a condition on NEW."""
    before = f"CREATE TRIGGER swallow BEFORE INSERT ON {table}"
    if url.startswith("postgresql"):
        body = f"BEGIN IF {condition} THEN RETURN NULL; END IF; RETURN NEW; END"
        statements = [
            f"CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $${body}$$",
            f"{before} FOR EACH ROW EXECUTE FUNCTION swallow()",
        ]
    else:
        statements = [f"{before} WHEN {condition} BEGIN SELECT RAISE(IGNORE); END"]
    engine = create_engine(dialect_for(url, timeout_s=5).url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_usage_that_is_dropped_is_an_error(book: Ledger, store_url: str) -> None:
    """The caller is told, the lease is still open, and what is read is what was committed."""
    budget = book.pool("pool", OF_THOUSAND)
    lease = budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=10), UNLIMITED)
    discard(store_url, "entries", "NEW.kind = 'settlement'")
    for _ in range(2):
        with pytest.raises(RowsDiscardedError, match="Nothing was committed"):
            budget.record_used(lease, Usage(total_tokens=7))
    assert [lease.id] == [one.lease.id for one in book.open_leases("pool")]
    assert (2, True) == (book.size("pool"), book.verify("pool")[0].ok)
    budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=1), UNLIMITED)
    assert 3 == book.size("pool")


def test_one_row_of_many_that_is_dropped_takes_the_others_with_it(
    book: Ledger, store_url: str
) -> None:
    """Also where there are so many that PostgreSQL gets them by COPY: an entry with 10 mirrors."""
    book.pool("pool 0", OF_THOUSAND)
    for number in range(1, 11):
        budget = book.pool(f"pool {number}", OF_THOUSAND, parent=f"pool {number - 1}")
    discard(store_url, "entries", "NEW.kind = 'reservation' AND NEW.pool_id = 5")
    with pytest.raises(RowsDiscardedError):
        budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=1), UNLIMITED)
    assert [1] * 11 == [book.size(f"pool {number}") for number in range(11)]
    assert all(found.ok for found in book.verify())


@pytest.mark.parametrize("dropped", [1, 40, 85, None])
def test_many_rows_of_a_transaction_are_written_in_order_or_not_at_all(
    store_url: str, dropped: int | None
) -> None:
    """They go in statements of 64 rows, 16, 4 and 1 on SQLite: 85 leases expire at once."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("pool", replace(OF_THOUSAND, lease_ttl=timedelta(minutes=1)))
        for _ in range(85):
            budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=1), UNLIMITED)
        clock.minutes(2)
        if dropped is None:
            assert 85 == book.expire_due("pool")
            written = [one.seq for one in book.entries("pool", kind=EntryKind.EXPIRY)]
            assert [*range(87, 172)] == written
        else:
            discard(store_url, "entries", f"NEW.kind = 'expiry' AND NEW.seq = {86 + dropped}")
            with pytest.raises(RowsDiscardedError):
                book.expire_due("pool")
            assert 86 == book.size("pool")
        assert all(found.ok for found in book.verify())


def test_a_dropped_attribution_is_an_error(book: Ledger, store_url: str) -> None:
    """An entry does not stand without its attribution."""
    budget = book.pool("pool", OF_THOUSAND)
    discard(store_url, "attributions", "1 = 1")
    named = RequestExtensions(Attribution(run_id="r"))
    with pytest.raises(RowsDiscardedError):
        budget.reserve(named, UsageEstimate(total_tokens=1), UNLIMITED)
    assert (1, True) == (book.size(), book.verify("pool")[0].ok)


def test_a_dropped_pool_is_an_error(book: Ledger, store_url: str) -> None:
    """An opening does not stand without its pool."""
    discard(store_url, "pools", "1 = 1")
    with pytest.raises(RowsDiscardedError):
        book.pool("pool", OF_THOUSAND)
    assert (0, []) == (book.size(), book.verify())
