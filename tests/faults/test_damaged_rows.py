"""Whatever a row holds: the damaged pool is named, and every other pool is answered."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from ledger.core.entries import PoolId
from ledger.core.extensions import ATTRIBUTION_TEXTS
from ledger.exports.source import _contents_of
from ledger.store.database import Database
from ledger.store.schema import attributions, entries, pools
from tests.clocks import Clock
from tests.faults.doors import build, trouble
from tests.shared import Shared

ABSURD: list[Any] = [
    None,
    -1,
    2**62,
    2**63 - 1,
    -(2**63),
    "jubilee",
    "",
    b"\xff\x00",
    1.5,
    b"text",
    '{"policy":{"capacity_tokens":-1}}',
    '{"policy":{"window":{"period":"day","anchor":1000000000000000000000000}}}',
    '{"policy":{"lease_ttl":1e400}}',
    "[" * 5_000,
    "[]",
    "no JSON",
]
"""What no column should hold where it stands; `b"text"` stands for text that is no UTF-8."""
EVERY_VALUE = pytest.param(16, marks=pytest.mark.sweep, id="every value")
"""How many values are tried in each column, each column beginning with another one."""
KINDS = {
    *("opening", "reservation", "denial", "observation", "renewal", "settlement", "release"),
    *("expiry", "adjustment", "correction", "rollover", "threshold", "closing"),
}


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose tables take anything: no types, no conditions, no guards."""
    path = tmp_path_factory.mktemp("loose") / "ledger.db"
    build(f"sqlite:///{path}", Clock())
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("PRAGMA writable_schema = ON")
        for name, sql in raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            taken = re.sub(r"\b(INTEGER|TEXT|BLOB) NOT NULL", r"\1", sql).replace(",\n STRICT", "")
            raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (taken, name))
        raw.execute("PRAGMA writable_schema = RESET")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


class Patient:
    """A store that is damaged, looked at and healed again, over one engine with warm caches."""

    def __init__(self, loose: Path, path: Path) -> None:
        self._loose = sqlite3.connect(loose)
        self._raw = sqlite3.connect(path, isolation_level=None)
        self._raw.text_factory = bytes
        self.heal()
        self._raw.execute("PRAGMA ignore_check_constraints = ON")
        self.database = Database(f"sqlite:///{path}", timeout_s=20, create=False)

    def heal(self) -> None:
        """Put everything back."""
        self._loose.backup(self._raw)

    def damage(self, table: str, column: str, where: str, value: object) -> bool:
        """Change one value, and tell whether that changed anything."""
        self.heal()
        changed = "CAST(x'ff61' AS TEXT)" if value == b"text" else "?"
        parameters = () if value == b"text" else (value,)
        look = f"SELECT quote({column}) FROM {table} WHERE {where}"
        before = self._raw.execute(look).fetchall()
        try:
            self._raw.execute(f"UPDATE {table} SET {column} = {changed} WHERE {where}", parameters)
        except sqlite3.IntegrityError:
            return False  # a key would be there twice
        return before != self._raw.execute(look).fetchall()

    def close(self) -> None:
        """Close the store."""
        self.database.close()
        self._raw.close()
        self._loose.close()


@pytest.fixture(scope="module")
def patient(loose: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """Return a store to be damaged."""
    made = Patient(loose, tmp_path_factory.mktemp("patient") / "ledger.db")
    yield made
    made.close()


def kinds_of(loose: Path) -> dict[str, int]:
    """Return an entry of each kind in the pool that is damaged."""
    with closing(sqlite3.connect(loose)) as raw:
        rows = raw.execute("SELECT kind, max(seq) FROM entries WHERE pool_id = 3 GROUP BY kind")
        return dict(rows.fetchall())


ENTRY_COLUMNS = [column.name for column in entries.columns]
FIGURES = re.compile("(estimate|budget|usage|held|used|committed|reserved)_(?!(total_)?tokens)")
LIKE_TOKENS = [name for name in ENTRY_COLUMNS if FIGURES.match(name)]
"""Figures that are read by the same code as the tokens in the same group, which count."""


@pytest.mark.parametrize("samples", [pytest.param(1, id="one value"), EVERY_VALUE])
@pytest.mark.parametrize(
    "column",
    [
        *(name for name in ENTRY_COLUMNS if name not in LIKE_TOKENS),
        *(pytest.param(name, marks=pytest.mark.long) for name in LIKE_TOKENS),
    ],
)
def test_any_column_of_any_entry(loose: Path, patient: Patient, column: str, samples: int) -> None:
    """A value that no entry should hold there: every door answers, or says why it cannot."""
    number = ENTRY_COLUMNS.index(column)
    kinds = itertools.islice(itertools.cycle(sorted(kinds_of(loose).items())), number, None)
    cases = (
        (value, f"pool_id = 3 AND seq = {seq}", f"{kind} = ")
        for value, (kind, seq) in zip(turned(number), kinds, strict=False)
    )
    check_cases(patient, "entries", column, cases, samples)


@pytest.mark.parametrize("kind", ["opening", "rollover"])
def test_what_a_window_is_counted_from_is_no_number(
    loose: Path, patient: Patient, kind: str
) -> None:
    """The sums of an entry that begins a window are the window's base."""
    cases = [("many", f"pool_id = 3 AND seq = {kinds_of(loose)[kind]}", f"{kind} = ")]
    check_cases(patient, "entries", "committed_tokens", cases, 1)


def test_an_export_finds_attributions_beside_what_is_no_number(patient: Patient) -> None:
    """In whatever order a set has them: SQLAlchemy goes by the first one's type."""
    patient.heal()
    with patient.database.connect() as connection:
        for numbers in ([b"\xff\x00", 1], [1, b"\xff\x00"]):
            assert [1] == [*_contents_of(connection, PoolId(3), numbers)]


OTHER_ROWS = [
    *(("pools", column.name, "pool_id = 3") for column in pools.columns),
    *(
        ("attributions", column.name, "pool_id = 3 AND attribution_id = 1")
        for column in attributions.columns
    ),
    ("store", "identity", "store_id = 1"),
    ("store", "format_version", "store_id = 1"),
]


LIKE_RUN_ID = [name for name in ATTRIBUTION_TEXTS if name != "run_id"]
"""Names that are read by the same code as the run's."""


@pytest.mark.parametrize("samples", [pytest.param(1, id="one value"), EVERY_VALUE])
@pytest.mark.parametrize(
    ("table", "column", "where"),
    [pytest.param(*one, marks=[pytest.mark.long] * (one[1] in LIKE_RUN_ID)) for one in OTHER_ROWS],
)
def test_any_column_of_any_other_row(
    patient: Patient, table: str, column: str, where: str, samples: int
) -> None:
    """A pool's own row, an attribution, the store's row: the same."""
    number = OTHER_ROWS.index((table, column, where))
    cases = ((value, where, "") for value in turned(number))
    check_cases(patient, table, column, cases, samples)


def turned(number: int) -> list[Any]:
    """Return all the values, another one first for each number."""
    first = number % len(ABSURD)
    return ABSURD[first:] + ABSURD[:first]


def check_cases(
    patient: Patient,
    table: str,
    column: str,
    cases: Iterable[tuple[object, str, str]],
    samples: int,
) -> None:
    """Damage a column with some of these values, where, and look at every door."""
    failed, tried = [], 0
    for value, where, said in cases:
        if patient.damage(table, column, where, value):
            tried += 1
            failed += [f"{said}{value!r:.40}: {one}" for one in trouble(patient.database)]
        if tried == samples:
            break
    assert [] == failed
    assert tried


ON_POSTGRESQL: list[tuple[str, str, object]] = [
    ("entries", "recorded_at", -(2**63)),
    ("entries", "seq", 2**63 - 1),
    ("entries", "detail", "[]"),
    ("attributions", "attribution_id", 2**63 - 1),
    ("pools", "carved_lease", 2**62),
]
"""What is written into columns on PostgreSQL, whose types and conditions hold."""
MORE_ON_POSTGRESQL: list[tuple[str, str, object]] = [
    *(("entries", name, -(2**63)) for name in ("occurred_at", "expires_at")),
    ("entries", "recorded_at", 2**62),
    ("entries", "held_tokens", 7),
    ("entries", "reserved_tokens", 2**63 - 1),
]
"""More of it, which is long."""
MOST_ON_POSTGRESQL: list[tuple[str, str, object]] = [
    *(("entries", name, 2**62) for name in ("occurred_at", "swept_until", "seq", "flags")),
    *(("entries", name, 2**62) for name in ("attribution_id", "origin_pool_id")),
    ("entries", "held_tokens", -(2**63)),
    ("entries", "usage_total_tokens", -1),
    ("entries", "estimate_total_tokens", None),
    ("entries", "policy_seq", 1),
    ("entries", "kind", "jubilee"),
    ("entries", "detail", "no JSON"),
    ("attributions", "tags", "[]"),
    ("pools", "parent_id", 2),
]
"""The rest."""
HURT = {
    "entries": "pool_id = 3 AND seq = (SELECT max(seq) FROM entries"
    " WHERE pool_id = 3 AND kind = 'reservation')",
    "attributions": "pool_id = 3 AND attribution_id = 1",
    "pools": "pool_id = 4",
}
"""Where: a reservation, an attribution, or the row of the pool below the one that is damaged."""
VIEWS = ("journal", "spend_by_day", "lease_summary")


@pytest.fixture(scope="module")
def filled(shared: Shared) -> Iterator[str]:
    """Return the name of a PostgreSQL database to be copied, without guards on its tables."""
    url = shared.create_database(template=shared.template)
    build(url, Clock())
    with psycopg.connect(url, autocommit=True) as raw:
        for table in (entries, attributions, pools):
            raw.execute(f"ALTER TABLE {table.name} DISABLE TRIGGER ALL")
    name = make_url(url).database
    assert name is not None
    yield name
    shared.drop_database(name)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        *ON_POSTGRESQL,
        *(pytest.param(*one, marks=pytest.mark.long) for one in MORE_ON_POSTGRESQL),
        *(pytest.param(*one, marks=pytest.mark.sweep) for one in MOST_ON_POSTGRESQL),
    ],
)
def test_damage_on_postgresql(
    shared: Shared, filled: str, table: str, column: str, value: object
) -> None:
    """The same doors, and the views for people, over what PostgreSQL lets an owner write."""
    url = shared.create_database(template=filled)
    try:
        with psycopg.connect(url, autocommit=True) as raw:
            other = f"{HURT[table]} AND {column} IS DISTINCT FROM %s"
            changed = raw.execute(f"UPDATE {table} SET {column} = %s WHERE {other}", [value] * 2)
            assert 1 == changed.rowcount
            for view in VIEWS:
                assert raw.execute(f"SELECT * FROM {view}").fetchall()
        database = Database(url, timeout_s=10, create=False)
        try:
            assert [] == trouble(database)
        finally:
            database.close()
    finally:
        shared.drop_database(make_url(url).database)


def test_every_kind_is_there(loose: Path) -> None:
    """The damaged pool holds an entry of every kind but a closing, and mirrors."""
    assert KINDS - {"closing"} == set(kinds_of(loose))


def test_a_sound_store_answers_at_every_door(patient: Patient) -> None:
    """Without damage nothing is refused, so that what the other tests see is the damage's."""
    patient.heal()
    assert ["verify"] == [found.partition(":")[0] for found in trouble(patient.database)]
