"""Whatever a file holds: it is read, or refused with an error of ours; never a traceback."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import LedgerError
from ledger.reconcile import READY, Bill, explain, read_bill
from tests.reconcile.samples import SAMPLES

QUICK = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG = settings(QUICK, max_examples=20_000, derandomize=False)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["2026-03-01", "0E-6176", "1,5", "gpt-5", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "results", "at", "cost_usd", "key", "value", "a.b", "next_page"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
CELL = st.sampled_from(
    ["", "at", "cost_usd", "2026-03-01", "1", "-1", "1.000", "1,5", '"', "x\ny", "0E9", "\0", "=1"]
) | st.text(max_size=5)
TABLE = st.builds(
    lambda sign, end, rows: end.join(sign.join(row) for row in rows).encode(errors="surrogatepass"),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.lists(CELL, max_size=6), max_size=6),
)
DOCUMENT = st.lists(JSON, min_size=1, max_size=3).map(
    lambda values: "\n".join(map(json.dumps, values)).encode()
)


@st.composite
def damaged(draw: Any) -> bytes:  # noqa: ANN401 - what hypothesis gives
    """Return a sample with some bytes cut out, doubled or changed, packed or not."""
    data = bytearray(draw(st.sampled_from([*SAMPLES.values()])).content.encode())
    packing = draw(st.sampled_from(["plain", "gzip", "zip"]))
    if packing == "gzip":
        data = bytearray(gzip.compress(bytes(data), mtime=0))
    elif packing == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a", bytes(data))
        data = bytearray(packed.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 40))
        more = draw(st.binary(max_size=4) | st.just(bytes(data[at : at + size])))
        data[at : at + draw(st.sampled_from([0, 1, size]))] = more
    return bytes(data)


FILES = st.one_of(TABLE, DOCUMENT, damaged(), st.binary(max_size=200))
NAMES = st.sampled_from([*READY])


def read(data: bytes, name: str) -> None:
    """Read a file, twice the same way, or be told why not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bill"
        path.write_bytes(data)
        try:
            explain(path, READY[name])
            bill = read_bill(path, READY[name])
        except LedgerError as error:
            assert "bill" in str(error)  # noqa: PT017 - what is raised is the point
            return
        assert isinstance(bill, Bill)
        assert bill == read_bill(path, READY[name])
        for line in bill.lines:
            assert line.request_id is not None or line.at is not None


@QUICK
@given(data=FILES, name=NAMES)
def test_any_file(data: bytes, name: str) -> None:
    """Text, JSON, and real files with damage."""
    read(data, name)


@pytest.mark.sweep
@LONG
@given(data=FILES, name=NAMES)
def test_any_file_at_length(data: bytes, name: str) -> None:
    """The same, on many more of them."""
    read(data, name)


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
@settings(QUICK, max_examples=40)
@given(at=st.integers(0, 10_000), put=st.binary(max_size=3), cut=st.integers(0, 40))
def test_damaged_tables_of_libraries(kind: str, at: int, put: bytes, cut: int) -> None:
    """What a library raises about a damaged file is an error of ours."""
    data = bytearray(_MADE.setdefault(kind, made(kind)))
    at %= len(data)
    data[at : at + cut] = put
    read(bytes(data), "generic")


_MADE: dict[str, bytes] = {}


def made(kind: str) -> bytes:
    """Return a small table as a library writes it."""
    whole = io.BytesIO()
    if kind == "xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.active.append(["at", "cost_usd"])
        book.active.append(["2026-03-01", 1.5])
        book.save(whole)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"at": ["2026-03-01"], "cost_usd": [1.5]}), whole)
    return whole.getvalue()
