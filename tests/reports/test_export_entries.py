"""Exports of entries: exact in every format, repeatable, whole or not there at all."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from pyarrow import parquet

from ledger import (
    Attribution,
    ExportError,
    InvalidInputError,
    JournalDamagedError,
    Ledger,
    MissingExtraError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    UsageReport,
    exports,
    reports,
)
from ledger.exports import xlsx
from ledger.exports.columns import EXPORT_COLUMNS
from ledger.store import schema

Facts = Callable[[Ledger], list[dict[str, Any]]]

FORMATS = ["csv", "jsonl", "parquet", "xlsx"]
LARGE = 2**63 - 1


def read(path: Path) -> list[dict[str, Any]]:
    """Read an export as any program would, its cells as the format has them."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    sheet = openpyxl.load_workbook(path).worksheets[0]
    header, *lines = sheet.iter_rows(values_only=True)
    return [dict(zip(header, line, strict=True)) for line in lines]


def seen(cell: object) -> str:
    """Return a cell as text, whatever type its format gave it."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.isoformat().replace("+00:00", "Z")
    if isinstance(cell, float):
        cell = Decimal(repr(cell))
    if isinstance(cell, dict):
        return json.dumps(cell, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(cell)


def iso(micros: int | None) -> str:
    """Return a stored time as an export shows it."""
    if micros is None:
        return ""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    return at.isoformat().replace("+00:00", "Z")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    made = tmp_path / "exports"
    made.mkdir()
    return made


@pytest.fixture
def odd(book: Ledger) -> Ledger:
    """Return books with everything that is hard to write down."""
    budget = book.pool("2024", SharedPoolBudgetOptions(capacity_tokens=9_000))
    for who in (
        Attribution(run_id="=1+1", tenant='a "b", c', agent="line\r\nbreak", model="+m"),
        Attribution(run_id="'=x", tenant="'", agent="_x0041_", tags={"@k": "=v", "é": '"'}),
        Attribution(run_id="-1", tenant="\t\x01\x7f", agent="\uff1dx", provider="123"),
        Attribution(run_id=" ", tenant="null", agent="😀", operation="\r"),
    ):
        lease = budget.reserve(RequestExtensions(who), UsageEstimate(), RequestBudget.unlimited())
        budget.record_used(
            lease,
            Usage(total_tokens=7, cost_micros_usd=1, reasoning_tokens=LARGE, input_tokens=10**15),
            report=UsageReport(detail={"n": [1, 2.5, None], "t": "=\r\n"}),
        )
    return book


@pytest.mark.parametrize("ending", FORMATS)
def test_figures_times_and_names_are_exact(
    history: Callable[[int], Ledger], facts: Facts, folder: Path, ending: str
) -> None:
    """Every entry is a row that says what the journal says, mirrors among them."""
    book = history(1)
    path = folder / f"out.{ending}"
    done = exports.write(book, reports.Filter(), path)
    expected = facts(book)
    found = read(path)
    assert (len(expected), len(expected)) == (done.rows, len(found))
    for entry, row in zip(expected, found, strict=True):
        for name in ("pool", "seq", "kind", "lease", "usage_total_tokens", "run_id", "provenance"):
            assert seen(entry[name]) == seen(row[name])
        for group in ("estimate", "usage", "used", "committed", "reserved"):
            micros = entry[f"{group}_cost_micros_usd"]
            assert seen(micros) == seen(row[f"{group}_cost_micros_usd"])
            if micros is not None:
                assert micros == Decimal(seen(row[f"{group}_usd"])) * 1_000_000
        for name in ("recorded_at", "occurred_at"):
            assert iso(entry[name]) == seen(row[name])
        assert entry["tags"] == json.loads(seen(row["tags"]) or "{}")
        assert ("root" if entry["origin_seq"] else "") == ("root" * bool(row["origin_seq"]))


@pytest.mark.parametrize("ending", FORMATS)
def test_whatever_people_write_comes_back(odd: Ledger, folder: Path, ending: str) -> None:
    """Formulas, quotes, line ends, digits, control characters and large figures survive."""
    path = folder / f"out.{ending}"
    exports.write(odd, "2024", path)
    checked = exports.verify(odd, path, "2024")
    assert (None, 9) == (checked.difference, checked.rows)
    row = read(path)[2]
    assert str(LARGE) == seen(row["usage_reasoning_tokens"])
    assert "1000000000000000" == seen(row["usage_input_tokens"])
    assert "0.000001" == f"{Decimal(seen(row['usage_usd'])):f}"


def test_no_cell_of_a_csv_file_is_a_formula(odd: Ledger, folder: Path) -> None:
    """A text never begins as a formula does; text is quoted, and a figure is not."""
    path = folder / "out.csv"
    exports.write(odd, "2024", path)
    text_columns = {c.name for c in EXPORT_COLUMNS if c.kind.name in {"TEXT", "JSON"}}
    for row in read(path):
        for name in text_columns:
            assert row[name][:1] not in set("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
    lines = path.read_bytes()
    assert b"\r\n" == lines[-2:]
    assert b',"\'=1+1",' in lines
    assert b",\"''=x\"," in lines
    assert b'"2024",2,"reservation",,' in lines


def test_parquet_types(odd: Ledger, folder: Path) -> None:
    """Integers have 64 bits, US dollars are decimals, and times have a zone."""
    path = folder / "out.parquet"
    exports.write(odd, "2024", path)
    found = parquet.read_schema(path)
    assert "int64" == str(found.field("usage_total_tokens").type)
    assert "decimal128(25, 6)" == str(found.field("usage_usd").type)
    assert "timestamp[us, tz=UTC]" == str(found.field("recorded_at").type)


def test_every_column_of_the_journal_is_exported() -> None:
    """What the store has of an entry is in the export, numbers of rows by what they stand for."""
    stored = {column.name for column in schema.entries.columns}
    by_name = {"pool_id", "origin_pool_id", "attribution_id"}
    assert set() == stored - by_name - {column.name for column in EXPORT_COLUMNS}


@pytest.mark.parametrize("ending", FORMATS)
def test_an_export_can_be_made_again(
    history: Callable[[int], Ledger], folder: Path, ending: str
) -> None:
    """Up to the entries that were printed it is the same to the byte, whatever came later."""
    book = history(2)
    first, again, other = (folder / f"{name}.{ending}" for name in ("a", "b", "c"))
    done = exports.write(book, reports.Filter(), first)
    book.adjust("other", SharedPoolBudgetOptions(capacity_tokens=5))
    book.pool("new", SharedPoolBudgetOptions())
    assert done.rows + 2 == exports.write(book, reports.Filter(), other).rows
    where = reports.Filter(pools=list(done.up_to))
    assert done == exports.write(book, where, again, up_to=done.up_to)
    assert first.read_bytes() == again.read_bytes()


def test_what_is_appended_meanwhile_is_not_in_it(history: Callable[[int], Ledger]) -> None:
    """A writer that works on while an export is written does not change it."""
    book = history(3)
    before, during = io.BytesIO(), _Busy(book)
    exports.write(book, reports.Filter(), before, format=exports.Format.JSONL)
    exports.write(book, reports.Filter(), during, format=exports.Format.JSONL)
    assert during.appended
    assert before.getvalue() == during.getvalue()


class _Busy(io.BytesIO):
    """A stream during whose first write an entry is appended."""

    def __init__(self, book: Ledger) -> None:
        super().__init__()
        self._book = book
        self.appended = False

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        if not self.appended:
            self.appended = True
            self._book.adjust("root", SharedPoolBudgetOptions())
        return super().write(data)


@pytest.mark.parametrize("ending", FORMATS)
def test_an_error_leaves_no_part_of_a_file(
    history: Callable[[int], Ledger], folder: Path, ending: str
) -> None:
    """An entry that cannot be read is named; the file from before stays, and nothing beside it."""
    book = history(4)
    path = folder / f"out.{ending}"
    exports.write(book, reports.Filter(), path)
    before = path.read_bytes()
    with book._database.engine.connect() as connection:
        newest = schema.entries.select().order_by(schema.entries.c.seq.desc()).limit(1)
        damaged = dict(connection.execute(newest).mappings().one())
        damaged |= {"seq": damaged["seq"] + 1, "detail": "{no", "idempotency_key": None}
        damaged |= {"kind": "adjustment", "lease": None, "origin_seq": None}
        connection.execute(schema.entries.insert(), damaged)
        connection.commit()
    with pytest.raises(JournalDamagedError, match=f"entry {damaged['seq']}"):
        exports.write(book, reports.Filter(), path)
    assert before == path.read_bytes()
    assert [path] == list(folder.iterdir())


def test_a_file_that_cannot_be_written(odd: Ledger, folder: Path) -> None:
    """The file is named, and what is wrong with it."""
    for path, reason in ((folder, "it is a folder"), (folder / "no" / "a.csv", "No such")):
        with pytest.raises(ExportError, match=reason) as raised:
            exports.write(odd, "2024", path, format=exports.Format.CSV)
        assert str(path) == raised.value.path


@pytest.mark.parametrize(
    ("to", "options", "reason"),
    [
        ("out.txt", {}, "format: say which, or name a file that ends in .csv"),
        (io.BytesIO(), {}, "format: say which"),
        (io.BytesIO(), {"format": exports.Format.XLSX}, "only CSV and JSONL"),
        ("out.csv", {"format": "csv"}, "format: must be a Format"),
        ("out.csv", {"focus_version": "1.3"}, "focus_version: must be a FocusVersion"),
        ("out.csv", {"up_to": {"2024": 10}}, "has entries 1 to 9, and no 10"),
        ("out.csv", {"up_to": {"2024": 0}}, "has entries 1 to 9, and no 0"),
        ("out.csv", {"up_to": {"other": 1}}, "'other' is not among those exported"),
        ("out.csv", {"up_to": {"2024": 2.0}}, "must be an int"),
    ],
)
def test_what_cannot_be_exported(
    odd: Ledger,
    folder: Path,
    to: Any,  # noqa: ANN401 - wrong ones too
    options: dict[str, Any],
    reason: str,
) -> None:
    """What is wrong is said, and nothing is written."""
    target = folder / to if isinstance(to, str) else to
    with pytest.raises(InvalidInputError) as raised:
        exports.write(odd, reports.Filter(), target, **options)
    assert reason in str(raised.value)
    assert [] == list(folder.iterdir())
    with pytest.raises(UnknownPoolError):
        exports.write(odd, "nobody", folder / "out.csv")


def test_a_workbook_has_further_sheets(
    odd: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a sheet is full the rows go on on another one, under the same header."""
    monkeypatch.setattr(xlsx, "SHEET_ROWS", 4)
    path = folder / "out.xlsx"
    exports.write(odd, "2024", path)
    sheets = openpyxl.load_workbook(path).worksheets
    assert [4, 4, 4] == [sheet.max_row for sheet in sheets]
    assert {("pool", "seq")} == {
        (sheet.cell(1, 1).value, sheet.cell(1, 2).value) for sheet in sheets
    }
    assert exports.verify(odd, path, "2024").ok


def test_a_text_too_long_for_a_cell(book: Ledger, folder: Path) -> None:
    """It is refused and not cut off; the other formats hold it."""
    tags = {f"{number:02}{'x' * 253}": "y" * 255 for number in range(64)}
    budget = book.pool("long", SharedPoolBudgetOptions())
    budget.reserve(
        RequestExtensions(Attribution(tags=tags)), UsageEstimate(), RequestBudget.unlimited()
    )
    with pytest.raises(InvalidInputError, match=r"tags: row 2 has a text of 3\d,\d+ characters"):
        exports.write(book, "long", folder / "out.xlsx")
    assert not (folder / "out.xlsx").exists()
    exports.write(book, "long", folder / "out.csv")
    assert exports.verify(book, folder / "out.csv", "long").ok


@pytest.mark.parametrize(
    ("package", "ending", "extra"),
    [("pyarrow", "parquet", "parquet"), ("xlsxwriter", "xlsx", "xlsx")],
)
def test_a_missing_library_is_named(
    odd: Ledger,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    ending: str,
    extra: str,
) -> None:
    """The error says which extra brings it, and no file is left."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as raised:
        exports.write(odd, "2024", folder / f"out.{ending}")
    assert extra == raised.value.extra
    assert [] == list(folder.iterdir())


def test_an_export_without_rows(book: Ledger, folder: Path) -> None:
    """A filter that nothing passes gives a header alone, which holds."""
    book.pool("empty", SharedPoolBudgetOptions())
    nobody = reports.Filter(run_id="nobody")
    for ending in FORMATS:
        path = folder / f"out.{ending}"
        assert 0 == exports.write(book, nobody, path).rows
        checked = exports.verify(book, path, nobody)
        assert (True, 0) == (checked.ok, checked.rows)


def names(columns: Sequence[Any]) -> list[str]:
    """Return the names of columns."""
    return [column.name for column in columns]


def test_the_header_is_the_documented_one() -> None:
    """docs/exports.md has a line for each column of an export of entries, in its order."""
    manual = (Path(__file__).parents[2] / "docs" / "exports.md").read_text(encoding="utf-8")
    section = manual.partition("## Columns of entries")[2].partition("\n## ")[0]
    documented = [
        name.strip(" `")
        for line in section.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    ]
    assert names(EXPORT_COLUMNS) == documented
