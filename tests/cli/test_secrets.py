"""No password of an address is ever shown, wherever in the address it stands."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from ledger import (
    InvalidUrlError,
    Ledger,
    LedgerError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownPoolError,
)
from ledger.store.dialects.addresses import shown_address, without_secrets
from tests.fixtures import Run

PLAIN = "hunter2/+ü"
QUOTED = "hunter2%2F%2B%C3%BC"
WORDS = ("hunter2", QUOTED)


def unseen(*texts: object) -> None:
    """Fail if a text has the password, whole or in part."""
    for text in texts:
        assert not any(word in str(text) for word in WORDS), text


@pytest.fixture(params=["in the user part", "as a parameter", "in other parameters"])
def secret_url(request: pytest.FixtureRequest, new_store: Callable[..., str]) -> str:
    """Return the address of a PostgreSQL store that has the password in it."""
    url = make_url(new_store("postgresql"))
    if request.param == "in the user part":
        url = url.set(password=PLAIN)
    elif request.param == "as a parameter":
        url = url.update_query_dict({"password": PLAIN})
    else:
        url = url.update_query_dict({"sslpassword": PLAIN, "password": f"{PLAIN}2"})
    return url.render_as_string(hide_password=False)


def test_an_open_store_shows_no_password(secret_url: str) -> None:
    """Neither its address nor the text of anything that belongs to it has one."""
    with Ledger.open(secret_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        engine = book._database.engine
        unseen(book.url, repr(book), repr(budget), repr(book._database), repr(engine), engine.url)
        assert "***" in book.url
        with pytest.raises(UnknownPoolError) as unknown:
            book.pool("other")
        unseen(unknown.value)
    with pytest.raises(LedgerError) as closed:
        budget.remaining(RequestExtensions())
    unseen(closed.value, repr(closed.value), pickle.dumps(closed.value))


def test_commands_and_pages_show_no_password(
    secret_url: str, ledger: Run, folder: Path, traffic: Callable[..., Path]
) -> None:
    """What is printed, and what is made to be shared."""
    at = ("--url", secret_url)
    done = [
        ledger("simulate", traffic(2), *at),
        ledger("db", "check", *at),
        ledger("db", "current", *at),
        ledger("db", "upgrade", *at),
        ledger("pool", "list", *at),
        ledger("top", "--once", *at),
        ledger("report", "statement", "trace", "--html", "page.html", *at),
        ledger("remaining", "other", *at, code=2),
        ledger("remaining", secret_url, *at, code=2),
        ledger("pool", "list", secret_url, code=2),
        ledger("verify", "--nonsense", secret_url, code=2),
    ]
    for ended in done:
        unseen(ended.out, ended.err)
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "***" in page
    unseen(page)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{}@127.0.0.1:1/books",
        "postgresql://me@127.0.0.1:1/books?password={}",
        "postgresql://me@127.0.0.1:1/books?sslpassword={}&sslmode=prefer",
        "postgresql://me@127.0.0.1:1/books?PassWord={}",
        "postgresql://me@127.0.0.1:1/books?pass%77ord={}",
        "postgresql://me@127.0.0.1:1/books?some_token={}",
        "postgresql://me@127.0.0.1:{}/books",
        "postgresql://me:x@{}@127.0.0.1:1/books",
        "postgresql://me:x/y@{}@127.0.0.1:1/books",
        "postgresql://me:{}/books",
        "mysql://me:{}@127.0.0.1/books?password={}",
        "me:{}@127.0.0.1/books",
        "sqlite:///nowhere/ledger.db?password={}",
    ],
)
def test_an_address_that_cannot_be_opened_shows_no_password(url: str, ledger: Run) -> None:
    """Neither do the errors, with all that they print of where they come from."""
    address = url.format(QUOTED, QUOTED)
    with pytest.raises(LedgerError) as refused:
        Ledger.open(address, timeout_s=1)
    shown = traceback.format_exception(refused.value)
    unseen(
        refused.value, repr(refused.value), *(line for line in shown if "Ledger.open(" not in line)
    )
    ended = ledger("pool", "list", "--url", address, code=2)
    unseen(ended.out, ended.err)


def test_several_at_signs_are_refused(tmp_path: Path) -> None:
    """Half a password would be taken for a host; a folder with an @ is only a folder."""
    with pytest.raises(InvalidUrlError, match="%40"):
        Ledger.open("postgresql://me:pass@word@host/books")
    (tmp_path / "a@b@c").mkdir()
    Ledger.open(f"sqlite:///{tmp_path}/a@b@c/ledger.db").close()


def test_what_is_no_secret_is_shown() -> None:
    """An address tells stores apart: host, port, database, schema, the path of a password file."""
    url = "postgresql://me:x@host:5433/books?sslmode=require&passfile=%2Fp&password=y&new=z"
    expected = "postgresql://me:***@host:5433/books?new=***&passfile=%2Fp&password=***"
    assert f"{expected}&sslmode=require" == shown_address(make_url(url))
    assert "sqlite:///ledger.db" == shown_address(make_url("sqlite:///ledger.db"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no pool 'postgresql://u:p@w@h/db'", "no pool 'postgresql://u:***@h/db'"),
        ("connection failed: host=a password=b c", "connection failed: host=a password=*** c"),
        ("password = 'a b' host=c", "password = *** host=c"),
        ('password authentication failed for user "u"',) * 2,
        ("nothing to hide: a@b, sqlite:///ledger.db",) * 2,
    ],
)
def test_messages_of_drivers(text: str, expected: str) -> None:
    """A password is taken out of a message, and the rest of it stays."""
    assert expected == without_secrets(text)
    assert "for *** by ***" == without_secrets(
        "for p4ss by w0rd", make_url("postgresql://u:p4ss@h/d?password=w0rd")
    )
