"""How text becomes CSV, JSON and terminal output: safe to open, to split and to print."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable

GUARD = "'"
_FORMULA = (*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", GUARD)
"""Beginnings that a spreadsheet takes for a formula. A text with one gets the guard in front.

The guard itself is among them, so that taking one guard off the front always gives the text.
"""

_CONTROLS = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Categories of characters that control a terminal, end or reorder a line, or are surrogates."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
# JSON leaves line ends and terminal controls beyond ASCII as they are. A reader that splits lines
# as Unicode does would cut an object in two.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


class Figure(str):
    """A number or a time as text: written into CSV as it is, and never quoted."""

    __slots__ = ()


def csv_row(cells: Iterable[object], *, end: str) -> str:
    """Return a row of CSV by RFC 4180; None is an empty cell.

    Text is always quoted and a figure never is, so that a reader which guesses types can tell a
    name such as `2024` from a number. A text that a spreadsheet would take for a formula gets an
    apostrophe in front, and so does one that begins with an apostrophe: the text is what is left
    when one is taken off the front.
    """
    return ",".join(map(csv_cell, cells)) + end


def json_line(value: object) -> str:
    """Return a value as JSON on one line, by ASCII's and by Unicode's ends of lines."""
    return escaped_json(_encode(value))


def escaped_json(text: str) -> str:
    """Return the same JSON with line ends and controls beyond ASCII as escape sequences."""
    return text if text.isascii() else text.translate(_ESCAPED)


def printable(value: str) -> str:
    """Return text with control characters as escapes: a name must not control a terminal."""
    return "".join(
        char if unicodedata.category(char) not in _CONTROLS else repr(char)[1:-1] for char in value
    )


def csv_cell(value: object) -> str:
    """Return a cell of such a row."""
    if value is None:
        return ""
    text = str(value)
    if type(value) is not str and isinstance(value, int | Figure):
        return text
    guard = GUARD if text.startswith(_FORMULA) else ""
    doubled = text.replace('"', '""')
    return f'"{guard}{doubled}"'
