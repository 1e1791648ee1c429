"""Tables in JSON: a list of objects, pages of an API, or an object a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ledger.files.documents import TOO_LONG, Values
from ledger.files.numbers import shown
from ledger.files.pages import Pages, is_page
from ledger.files.rows import (
    COLUMNS_MAX,
    LINE_MAX,
    LIST,
    SEPARATOR,
    FileRow,
    FileRows,
    cell_of,
    digest_of,
    together,
)
from ledger.files.source import SourceFile

_DEPTH_MAX = 16
"""How deep lists and objects may be nested outside of rows."""

_KEYED = {"key", "value"}

Chain = tuple[Mapping[str, Any], ...]
"""A row's object and the objects around it, innermost first, without their lists of rows."""


class _Found(NamedTuple):
    line: int
    chain: Chain
    is_row: bool = True
    """False for a bucket without rows."""


class Objects:
    """The table of a JSON text.

    Attributes:
        columns: The names of the columns: keys with dots between them. If there are very many, as
            in logs, the ones asked for and the first others.
        looks: What the file looks like, for people.
        has_rows: Whether it has any row. The columns are known only from rows.
        unread: How many values each list within the rows has, by the full name of its column.
    """

    def __init__(self, source: SourceFile, *, lists: Sequence[str], asked: Collection[str]) -> None:
        """Read the text once, and note its columns.

        Args:
            source: The file.
            lists: The keys of the lists that hold rows, from the outermost on.
            asked: The columns that any reader may ask for.

        Raises:
            LedgerError: It is not JSON, holds something else than objects, or lacks a page.
        """
        self._source = source
        self._lists = lists
        self._asked = {*asked}
        self._pages: Pages | None = Pages(source.refuse)
        self.unread: Counter[str] = Counter()
        self._names: dict[str, None] = {}
        self.has_rows = False
        self._hollow: int | None = None
        """The line of an empty list in the place of an object."""
        around: Chain = ()
        documents = 0
        for documents, found in self._documents():  # noqa: B007 - the last number is the count
            for one in found:
                self._note(one.chain[0])
                self.has_rows = self.has_rows or one.is_row
                for envelope in one.chain[1:]:
                    if not any(envelope is known for known in around):
                        self._note(envelope)
                around = one.chain[1:]
        if self._hollow is not None and not self.has_rows:
            reason = "an empty list stands where an object is expected, and there are no objects"
            raise source.refuse(self._hollow, reason)
        self._whole = documents == 1
        self._pages.require_end()
        self._pages = None
        self.columns = [*self._names]
        self.looks = "JSON" if self._whole else "JSON lines"

    def require_sound(self) -> None:
        """Do nothing, since the keys of an object always differ."""

    def rows(
        self, asked: Collection[str], *, hashed: bool = True
    ) -> Generator[FileRows, None, None]:
        """Yield the rows: the innermost objects, each with the cells of the objects around it.

        A bucket without rows is yielded, too, since it shows that its time is empty.
        """
        yield from together(self._rows(asked, hashed=hashed), asked)

    def _rows(self, asked: Collection[str], *, hashed: bool) -> Iterator[FileRow]:
        paths = [(name, name.split(".")) for name in asked]
        number = 0
        for _document, found in self._documents():
            for line, chain, _is_row in found:
                number += 1
                cells = {}
                for name, path in paths:
                    for one in chain:
                        text = text_at(one, path)
                        if text is not None:
                            cells[name] = text
                            break
                digest = digest_of(repr(chain)) if hashed else b""
                yield FileRow(number if self._whole else line, cells, digest)

    def _note(self, value: Mapping[str, Any]) -> None:
        for name in names_of(value, ""):
            if LIST in name:
                self.unread[name] += 1
            if name not in self._names and (name in self._asked or len(self._names) < COLUMNS_MAX):
                self._names[name] = None

    def _documents(self) -> Iterator[tuple[int, Iterator[_Found]]]:
        with self._source.text() as stream:
            values = Values(self._source, stream)
            number = 0
            while values.peek():
                number += 1
                yield number, self._next(values, (), values.line, 0)

    def _next(self, values: Values, around: Chain, line: int, depth: int) -> Iterator[_Found]:
        """Yield the rows of the next value."""
        if depth > _DEPTH_MAX:
            raise self._source.refuse(values.line, "not JSON of rows: too deep")
        if values.peek() == "[":
            empty = True
            for _item in values.items():
                empty = False
                yield from self._next(values, around, line, depth + 1)
            if empty and depth:  # an empty list is an empty bill
                self._hollow = values.line
            return
        value = values.value() if values.peek() == "{" else None
        if value is TOO_LONG:
            yield from self._streamed(values, around, line, depth)
        elif isinstance(value, dict):
            yield from self._of(value, around, line, depth)
        else:
            reason = "not an object, nor a list of objects"
            raise self._source.refuse(values.line, reason)

    def _of(self, value: Any, around: Chain, line: int, depth: int) -> Iterator[_Found]:  # noqa: ANN401 - whatever JSON is
        """Yield the rows of a value that was read."""
        if isinstance(value, list):
            for one in value:
                yield from self._of(one, around, line, depth + 1)
            if not value:
                self._hollow = line
            return
        if not isinstance(value, dict):
            raise self._source.refuse(line, "not an object, nor a list of objects")
        key = next((key for key in self._lists if isinstance(_at(value, key), list)), None)
        if key is None:
            yield _Found(line, (value, *around))
            return
        rows = _at(value, key)
        envelope = _without(value, key.split("."))
        if not rows and (around or key != self._lists[0]):
            yield _Found(line, (envelope, *around), is_row=False)
            return
        inner = (
            found for one in rows for found in self._of(one, (envelope, *around), line, depth + 1)
        )
        if self._pages is None or around or not self._is_page(envelope, key, depth):
            yield from inner
            return
        self._pages.begin()
        yield from self._paged(inner)
        self._pages.end(envelope)

    def _paged(self, rows: Iterator[_Found]) -> Iterator[_Found]:
        """Yield the rows of a page, and pass them to the check of pages."""
        for one in rows:
            if self._pages is not None:
                self._pages.add(one.chain[:-1])
            yield one

    def _is_page(self, envelope: Mapping[str, Any], key: str, depth: int) -> bool:
        """Tell whether an outermost object is a page and not a single bucket."""
        return depth <= 1 and (key == self._lists[0] or is_page(envelope))

    def _streamed(self, values: Values, around: Chain, line: int, depth: int) -> Iterator[_Found]:
        """Yield the rows of an object that is too long to read at once, such as a large page."""
        envelope: dict[str, Any] = {}
        found: str | None = None
        size = 0
        pages = None if around else self._pages
        if pages is not None:
            pages.begin()
        for key in values.members():
            if found is None and key in self._lists and values.peek() == "[":
                found = key
                inner = (
                    one
                    for _item in values.items()
                    for one in self._next(values, (envelope, *around), line, depth + 1)
                )
                yield from inner if around else self._paged(inner)
                continue
            value = values.value()
            size += LINE_MAX if value is TOO_LONG else len(key) + len(repr(value))
            if size >= LINE_MAX:
                reason = f"more than {LINE_MAX:,} characters outside of a list of rows"
                raise self._source.refuse(values.line, f"an object has {reason}, at {shown(key)}")
            envelope[key] = value
            if found is not None:
                self._add_late(values.line, key, value)
        if found is None:
            raise self._source.refuse(values.line, "a long object has no list of rows")
        if pages is not None and self._is_page(envelope, found, depth):
            pages.end(envelope)

    def _add_late(self, line: int, key: str, value: object) -> None:
        """Note a value after a long list; refuse it if the list's rows need it."""
        if self._asked & {key, *names_of(value, key)}:
            raise self._source.refuse(
                line,
                f"{key!r} stands behind a list of more than {LINE_MAX:,} characters, to whose "
                "rows it belongs; put it before the list",
            )
        if self._pages is not None:
            self._note({key: value})


def _at(value: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - whatever JSON is
    """Return the value under a key that is written with dots, None if there is none."""
    found: Any = value
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _without(value: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return an object without what is under a path of keys."""
    key, *rest = path
    return {
        name: _without(one, rest) if name == key and rest else one
        for name, one in value.items()
        if name != key or rest
    }


def names_of(value: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - whatever JSON is
    """Yield the column of each value that is neither an object nor a list."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from names_of(one, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        keyed = _keyed(value)
        if keyed is not None:
            yield from names_of(keyed, name)
            return
        for one in value:
            yield from names_of(one, name + LIST)
    else:
        yield name


def _keyed(values: Sequence[Any]) -> dict[str, Any] | None:
    """Return OpenTelemetry's list of keys and values as an object; None for other lists."""
    if not values or not all(isinstance(one, dict) and one.keys() == _KEYED for one in values):
        return None
    found: dict[str, Any] = {}
    for one in values:
        key, value = one["key"], one["value"]
        if not isinstance(key, str) or key in found:
            return None
        # OpenTelemetry writes {"intValue": "100"}.
        typed = isinstance(value, dict) and len(value) == 1 and next(iter(value)).endswith("Value")
        found[key] = next(iter(value.values())) if typed else value
    return found


def text_at(value: Any, path: Sequence[str]) -> str | None:  # noqa: ANN401 - whatever JSON is
    """Return the text of a column, for a list the texts of all values; None if it is missing.

    A key itself may have dots, as in OpenTelemetry.
    """
    if isinstance(value, list):
        value = _keyed(value)
    if isinstance(value, dict):
        for size in range(1, len(path) + 1):
            key = ".".join(path[:size])
            if key in value:
                found = text_at(value[key], path[size:])
                if found is not None:
                    return found
            if key.endswith(LIST) and isinstance(value.get(key[: -len(LIST)]), list):
                listed = [text_at(one, path[size:]) for one in value[key[: -len(LIST)]]]
                texts = [one for one in listed if one is not None]
                return SEPARATOR.join(texts) if texts else None
        return None
    return None if path else cell_of(value)
