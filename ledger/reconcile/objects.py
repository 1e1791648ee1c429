"""The rows of a bill in JSON: a document, pages of an API, or an object a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ledger.errors import BillingFileError
from ledger.reconcile.pages import is_page, require_all_pages

Row = tuple[int, Mapping[str, str]]
"""A row's number in the file, and its cells by column."""

LIST = "[]"
"""What follows the key of a list in a column's name: `credits[].amount`."""

SEPARATOR = "\x1f"
"""What stands between the values of a list in one cell. It is a control character of ASCII."""


class Objects:
    """The rows that a JSON text holds.

    Attributes:
        rows: The innermost objects, each with the cells of those around it, as a bucket's time.
        unread: How many values each list has that is neither a list of rows nor asked for.
    """

    def __init__(
        self, path: str, text: str, *, lists: Sequence[str], asked: Collection[str]
    ) -> None:
        """Read a text.

        Args:
            path: The file, for errors.
            text: Its content.
            lists: The keys of the lists that hold rows, from the outermost on.
            asked: The columns within other lists that are to be read, such as `credits[].amount`.

        Raises:
            BillingFileError: It is not JSON, holds no objects, or lacks a page.
        """
        self._path = path
        self._lists = lists
        self._asked = asked
        self.unread: Counter[str] = Counter()
        self.rows: list[Row] = []
        values = _documents(path, text)
        pages = [page for _line, value in values for page in self._pages(value)]
        buckets = [
            [one for one in self._listed(page) or () if isinstance(one, dict)] for page in pages
        ]
        require_all_pages(path, pages, buckets)
        whole = len(values) == 1
        for line, value in values:
            for number, cells in enumerate(self._objects(line, value, {}), start=1):
                self.rows.append((number if whole else line, cells))

    def _pages(self, value: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - whatever JSON is
        """Yield the outermost objects that hold a list of rows, but for lone buckets."""
        for one in value if isinstance(value, list) else [value]:
            key = self._list_key(one) if isinstance(one, dict) else None
            if key is not None and (key == self._lists[0] or is_page(one)):
                yield one

    def _list_key(self, value: Mapping[str, Any]) -> str | None:
        return next((key for key in self._lists if isinstance(_at(value, key), list)), None)

    def _listed(self, value: Mapping[str, Any]) -> list[Any] | None:
        key = self._list_key(value)
        return None if key is None else _at(value, key)

    def _objects(
        self,
        line: int,
        value: Any,  # noqa: ANN401 - whatever JSON is
        around: Mapping[str, str],
    ) -> Iterator[Mapping[str, str]]:
        """Yield the innermost objects, and buckets without any, which say what time is empty."""
        if isinstance(value, list):
            for one in value:
                yield from self._objects(line, one, around)
            return
        if not isinstance(value, dict):
            reason = "not an object, nor a list of objects"
            raise BillingFileError(self._path, line=line, reason=reason)
        key = self._list_key(value)
        cells = {**around, **self._cells(value, skipped=key)}
        if key is None:
            yield cells
            return
        rows = _at(value, key)
        if rows or (key == self._lists[0] and not around):
            yield from self._objects(line, rows, cells)
        else:
            yield cells

    def _cells(self, value: Mapping[str, Any], *, skipped: str | None) -> dict[str, str]:
        found: dict[str, list[str]] = {}
        for name, text in _flat(value):
            outer, is_list, _rest = name.partition(LIST)
            if is_list and outer == skipped:
                continue
            if is_list and name not in self._asked:
                self.unread[outer] += 1
            else:
                found.setdefault(name, []).append(text)
        return {name: SEPARATOR.join(texts) for name, texts in found.items()}


def _at(value: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - whatever JSON is
    """Return the value under a key that is written with dots, None if there is none."""
    found: Any = value
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - whatever JSON is
    """Yield the texts of a value, each with the keys that lead to it."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for one in value:
            yield from _flat(one, name + LIST)
    elif value is None:
        yield name, ""
    elif isinstance(value, bool):
        yield name, str(value).lower()
    else:
        yield name, value.strip()


def _documents(path: str, text: str) -> list[tuple[int, Any]]:
    """Return the file's one JSON document, or the documents of its lines; with line numbers."""
    # Numbers stay texts as written: a float would lose digits of an amount.
    decoder = json.JSONDecoder(
        parse_float=str, parse_int=str, parse_constant=_refuse, object_pairs_hook=_unambiguous
    )
    line = 1
    try:
        begin = len(text) - len(text.lstrip())
        value, end = decoder.raw_decode(text, begin)
        if not text[end:].strip():
            return [(1, value)]
        found = []
        for line, one in enumerate(text.split("\n"), start=1):
            if one.strip():
                found.append((line, decoder.decode(one)))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg}"
        raise BillingFileError(path, line=line + error.lineno - 1, reason=reason) from error
    except (ValueError, RecursionError) as error:
        raise BillingFileError(path, line=line, reason=f"not JSON: {error}") from error
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found
