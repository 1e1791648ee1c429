"""The memory of an export does not grow with its rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import insert, select

from ledger import Ledger, SharedPoolBudgetOptions, exports
from ledger.exports import parquet
from ledger.exports.columns import EXPORT_COLUMNS, ColumnType, ExportCell, RowGroup
from ledger.exports.tables import CONTAINERS
from ledger.reports import stream
from ledger.store import schema

FEW, MANY = 100, 450
SLACK_BYTES = 2**20
"""How much more the many may take, where each row group stands; the rows would take 2 MB."""


def generated(count: int) -> Iterator[tuple[ExportCell, ...]]:
    """Yield rows in which no two values are the same object."""
    for number in range(count):
        made: dict[ColumnType, Callable[[int], ExportCell]] = {
            ColumnType.TEXT: lambda place, number=number: f"text {number} {place}",
            ColumnType.JSON: lambda place, number=number: f'{{"n":{number * 100 + place}}}',
            ColumnType.INTEGER: lambda place, number=number: 10**9 + number * 100 + place,
            ColumnType.DECIMAL: lambda place, number=number: number * 100 + place,
            ColumnType.MOMENT: lambda place, number=number: (number * 100 + place) * 10**6,
        }
        yield tuple(made[column.kind](place) for place, column in enumerate(EXPORT_COLUMNS))


def paged(rows: Iterator[tuple[ExportCell, ...]]) -> Iterator[RowGroup]:
    """Yield rows some at a time, by their columns."""
    while found := [*islice(rows, FEW // 5)]:
        yield [*zip(*found, strict=True)]


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most memory that Python and Arrow held at once beyond what they began with."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_writing_and_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: exports.Format
) -> None:
    """Many times the rows take the memory of the few, both ways."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", FEW // 2)
    container = CONTAINERS[kind]
    path = tmp_path / "out"

    def write(count: int) -> None:
        with path.open("wb") as out:
            container.write(EXPORT_COLUMNS, paged(generated(count)), out, None)

    def read() -> None:
        with path.open("rb") as file:
            for _ in container.read(file)[1]:
                pass

    peaks = {}
    write(FEW)  # what is imported and made once
    read()
    for count in (FEW, MANY):
        peaks[count] = (peak_bytes(lambda count=count: write(count)), peak_bytes(read))  # type: ignore[misc]
    for few, many in zip(peaks[FEW], peaks[MANY], strict=True):
        assert many < few + SLACK_BYTES, peaks


def test_from_the_books(book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the store into the file, and back against the store, five times as many entries."""
    monkeypatch.setattr(stream, "PAGE", 100)
    book.pool("long", SharedPoolBudgetOptions())
    e = schema.entries
    with book._database.engine.connect() as connection:
        opening = dict(connection.execute(select(e)).mappings().one())
        opening["idempotency_key"] = None
        rows = [opening | {"seq": seq, "kind": "adjustment"} for seq in range(2, 1_501)]
        connection.execute(insert(e), rows)
        connection.commit()
    del rows
    path = tmp_path / "out.csv"

    def work(count: int) -> None:
        exports.write(book, "long", path, up_to={"long": count})
        assert exports.verify(book, path, "long", up_to={"long": count}).ok

    work(10)
    few, many = (peak_bytes(lambda count=count: work(count)) for count in (300, 1_500))  # type: ignore[misc]
    assert many < few + SLACK_BYTES
