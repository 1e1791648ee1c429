"""Idempotency keys that the library makes for calls without a key from the caller.

They have no index and no digest, which would take a third of an entry's size, for a key that is
searched only after a lost COMMIT. The search then begins after the entry that was the newest at the
first try of the call. A caller that must repeat the call gets a receipt, which says which entry
that was, and what the call asked for.
"""

from __future__ import annotations

import os
import random
import re
import time
from binascii import b2a_base64
from datetime import UTC, datetime
from typing import NamedTuple

_DIGEST_BYTES = 8
"""How many bytes of a call's digest a receipt has: enough to tell calls under one key apart."""
_RANDOM_BITS = 56
_KEY = re.compile(r"[-\w]{19}", re.ASCII)
_RECEIPT = re.compile(r"ledger:([-\w]{19}):(\d{1,19}):([0-9a-f]{16})", re.ASCII)
_SORTED = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
)
"""Maps base64's alphabet to one in the order of ASCII, so that keys sort by time."""


def new_key() -> str:
    """Return a key of 19 characters, ordered by time.

    Seven bytes are the time in microseconds, and seven are random: with 10,000 calls a second for
    ten years, two of a pool are alike with a chance of 1 in a million.
    """
    number = time.time_ns() // 1000 << _RANDOM_BITS | _random.getrandbits(_RANDOM_BITS)
    return b2a_base64(number.to_bytes(14, "big"))[:19].translate(_SORTED).decode()


# Not the system's random numbers: asking for them releases the interpreter's lock, so that each of
# 64 busy threads slept once more in every call. A forked child is seeded anew, since it must not
# make its parent's keys.
_random = random.Random()  # noqa: S311 - keys must differ, not be secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def is_made(text: str) -> bool:
    """Tell whether a text is a key that the library made, by its form and the time in it."""
    return _KEY.fullmatch(text) is not None and _EARLIEST <= text < _LATEST


def made_keys(text: str) -> dict[str, int]:
    """Return the library's key in a text, if any, and the entry after which to look for it."""
    receipt = Receipt.read(text)
    if receipt is not None:
        return {receipt.key: receipt.behind}
    return {text: 0} if _KEY.fullmatch(text) else {}


def _at(year: int) -> str:
    """Return the beginning of the keys that are made from the start of a year on."""
    now_us = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    return b2a_base64(now_us.to_bytes(7, "big"))[:9].translate(_SORTED).decode()


_EARLIEST, _LATEST = _at(2025), _at(2100)


class Receipt(NamedTuple):
    """A key that the library made, as a caller gets it to repeat the call.

    Attributes:
        key: The key.
        behind: The newest entry of the pool when the call was first tried.
        digest: The beginning of the digest of its arguments.
    """

    key: str
    behind: int
    digest: bytes

    @classmethod
    def of(cls, key: str, behind: int, digest: bytes) -> Receipt:
        """Return the receipt of a call with this digest."""
        return cls(key, behind, digest[:_DIGEST_BYTES])

    @classmethod
    def read(cls, text: str) -> Receipt | None:
        """Return the receipt that a key describes, None for any other key."""
        found = _RECEIPT.fullmatch(text)
        return found and cls(found[1], int(found[2]), bytes.fromhex(found[3]))

    def __str__(self) -> str:
        """Return the receipt as an idempotency key to give."""
        return f"ledger:{self.key}:{self.behind}:{self.digest.hex()}"

    def is_of(self, digest: bytes) -> bool:
        """Tell whether a call with this digest is the call of the receipt."""
        return self.digest == digest[:_DIGEST_BYTES]
