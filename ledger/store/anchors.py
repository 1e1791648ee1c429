"""Anchors: hashes of entries that are kept outside the store, to be compared with it later."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from ledger.core.checks import I64_MAX, check_amount, check_text, check_type
from ledger.core.errors import InvalidInputError

_FORM = re.compile(r"(.+)=(\d{1,19}):([0-9a-fA-F]{64})", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """An entry of a pool with its hash, which proves that entry and all before it.

    Attributes:
        pool: The pool's name.
        seq: The entry's number, from 1 on.
        hash: Its hash, 32 bytes.
    """

    pool: str
    seq: int
    hash: bytes

    def __post_init__(self) -> None:
        check_text("pool", self.pool)
        check_amount("seq", self.seq, ceiling=I64_MAX)
        check_type("hash", self.hash, bytes)

    def __str__(self) -> str:
        """Return it as `ledger verify --expect` takes it: `team=2:a8c1...`."""
        return f"{self.pool}={self.seq}:{self.hash.hex()}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the anchor that a text from `str` describes.

        Raises:
            InvalidInputError: The text is no anchor.
        """
        check_type("expect", text, str)
        found = _FORM.fullmatch(text)
        if found is None:
            raise InvalidInputError(
                "expect",
                f"{text!r:.80} is not POOL=SEQ:HASH, the pool's name, the number of an entry, and "
                "the 64 digits that 'ledger verify' printed",
            )
        return cls(pool=found[1], seq=int(found[2]), hash=bytes.fromhex(found[3]))


class Expected:
    """The anchors of one pool, compared with its entries while they are verified."""

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self._kept = {(one.seq, one.hash) for one in anchors}
        self._seqs = {seq for seq, _ in self._kept}

    def problem(self, seq: int, found: bytes) -> str | None:
        """Return how an entry differs from its anchor, None if it does not or has none."""
        if seq not in self._seqs or {one for one in self._kept if one[0] == seq} == {(seq, found)}:
            return None
        return "its hash is not the one that was kept: it, or an entry before it, is another by now"

    def missing(self, newest: int) -> str | None:
        """Return what is wrong with a pool that ends with this entry, None if nothing is."""
        last = max(self._seqs, default=0)
        if last <= newest:
            return None
        return (
            f"the pool went back: entry {last} was there when its hash was kept, and the newest "
            f"is {newest} now"
        )
