"""A pool's named thresholds: which an entry crosses, and which were reported before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros, from_micros
from ledger.core.entries import Direction, PoolInfo, late_in
from ledger.core.kinds import EntryKind
from ledger.core.status import ThresholdCrossing
from ledger.engine.pool_counts import PoolCounts
from ledger.store.crossings import reported
from ledger.store.drafts import Draft, window_behind
from ledger.store.heads import Head
from ledger.store.rows import Row


class PoolThresholds:
    """The threshold crossings of one pool in its window, inside one transaction."""

    def __init__(
        self,
        connection: Connection,
        pool: PoolInfo,
        window_began: Callable[[], int],
        counts: PoolCounts,
    ) -> None:
        self.crossed: list[ThresholdCrossing] = []
        """Thresholds that the staged entries crossed."""
        self._connection = connection
        self._pool = pool
        self._window_began = window_began
        self._counts = counts
        self._reported: set[tuple[str, Direction]] | None = None
        self._reached: set[str] | None = None
        """The thresholds that were reached before an assumed charge was taken back, until the next
        entry replaces it."""
        self._before_late: set[str] = set()
        """The same set, from when the draft is decided until it is staged."""

    def crossings(self, head: Head, at: Micros, draft: Draft) -> Sequence[rules.Crossing]:
        """Return the thresholds that a draft crosses and that are not reported yet.

        After an entry that sets a policy or begins a window, earlier reports no longer count.

        Raises:
            JournalDamagedError: An earlier report cannot be read.
        """
        policy = draft.policy or head.policy
        # The next entry replaces the assumed charge that is taken back, so nothing is reported in
        # between.
        if late_in(draft.detail) is not None:
            # Computed now, since after staging the amount is back in credits of an earlier time.
            self._before_late = self._reached_at(head)
            return ()
        before = self._reached
        if before is None:
            before = self._reached_at(head)
        found = rules.crossings(
            policy,
            before,
            rules.reached(
                policy,
                draft.balance,
                window_behind(head, draft),
                self._counts.credits(head, at, draft) if policy.prepaid else None,
            ),
        )
        if not found or _begins_anew(draft):
            return found
        if self._reported is None:
            since = max(self._window_began(), head.policy_seq)
            self._reported = reported(self._connection, self._pool, since=since)
        return [one for one in found if (one.name, one.direction) not in self._reported]

    def begin(self, draft: Draft) -> None:
        """Forget earlier reports, if the draft being staged sets a policy or begins a window."""
        self._reached = None if late_in(draft.detail) is None else self._before_late
        if _begins_anew(draft):
            self._reported = set()

    def note(self, crossing: rules.Crossing, row: Row, head: Head) -> None:
        """Remember that entry `row` reports a crossing; `head` is the pool after that entry."""
        if self._reported is not None:
            self._reported.add((crossing.name, crossing.direction))
        self.crossed.append(
            ThresholdCrossing(
                pool=self._pool.name,
                threshold=crossing.name,
                percent=crossing.percent,
                direction=crossing.direction,
                seq=row["seq"],
                remaining=rules.remaining(
                    *(head.policy, head.balance, head.window, None, self._credits_at(head))
                ),
                recorded_at=from_micros(row["recorded_at"]),
            )
        )

    def _credits_at(self, head: Head) -> rules.Credits | None:
        return self._counts.credits(head, head.recorded_at) if head.policy.prepaid else None

    def _reached_at(self, head: Head) -> set[str]:
        """Return what was reached at the newest entry's time; credits may have expired since."""
        return rules.reached(head.policy, head.balance, head.window, self._credits_at(head))


def _begins_anew(draft: Draft) -> bool:
    return draft.policy is not None or draft.kind is EntryKind.ROLLOVER
