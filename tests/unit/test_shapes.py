"""Rows to be inserted are grouped by the columns that they fill, and none loses a value."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from ledger.store.dialects import shapes
from ledger.store.dialects.shapes import alike

COLUMNS = ("a", "b", "c", "d", "e", "f")

rows = st.lists(
    st.tuples(*(st.none() | st.integers(0, 9) for _ in COLUMNS)), min_size=1, max_size=40
)


def filled(row: tuple[int | None, ...]) -> dict[str, int]:
    """Return what a row holds, by its columns."""
    return {name: one for name, one in zip(COLUMNS, row, strict=True) if one is not None}


@given(rows)
def test_every_row_is_inserted_as_it_is(given_rows: list[tuple[int | None, ...]]) -> None:
    """With the columns that it fills and perhaps others, in which it is given None."""
    found = [
        {name: one for name, one in zip(columns, row, strict=True) if one is not None}
        for columns, group in alike(COLUMNS, given_rows)
        for row in group
    ]
    by_items = [sorted(row.items()) for row in found]
    assert sorted(sorted(filled(row).items()) for row in given_rows) == sorted(by_items)


def test_rows_of_one_shape_are_given_no_more_than_they_fill() -> None:
    """A shape that fills more is not taken for it, whichever came first."""
    table = ("x", "y", "z")
    alike(table, [(1, 2, 3)])
    alike(table, [(1, None, None)])
    assert [(("x",), [(4,)])] == alike(table, [(4, None, None)])


def test_few_shapes_are_remembered() -> None:
    """A table whose rows are all different does not fill the memory."""
    table = tuple("abcdefgh")
    many = [tuple(1 if one else None for one in row) for row in product((True, False), repeat=8)]
    groups = alike(table, many)
    assert len(many) == sum(len(group) for _, group in groups)
    assert len(shapes._shapes[table]) <= shapes._SHAPES_MAX
