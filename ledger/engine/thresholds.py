"""A pool's named thresholds: which ones an entry crosses, and which were reported before."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import from_micros
from ledger.core.entries import Direction, PoolInfo, ThresholdCrossing
from ledger.core.kinds import EntryKind
from ledger.store.crossings import reported
from ledger.store.drafts import Draft, window_behind
from ledger.store.rows import Head, Row


class PoolThresholds:
    """What is known of the crossings of one pool in its window, inside one transaction."""

    def __init__(self, connection: Connection, pool: PoolInfo) -> None:
        self.crossed: list[ThresholdCrossing] = []
        """Thresholds that the staged entries crossed."""
        self._connection = connection
        self._pool = pool
        self._reported: set[tuple[str, Direction]] | None = None

    def crossings(self, head: Head, draft: Draft) -> Sequence[rules.Crossing]:
        """Return the thresholds that a draft crosses, and that are still to be reported.

        What was reported before counts no longer behind an entry that sets a policy, or begins a
        window.

        Raises:
            JournalDamagedError: What was reported cannot be read.
        """
        policy = draft.policy or head.policy
        if not policy.thresholds:
            return ()
        found = rules.crossings(
            policy,
            rules.reached(head.policy, head.balance, head.window),
            rules.reached(policy, draft.balance, window_behind(head, draft)),
        )
        if not found or _begins_anew(draft):
            return found
        if self._reported is None:
            since = max(head.window_seq, head.policy_seq)
            self._reported = reported(self._connection, self._pool, since=since)
        return [one for one in found if (one.name, one.direction) not in self._reported]

    def begin(self, draft: Draft) -> None:
        """Forget what was reported before, if a draft that is staged begins anew."""
        if _begins_anew(draft):
            self._reported = set()

    def note(self, crossing: rules.Crossing, row: Row, head: Head) -> None:
        """Remember that a crossing is reported by an entry, behind which the pool is at `head`."""
        if self._reported is not None:
            self._reported.add((crossing.name, crossing.direction))
        self.crossed.append(
            ThresholdCrossing(
                pool=self._pool.name,
                threshold=crossing.name,
                percent=crossing.percent,
                direction=crossing.direction,
                seq=row["seq"],
                remaining=rules.remaining(head.policy, head.balance, head.window),
                recorded_at=from_micros(row["recorded_at"]),
            )
        )


def _begins_anew(draft: Draft) -> bool:
    return draft.policy is not None or draft.kind is EntryKind.ROLLOVER
