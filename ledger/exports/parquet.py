"""Exports as Parquet: exact 64-bit integers, exact decimals, times in UTC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import ModuleType
from typing import Any, BinaryIO

from ledger.core.errors import MissingExtraError
from ledger.exports.columns import DIGITS, PLACES, ColumnType, ExportCell, ExportColumn, RowGroup

GROUP_ROWS = 10_000
"""How many rows a row group of the file has; this many are in memory at once."""


def write_parquet(
    columns: Sequence[ExportColumn],
    pages: Iterable[RowGroup],
    out: BinaryIO,
    _at: datetime | None = None,
) -> None:
    """Write rows group by group.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa, parquet = _arrow()
    types = {
        ColumnType.TEXT: pa.string(),
        ColumnType.JSON: pa.string(),
        ColumnType.INTEGER: pa.int64(),
        ColumnType.DECIMAL: pa.decimal128(DIGITS, PLACES),
        ColumnType.MOMENT: pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    # Dictionaries of digests and running totals, which all differ, would take a third of the time
    # and make the file larger. For repeated texts zstd does as well.
    how = {"compression": "zstd", "use_dictionary": False}
    with parquet.ParquetWriter(out, schema, **how) as writer:
        for group in _groups(pages):
            arrays = [
                _array(pa, types[column.kind], values)
                for column, values in zip(columns, group, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _array(pa: ModuleType, kind: Any, values: Sequence[ExportCell]) -> Any:  # noqa: ANN401 - pyarrow has no types
    if not pa.types.is_decimal(kind):
        return pa.array(values, type=kind)
    # The same integers, with their last digits after the point. Most fit in 64 bits; casting these
    # takes an eighth of the time of making decimals from Python's integers.
    whole = pa.decimal128(DIGITS, 0)
    try:
        millionths = pa.array(values, type=pa.int64()).cast(whole)
    except OverflowError:  # a count of tokens, in millionths
        millionths = pa.array(values, type=whole)
    return pa.Array.from_buffers(kind, len(values), millionths.buffers())


def _groups(pages: Iterable[RowGroup]) -> Iterator[RowGroup]:
    """Yield pages joined to groups of up to `GROUP_ROWS` rows."""
    waiting: list[list[ExportCell]] = []
    for page in pages:
        if waiting and len(waiting[0]) + len(page[0]) > GROUP_ROWS:
            yield waiting
            waiting = []
        if not waiting:
            waiting = [[] for _ in page]
        for known, more in zip(waiting, page, strict=True):
            known.extend(more)
    if waiting:
        yield waiting


def read_parquet(file: BinaryIO) -> tuple[list[str], Iterator[Sequence[Any]]]:
    """Return the names of the columns, and an iterator over the rows.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    _, parquet = _arrow()
    found = parquet.ParquetFile(file)
    return list(found.schema_arrow.names), _rows(found)


def _rows(found: Any) -> Iterator[Sequence[Any]]:  # noqa: ANN401 - pyarrow has no types
    for batch in found.iter_batches(batch_size=GROUP_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional extra
        from pyarrow import parquet  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingExtraError(what="pyarrow", extra="parquet") from error
    return pa, parquet
