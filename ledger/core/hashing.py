"""Hashing: the bytes that make a journal tamper-evident. docs/journal.md specifies them.

Every entry's hash covers the hash before it, so no earlier entry can be changed without changing
all that follow. An entry covers its attribution through a salted digest only. So the owner can
redact a person's name, and the chain stays valid.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter

from ledger.core.checks import canonical_json
from ledger.core.extensions import ATTRIBUTION_TEXTS, Attribution

HASH_VERSION = 1

_GENESIS_TAG = b"budget-ledger genesis 1\0"
_ATTRIBUTION_TAG = b"budget-ledger attribution 1\0"
_ABSENT = b"\0"
_INTEGER = b"\1i" + (8).to_bytes(8, "big")
_SIGNED = struct.Struct(">q").pack
_HEADER = struct.Struct(">BcQ").pack
_TOTALS = struct.Struct(">" + 6 * f"{len(_INTEGER)}sq").pack

_texts: Callable[[Attribution], tuple[str | None, ...]] = attrgetter(*ATTRIBUTION_TEXTS)

Value = int | str | bytes | None
_Values = Iterable[Value | tuple[Value, ...]]
"""Values in the order of their columns; a tuple may hold the values of several columns."""


class _Encoded(dict[Value | tuple[Value, ...], bytes]):
    """Encoded values. Most values of an entry occurred in an earlier one: kinds, 0, NULL."""

    def __missing__(self, value: Value | tuple[Value, ...]) -> bytes:
        if isinstance(value, int):
            encoded = _INTEGER + _SIGNED(value)
        elif isinstance(value, str):
            data = value.encode()
            encoded = _HEADER(1, b"t", len(data)) + data
            if len(data) > _SHORT:
                return encoded
        elif value is None:
            encoded = _ABSENT
        elif isinstance(value, tuple):
            encoded = encode(value)
        else:
            encoded = _HEADER(1, b"b", len(value)) + value
        if len(self) >= _REMEMBERED:
            self.clear()
        self[value] = encoded
        return encoded


_REMEMBERED = 4_096
"""How many values are remembered. Most occur again in the next entry, and some never do."""
_SHORT = 16
"""The longest text that is remembered, in bytes. Keys are longer, and occur once."""
_encoded = _Encoded().__getitem__


def encode(values: _Values) -> bytes:
    """Return the bytes of values, one after the other, as columns are hashed.

    Each value is a presence byte, a type byte, an 8-byte length and the value itself. An absent
    value is a single 0 byte.
    """
    return b"".join(map(_encoded, values))


_VERSION = encode((HASH_VERSION,))


def digest(values: _Values) -> bytes:
    """Return the SHA-256 of a sequence of values, each encoded like a column."""
    return sha256(encode(values)).digest()


def genesis(*, store: bytes, pool: bytes, name: str) -> bytes:
    """Return the hash that precedes a pool's first entry."""
    return sha256(_GENESIS_TAG + store + pool + name.encode()).digest()


def chain(previous: bytes, encoded: bytes) -> bytes:
    """Return the hash of an entry that follows `previous`, of its encoded columns."""
    return sha256(_VERSION + previous + encoded).digest()


def entry_hash(previous: bytes, before: _Values, totals: Sequence[int], after: _Values) -> bytes:
    """Return the hash of an entry that follows `previous`.

    Args:
        previous: The hash of the entry before it.
        before: The values of the columns before its totals.
        totals: What is committed and reserved, on each axis. These values hardly ever occur again,
            so they are not looked up.
        after: The values of the columns after its totals.
    """
    try:
        tokens, cost, requests, held_tokens, held_cost, held_requests = totals
        # Unrolled, as on all of the write path. A fourth axis would fail at once.
        # fmt: off
        fresh = _TOTALS(_INTEGER, tokens, _INTEGER, cost, _INTEGER, requests,
                        _INTEGER, held_tokens, _INTEGER, held_cost, _INTEGER, held_requests)
        # fmt: on
    except struct.error:  # of a damaged row
        fresh = encode(totals)
    return chain(previous, b"".join((*map(_encoded, before), fresh, *map(_encoded, after))))


def attribution_content(attribution: Attribution) -> str:
    """Return the one JSON text of an attribution, without the request id, which entries hold."""
    # Made from a copy of its values, since the caller may change the tags later.
    return _content(_texts(attribution), tags_text(attribution))


@lru_cache(maxsize=256)
def _content(texts: tuple[str | None, ...], tags: str | None) -> str:
    named = zip(ATTRIBUTION_TEXTS, texts, strict=True)
    content = {name: text for name, text in named if text is not None}
    return canonical_json(content | {"tags": json.loads(tags or "{}")})


def attribution_of(content: str) -> Attribution:
    """Return the attribution of a content, without the request id.

    Raises:
        InvalidInputError: The content holds a value that an attribution may not have.
    """
    return Attribution(**json.loads(content))


def tags_text(attribution: Attribution) -> str | None:
    """Return the tags as they are stored, None if there are none."""
    return canonical_json(dict(attribution.tags)) if attribution.tags else None


def attribution_digest(content: str, *, salt: bytes) -> bytes:
    """Return the salted digest by which entries cover an attribution."""
    return sha256(_ATTRIBUTION_TAG + salt + content.encode()).digest()


def content_key(content: str) -> bytes:
    """Return the key by which an attribution is found again."""
    return sha256(content.encode()).digest()
