"""Sums that no database rounds or overflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, func, literal_column
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from ledger.store.dialects.expressions import may_be_overflow

_HALF = 2**32
_HALVES = ("_upper", "_lower")
"""The suffixes of the names of a sum's two halves."""


def int64(value: int) -> ColumnElement[int]:
    """Return a constant typed as a 64-bit integer in every database."""
    return literal_column(str(value), BigInteger())


class Sums:
    """How a query sums amounts: whole, or in two halves of 32 bits.

    SQLite's SUM fails above 2^63-1. The sums of the upper and of the lower 32 bits stay below that
    for two thousand million rows, but take twice the time.
    """

    def __init__(self, *, halved: bool) -> None:
        self._halved = halved

    def of(self, name: str, value: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """Return the sum of `value`, under a name by which `whole` finds it."""
        if not self._halved:
            return [_sum(value).label(name)]
        parts = (value // int64(_HALF), value % int64(_HALF))
        return [
            _sum(part).label(f"{name}{half}") for half, part in zip(_HALVES, parts, strict=True)
        ]

    def again(
        self,
        name: str,
        columns: ReadOnlyColumnCollection[str, Any],
        source: str,
        wanted: ColumnElement[bool],
    ) -> list[ColumnElement[Any]]:
        """Return the sum of sums, under a name by which `whole` finds it.

        Args:
            name: The name.
            columns: The columns of a query that has the sums.
            source: The name of the sums in that query.
            wanted: The condition for a sum to be added.
        """
        return [
            _sum(case((wanted, columns[f"{source}{half}"]), else_=0)).label(f"{name}{half}")
            for half in (_HALVES if self._halved else ("",))
        ]


def _sum(value: ColumnElement[int]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(value), 0)


_PLAIN, _HALVED = Sums(halved=False), Sums(halved=True)


def summed(
    connection: Connection,
    query: Callable[[Sums], Select[Any]],
    values: Mapping[str, Any] | None = None,
) -> Sequence[Any]:
    """Return the rows of a query that sums amounts, however large the sums are.

    Args:
        connection: A snapshot.
        query: Takes a `Sums`, and returns the query.
        values: The values of the query's remaining parameters.
    """
    # Whole sums are tried first, since halves take twice the time.
    try:
        return connection.execute(query(_PLAIN), values).all()
    except OperationalError as error:
        if not may_be_overflow(error):
            raise
        return connection.execute(query(_HALVED), values).all()


def whole(row: Any, name: str) -> int:  # noqa: ANN401 - a row has the columns of its query
    """Return a sum of `Sums`, from a row of its query."""
    found = getattr(row, name, None)
    if found is not None:
        return int(found)
    upper, lower = (int(getattr(row, f"{name}{half}")) for half in _HALVES)
    return upper * _HALF + lower
