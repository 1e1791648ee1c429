"""Alerts: threshold crossings for a consumer that stops and starts again, and its cursor.

A crossing is an entry of its pool, and the entries of one pool are committed in the order of their
numbers. So a cursor holds, for each pool, the last crossing that was given. A cursor of one time,
or of one number for the whole store, would lose crossings: of two transactions about different
pools, the one that began later may commit first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from ledger.core.checks import I64_MAX, canonical_json, check_amount, check_type
from ledger.core.errors import InvalidInputError
from ledger.core.status import ThresholdCrossing

_HASH_BYTES = 8
"""How many bytes of an entry's hash a cursor keeps, to tell it from another entry of that
number."""


class Given(NamedTuple):
    """The last crossing of a pool that was given: its number, and the beginning of its hash."""

    seq: int
    proof: str

    @classmethod
    def of(cls, seq: int, entry_hash: bytes) -> Self:
        """Return what a cursor keeps of a crossing."""
        return cls(seq, entry_hash[:_HASH_BYTES].hex())


class Place(NamedTuple):
    """How far a consumer has come. Many alerts share what it refers to.

    Attributes:
        store: The identity of the store.
        before: The last crossing of each pool in the cursor that the consumer gave, by pool number.
        passed: The pools whose crossings have all been given since, with the last crossing of each.
            The list grows while later alerts are given.
        number: How many items of `passed` had been given at this place.
        newest: The pool number and the crossing of this place's alert.
    """

    store: bytes
    before: Mapping[int, Given]
    passed: Sequence[tuple[int, Given]]
    number: int
    newest: tuple[int, Given]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A threshold crossing, and the cursor to go on after it. Alerts of one crossing are equal.

    Attributes:
        crossing: What was crossed.
        key: Names this crossing, for consumers that drop what they got before: it is the same
            each time the crossing is given, and no other crossing has it.
    """

    crossing: ThresholdCrossing
    key: str
    _place: Place = field(repr=False, compare=False)

    @property
    def cursor(self) -> str:
        """The text that `alerts(after=...)` takes to go on after this crossing.

        It has some 30 characters for each pool that has crossed a threshold.
        """
        store, before, passed, number, newest = self._place
        given = {**before, **dict(passed[:number]), newest[0]: newest[1]}
        return canonical_json(
            {"alerts": {str(pool): list(one) for pool, one in given.items()}, "store": store.hex()}
        )


def read_cursor(cursor: str | None, store: bytes) -> dict[int, Given]:
    """Return the last crossing of each pool that a cursor holds, by pool number; None holds none.

    Args:
        cursor: The cursor.
        store: The identity of the store that it must be of.

    Raises:
        InvalidInputError: It is no cursor, or one of another store.
    """
    if cursor is None:
        return {}
    check_type("after", cursor, str)
    try:
        said = json.loads(cursor)
        given = {
            int(pool): Given(check_amount("seq", seq, ceiling=I64_MAX), bytes.fromhex(proof).hex())
            for pool, (seq, proof) in said["alerts"].items()
        }
        of = said["store"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise InvalidInputError("after", "is no cursor that an alert gave") from None
    if of != store.hex():
        raise InvalidInputError("after", "is the cursor of another store")
    return given


class NewestCrossings:
    """The crossings of an in-memory manager, the newest ones alone."""

    KEPT = 10_000
    """The least number kept: an hour of a pool that crosses one threshold up and down every
    second."""

    def __init__(self, manager: bytes) -> None:
        self._manager = manager
        self._kept: list[ThresholdCrossing] = []
        self._dropped = 0

    def add(self, crossing: ThresholdCrossing) -> None:
        """Keep a crossing."""
        self._kept.append(crossing)
        if len(self._kept) >= 2 * self.KEPT:
            self._dropped += self.KEPT
            del self._kept[: self.KEPT]

    def after(self, cursor: str | None) -> list[Alert]:
        """Return the crossings after a cursor, or all of them without one.

        Raises:
            InvalidInputError: It is no cursor, or one of another manager.
        """
        given = read_cursor(cursor, self._manager).get(0, Given(0, ""))
        first = max(given.seq - self._dropped, 0)
        return [
            Alert(
                crossing=crossing,
                key=f"{self._manager.hex()}-{number}",
                _place=Place(self._manager, {}, (), 0, (0, Given(number, ""))),
            )
            for number, crossing in enumerate(self._kept[first:], self._dropped + first + 1)
        ]
