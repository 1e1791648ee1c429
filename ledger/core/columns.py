"""Many rows at once, column by column, so that equal values are converted once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
V = TypeVar("V", bound=Hashable)


def each_once(convert: Callable[[V], T], values: Iterable[V]) -> list[T]:
    """Return each value converted; equal values are converted only once.

    Half of the cells of a file repeat the value of a row near them.
    """
    values = [*values]
    different = set(values)
    if 2 * len(different) > len(values):  # to look most of them up takes longer
        return [*map(convert, values)]
    converted = {value: convert(value) for value in different}
    return [*map(converted.__getitem__, values)]


def kept(values: Sequence[T], mask: Sequence[bool]) -> list[T]:
    """Return the values of the rows that a mask keeps."""
    return [value for value, is_kept in zip(values, mask, strict=True) if is_kept]
