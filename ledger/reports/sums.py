"""Sums that no database rounds or overflows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, func, literal_column

_HALF = 2**32


def int64(value: int) -> ColumnElement[int]:
    """Return a constant that no database takes for a smaller integer."""
    return literal_column(str(value), BigInteger())


def halves(name: str, value: ColumnElement[int]) -> list[ColumnElement[Any]]:
    """Return two sums that together are the sum of `value`.

    SQLite's SUM fails above 2^63-1; the sums of the upper and of the lower 32 bits stay below it
    for two thousand million rows.
    """
    return [
        func.coalesce(func.sum(value // int64(_HALF)), 0).label(f"{name}_upper"),
        func.coalesce(func.sum(value % int64(_HALF)), 0).label(f"{name}_lower"),
    ]


def whole(row: Any, name: str) -> int:  # noqa: ANN401 - a row has the columns of its query
    """Return the sum that `halves` cut in two, from a row of its query."""
    return int(getattr(row, f"{name}_upper")) * _HALF + int(getattr(row, f"{name}_lower"))
