"""`ledger db check` compares definitions, not names: whatever is changed in a schema is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg
import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from ledger import (
    Ledger,
    LedgerUnavailableError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UsageEstimate,
)
from ledger.cli import app
from ledger.store import migrate
from ledger.store.database import Database
from ledger.store.dialects import dialect_for
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

ENTRIES_GUARD = "CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries"
SQLITE_SWAP = "UPDATE sqlite_master SET sql = replace(sql, '{}', '{}') WHERE name = '{}'"
NOT_NEGATIVE = (
    "ck_entries_not_negative CHECK ((flags | committed_tokens | committed_cost_micros_usd"
    " | committed_requests | reserved_tokens | reserved_cost_micros_usd | reserved_requests) >= 0)"
)

SQLITE: list[tuple[list[str], str]] = [
    (
        [
            "DROP TRIGGER entries_no_delete",
            f"{ENTRIES_GUARD} WHEN OLD.kind = 'opening' BEGIN SELECT RAISE(ABORT, 'no'); END",
        ],
        "trigger entries_no_delete is",
    ),
    (
        [
            (
                "CREATE TRIGGER swallow BEFORE INSERT ON entries WHEN NEW.kind = 'settlement'"
                " BEGIN SELECT RAISE(IGNORE); END"
            )
        ],
        "trigger swallow is none of the library's",
    ),
    (
        ["DROP VIEW journal", "CREATE VIEW journal AS SELECT * FROM entries WHERE seq > 2"],
        "view journal is",
    ),
    (
        [
            "DROP INDEX uq_entries_lease_end",
            (
                "CREATE UNIQUE INDEX uq_entries_lease_end ON entries (pool_id, lease)"
                " WHERE kind IN ('settlement')"
            ),
        ],
        "index uq_entries_lease_end is",
    ),
    (
        [
            "DROP INDEX uq_entries_origin",
            (
                "CREATE INDEX uq_entries_origin ON entries (pool_id, origin_pool_id, origin_seq)"
                " WHERE origin_seq IS NOT NULL"
            ),
        ],
        "index uq_entries_origin is",
    ),
    (
        [
            "DROP INDEX ix_entries_at",
            "CREATE INDEX ix_entries_at ON entries (pool_id, coalesce(recorded_at, occurred_at))",
        ],
        "index ix_entries_at is",
    ),
    (
        [
            "PRAGMA writable_schema = ON",
            SQLITE_SWAP.format("_requests) >= 0", "_requests) >= -9", "entries"),
            "PRAGMA writable_schema = OFF",
        ],
        "constraint ck_entries_not_negative of entries is",
    ),
    (
        [
            "PRAGMA writable_schema = ON",
            SQLITE_SWAP.format("ROWID,\n STRICT", "ROWID", "entries"),
            "PRAGMA writable_schema = OFF",
        ],
        "table entries is",
    ),
    (
        [
            "PRAGMA writable_schema = ON",
            SQLITE_SWAP.format("name TEXT NOT NULL", "name TEXT", "pools"),
            "PRAGMA writable_schema = OFF",
        ],
        "column pools.name is",
    ),
    (
        [
            "PRAGMA writable_schema = ON",
            SQLITE_SWAP.format(
                "CONSTRAINT ck_pools_pool_id_positive CHECK (pool_id > 0)",
                "CONSTRAINT ck_pools_pool_id_positive CHECK (1)",
                "pools",
            ),
            "PRAGMA writable_schema = OFF",
        ],
        "constraint ck_pools_pool_id_positive of pools is",
    ),
    (["DROP TABLE attributions"], "column attributions.digest is missing"),
    (["PRAGMA journal_mode = DELETE"], "journal mode is 'delete', and should be 'wal'"),
]
"""What is done to an SQLite store, and what is said of it."""

POSTGRESQL: list[tuple[list[str], str]] = [
    (
        [
            (
                "CREATE OR REPLACE FUNCTION entries_append_only() RETURNS trigger LANGUAGE plpgsql"
                " AS $$BEGIN RETURN OLD; END$$"
            )
        ],
        "function entries_append_only is",
    ),
    (
        [
            (
                "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql"
                " AS $$BEGIN RETURN NULL; END$$"
            ),
            (
                "CREATE TRIGGER swallow BEFORE INSERT ON entries FOR EACH ROW"
                " EXECUTE FUNCTION swallow()"
            ),
        ],
        "trigger swallow of entries is none of the library's",
    ),
    (
        [
            "DROP TRIGGER entries_no_change ON entries",
            (
                "CREATE TRIGGER entries_no_change BEFORE UPDATE ON entries FOR EACH ROW"
                " EXECUTE FUNCTION entries_append_only()"
            ),
            "ALTER TABLE entries ENABLE ALWAYS TRIGGER entries_no_change",
        ],
        "trigger entries_no_change of entries is",
    ),
    (["ALTER TABLE entries DISABLE TRIGGER entries_no_change"], "DISABLED"),
    (["ALTER TABLE entries ENABLE REPLICA TRIGGER entries_no_change"], "not ALWAYS"),
    (
        ["CREATE RULE lose AS ON INSERT TO entries DO INSTEAD NOTHING"],
        "rule lose of entries is none of the library's",
    ),
    (["CREATE OR REPLACE VIEW lease_summary AS " + "{lease_summary} AND r.seq > 5"], "view lease_"),
    (["ALTER VIEW journal SET (security_barrier = true)"], "view journal is"),
    (
        [
            "DROP INDEX uq_entries_idempotency_key",
            (
                "CREATE UNIQUE INDEX uq_entries_idempotency_key ON entries"
                " (pool_id, idempotency_key) WHERE idempotency_key > 'm'"
            ),
        ],
        "index uq_entries_idempotency_key is",
    ),
    (
        [
            "ALTER TABLE entries DROP CONSTRAINT ck_entries_not_negative",
            f"ALTER TABLE entries ADD CONSTRAINT {NOT_NEGATIVE.replace('>= 0', '>= -9')}",
        ],
        "constraint ck_entries_not_negative of entries is",
    ),
    (
        [
            "ALTER TABLE entries DROP CONSTRAINT ck_entries_not_negative",
            f"ALTER TABLE entries ADD CONSTRAINT {NOT_NEGATIVE} NOT VALID",
        ],
        "NOT VALID",
    ),
    (
        [
            "ALTER TABLE attributions DROP CONSTRAINT pk_attributions",
            "ALTER TABLE attributions ADD CONSTRAINT pk_attributions PRIMARY KEY (attribution_id)",
        ],
        "constraint pk_attributions of attributions is",
    ),
    (
        ["ALTER TABLE attributions ADD CONSTRAINT fk FOREIGN KEY (pool_id) REFERENCES pools"],
        "constraint fk of attributions is none of the library's",
    ),
    (
        ["ALTER TABLE pools ALTER COLUMN carved_lease TYPE numeric"],
        "column pools.carved_lease is 'numeric', and should be 'bigint'",
    ),
    (["ALTER TABLE pools ALTER COLUMN carved_lease SET DEFAULT 7"], "DEFAULT 7"),
    (["ALTER TABLE attributions ENABLE ROW LEVEL SECURITY"], "row-level security"),
    (
        ["CREATE POLICY few ON entries USING (seq < 5)"],
        "policy few of entries is none of the library's",
    ),
    (["ALTER TABLE entries SET UNLOGGED"], "unlogged"),
    (["DROP TABLE pool_lock_07"], "table pool_lock_07 is missing"),
]
"""What is done to a store on PostgreSQL, and what is said of it."""

CASES = [("sqlite", *case) for case in SQLITE] + [("postgresql", *case) for case in POSTGRESQL]


def differences(url: str) -> list[str]:
    """Return what the check finds, where it may compare."""
    database = Database(url, timeout_s=30, create=False)
    try:
        return migrate.differences(database, [])
    finally:
        database.close()


def run(url: str, statements: Sequence[str]) -> None:
    """Change a schema behind the library's back."""
    engine = create_engine(
        dialect_for(url, timeout_s=5).url, isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with engine.connect() as connection:
        for statement in statements:
            if "{lease_summary}" in statement:
                view = connection.exec_driver_sql(
                    "SELECT rtrim(pg_get_viewdef('lease_summary'::regclass), '; ')"
                ).scalar_one()
                statement = statement.replace("{lease_summary}", view)  # noqa: PLW2901 - as written
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("kind", "statements", "named"), CASES, ids=[f"{kind}: {named}" for kind, _, named in CASES]
)
def test_a_changed_definition_is_named(
    kind: str, statements: list[str], named: str, new_store: Callable[..., str]
) -> None:
    """Bodies, conditions, expressions, types, keys, CHECKs, states, rules, row security."""
    url = new_store(kind)
    Ledger.open(url).close()
    run(url, statements)
    found = differences(url)
    assert [one for one in found if named in one], found
    answer = CliRunner().invoke(app, ["db", "check", "--url", url])
    assert (1, True) == (answer.exit_code, named.split(maxsplit=1)[0] in answer.output)


def test_a_store_that_is_used_differs_in_nothing(book: Ledger, store_url: str) -> None:
    """Entries and open connections change no definition; neither does another look."""
    budget = book.pool("pool", SharedPoolBudgetOptions())
    budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=1), RequestBudget.unlimited())
    assert [] == differences(store_url)
    assert [] == differences(store_url)


def test_the_check_leaves_nothing_behind(new_store: Callable[..., str]) -> None:
    """The schema that it compares with is rolled back."""
    url = new_store("postgresql")
    assert [] == differences(url)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace").fetchall()
    assert [] == [name for (name,) in found if name.startswith("ledger")]


def test_a_store_in_a_schema_of_its_own(new_store: Callable[..., str]) -> None:
    """It is compared there, whatever the schema is called, and whatever stands in others."""
    url = new_store("postgresql", empty=True)
    run(url, ["CREATE SCHEMA books", "CREATE TABLE public.entries (seq integer)"])
    there = make_url(url).update_query_dict({"options": "-csearch_path=books,public"})
    named = there.render_as_string(hide_password=False)
    made = CliRunner().invoke(app, ["db", "upgrade", "--url", named])
    assert 0 == made.exit_code, made.output
    assert [] == differences(named)
    run(named, ["DROP INDEX ix_entries_at"])
    assert ["index ix_entries_at is missing"] == differences(named)


def test_a_role_that_may_make_no_schema_is_told_so(new_store: Callable[..., str]) -> None:
    """What could not be compared is said, and what is missing is named all the same.

    The exit code is 1 if something is missing, and otherwise 2: nothing is known.
    """
    url = new_store("postgresql")
    role = f"reader_{make_url(url).database}"
    run(
        url,
        [
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        ],
    )
    as_reader = make_url(url).set(username=role, password="x")  # noqa: S106 - for this test
    words = ["db", "check", "--url", as_reader.render_as_string(hide_password=False)]
    try:
        sound = CliRunner().invoke(app, words)
        run(
            url,
            [
                "DROP TRIGGER entries_no_change ON entries",
                "DROP FUNCTION entries_newest(bigint, bigint)",
            ],
        )
        damaged = CliRunner().invoke(app, words)
    finally:
        run(url, [f"DROP OWNED BY {role}", f"DROP ROLE {role}"])
    assert (2, "") == (sound.exit_code, sound.stdout)
    said = "function entries_newest is missing\ntrigger entries_no_change of entries is missing\n"
    assert (1, said) == (damaged.exit_code, damaged.stdout)
    for one in (sound, damaged):
        assert one.stderr.startswith("Error: definitions were not compared, only whether parts")
        assert "permission denied" in one.stderr


def test_a_call_says_that_the_schema_lacks_a_function(new_store: Callable[..., str]) -> None:
    """A store that an early checkout made has none: the error says how to find out."""
    url = new_store("postgresql")
    with Ledger.open(url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        run(url, ["DROP FUNCTION entries_newest(bigint, bigint)"])
        with pytest.raises(LedgerUnavailableError, match="'ledger db check' names what is missing"):
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
