"""Rows are read together, and what is read is the same as if each were read by itself."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import BillingFileError
from ledger.core.calendar import zone_named
from ledger.files import delimited, lines, rows
from ledger.files.bill import fitted_table
from ledger.files.cells import CellReader
from ledger.files.numbers import is_plain, plain_numbers
from ledger.files.rows import FileRows
from ledger.reconcile import READY, BillMapping, read_bill
from tests.fixtures import Read

COUNT = 2 * rows.ROWS_MAX + 3
(GENERIC,) = READY["generic"]


def test_lines_of_many_rows_are_as_the_file_has_them(bill: Read) -> None:
    """Also exact fractions, and rows that lie in several parts of the file that keeps them."""
    content = "request_id,at,model,total_tokens,cost_usd\n" + "".join(
        f"r{number},2024-02-29T10:00:{number % 60:02}Z,m{number % 3},{number},0.{number:09}\n"
        for number in range(COUNT)
    )
    read = bill(content)
    assert [
        (f"r{number}", f"m{number % 3}", (number, Fraction(number, 1000)), number + 2)
        for number in range(COUNT)
    ] == [(line.request_id, line.model, line.amounts, line.line) for line in read.lines]
    assert read.lines[-1] == read.lines[COUNT - 1] != read.lines[0]
    assert (0, 0) == read.least
    assert (COUNT - 1, Fraction(COUNT - 1, 1000)) == read.most


@pytest.mark.parametrize("place", [0, 1, rows.ROWS_MAX - 1, rows.ROWS_MAX, COUNT - 1])
def test_the_first_bad_line_is_named(bill: Read, place: int) -> None:
    """Whatever is wrong behind it in the same rows, in another column, too."""
    content = [f"r{number},2024-02-29,1" for number in range(COUNT)]
    content[place] = f"r{place},2024-02-29,x"
    content[place + 1 :] = [f"r{number},never,1" for number in range(place + 1, COUNT)]
    with pytest.raises(BillingFileError, match=f"line {place + 2}: total_tokens: 'x'"):
        bill("\n".join(["request_id,at,total_tokens", *content]))


def test_what_stands_in_the_end_of_a_line_without_a_beginning_is_no_time(bill: Read) -> None:
    """Such as the last one of an export, which holds totals."""
    mapping = replace(GENERIC, at="from", end="to", request_id=None)
    content = "from,to,total_tokens\n2024-02-29,2024-03-01,7\n,Total,\n"
    read = bill(content, [mapping])
    assert [(7, datetime(2024, 3, 1, tzinfo=ZoneInfo("UTC")))] == [
        (line.amounts[0], line.end) for line in read.lines
    ]


def test_a_line_that_repeats_another_is_named_before_a_later_bad_one(bill: Read) -> None:
    """Rows are compared in their order, too."""
    content = "request_id,at,total_tokens\nr1,2024-02-29,1\nr1,2024-02-29,2\nr2,never,2\n"
    with pytest.raises(BillingFileError, match=r"line 3: .*'r1' has total_tokens on line 2"):
        bill(content)


@pytest.mark.parametrize("between", [1, lines._WRITTEN_AT_ONCE, rows.ROWS_MAX])
def test_later_lines_replace_earlier_ones(bill: Read, between: int) -> None:
    """Wherever the two are kept; the place in the file is that of the first."""
    numbers = [*range(between), *range(between), *range(between)]
    content = "request_id,at,total_tokens\n" + "".join(
        f"r{number},2024-02-29,{place}\n" for place, number in enumerate(numbers)
    )
    mapping = replace(GENERIC, repeats="last")
    read = bill(content, [mapping])
    assert [(f"r{number}", (2 * between + number,)) for number in range(between)] == [
        (line.request_id, line.amounts) for line in read.lines
    ]
    assert 2 * between == read.replaced


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
CELL = st.text(st.sampled_from('ab",;\n\r\x1c\u2028 é'), max_size=6)


@settings(deadline=None)
@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=12), ENDS, st.data())
def test_lines_are_cut_as_python_cuts_them(
    table: list[list[str]], end: str, data: st.DataObject
) -> None:
    """Wherever what is read at once ends: in a line's end of two signs, or within quotes."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows(table)
    text = out.getvalue()
    step = data.draw(st.integers(1, max(1, len(text))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_CHUNK", step)
        wrapped = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="")
        found = [*delimited._Lines(None, wrapped)]  # type: ignore[arg-type] # nothing is refused
    assert io.StringIO(text, newline="").readlines() == found


@given(st.lists(st.text(st.sampled_from("0123456789-+. ²٣"), max_size=20)))
def test_plain_numbers_are_those_that_are_plain_each(texts: list[str]) -> None:
    """The same as one by one: no other digits, no sign, nothing empty, below 2^63."""
    plain = bool(texts) and all(map(is_plain, texts))
    assert ([*map(int, texts)] if plain else None) == plain_numbers(texts)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Europe/Berlin", "Etc/GMT-3"])
def test_times_without_a_zone_are_those_of_the_mapping(zone: str) -> None:
    """In zones whose clocks are changed and in those whose clocks never are."""
    mapping = BillMapping(at="at", total_tokens=["n"], zone=zone)
    reader = CellReader(mapping, ["at", "n"])
    texts = [
        (datetime(2024, 1, 1) + timedelta(hours=7 * number)).isoformat(sep=" ")  # noqa: DTZ001
        for number in range(1_300)
    ]
    begins, _ends = reader.times(FileRows([1] * len(texts), {"at": texts}, [b""] * len(texts)))
    assert [
        int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000
        for text in texts
    ] == begins
    assert zone_named(zone) == ZoneInfo(zone)


@pytest.mark.parametrize("name", ["bill.csv", "bill.jsonl"])
def test_many_long_cells_are_not_read_together(tmp_path: Path, name: str) -> None:
    """Memory is bounded by characters, not by the number of rows alone."""
    path, wide, count = tmp_path / name, "x" * 100_000, 40
    row = {"at": "2024-02-29", "model": wide, "total_tokens": "1"}
    if name.endswith("csv"):
        path.write_text(",".join(row) + "\n" + f"{','.join(row.values())}\n" * count)
    else:
        path.write_text(f"{json.dumps(row)}\n" * count)
    with fitted_table(path, [GENERIC]) as (_source, mapping, table):
        blocks = [len(block.lines) for block in table.rows(mapping.columns)]
    assert count == sum(blocks)
    assert max(blocks) * len(wide) < 2 * rows.CHARS_MAX


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    """In bytes of the file, again and again."""
    path = tmp_path / "bill.csv"
    path.write_text("at,total_tokens\n" + "2024-02-29,1\n" * 20 * rows.ROWS_MAX)
    told: list[tuple[int, int]] = []
    read_bill(path, [GENERIC], progress=lambda done, size: told.append((done, size)))
    size = path.stat().st_size
    assert {size} == {one for _done, one in told}
    done = [one for one, _size in told]
    assert sorted(done) == done
    assert done[0] < size == done[-1]
