"""What is remembered as of an entry: the number and the hash of the entry tell whether it is there.

A store that was restored from a backup gives numbers again, to other entries.
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
"""In place of the entry as of which something is remembered: nothing is."""


mark_of: Callable[[Row], Mark] = itemgetter("seq", "hash")
"""Returns the number and the hash of a stored entry."""

mark_at: Callable[[Head], Mark] = attrgetter("seq", "hash")
"""Returns the same of a pool's newest entry."""


class DatedSum(NamedTuple):
    """What dated entries behind an entry commit that count before a time.

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
    """What was read of committed entries, which do not change, for limits and credits.

    Threads share it. Each takes copies to look through, and puts in one thing at a time.
    """

    at: Mark = NO_MARK
    """The newest entry that any of it was read at, where questions read."""
    boundaries: dict[Micros, int] = field(default_factory=dict)
    """Some times, each with the newest entry before it: limits are counted from there."""
    sums: dict[tuple[int, Micros, int], DatedSum] = field(default_factory=dict)
    """Sums of dated entries, the least used first."""
    ends: dict[Micros, rules.Point] = field(default_factory=dict)
    """What had been committed by times that have passed, such as the ends of credits."""

    def as_of(self, read: ReadEach, pool_id: PoolId, at: Mark) -> KnownCounts:
        """Return what of it holds as of a newest entry.

        The entry that it was read at is looked at again: its hash tells whether any before it is
        another one since a backup was restored. Then all is read anew.
        """
        if self.at == at:
            return self
        if self.at[0] > at[0]:  # asked of an earlier state than another thread asks of
            return KnownCounts(at)
        known = {"pool_id": pool_id, "known": self.at[0], "page": 1}
        found = read([(queries.SINCE, known)])[0] if self.at != NO_MARK else ()
        if [mark_of(row) for row in found] != [self.at]:
            return KnownCounts(at)
        # Copies: whoever asks as of that entry at this moment adds to what was of it.
        return KnownCounts(at, {**self.boundaries}, {**self.sums}, {**self.ends})
