"""Checks of stored columns: every row is checked before it becomes a value, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Table, Text

from ledger.store.schema import entries

_GOOD_MAX = 1_024
"""How many combinations of types in a row are remembered. A damaged journal may have any number."""
_NOTHING = type(None)
_TOTALS = ("held_", "committed_", "reserved_")
"""The prefixes of columns of totals. A total below zero would lead to totals that no column can
hold."""
_TIMES = ("recorded_at", "occurred_at", "expires_at", "swept_until")


class Columns:
    """Some columns of a table, with their types."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*self._names)
        self._types = [table.c[name].type.python_type for name in self._names]
        self._nullable = [table.c[name].nullable for name in self._names]
        self._texts = [name for name in self._names if isinstance(table.c[name].type, Text)]
        self._totals = [name for name in self._names if name.startswith(_TOTALS)]
        self._good: set[tuple[type, ...]] = set()
        """Combinations of types that were found right: looking up one tuple is faster than checking
        each column."""

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row with a value that its column may not hold, as in a file edited by hand.

        Raises:
            ValueError: A column holds a value of another type, text that is not UTF-8, a total
                below zero, or NULL where NULL is not allowed.
        """
        values = self._values(row)
        types = tuple(map(type, values))
        if types not in self._good:
            self._check_types(values, types)
        for name in self._texts:
            text = row[name]
            if text is not None and not text.isascii():
                _check_utf8(name, text)
        for name in self._totals:
            total = row[name]
            if total is not None and total < 0:
                raise ValueError(f"{name} is below zero: {total}")

    def are_plain(self, found: Mapping[str, Sequence[Any]]) -> bool:
        """Tell whether `check` refuses none of several rows, given column by column."""
        for name, wanted, nullable in zip(self._names, self._types, self._nullable, strict=True):
            types = set(map(type, found[name]))
            if nullable:
                types.discard(_NOTHING)
            if not types <= {wanted}:
                return False
        if any(_least(found[name]) < 0 for name in self._totals):
            return False
        return all(
            _is_utf8("".join([text for text in found[name] if text])) for name in self._texts
        )

    def _check_types(self, values: tuple[Any, ...], types: tuple[type, ...]) -> None:
        for name, value, wanted, nullable in zip(
            self._names, values, self._types, self._nullable, strict=True
        ):
            if value is None and not nullable:
                raise ValueError(f"{name} is missing")
            if value is not None and type(value) is not wanted:
                kind = type(value).__name__
                raise ValueError(f"{name} holds a {kind}, not {wanted.__name__}: {value!r:.40}")
        if len(self._good) < _GOOD_MAX:
            self._good.add(types)


def _check_utf8(name: str, text: str) -> None:
    if not _is_utf8(text):
        raise ValueError(f"{name} holds text that is not UTF-8: {text!r:.40}")


def _is_utf8(text: str) -> bool:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _least(values: Sequence[int | None]) -> int:
    return min([value for value in values if value is not None], default=0)


_ENTRY = Columns(entries, [column.name for column in entries.columns])


def check_entry(row: Mapping[str, Any]) -> None:
    """Refuse an entry that cannot become a value.

    Raises:
        ValueError: As `Columns.check`, or a time is outside the years 1 to 9999.
    """
    _ENTRY.check(row)
    for name in _TIMES:
        if not is_time(row[name]):
            raise ValueError(f"{name}: {row[name]} is outside the years 1 to 9999")


def are_plain_entries(found: Mapping[str, Sequence[Any]]) -> bool:
    """Tell whether `check_entry` refuses none of several entries, given column by column."""
    return _ENTRY.are_plain(found) and all(
        is_time(micros) for name in _TIMES for micros in set(found[name])
    )


def is_time(micros: int | None) -> bool:
    """Tell whether microseconds since 1970 are a valid datetime, or None."""
    return micros is None or _FIRST_US <= micros <= _LAST_US


_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last moment of the years 1 to 9999."""
