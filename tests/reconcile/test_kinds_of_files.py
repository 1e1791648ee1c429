"""Each kind of file of docs/reconcile.md opens, and says what is in it; one sample a row."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import BillingFileError
from ledger.reconcile import READY, Bill, BillMapping, read_bill
from tests.fixtures import Read
from tests.programs import ROOT
from tests.reconcile.samples import DAY, SAMPLES, Sample


def said(bill: Bill) -> list[tuple[object, ...]]:
    """Return of each line what a sample has of it."""
    return [
        (
            line.request_id,
            line.model,
            line.day,
            {name: one for name, one in zip(bill.axes, line.amounts, strict=True) if one},
        )
        for line in bill.lines
    ]


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_kind_of_file(bill: Read, sample: Sample) -> None:
    """It is read as it is, and the same from gzip and from zip."""
    content = sample.content.encode()
    mappings = [replace(one, start=DAY) for one in READY[sample.mapping]]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(sample.name, content)
    for data in (content, gzip.compress(content, mtime=0), packed.getvalue()):
        assert sample.lines == said(bill(data, mappings, sample.name))


def test_sessions_in_one_file(bill: Read) -> None:
    """Two sessions whose sums are the same are two; the same session twice is one."""
    sample = SAMPLES["Codex"]
    other = sample.content.replace('"id": "s"', '"id": "t"')
    assert other != sample.content
    assert sample.lines * 2 == said(bill(sample.content + other, "codex"))
    assert sample.lines == said(bill(sample.content * 2, "codex"))


def test_every_mapping_has_a_sample_and_a_row() -> None:
    """No ready mapping is without a sample, and none without its row in the table."""
    assert READY.keys() - {"generic"} == {sample.mapping for sample in SAMPLES.values()}
    table = (ROOT / "docs" / "reconcile.md").read_text(encoding="utf-8")
    for kind, sample in SAMPLES.items():
        assert f"| {kind} | `{sample.mapping}` |" in table


ROWS = [
    {"at": "2026-03-01", "model": "gpt-5", "cost": 0.1, "tags": {"team": "a"}},
    {"at": "2026-03-02", "model": "gpt-5", "cost": 12, "tags": {"team": "b"}},
]
MAPPING = BillMapping(at="at", model="model", cost="cost")
EXPECTED = [
    (None, "gpt-5", "2026-03-01", {"cost_micros_usd": 100_000}),
    (None, "gpt-5", "2026-03-02", {"cost_micros_usd": 12_000_000}),
]


def test_parquet(tmp_path: Path) -> None:
    """Doubles are read as the shortest number that stands for them; maps by their keys."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    columns["cost"] = [0.1, 12.0]
    tags = pyarrow.map_(pyarrow.string(), pyarrow.string())
    table = pyarrow.table(
        {
            **columns,
            "tags": pyarrow.array([[*one.items()] for one in columns["tags"]], tags),
        }
    )
    path = tmp_path / "bill"
    parquet.write_table(table, path)
    read = read_bill(path, [MAPPING])
    assert EXPECTED == said(read)
    assert ["tags.team"] == read.unread_columns
    only = BillMapping(at="at", cost="cost", only={"tags.team": "b"})
    assert 1 == len(read_bill(path, [only]).lines)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BillingFileError, match="not Parquet that can be read"):
        read_bill(path, [MAPPING])


def test_a_workbook(tmp_path: Path) -> None:
    """The sheet whose header fits, below any preamble; other sheets are named with their rows."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Notes"
    book.active.append(["Printed for you"])
    sheet = book.create_sheet("Costs")
    sheet.append(["Costs of March"])
    sheet.append([])
    sheet.append(["at", "model", "cost", "note"])
    for row in ROWS:
        sheet.append([row["at"], row["model"], row["cost"]])
    path = tmp_path / "bill"
    book.save(path)
    read = read_bill(path, [MAPPING])
    assert EXPECTED == said(read)
    assert [4, 5] == [line.line for line in read.lines]
    assert {"sheet 'Notes'": 1} == read.unread_lists
    with pytest.raises(BillingFileError, match=r"no 'price', as mapping .*workbook"):
        read_bill(path, [BillMapping(at="at", cost="price")])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BillingFileError, match="not a zip file that can be read"):
        read_bill(path, [MAPPING])


COMMA = "at;model;cost\n2026-03-01;gpt-5;0,1\n2026-03-02;gpt-5;12,00\n"


@pytest.mark.parametrize(
    "content",
    [
        COMMA.encode(),
        COMMA.replace(";", "\t").encode("utf-16"),
        COMMA.replace(";", "\t").encode("utf-16-le"),
        COMMA.replace(",", ".").replace(";", ",").encode("utf-8-sig"),
        COMMA.replace(";", "|").encode(),
        f"Report of March\nMade by; us\n\n{COMMA}".encode(),
        f"Report, of March\nMade by: us\n\n{COMMA}".encode(),
    ],
    ids=["semicolons", "tabs, UTF-16", "UTF-16 unmarked", "commas", "bars", "preamble", "comma"],
)
def test_dialects_are_found_out(bill: Read, content: bytes) -> None:
    """The sign between cells, the encoding, and the line of the header."""
    assert EXPECTED == said(bill(content, [MAPPING]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (COMMA.replace("cost", "price"), "it looks like CSV with semicolons"),
        (f"a\nb\n{COMMA.replace('cost', 'price')}", "semicolons, its header on line 3"),
        (COMMA.replace("12,00", "1,200"), "'1,200' is not a decimal number; say decimal = ','"),
        (COMMA.replace("2026-03-02", "03/02/2026"), "say its form with at_format"),
        (b"%PDF-1.7\n", "the file is a PDF; ask the provider for CSV or JSON"),
        (b"\xd0\xcf\x11\xe0....", "a workbook of old Excel"),
        (gzip.compress(COMMA.encode(), mtime=0)[:-12], "damaged: it cannot be unpacked"),
        (COMMA.encode("utf-16")[:-1], "not UTF-16 text"),
        (COMMA.replace("gpt", "g\u00e4t").encode("latin-1"), "not UTF-8 text; save the file as"),
    ],
)
def test_what_a_file_looks_like(bill: Read, content: str | bytes, message: str) -> None:
    """The error says what the file seems to be, and what to do."""
    with pytest.raises(BillingFileError) as caught:
        bill(content, [MAPPING])
    assert message in str(caught.value)


def test_several_files_in_a_zip(bill: Read) -> None:
    """None of them is taken for the whole."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", COMMA)
        archive.writestr("b.csv", COMMA)
    with pytest.raises(BillingFileError, match=r"a zip of 2 files \('a.csv', 'b.csv'\)"):
        bill(packed.getvalue(), [MAPPING])


def test_a_large_document_on_one_line(bill: Read) -> None:
    """A page of more than a megabyte is read row by row, also where a bucket alone is as large."""
    row = {"model": "gpt-5", "note": "x" * 100, "cost": 0.1}
    bucket = {"at": "2026-03-01", "results": [row] * 10_000}
    small = {"at": "2026-03-02", "results": [{**row, "cost": 12}]}
    page = {"object": "page", "data": [bucket, small], "has_more": False}
    read = bill(json.dumps(page), [MAPPING])
    assert 10_001 == len(read.lines)
    assert [*EXPECTED] == [said(read)[0], said(read)[-1]]
    assert 9_999 == len(read.identical)
    with pytest.raises(BillingFileError, match="there are more"):
        bill(json.dumps({**page, "has_more": True}), [MAPPING])
    late = {"results": [row] * 10_000, "at": "2026-03-01"}
    with pytest.raises(BillingFileError, match="'at' stands behind a list"):
        bill(json.dumps({"data": [late]}), [MAPPING])
    with pytest.raises(BillingFileError, match="pages 1 and 2 are the same"):
        bill(json.dumps([page, page]), [MAPPING])
