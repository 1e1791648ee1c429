"""A bill is read whole and checked before anything is done with it."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest

from ledger import BillingFileError
from ledger.files import source
from ledger.reconcile import READY, read_bill
from tests.fixtures import Read

HEADER = "request_id,at,model,total_tokens,cost_usd\n"


def test_csv_as_spreadsheets_write_it(bill: Read) -> None:
    """A byte order mark, quotes, line ends of Windows, blank lines, a short row: all are read."""
    content = (
        "\ufeffrequest_id, at ,model,total_tokens,cost_usd\r\n"
        '"r ""1""",2024-02-29,"a,\nb",7,0.5\r\n'
        "\r\n"
        "r2,2024-02-29,m,8\r\n"
    ).encode()
    read = bill(content)
    assert [('r "1"', "a,\nb", (7, 500_000), 3), ("r2", "m", (8, 0), 5)] == [
        (line.request_id, line.model, line.amounts, line.line) for line in read.lines
    ]
    assert ("bill.csv", sha256(content).hexdigest()) == (read.file, read.sha256)


def test_a_file_is_hashed_as_it_lies_on_disk(bill: Read) -> None:
    """Packed, it has another hash than what is in it: that of the file that people keep."""
    content = b"at,total_tokens\n2024-02-29,1\n"
    packed = gzip.compress(content, mtime=0)
    assert sha256(packed).hexdigest() == bill(packed).sha256
    assert bill(content).lines == bill(packed).lines


def test_no_float_touches_an_amount(bill: Read) -> None:
    """JSON numbers are taken as they are written, to the last digit."""
    content = (
        '[{"at": "2024-02-29", "cost_usd": 0.1}, {"at": "2024-02-29", "cost_usd": 0.2},'
        ' {"at": "2024-02-29", "cost_usd": 1E-7, "total_tokens": 9007199254740993},'
        ' {"at": "2024-02-29", "cost_usd": -0.30000000000000000001}]'
    )
    read = bill(content, name="bill.json")
    assert [
        Fraction(100_000),
        Fraction(200_000),
        Fraction(1, 10),
        -300_000 - Fraction(1, 10**14),
    ] == [line.amounts[1] for line in read.lines]
    assert 2**53 + 1 == read.lines[2].amounts[0]


def test_json_in_all_its_forms(bill: Read) -> None:
    """A list, a page, several pages, an object a line, pages a line: the same lines."""
    objects = [{"at": "2024-02-29", "total_tokens": number} for number in (1, 2, 3)]
    pages = [{"data": objects[:2], "has_more": True}, {"data": objects[2:], "has_more": False}]
    forms = {
        "list": json.dumps(objects),
        "page": json.dumps({"data": objects}),
        "pages": json.dumps(pages, indent=2),
        "lines": "\n".join(map(json.dumps, objects)) + "\n",
        "pages a line": "\n\n".join(map(json.dumps, pages)),
    }
    for form, content in forms.items():
        read = bill(content, name="bill.json")
        assert [1, 2, 3] == [line.amounts[0] for line in read.lines], form
    assert [1, 2, 3] == [line.line for line in bill(forms["list"]).lines]
    assert [1, 2, 3] == [line.line for line in bill(forms["lines"]).lines]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ('r,2024-02-29,m,"1,234",1', "total_tokens: '1,234' is not a whole number"),
        ("r,2024-02-29,m,1.000,1", "total_tokens: '1.000' is not a whole number"),
        ("r,2024-02-29,m,1.5,1", "total_tokens: '1.5' is not a whole number"),
        ("r,2024-02-29,m,9223372036854775808,1", "is outside 0 .. 9223372036854775807"),
        ('r,2024-02-29,m,1,"1,234.50"', "cost_usd: '1,234.50' is not a decimal number"),
        ("r,2024-02-29,m,1,$5", "cost_usd: '$5' is not a decimal number"),
        ("r,2024-02-29,m,1,inf", "cost_usd: 'inf' is not a decimal number"),
        ("r,2024-02-29,m,1,1e99", "cost_usd"),
        ("r,29.02.2024,m,1,1", "at: '29.02.2024' is neither an ISO 8601"),
        ("r,2024-02-30,m,1,1", "at: '2024-02-30' is neither an ISO 8601"),
        ("r,9999-12-31T23:59:59-09:00,m,1,1", "is outside the years 1 to 9999"),
        (",,m,1,1", "has neither a request id nor a day"),
        (f"{'r' * 256},2024-02-29,m,1,1", "request_id: must have 1 to 255 characters"),
        (f"r,2024-02-29,{'m' * 256},1,1", "model: must have 1 to 255 characters"),
        ("r,2024-02-29,m,1,1,6", "6 cells, where the header has 5"),
        ('r,2024-02-29,m,1,"1', "not CSV"),
    ],
)
def test_a_bad_line_is_named(bill: Read, cells: str, said: str) -> None:
    """The error has the line's number and what is wrong with it."""
    with pytest.raises(BillingFileError) as caught:
        bill(f"{HEADER}ok,2024-02-29,m,1,1\n{cells}\n")
    assert 3 <= (caught.value.line or 0) <= 4
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("", None, "the file is empty"),
        ("\ufeff \n", None, "the file is empty"),
        ("at,cost_usd,at\n", 1, "two columns are called 'at'"),
        (b"at,cost_usd\n2024-02-29,1\n2024-02-29,\xff\n", 3, "not UTF-8"),
        ("at,cost_usd\n".encode("utf-16") + b"\n", None, "not UTF-16"),
        ('[{"at": 1,\n\n}]', 3, "not JSON"),
        ('{"at": "2024-02-29", "cost_usd": 1}\n{"at"}\n', 2, "not JSON"),
        ('{"a": 1}\n[2]', 2, "not an object, nor a list of objects"),
        ("[[],\n[]]", 2, "an empty list stands where an object is expected"),
        ('{"data": [[]]}', 1, "an empty list stands where an object is expected"),
        ('[{"at": "2024-02-29", "cost_usd": NaN}]', 1, "NaN is no number"),
        ('[{"at": "2024-02-29", "cost_usd": 1, "cost_usd": 2}]', 1, "the same key twice"),
        ("[" * 100_000, 1, "not JSON"),
        ('{"data": [], "has_more": true}', None, "there are more (has_more)"),
        ('[{"data": [{"at": "2024-02-29"}], "has_more": true}]', None, "there are more"),
        ('[{"at": "2024-02-29", "cost_usd": 1}, {"at": "x", "cost_usd": 1}]', 2, "'x' is neither"),
        ('[{"at": "2024-02-29", "cost_usd": [1]}]', None, "the file has 'at'"),
        ("at,cost_usd,currency\n2024-02-29,1,EUR\n", 2, "currency: 'EUR' is not USD"),
    ],
)
def test_a_bad_file_is_named(bill: Read, content: str | bytes, line: int | None, said: str) -> None:
    """What cannot be read says so, with the line where there is one."""
    with pytest.raises(BillingFileError) as caught:
        bill(content)
    assert line == caught.value.line
    assert said in str(caught.value)
    assert "bill.csv" in str(caught.value)


def test_a_name_in_a_zip_that_is_none(bill: Read) -> None:
    """It is marked as UTF-8, and is not."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("\xfc.csv", "at,cost_usd\n2024-02-29,1\n")
    assert 1 == len(bill(packed.getvalue()).lines)
    with pytest.raises(BillingFileError, match="not a zip file that can be read"):
        bill(packed.getvalue().replace("\xfc".encode(), b"\xff\xfe"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, and a folder, are errors of ours."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BillingFileError, match="cannot be read"):
            read_bill(path, READY["generic"])


def test_a_file_that_is_too_large(bill: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is one that a message names; up to it a file is read."""
    content = "at,cost_usd\n2024-02-29,1\n"
    monkeypatch.setattr(source, "CONTENT_MAX", len(content))
    assert 1 == len(bill(content).lines)
    with pytest.raises(BillingFileError, match="MiB when unpacked; cut it by days"):
        bill(content + "\n")


def test_an_export_of_empty_days(bill: Read) -> None:
    """A file with a header alone, and rows without any amount, are a bill of nothing."""
    assert ([], 0) == (bill(HEADER).lines, bill(HEADER).empty)
    for content in ("[]", '{"data": []}', '{"data": [], "has_more": false, "next_page": null}'):
        assert ([], 0) == (bill(content).lines, bill(content).empty)
    read = bill(f"{HEADER},2024-02-29,,,\n,,,,\n")
    assert ([], 2) == (read.lines, read.empty)
