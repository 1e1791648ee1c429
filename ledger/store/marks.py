"""What is remembered as of an entry, by its number and hash.

The hash is compared, since a restored store gives the same numbers to other entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import PoolId, Totals
from ledger.store import queries
from ledger.store.heads import Head
from ledger.store.rows import Row
from ledger.store.statements import ReadEach

Mark = tuple[int, bytes]
"""An entry by its number and its hash."""

NO_MARK: Mark = (0, b"")
"""Stands for no entry: nothing is remembered."""


mark_of: Callable[[Row], Mark] = itemgetter("seq", "hash")
"""Returns the number and the hash of a stored entry."""

mark_at: Callable[[Head], Mark] = attrgetter("seq", "hash")
"""Returns the number and the hash of a pool's newest entry."""


class DatedSum(NamedTuple):
    """What the dated entries after an entry that count before a time commit.

    Attributes:
        after: The number of the entry.
        before: The time.
        upto: The newest entry that counts.
        commits: What they commit.
    """

    after: int
    before: Micros
    upto: int
    commits: Totals


@dataclass(slots=True)
class KnownCounts:
    """What was read of committed entries, which never change, for limits and credits.

    Threads share it. Each iterates over copies, and adds one item at a time.
    """

    at: Mark = NO_MARK
    """The newest entry as of which reading calls have read any of it."""
    boundaries: dict[Micros, int] = field(default_factory=dict)
    """Some times, each with the newest entry before it, from which limits are counted."""
    sums: dict[tuple[int, Micros, int], DatedSum] = field(default_factory=dict)
    """Sums of dated entries, the least used first."""
    ends: dict[Micros, rules.Point] = field(default_factory=dict)
    """What had been committed by past times, such as the expiries of credits."""

    def as_of(self, read: ReadEach, pool_id: PoolId, at: Mark) -> KnownCounts:
        """Return the part of it that is valid as of a newest entry.

        The entry as of which it was read is read again: its hash shows whether it or any entry
        before it has changed through a restored backup. Then nothing of it is valid.
        """
        if self.at == at:
            return self
        if self.at[0] > at[0]:  # another thread asks about a later state
            return KnownCounts(at)
        known = {"pool_id": pool_id, "known": self.at[0], "page": 1}
        found = read([(queries.SINCE, known)])[0] if self.at != NO_MARK else ()
        if [mark_of(row) for row in found] != [self.at]:
            return KnownCounts(at)
        # Copies, since another thread may be adding to the parts of that entry.
        return KnownCounts(at, {**self.boundaries}, {**self.sums}, {**self.ends})
