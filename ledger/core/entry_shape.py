"""What one entry shows by itself: whether it has the fields of its kind, and what it moves."""

from __future__ import annotations

from typing import NamedTuple

from ledger.core import rules
from ledger.core.entries import Entry, EntryFlag, Totals, lost_in, requests_made
from ledger.core.errors import InvalidInputError
from ledger.core.kinds import KINDS, EntryKind
from ledger.core.values import Usage, UsageDifference

_SHAPED = {"policy": "a policy", "estimate": "an estimate", "usage": "usage", "lease": "a lease"}


class Contradiction(Exception):  # noqa: N818 - an answer of the replay, not an error of a caller
    """An entry that the rules cannot have written."""


class Correction(NamedTuple):
    """What a correction says: which entry it corrects, and that entry's usage before and after."""

    corrects: int
    before: Usage
    after: Usage


def correction_of(entry: Entry) -> Correction:
    """Return what a correction says.

    Raises:
        Contradiction: The entry's detail is incomplete, or cannot be right.
    """
    try:
        found = Correction(
            entry.detail["corrects"],
            Usage(**entry.detail["from"]),
            Usage(**entry.detail["to"]),
        )
    except (KeyError, TypeError, InvalidInputError) as error:
        raise Contradiction("correction that does not say of what, from what, to what") from error
    lease = entry.seq if entry.lease is None else entry.lease.lease
    # The entry of an import is its lease. Others come after the reservation of their lease.
    first = lease + (not entry.flags & EntryFlag.IMPORTED)
    if type(found.corrects) is not int or not first <= found.corrects < entry.seq:
        raise Contradiction(f"correction of entry {found.corrects}, which cannot be of its lease")
    if not isinstance(entry.detail.get("reason"), str):
        raise Contradiction(f"correction of entry {found.corrects} without a reason")
    return found


def committed_by(entry: Entry) -> Totals:
    """Return by how much an entry that records usage moves the committed totals."""
    assert entry.usage is not None  # noqa: S101 - by its shape
    return Totals.of(entry.usage, requests=requests_made(entry.kind, entry.detail))


def move_of(entry: Entry) -> rules.Move | None:
    """Return how an entry changes totals that were committed before it, None if it does not."""
    if entry.usage is None:
        return None
    dates = entry.occurred_at, None if entry.lease is None else entry.lease.expires_at
    return rules.move_of(entry.seq, entry.kind, entry.flags, entry.detail, entry.usage, dates)


def is_call(entry: Entry) -> bool:
    """Tell whether an entry grants a call; one that books a lost lease does not."""
    return entry.kind == EntryKind.RESERVATION and not lost_in(entry.detail)


def check_shape(entry: Entry) -> None:
    """Refuse an entry without a field that its kind has, or with one that its kind does not have.

    Raises:
        Contradiction: The entry does not have the fields of its kind.
    """
    if entry.kind not in list(EntryKind):
        raise Contradiction(f"this version of ledger knows no entry kind {entry.kind!r}")
    kind = KINDS[EntryKind(entry.kind)]
    for name, words in _SHAPED.items():
        if name in kind.may_have:
            continue
        if (getattr(entry, name) is not None) != (name in kind.has):
            raise Contradiction(f"{entry.kind} {'without' if name in kind.has else 'with'} {words}")
    differs = isinstance(entry.usage, UsageDifference)
    if entry.usage is not None and differs != kind.is_difference:
        raise Contradiction(f"{entry.kind} whose usage is a {type(entry.usage).__name__}")
