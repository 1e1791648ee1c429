"""JSON as a stream: one value at a time, of a document of any length."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from ledger.files.rows import LINE_MAX
from ledger.files.source import SourceFile

_CHUNK = 1 << 18
_SPACE = re.compile(r"[ \t\n\r]*")
_BROKEN = re.compile("[\ud800-\udfff]")

TOO_LONG = object()
"""Returned for a value with more than `LINE_MAX` characters, which must be read member by
member."""


class Values:
    """A position in a text of JSON.

    Numbers stay texts as they are written: a float would lose digits of an amount.
    """

    def __init__(self, source: SourceFile, stream: io.TextIOWrapper) -> None:
        self._source = source
        self._stream = stream
        self._text = ""
        self._at = 0
        self._line = 1
        self._counted = 0
        self._ended = False
        self._decode = json.JSONDecoder(
            parse_float=str, parse_int=str, parse_constant=_refuse, object_pairs_hook=_unambiguous
        ).raw_decode

    @property
    def line(self) -> int:
        """The number of the line on which the position is, from 1."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """Return the next character that is not a space, without taking it; "" at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None  # noqa: S101 - it also matches the empty text
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def take(self, wanted: str) -> str:
        """Take the next character, which must be one of these.

        Raises:
            LedgerError: It is another one.
        """
        found = self.peek()
        if not found or found not in wanted:
            raise self._bad(f"{' or '.join(map(repr, wanted))} is missing")
        self._at += 1
        return found

    def value(self) -> Any:  # noqa: ANN401 - whatever JSON is
        """Take the next value and return it, or return `TOO_LONG` and take nothing.

        Raises:
            LedgerError: It is not JSON.
        """
        self.peek()
        while True:
            try:
                found, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    line = self.line + self._text.count("\n", self._at, error.pos)
                    raise self._source.refuse(line, f"not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                raise self._bad(str(error)) from error
            else:
                # A number at the end of the text read so far may continue.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return found
            if len(self._text) - self._at > LINE_MAX:
                return TOO_LONG
            self._fill()

    def members(self) -> Iterator[str]:
        """Take an object: yield each key when its value is next."""
        self.take("{")
        seen: set[str] = set()
        while self.peek() != "}":
            if seen:
                self.take(",")
            key = self.value() if self.peek() == '"' else None
            if not isinstance(key, str):
                raise self._bad("a key is missing, or is too long")
            if key in seen:
                raise self._bad("an object has the same key twice")
            seen.add(key)
            self.take(":")
            yield key
        self.take("}")

    def items(self) -> Iterator[None]:
        """Take a list: yield when an item is next."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield
            if self.take(",]") == "]":
                return

    def _fill(self) -> bool:
        """Read more text, and drop the text that was taken."""
        more = self._stream.read(_CHUNK)
        self._ended = not more
        if not more.isascii() and (broken := _BROKEN.search(more)):
            line = self.line + (self._text[self._at :] + more[: broken.start()]).count("\n")
            raise self._source.refuse(line, "not UTF-8 text; save the file as UTF-8")
        if more:
            self._line, self._counted = self.line, 0
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _bad(self, what: str) -> Exception:
        return self._source.refuse(self.line, f"not JSON: {what}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found
