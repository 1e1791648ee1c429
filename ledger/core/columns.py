"""Many rows at once: the values of each column together, so that equal ones are converted once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
V = TypeVar("V", bound=Hashable)


def each_once(convert: Callable[[V], T], values: Iterable[V]) -> list[T]:
    """Return what each value is converted to. Of many equal ones only one is converted.

    Half of the cells of a file say what other rows near them say, too.
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
