"""Rows to be inserted, by the columns that they fill. Half of an entry's are NULL, or more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

_SHAPES_MAX = 16
"""How many shapes of a table's rows are remembered. Most tables have two or three."""


class Filled:
    """The columns that a row fills."""

    def __init__(self, columns: Sequence[str], row: tuple[Any, ...]) -> None:
        places = range(len(row))
        filled = [place for place in places if row[place] is not None]
        others = [place for place in places if row[place] is None]
        self.columns = tuple(columns[place] for place in filled)
        self.values = _getter(filled)
        """Returns the values of these columns in a row."""
        self.others = _getter(others)
        """Returns the values of all other columns."""
        self.nones = (None,) * len(others)
        """The values of all other columns in a row of this shape: None."""


def _getter(places: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return the function that returns what a row has at some places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: tuple(row[place] for place in places)


_shapes: dict[tuple[str, ...], tuple[Filled, ...]] = {}
"""The shapes that were found, by the columns of their table."""


def alike(
    columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> list[tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """Group rows by the columns that they fill, and leave out most columns that are None.

    A driver needs time for each None.
    """
    found: dict[Filled, list[tuple[Any, ...]]] = {}
    shape: Filled | None = None
    for row in rows:
        # Most rows have the shape of the one before.
        if shape is None or shape.others(row) != shape.nones:
            shape = _shape(columns, row)
            values = found.setdefault(shape, [])
        values.append(shape.values(row))
    return [(shape.columns, values) for shape, values in found.items()]


def _shape(columns: tuple[str, ...], row: tuple[Any, ...]) -> Filled:
    """Return the known shape that fits a row exactly, or a new one."""
    known, empty = _shapes.get(columns, ()), row.count(None)
    for shape in known:
        if len(shape.nones) == empty and shape.others(row) == shape.nones:
            return shape
    shape = Filled(columns, row)
    _shapes[columns] = (shape, *known[: _SHAPES_MAX - 1])
    return shape
