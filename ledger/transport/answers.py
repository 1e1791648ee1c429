"""Readers of an answer's content while it passes: events of a stream, or one piece of JSON."""

from __future__ import annotations

import base64
import json
import logging
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from typing_extensions import override

from ledger.prices.answers import Fields
from ledger.transport.protocols import Protocol
from ledger.transport.said import Said

_log = logging.getLogger(__name__)

_NO_JSON = (ValueError, RecursionError)
"""What `json` raises for what cannot be read: it is too deep for it, too."""

_GAP = re.compile(rb"\r\n\r\n|\n\n|\r\r")
"""Matches the end of an event."""
_GAPS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_GAP = 4
_DONE = b"[DONE]"
_BEFORE_A_TEXT = re.compile(
    rb'"(?:content|delta|text|thinking|reasoning|reasoning_content|partial_json|arguments|'
    rb'obfuscation)":\s*"$'
)
"""Matches the beginning of a text that belongs to the answer or is padding."""
_FORMS_MAX = 8
"""How many forms are searched in a stream, so that a stream without forms is not searched in every
event."""


class Reader(ABC):
    """Reads what an answer says of its usage, and whether it is complete.

    Attributes:
        said: What was read so far.
    """

    def __init__(self, protocol: Protocol, answers: int, *, hides_usage: bool) -> None:
        """Begin to read.

        Args:
            protocol: The protocol of the answer.
            answers: How many answers were asked for.
            hides_usage: Whether the caller must not see the extra chunk of usage.
        """
        self.said = Said(answers)
        self._protocol = protocol
        self._hides_usage = hides_usage

    def head(self, headers: Mapping[str, str]) -> None:
        """Read the headers of the answer."""
        if self._protocol.head is not None:
            self._understand(self._protocol.head, headers)

    @property
    def is_over(self) -> bool:
        """Whether a stream is complete. Many clients read no further, and do not close it."""
        said, protocol = self.said, self._protocol
        return said.final and not protocol.more_behind and bool(said.answer.get(protocol.usage))

    def _understand(self, read: Callable[[Said, Fields], None], content: Fields) -> None:
        try:
            read(self.said, content)
        except Exception:  # noqa: BLE001 - no error may reach the caller
            # The caller gets its answer even if it cannot be read here.
            _log.exception("an answer of the protocol %s cannot be read", self._protocol.name)

    @abstractmethod
    def feed(self, chunk: bytes) -> bytes:
        """Take a part of the content, and return the part to pass on."""

    @abstractmethod
    def end(self) -> bytes:
        """Take the end of the content, marked or not, and return the rest to pass on."""


class _Form(NamedTuple):
    """The common part of the events of an answer's text, which differ in one or two texts.

    An event of this form says nothing new, like those from which the form was made: it differs from
    them only in texts of the answer without quotes, so it has no other name or value.

    Attributes:
        begin: What comes before the first text.
        between: What comes between the two; empty if there is one.
        end: What comes after the last text.
    """

    begin: bytes
    between: bytes
    end: bytes

    def fits(self, event: bytes) -> bool:
        """Tell whether an event has this form."""
        begin, between, end = self
        if not event.startswith(begin) or not event.endswith(end):
            return False
        first, last = len(begin), len(event) - len(end)
        if between:
            first = event.find(b'"', first, last)
            if first < 0 or not event.startswith(between, first):
                return False
            first += len(between)
        return first <= last and event.find(b'"', first, last) < 0

    @classmethod
    def of(cls, one: bytes, other: bytes) -> _Form | None:
        """Return the form of two events, None if they differ in more than texts."""
        begin = one[: one.rfind(b'"', 0, _same(one, other)) + 1]
        tail = one[len(one) - _same(one[::-1], other[::-1]) :]
        end = tail[tail.find(b'"') :]
        middle = one[len(begin) : len(one) - len(end)]
        between = middle[middle.find(b'"') : middle.rfind(b'"') + 1] if b'"' in middle else b""
        form = cls(begin, between, end)
        texts = [part for part in (begin, between) if part or part is begin]
        is_form = all(_BEFORE_A_TEXT.search(part) for part in texts) and end.startswith(b'"')
        return form if is_form and form.fits(one) and form.fits(other) else None


def _same(one: bytes, other: bytes) -> int:
    """Return the length of the common beginning of two byte strings."""
    pairs = enumerate(zip(one, other, strict=False))
    least = min(len(one), len(other))
    return next((place for place, (a, b) in pairs if a != b), least)


class EventReader(Reader):
    """Reads server-sent events."""

    _held = b""
    """The beginning of an event whose end has not arrived."""
    _named = False
    """Whether the answer has named its model."""
    _form: _Form | None = None
    """The form of the newest events without news, if they have one."""
    _silent = b""
    """The newest event without news."""
    _forms = 0
    """How many forms were searched."""

    def feed(self, chunk: bytes) -> bytes:
        """Read the events that end in this chunk. If some are hidden, pass on only whole events."""
        if self._form is not None and not self._held and self._form.fits(chunk):
            return chunk  # true of nearly all chunks
        if (
            self._named
            and not self._held
            and self._protocol.tells.search(chunk) is None
            and _DONE not in chunk
            and chunk.endswith(_GAPS)
        ):
            self._note_silent(chunk)
            return chunk  # only events of the answer's text
        held = self._held + chunk
        begin, hidden = 0, []
        for gap in _GAP.finditer(held, max(0, len(self._held) - _LONGEST_GAP + 1)):
            if self._read(held, begin, gap.start()) and self._hides_usage:
                hidden.append((begin, gap.end()))
            begin = gap.end()
        self._held = held[begin:]
        if not self._hides_usage:
            return chunk
        passed = held[:begin]
        for first, last in reversed(hidden):
            passed = passed[:first] + passed[last:]
        return passed

    def _note_silent(self, event: bytes) -> None:
        """Note one or more events without news, and the form that they share."""
        if self._forms < _FORMS_MAX and event != self._silent:
            self._forms += 1
            self._form = _Form.of(self._silent, event)
            self._silent = event

    def end(self) -> bytes:
        """Read the last event, even without an end mark."""
        held, self._held = self._held, b""
        hidden = self._read(held, 0, len(held)) and self._hides_usage
        return held if self._hides_usage and not hidden else b""

    def _read(self, held: bytes, begin: int, end: int) -> bool:
        """Read an event; return whether it is the extra chunk of usage."""
        tells = self._protocol.tells.search(held, begin, end) is not None
        if self._named and not tells and held.find(_DONE, begin, end) < 0:
            return False
        lines = held[begin:end].splitlines()
        data = b"\n".join(line[5:].lstrip(b" ") for line in lines if line.startswith(b"data:"))
        if data == _DONE:
            self.said.final = True
            return False
        try:
            event = json.loads(data)
        except _NO_JSON:
            return False
        if not isinstance(event, Mapping):
            return False
        self._understand(self._protocol.event, event)
        self._named = any(self.said.answer.values())  # the first events name the model and the id
        return event.get("choices") == [] and bool(event.get("usage"))


class FrameReader(Reader):
    """Reads events in Amazon's frames: lengths, headers, and JSON that may hold an event."""

    _held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Read the frames that end in this chunk, and pass it on."""
        held, begin = self._held + chunk, 0
        while len(held) - begin >= _FRAME_MIN:
            size, of_headers = struct.unpack_from("!II", held, begin)
            if not _FRAME_MIN <= size <= len(held) - begin:
                break
            headers = begin + _PRELUDE
            body = headers + of_headers
            self._read(held[headers:body], held[body : begin + size - 4])
            begin += size
        self._held = held[begin:]
        return chunk

    def end(self) -> bytes:
        """Return nothing, since all was passed on."""
        return b""

    def _read(self, headers: bytes, body: bytes) -> None:
        _, found, rest = headers.partition(_EVENT_TYPE)
        try:
            event = json.loads(body)
            if isinstance(event, Mapping) and isinstance(event.get("bytes"), str):
                event = json.loads(base64.b64decode(event["bytes"]))
            elif found:
                event = {rest[2 : 2 + int.from_bytes(rest[:2])].decode(): event}
        except _NO_JSON:
            return
        if isinstance(event, Mapping):
            self._understand(self._protocol.event, event)


_PRELUDE, _FRAME_MIN = 12, 16
_EVENT_TYPE = b":event-type\x07"
"""The name of a header, and the mark of a text."""


class JsonReader(Reader):
    """Reads an answer in one piece, or a list of pieces, which Gemini streams without events."""

    def __init__(self, protocol: Protocol, answers: int, *, hides_usage: bool = False) -> None:
        super().__init__(protocol, answers, hides_usage=hides_usage)
        self._parts: list[bytes] = []

    @property
    @override
    def is_over(self) -> bool:
        return False  # JSON is read at its end

    def feed(self, chunk: bytes) -> bytes:
        """Keep the chunk, and pass it on."""
        self._parts.append(chunk)
        return chunk

    def end(self) -> bytes:
        """Read what arrived, even if it is incomplete."""
        content, self._parts = b"".join(self._parts), []
        for piece in _pieces(content.decode("utf-8", "replace")):
            if isinstance(piece, dict):
                self._understand(self._protocol.whole, piece)
        return b""


class SoundReader(Reader):
    """Passes sound on. Sound does not say its usage; its cost is known from the request."""

    def feed(self, chunk: bytes) -> bytes:
        """Pass it on."""
        return chunk

    def end(self) -> bytes:
        """Note that the call is complete."""
        self.said.final = True
        return b""


_decode = json.JSONDecoder().raw_decode
_BETWEEN = re.compile(r"[\s\[\],]*")
"""The characters around the objects of a list."""


def _pieces(text: str) -> Iterator[Any]:
    """Yield an object, or the complete objects of a list if the text breaks off."""
    place = 0
    while (found := _BETWEEN.match(text, place)) and found.end() < len(text):
        try:
            piece, place = _decode(text, found.end())
        except _NO_JSON:
            return
        yield piece
