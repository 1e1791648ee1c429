"""A session of PostgreSQL: what it keeps back, how it spells values, how long it waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from ledger.core.checks import I64_MAX
from ledger.store.dialects.session import Session

if TYPE_CHECKING:
    from tests.conftest import Wiretap

TEXTS = [
    "",
    "it's",
    "'; DROP TABLE entries; --",
    '"',
    "\\",
    "\\' OR 1 = 1 --",
    "\\\\x00",
    "%s %(pool_id)s %% %",
    "$1 $$ $tag$",
    "line\nbreak\ttab\rreturn",
    "caf\u00e9 \u65e5\u672c \U0001f4b0 \u202e",
]


@pytest.fixture
def session(server_url: str, wiretap: Wiretap) -> Iterator[Session]:
    """Return a session as the dialect makes it, read along."""
    with Session.connect(server_url, autocommit=True, client_encoding="utf8") as made:
        wiretap.tap(made)
        yield made


def status(session: Session) -> TransactionStatus:
    """Return whether a transaction is open."""
    return TransactionStatus(session.pgconn.transaction_status)


def test_what_is_kept_back_travels_with_the_next_statement(
    session: Session, wiretap: Wiretap
) -> None:
    """One message for all of them, in order; the cursor stands at the last one's result."""
    session.later("BEGIN", "SET LOCAL work_mem = '1MB'")
    session.later("SELECT 1 AS nobody_asks")
    assert (TransactionStatus.IDLE, []) == (status(session), wiretap.sent())
    cursor = session.execute("SELECT 7 AS seven, current_setting('work_mem')")
    assert (["seven", "current_setting"], [(7, "1MB")]) == (
        [column.name for column in cursor.description or ()],
        cursor.fetchall(),
    )
    assert ["BEGIN"] == wiretap.sent()
    assert TransactionStatus.INTRANS == status(session)
    session.later("SELECT 2")
    assert "COMMIT" == session.execute("COMMIT").statusmessage
    assert [(3,)] == session.execute("SELECT 3").fetchall()
    assert ["SELECT", "SELECT"] == wiretap.sent()


def test_a_statement_with_parameters_goes_behind_what_was_kept_back(
    session: Session, wiretap: Wiretap
) -> None:
    """Parameters need a message of their own kind; the order holds, and nothing is sent twice."""
    session.later("BEGIN")
    assert [(5,)] == session.execute("SELECT %s::int", [5]).fetchall()
    assert TransactionStatus.INTRANS == status(session)
    assert ["BEGIN", "SELECT"] == wiretap.sent()
    session.rollback()


def test_a_server_s_cursor_and_a_copy_find_the_transaction_open(session: Session) -> None:
    """What does not pass through the session's own cursor finds sent what was kept back."""
    session.later("BEGIN", "CREATE TEMPORARY TABLE copied (number int) ON COMMIT DROP")
    with session.cursor("named") as cursor:
        assert [(1,), (2,)] == cursor.execute("SELECT generate_series(1, 2)").fetchall()
    session.later("INSERT INTO copied VALUES (8)")
    session.flush()
    with session.cursor().copy("COPY copied FROM STDIN") as copy:
        copy.write_row([9])
    assert [(8,), (9,)] == session.execute("SELECT * FROM copied").fetchall()
    session.rollback()


def test_flushing_nothing_sends_nothing(session: Session, wiretap: Wiretap) -> None:
    """A flush without need costs no message; what is taken back is never sent."""
    session.flush()
    session.later("SELECT 1 / 0")
    assert ["SELECT 1 / 0"] == session.unsent()
    session.flush()
    assert [] == wiretap.sent()
    assert [(1,)] == session.execute("SELECT 1").fetchall()


def test_an_error_of_what_was_kept_back_is_the_next_statement_s(session: Session) -> None:
    """It surfaces there, undoes the transaction, and nothing of the message is sent again."""
    session.execute("CREATE TEMPORARY TABLE written (number int)")
    session.execute("BEGIN")
    session.later("INSERT INTO written VALUES (1)", "INSERT INTO written VALUES (1 / 0)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        session.execute("COMMIT")
    assert (TransactionStatus.INERROR, []) == (status(session), session.unsent())
    session.rollback()
    assert [(0,)] == session.execute("SELECT count(*) FROM written").fetchall()


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_a_literal_is_the_value(session: Session, conforming: str) -> None:
    """Quotes, backslashes, percent signs, any script, any byte, the widest integers: all come back.

    So they do whatever standard_conforming_strings says.
    """
    session.execute(f"SET standard_conforming_strings = {conforming}")
    session.execute("SET backslash_quote = off")
    everything = bytes(range(256))
    values = {
        "TEXT": [*TEXTS, None],
        "BIGINT": [0, 1, -1, I64_MAX, -I64_MAX - 1, True, None],
        "BYTEA": [b"", b"\\", b"'\\x", everything, None],
    }
    for kind, given in values.items():
        columns = ", ".join(f"{session.literal(value)}::{kind}" for value in given)
        assert [tuple(given)] == session.execute(f"SELECT {columns}").fetchall()
    session.execute("CREATE TEMPORARY TABLE written (t text, b bytea, i bigint)")
    rows = [(text, everything, -I64_MAX - 1) for text in TEXTS]
    with session.cursor().copy("COPY written FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    assert rows == session.execute("SELECT * FROM written").fetchall()
    for text in TEXTS:
        assert [(everything,)] == session.execute("SELECT %s::bytea", [everything]).fetchall()
        assert [(text,)] == session.execute("SELECT %s::text", [text]).fetchall()


def test_a_session_waits_no_longer_than_told(session: Session) -> None:
    """When the time is over, the session asks the server to cancel, and can go on."""
    session.answers_until_s = time.monotonic() + 0.2
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
        session.execute("SELECT pg_sleep(60)")
    assert 0.2 < time.monotonic() - began < 20
    session.answers_until_s = None
    session.rollback()
    assert [(1,)] == session.execute("SELECT 1").fetchall()
