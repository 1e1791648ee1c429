"""Addresses that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import InvalidInputError, InvalidUrlError, Ledger


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "ledger.db",
        "/var/lib/ledger.db",
        "sqlite",
        "sqlite:",
        "sqlite:ledger.db",
        "://",
        "://host/database",
        "http://example.com/ledger",
        "file:///ledger.db",
        "mysql://user@host/database",
        "mysql+pymysql://user@host/database",
        "oracle://user@host/database",
        "mssql+pyodbc://user@host/database",
        "cockroachdb://user@host/database",
        "sqlite+aiosqlite:///ledger.db",
        "sqlite+pysqlcipher:///ledger.db",
        "postgresql+psycopg2://user@host/database",
        "postgresql+asyncpg://user@host/database",
        "postgresql+psycopg_async://user@host/database",
        "postgresql+nonsense://user@host/database",
        "postgresql://user@host:port/database",
        "sqlite:///ledger\0.db",
        "sqlite:///ledger.db?timeout=soon",
    ],
)
def test_what_is_not_the_address_of_a_store_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the argument and shows how addresses look; nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidUrlError) as invalid:
        Ledger.open(url)
    assert "url" == invalid.value.field
    assert "sqlite:///ledger.db" in str(invalid.value)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("url", [5, b"sqlite:///ledger.db", Path("ledger.db"), True])
def test_what_is_no_text_is_refused(url: object) -> None:
    """Only text is an address."""
    with pytest.raises(InvalidInputError, match="url"):
        Ledger.open(url)  # type: ignore[arg-type]


def test_a_bad_address_in_the_environment_is_refused_as_one_that_is_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LEDGER_URL is held to the same rules."""
    monkeypatch.setenv("LEDGER_URL", "mysql://user@host/database")
    with pytest.raises(InvalidUrlError, match="mysql"):
        Ledger.open()


@pytest.mark.parametrize("password", ["s3cret", "p@ss:w/rd"])
def test_a_refused_address_does_not_show_its_password(password: str) -> None:
    """Errors end up in logs."""
    with pytest.raises(InvalidUrlError) as invalid:
        Ledger.open(f"mysql://user:{password}@host/database")
    assert password not in str(invalid.value)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e300, "10", None])
def test_a_timeout_that_is_no_time_is_refused(timeout_s: object, tmp_path: Path) -> None:
    """A deadline is a number of seconds above 0 that a clock can hold."""
    with pytest.raises(InvalidInputError, match="timeout_s"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", timeout_s=timeout_s)  # type: ignore[arg-type]
    assert [] == list(tmp_path.iterdir())
