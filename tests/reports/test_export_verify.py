"""An export holds against the journal, and whatever was done to it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Update, update

from ledger import ExportError, Ledger, SharedPoolBudgetOptions, exports, reports
from ledger.store import schema

Edit = Callable[[list[str]], list[str]]

SEED = 5


@pytest.fixture
def exported(history: Callable[[int], Ledger], tmp_path: Path) -> tuple[Ledger, Path]:
    """Return books, and an export of them as JSON Lines."""
    book = history(SEED)
    path = tmp_path / "out.jsonl"
    exports.write(book, reports.Filter(), path)
    return book, path


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl", "f.parquet", "f.xlsx"])
@pytest.mark.parametrize("version", exports.FocusVersion)
def test_charges_hold_too(
    history: Callable[[int], Ledger], tmp_path: Path, name: str, version: exports.FocusVersion
) -> None:
    """A FOCUS export of any kind of file is known by its columns; it adds up to the report."""
    book = history(SEED)
    path = tmp_path / name
    ending = exports.Format(path.suffix[1:])
    done = exports.write(
        book, reports.Filter(), path, format=exports.Format.FOCUS, focus_version=version
    )
    checked = exports.verify(book, path, format=ending)
    total = reports.spend(book).total
    assert (True, f"FOCUS {version}", done.rows) == (checked.ok, checked.table, checked.rows)
    assert (total.total_tokens, total.cost_micros_usd) == (
        checked.total_tokens,
        checked.cost_micros_usd,
    )


def test_totals(exported: tuple[Ledger, Path]) -> None:
    """Each amount is counted where it was made, though mirrors are rows as well."""
    book, path = exported
    checked = exports.verify(book, path)
    total = reports.spend(book).total
    assert (total.total_tokens, total.cost_micros_usd) == (
        checked.total_tokens,
        checked.cost_micros_usd,
    )
    assert book.size() == checked.rows == sum(one.rows for one in checked.pools)
    assert {0} == {one.later for one in checked.pools}


def unguarded(book: Ledger, table: str, statement: Update) -> None:
    """Do to a table what its guards would refuse, as whoever owns a database can."""
    with book._database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"DROP TRIGGER {table}_no_update")
        else:
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        connection.execute(statement)
        connection.commit()


def edited(line: str, **values: object) -> str:
    """Return a row with other values."""
    row = json.loads(line)
    assert all(row[name] != value for name, value in values.items())
    return json.dumps(row | values) + "\n"


@pytest.mark.parametrize(
    ("edit", "row", "reason"),
    [
        (lambda rows: [*rows[:7], edited(rows[7], usage_total_tokens=1), *rows[8:]], 8, None),
        (lambda rows: [*rows[:7], edited(rows[7], committed_usd="9.000000"), *rows[8:]], 8, None),
        (lambda rows: [*rows[:7], edited(rows[7], hash="00"), *rows[8:]], 8, None),
        (lambda rows: [*rows[:7], edited(rows[7], recorded_at="then"), *rows[8:]], 8, "'then'"),
        (lambda rows: [*rows[:7], *rows[8:]], 8, "missing in the file, which goes on with entry 9"),
        (lambda rows: rows[1:], 1, "missing in the file, which goes on with entry 2"),
        (lambda rows: [*rows[:7], rows[8], rows[7], *rows[9:]], 8, "goes on with entry 9"),
        (lambda rows: [*rows[:7], rows[7], *rows[7:]], 9, "goes on with entry 8"),
        (lambda rows: [*rows, rows[-1]], None, "the journal has no such row here"),
        (lambda rows: [*rows, edited(rows[-1], pool="new")], None, "no such row here"),
    ],
)
def test_the_first_difference_is_named(
    exported: tuple[Ledger, Path], edit: Edit, row: int | None, reason: str | None
) -> None:
    """A changed, missing, moved, doubled or added row is found, with its pool and entry."""
    book, path = exported
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(edit(rows)), encoding="utf-8")
    found = exports.verify(book, path).difference
    assert found is not None
    assert (row or len(rows) + 1) == found.row
    assert (reason or "in the file, and") in found.reason
    if row is not None:
        assert ("root", min(row, 8)) == (found.pool, found.seq if row < 9 else 8)


def test_a_changed_journal_is_found(exported: tuple[Ledger, Path]) -> None:
    """The export tells that an entry is not what it was when it was exported."""
    book, path = exported
    e = schema.entries.c
    unguarded(book, "entries", update(schema.entries).where(e.seq == 4).values(committed_tokens=1))
    found = exports.verify(book, path).difference
    assert found is not None
    assert ("root", 4, 4) == (found.pool, found.seq, found.row)
    assert found.reason.startswith("committed_tokens is ")
    assert found.reason.endswith(" in the file, and '1' in the journal")


def test_what_came_later_is_counted(exported: tuple[Ledger, Path]) -> None:
    """Entries that were appended since are no difference, but where an end was named they are."""
    book, path = exported
    before = exports.verify(book, path)
    book.adjust("root", SharedPoolBudgetOptions())
    book.pool("new", SharedPoolBudgetOptions())
    after = exports.verify(book, path)
    assert after.ok
    assert {"root": 1, "new": 1} == {one.pool: one.later for one in after.pools if one.later}
    last = {one.pool: one.last_seq for one in before.pools}
    assert exports.verify(book, path, up_to=last).ok
    found = exports.verify(book, path, up_to={"root": last["root"] + 1}).difference
    assert found is not None
    assert ("root", last["root"] + 1) == (found.pool, found.seq)
    assert found.reason.startswith("it is missing in the file; if")


def test_a_shortened_export(exported: tuple[Ledger, Path]) -> None:
    """Rows that were cut off at the end are missing, for who says up to where it was made."""
    book, path = exported
    last = {one.pool: one.last_seq for one in exports.verify(book, path).pools}
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(rows[:-2]), encoding="utf-8")
    assert exports.verify(book, path).ok
    assert not exports.verify(book, path, up_to=last).ok


def test_as_of_is_an_end(history: Callable[[int], Ledger], tmp_path: Path) -> None:
    """An export up to one entry of one pool is complete or it differs."""
    book = history(SEED)
    where = reports.Filter(pools=["root"], as_of=9)
    path = tmp_path / "out.csv"
    assert 9 == exports.write(book, where, path).rows
    assert exports.verify(book, path, where).ok
    path.write_bytes(b"\r\n".join(path.read_bytes().split(b"\r\n")[:-2]) + b"\r\n")
    assert not exports.verify(book, path, where).ok


def test_an_erased_attribution(exported: tuple[Ledger, Path]) -> None:
    """What named somebody cannot be compared any more; everything else still is."""
    book, path = exported
    a = schema.attributions.c
    content = ["salt", "content_key", "tags", "run_id", "parent_run_id", "tenant", "agent"]
    content += ["operation", "provider", "model"]
    erased = update(schema.attributions).where(a.attribution_id == 1)
    unguarded(book, "attributions", erased.values(dict.fromkeys(content)))
    checked = exports.verify(book, path)
    assert (None, True) == (checked.difference, checked.redacted > 0)
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*rows[:3], edited(rows[3], seq=99), *rows[4:]]), encoding="utf-8")
    assert not exports.verify(book, path).ok


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.csv", None, "No such file"),
        ("a.csv", b"pool,seq\r\n1,2\r\n", "those of no export: pool, seq"),
        ("a.csv", b"\xff\xfe", "no export"),
        ("a.jsonl", b"[1]\n", "no JSON object"),
        ("a.jsonl", b"{", "no export"),
        ("a.parquet", b"PAR1", "no export"),
        ("a.xlsx", b"PK", "no export"),
    ],
)
def test_what_is_no_export(
    exported: tuple[Ledger, Path], tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    """The file is named, and what is wrong with it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=reason) as raised:
        exports.verify(exported[0], path)
    assert str(path) == raised.value.path


def test_a_row_that_is_cut_off(history: Callable[[int], Ledger], tmp_path: Path) -> None:
    """A file that ends in the middle of a row is damaged."""
    book = history(SEED)
    for ending in ("csv", "jsonl"):
        path = tmp_path / f"out.{ending}"
        exports.write(book, reports.Filter(), path)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(ExportError, match="no export of these formats, or damaged"):
            exports.verify(book, path)
