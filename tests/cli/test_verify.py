"""`ledger verify` and `ledger db`: check the books and the schema."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from ledger import Ledger, RequestBudget, RequestExtensions, Usage, UsageEstimate
from ledger.store.dialects import dialect_for
from tests import programs
from tests.fixtures import Run


def execute(url: str, *statements: str) -> None:
    """Do to a store what its owner could do behind the ledger's back."""
    if url.startswith("postgresql"):
        named = make_url(url).set(drivername="postgresql+psycopg")
        url = named.render_as_string(hide_password=False)
    engine = create_engine(dialect_for(url, timeout_s=5).url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def disarm(url: str) -> str:
    """Return the statement that lifts the guard against updates of entries."""
    if url.startswith("sqlite"):
        return "DROP TRIGGER entries_no_update"
    return "ALTER TABLE entries DISABLE TRIGGER ALL"


@pytest.fixture
def url(ledger: Run, store_url: str) -> str:
    """Return a store with two pools: entries 1 to 3 in `team`, entry 1 in `other`."""
    ledger("pool", "open", "team", "--url", store_url)
    ledger("pool", "open", "other", "--url", store_url)
    with Ledger.open(store_url) as book:
        budget = book.pool("team")
        estimate = UsageEstimate(total_tokens=10)
        lease = budget.reserve(RequestExtensions(), estimate, RequestBudget.unlimited())
        budget.record_used(lease, Usage(total_tokens=9))
    return store_url


def test_sound_books(ledger: Run, url: str) -> None:
    """Every pool is a line with its number of entries and the hash that proves them."""
    ended = ledger("verify", "--url", url)
    assert "" == ended.err
    with Ledger.open(url, create=False) as book:
        team, other = (found.hash.hex() for found in book.verify())
    assert [
        f"ok       team: 3 entries, hash {team}",
        f"ok       other: 1 entry, hash {other}",
    ] == ended.out.splitlines()
    assert [f"ok       team: 3 entries, hash {team}"] == (
        ledger("verify", "team", "--url", url).out.splitlines()
    )


def test_damage_is_named(ledger: Run, url: str) -> None:
    """Exit code 1, the first bad entry and why; sound pools are still reported."""
    execute(url, disarm(url), "UPDATE entries SET usage_total_tokens = 8 WHERE seq = 3")
    team, other = ledger("verify", "--url", url, code=1).out.splitlines()
    assert team.startswith("DAMAGED  team: entry 3: ")
    assert "hash" in team
    assert other.startswith("ok       other: 1 entry")
    ledger("verify", "team", "--url", url, code=1)
    ledger("verify", "other", "--url", url)


def test_the_first_damaged_entry_is_the_one_named(ledger: Run, url: str) -> None:
    """Of several bad entries the earliest is reported."""
    execute(url, disarm(url), "UPDATE entries SET recorded_at = recorded_at + 1 WHERE seq > 1")
    (team,) = ledger("verify", "team", "--url", url, code=1).out.splitlines()
    assert team.startswith("DAMAGED  team: entry 2: ")


def test_what_was_printed_is_expected_later(ledger: Run, refused: Run, url: str) -> None:
    """The pool may have grown since; it may not have gone back, nor become another."""
    with Ledger.open(url) as book:
        kept = [str(one.anchor) for one in book.verify()]
        expect = [word for one in kept for word in ("--expect", one)]
        book.pool("team").reserve(
            RequestExtensions(), UsageEstimate(total_tokens=1), RequestBudget.unlimited()
        )
    ledger("verify", *expect, "--url", url)
    ledger("verify", "team", *expect, "--url", url)
    other = kept[0][:-64] + "0" * 64
    assert "entry 3: its hash is not the one that was kept" in (
        ledger("verify", "--expect", other, "--url", url, code=1).out
    )
    execute(url, disarm(url), *disarm_deletes(url), "DELETE FROM entries WHERE seq > 2")
    found = ledger("verify", *expect, "--url", url, code=1).out
    assert "entry 3: the pool went back: entry 3 was there" in found
    assert "ok       other: 1 entry" in found
    gone = kept[0].replace("team=", "gone=")
    assert "DAMAGED  gone: entry 1: the store went back" in (
        ledger("verify", "--expect", gone, "--url", url, code=1).out
    )
    for wrong in ("team", "team=3", "team=3:abc", "=3:" + "0" * 64):
        assert "POOL=SEQ:HASH" in refused("verify", "--expect", wrong, "--url", url)


def disarm_deletes(url: str) -> list[str]:
    """Return the statements that lift the guard against deletes of entries."""
    return ["DROP TRIGGER entries_no_delete"] if url.startswith("sqlite") else []


def test_a_store_without_pools_is_not_verified(refused: Run, store_url: str) -> None:
    """Nothing was checked, so nothing is said to be fine."""
    assert "this store has no pool" in refused("verify", "--url", store_url)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_pools_that_are_hidden_are_not_passed_over(ledger: Run, refused: Run, url: str) -> None:
    """Row-level security hides a pool from a role, in the views, too; `verify` says so."""
    role = f"tenant_{make_url(url).database}"
    tenant = make_url(url).set(username=role).render_as_string(hide_password=False)
    execute(
        url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        "ALTER TABLE pools ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY own ON pools TO {role} USING (name = 'team')",
    )
    try:
        said = refused("verify", "--url", tenant)
        assert "may not verify all pools (row-level security hides rows of pools" in said
        assert "ok       team: 3 entries" in ledger("verify", "team", "--url", tenant).out
        with psycopg.connect(tenant) as connection:
            for view, pools in (("journal", 1), ("spend_by_day", 1), ("lease_summary", 1)):
                found = connection.execute(f"SELECT count(DISTINCT pool) FROM {view}").fetchone()
                assert (pools,) == found, view
    finally:
        execute(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_reader_that_has_gone_is_no_damage(url: str) -> None:
    """`ledger verify | true`, and rows for programs likewise; 141 is what a shell says of it."""
    for words in (["verify"], ["report", "spend", "--format", "csv"]):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as nobody_reads:
            done = programs.run(
                [Path(sys.executable).with_name("ledger"), *words, "--url", url],
                stdout=nobody_reads,
                stderr=subprocess.PIPE,
                timeout=120,
            )
        assert (141, b"") == (done.returncode, done.stderr)


def test_upgrade_makes_a_schema(ledger: Run, new_store: Callable[..., str]) -> None:
    """`db upgrade` makes the schema of an empty store, and does nothing the second time."""
    for kind in ("sqlite", "postgresql"):
        url = new_store(kind, empty=True)
        for _ in range(2):
            assert "is at 0001" in ledger("db", "upgrade", "--url", url).out
        assert "is as it should be" in ledger("db", "check", "--url", url).out
        assert "store 0001, this version works with 0001\n" == (
            ledger("db", "current", "--url", url).out
        )


def test_upgrade_takes_the_url_from_the_environment(
    ledger: Run, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """LEDGER_URL names the store where --url does not."""
    monkeypatch.setenv("LEDGER_URL", "sqlite:///named.db")
    assert "named.db" in ledger("db", "upgrade").out
    assert (folder / "named.db").exists()
    assert not (folder / "ledger.db").exists()
    ledger("pool", "open", "team", "--url", "sqlite:///other.db")
    assert (folder / "other.db").exists()


def test_current_of_a_store_without_schema(refused: Run, new_store: Callable[..., str]) -> None:
    """An empty database has no schema, as other commands say; asking does not make one."""
    url = new_store("postgresql", empty=True)
    for _ in range(2):
        assert "no schema yet" in refused("db", "current", "--url", url)


@pytest.mark.parametrize("command", [("db", "check"), ("pool", "list"), ("verify",)])
def test_a_store_without_schema(
    refused: Run, new_store: Callable[..., str], command: tuple[str, ...]
) -> None:
    """Reading commands name the command that makes the schema."""
    assert "ledger db upgrade" in refused(*command, "--url", new_store("postgresql", empty=True))


def test_check_names_each_difference(ledger: Run, url: str) -> None:
    """A missing guard and a missing column are a line each, and the exit code is 1."""
    if url.startswith("sqlite"):
        statements = ["DROP TRIGGER entries_no_delete", "DROP TRIGGER entries_no_replace"]
    else:
        statements = ["ALTER TABLE entries DISABLE TRIGGER USER"]
    execute(url, *statements, "ALTER TABLE store ADD COLUMN extra TEXT")
    lines = ledger("db", "check", "--url", url, code=1).out.splitlines()
    assert 2 <= sum("trigger" in line and "entries" in line for line in lines)
    assert 1 == sum("extra" in line for line in lines)
    assert "as it should be" not in "".join(lines)


def test_a_newer_schema_is_left_alone(ledger: Run, refused: Run, url: str) -> None:
    """A store of a later version is named as such, and not written to."""
    execute(url, "UPDATE ledger_version SET version_num = '9999'")
    for command in (("pool", "list"), ("pool", "open", "new"), ("db", "upgrade")):
        assert "9999" in refused(*command, "--url", url)
    assert "9999" in ledger("db", "current", "--url", url).out


@pytest.mark.parametrize("command", [("pool", "open", "team"), ("pool", "list"), ("db", "current")])
def test_a_foreign_database_is_left_alone(
    refused: Run, new_store: Callable[..., str], command: tuple[str, ...]
) -> None:
    """Somebody else's tables are named, and no ledger is put beside them by surprise."""
    for kind in ("sqlite", "postgresql"):
        url = new_store(kind, empty=True)
        execute(url, "CREATE TABLE customers (id INTEGER)")
        said = refused(*command, "--url", url)
        assert "customers" in said


def test_an_interrupted_copy(ledger: Run, refused: Run, folder: Path) -> None:
    """A file that was cut short is named as damaged, without a traceback."""
    ledger("pool", "open", "team")
    whole = (folder / "ledger.db").read_bytes()
    shutil.copy(folder / "ledger.db", folder / "whole.db")
    (folder / "short.db").write_bytes(whole[: len(whole) // 3])
    assert "short.db" in refused("pool", "list", "--url", "sqlite:///short.db")
    ledger("pool", "list", "--url", "sqlite:///whole.db")


def test_no_connection_is_left_behind(ledger: Run, new_store: Callable[..., str]) -> None:
    """After a command nobody is connected to a PostgreSQL database any more."""
    url = new_store("postgresql")
    ledger("pool", "open", "team", "--url", url)
    ledger("verify", "--url", url)
    with psycopg.connect(url) as connection:
        others = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert (0,) == others
