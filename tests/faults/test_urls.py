"""Addresses that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import (
    InvalidInputError,
    InvalidUrlError,
    Ledger,
    LedgerUnavailableError,
    RequestExtensions,
    SharedPoolBudgetOptions,
)
from ledger.store.dialects import dialect_for, filesystems
from ledger.store.dialects.addresses import shown_address


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
        "postgresql://user@one:1,two:2/database?no_such_parameter=1",
        "sqlite:///ledger\0.db",
        "sqlite:///ledger.db?timeout=soon",
        "sqlite:///ledger.db?network=yes",
        "sqlite:///ledger.db?mode=ro",
        "sqlite:///file:ledger.db?mode=ro&uri=true&timeout=5",
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


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://me:s3,cret@one:5432,two:5433/books?sslmode=require", "one,two", "5432,5433"),
        ("postgres://me:s3,cret@%2Frun%2Fone,[::1]:5433/books", "/run/one,::1", ",5433"),
        ("postgresql+psycopg://me:s3,cret@%2Frun%2Fone/books", "/run/one", None),
        ("postgresql:///books?host=one,two&port=1,2&user=me&password=s3,cret", "one,two", "1,2"),
    ],
)
def test_an_address_may_have_every_form_of_libpq(url: str, host: str, port: str | None) -> None:
    """Several hosts, each with its port, and sockets' folders; no password is shown."""
    dialect = dialect_for(url, timeout_s=1)
    _, options = dialect.create_engine(create=False).dialect.create_connect_args(dialect.url)
    assert (host, port) == (options["host"], options.get("port"))
    assert ("me", "s3,cret", "books") == tuple(options[n] for n in ("user", "password", "dbname"))
    assert "cret" not in shown_address(dialect.url)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e300, "10", None])
def test_a_timeout_that_is_no_time_is_refused(timeout_s: object, tmp_path: Path) -> None:
    """A deadline is a number of seconds above 0 that a clock can hold."""
    with pytest.raises(InvalidInputError, match="timeout_s"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", timeout_s=timeout_s)  # type: ignore[arg-type]
    assert [] == list(tmp_path.iterdir())


def test_a_store_on_a_network_file_system_is_refused_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a file is made; a copy there may be read, and a local disk mounted below it is one."""
    shared, local = tmp_path / "a share", tmp_path / "a share" / "local"
    local.mkdir(parents=True)
    mounted = tmp_path / "mountinfo"
    escaped = str(shared).replace(" ", "\\040")
    mounted.write_text(
        f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"30 21 0:40 / {escaped} rw shared:1 - nfs4 server:/export rw\n"
        f"31 30 8:2 / {escaped}/local rw - ext4 /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(filesystems, "_MOUNTED", mounted)
    url = f"sqlite:///{shared}/ledger.db"
    (tmp_path / "link").symlink_to(shared)
    for address in (url, f"sqlite:///{tmp_path}/link/ledger.db"):
        with pytest.raises(LedgerUnavailableError, match=r"\(nfs4\).*PostgreSQL.*network=allow"):
            Ledger.open(address)
    assert [local] == list(shared.iterdir())
    with Ledger.open(f"{url}?network=allow") as book:
        book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=9))
    with Ledger.open(url, read_only=True) as book:
        assert 9 == book.pool("pool").remaining(RequestExtensions()).tokens
    Ledger.open(f"sqlite:///{local}/ledger.db").close()
    Ledger.open(f"sqlite:///{tmp_path}/ledger.db").close()
    monkeypatch.setattr(filesystems, "_MOUNTED", tmp_path / "none")  # not Linux
    Ledger.open(f"sqlite:///{shared}/other.db").close()


@pytest.mark.parametrize("sign", ["\u2028", "\u00a0", "\u0085", "\x0b", "\x1c", "\r"])
def test_a_folder_may_be_mounted_under_any_name(
    sign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system escapes blanks, tabs and line ends alone; no other sign ends a name or a line."""
    shared = tmp_path / f"a{sign}share"
    shared.mkdir()
    mounted = tmp_path / "mountinfo"
    mounted.write_bytes(
        f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"30 21 0:40 / {shared} rw shared:1 - nfs4 server:/export rw\n".encode()
    )
    monkeypatch.setattr(filesystems, "_MOUNTED", mounted)
    assert "nfs4" == filesystems.network_of(shared / "ledger.db")
    assert filesystems.network_of(tmp_path / "ledger.db") is None
