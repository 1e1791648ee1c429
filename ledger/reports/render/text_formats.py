"""The one way to write a row as CSV, and a value as JSON: safe to open, to split and to print."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable

GUARD = "'"
_FORMULA = (*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", GUARD)
"""How a text must not begin in a cell: a spreadsheet would compute it; and the guard itself."""

_CONTROLS = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Characters that drive a terminal, end a line, reorder it, or are none."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
# Beyond ASCII, JSON leaves line ends and terminal controls as they are: a reader that splits lines
# as Unicode does would cut an object in two.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


class Figure(str):
    """A number or a time as text: written into CSV as it is, and never quoted."""

    __slots__ = ()


def csv_row(cells: Iterable[object], *, end: str) -> str:
    """Return a row as RFC 4180 has it; None is an empty cell.

    Text is always quoted and a figure never is, so that a reader which guesses types can tell a
    name such as `2024` from a number. A text that a spreadsheet would take for a formula gets an
    apostrophe in front, and so does one that begins with an apostrophe: the text is what is left
    when one is taken off the front.
    """
    return ",".join(map(_cell, cells)) + end


def json_line(value: object) -> str:
    """Return a value as JSON on one line, whatever takes for the end of a line."""
    return escaped_json(_encode(value))


def escaped_json(text: str) -> str:
    """Return JSON with line ends and controls beyond ASCII spelled out: the same JSON."""
    return text if text.isascii() else text.translate(_ESCAPED)


def printable(value: str) -> str:
    """Return text with its control characters spelled out: a name must not drive a terminal."""
    return "".join(
        char if unicodedata.category(char) not in _CONTROLS else repr(char)[1:-1] for char in value
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, int | Figure):
        return text
    guard = GUARD if text.startswith(_FORMULA) else ""
    doubled = text.replace('"', '""')
    return f'"{guard}{doubled}"'
