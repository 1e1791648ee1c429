"""Money and times of exports are integers, which every format writes and reads back exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.checks import from_micros
from ledger.core.columns import each_once
from ledger.exports.columns import ColumnType
from ledger.exports.text import parsed, written

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
EPOCH = from_micros(0)


@given(st.integers(-(10**25) + 1, 10**25 - 1))
def test_a_decimal_is_its_millionths(millionths: int) -> None:
    """Six places, with a sign, of any size; as text and as a decimal from Parquet."""
    text = written(ColumnType.DECIMAL, millionths)
    assert text == f"{Decimal(millionths).scaleb(-6):f}"
    assert (
        millionths == parsed(ColumnType.DECIMAL, text) == parsed(ColumnType.DECIMAL, Decimal(text))
    )


@given(st.datetimes(FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None)))
def test_a_time_is_its_microseconds(at: datetime) -> None:
    """By ISO 8601, in UTC; as text and as a time from Parquet."""
    micros = (at.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    text = written(ColumnType.MOMENT, micros)
    assert text == f"{at.isoformat()}Z"
    assert (
        micros
        == parsed(ColumnType.MOMENT, text)
        == parsed(ColumnType.MOMENT, at.replace(tzinfo=UTC))
    )


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        (ColumnType.DECIMAL, "1.0000001"),
        (ColumnType.DECIMAL, "1." + 40 * "0" + "1"),
        (ColumnType.DECIMAL, "1e999"),
        (ColumnType.DECIMAL, "NaN"),
        (ColumnType.DECIMAL, True),
        (ColumnType.INTEGER, True),
        (ColumnType.INTEGER, "1.5"),
        (ColumnType.MOMENT, "2024-02-29T12:00:00"),
        (ColumnType.MOMENT, datetime(2024, 2, 29)),  # noqa: DTZ001 - what is to be refused
        (ColumnType.MOMENT, "yesterday"),
        (ColumnType.TEXT, 7),
    ],
)
def test_a_cell_that_no_export_has_equals_none_of_its_values(
    kind: ColumnType, cell: object
) -> None:
    """It stays what it is, to be shown as the difference."""
    assert str(cell) == written(kind, parsed(kind, cell))
    assert isinstance(parsed(kind, cell), str)


@given(st.lists(st.integers(0, 5) | st.integers()))
def test_each_is_converted_whether_equal_ones_are_many_or_few(values: list[int]) -> None:
    """The order is kept; where at least half of the values are repeats, each is converted once."""
    seen: list[int] = []

    def convert(value: int) -> str:
        seen.append(value)
        return str(value)

    assert [*map(str, values)] == each_once(convert, iter(values))
    assert len(seen) == len(values) or len(seen) == len({*values}) <= len(values) / 2
