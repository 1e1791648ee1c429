"""A batch: the pools of one transaction, and the entries that one draft leads to in them.

An entry about a lease is repeated in every pool above that shares its capacity. The closing of a
carved pool settles the lease that funds it. All of these entries are planned before the first of
them is staged.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import Actor, PoolId, Totals
from ledger.core.errors import LedgerError
from ledger.core.kinds import EntryKind
from ledger.core.values import Usage, UsageDifference, UsageEstimate
from ledger.engine import carved_pools
from ledger.engine.mirrors import mirror_of
from ledger.engine.pool_batch import PoolBatch
from ledger.engine.refunds import in_window
from ledger.store import snapshot
from ledger.store.drafts import Draft
from ledger.store.rows import Row

_RESERVATION = EntryKind.RESERVATION  # a function call before Python 3.12
_NOTHING = Totals()


class MorePoolsError(Exception):
    """The transaction must run again with more pools locked.

    Locks are taken before the snapshot, so no pool can be added after the first read.
    """

    def __init__(self, pool_ids: Collection[PoolId]) -> None:
        super().__init__(f"pools {sorted(pool_ids)} are needed too")
        self.pool_ids = frozenset(pool_ids)


class UnsweptError(Exception):
    """More leases are due than one transaction expires, and the verdict depends on them.

    The staged entries must be committed. Then the operation is tried again.
    """


class _Planned(NamedTuple):
    """An entry to be staged, and the threshold crossings that are reported after it."""

    pool: PoolBatch
    draft: Draft
    crossings: Sequence[rules.Crossing]
    repeats: int | None
    """The index of the planned entry that this one repeats, None if it repeats none."""


class Batch:
    """The pools of one transaction."""

    def __init__(self, connection: Connection, now: Micros) -> None:
        self.connection = connection
        self.now = now
        self.pools: dict[PoolId, PoolBatch] = {}
        self.damaged: dict[PoolId, LedgerError] = {}
        """The errors of pools that cannot be read."""
        self.unrolled: set[PoolId] = set()
        """Pools whose next window begins only after all due leases have expired."""
        self.asked: dict[Actor, Mapping[str, Any]] = {}
        """The part of a detail that names each actor; the database is asked once for each actor."""
        self._swept_below: set[PoolId] = set()

    def pool(self, pool_id: PoolId) -> PoolBatch:
        """Return one pool's part of the batch.

        Raises:
            JournalDamagedError: The pool cannot be read.
            MorePoolsError: The transaction has not begun on this pool.
        """
        if pool_id in self.damaged:
            raise copy.copy(self.damaged[pool_id])
        if pool_id not in self.pools:
            raise MorePoolsError({pool_id})
        return self.pools[pool_id]

    def lineage(self, pool: PoolBatch) -> list[PoolBatch]:
        """Return this pool and the pools above that share its capacity, from the bottom up.

        Raises:
            JournalDamagedError: One of them cannot be read.
        """
        above = pool.journal.lineage[1:]
        return [pool, *(self.pool(one.info.pool_id) for one in above)] if above else [pool]

    def sharing(self, pool: PoolBatch) -> list[PoolBatch]:
        """Return the pools of this batch that share a pool's capacity, that pool included."""
        return [one for one in self.pools.values() if pool.journal in one.journal.lineage]

    def post(self, pool: PoolBatch, draft: Draft, replaced: Totals = _NOTHING) -> Row:
        """Stage a draft as a pool's newest entry, with the entries it leads to in other pools.

        All of them are decided before the first is staged: an entry and its mirrors are staged
        together, or not at all.

        Args:
            pool: The pool.
            draft: The draft.
            replaced: The usage of the next entry, if the draft takes back an assumed charge that it
                replaces.

        Raises:
            AmountOutOfRangeError: The total reserved in one of the pools would exceed 2^63-1.
            JournalDamagedError: One of them cannot be read.
            MorePoolsError: The transaction has not begun on one of them.
            UnsweptError: Leases of one of them must expire first.
        """
        amounts = draft.estimate if draft.kind is _RESERVATION else draft.usage
        # Most drafts have both figures, and so leave out nothing that a pool may limit.
        if amounts is not None and not (amounts.total_tokens and amounts.cost_micros_usd):
            draft = self._flagged(pool, draft, amounts)
        if pool.journal.parent is None:  # then no other pool gets an entry
            draft = in_window(pool, draft, replaced)
            return pool.stage(draft, pool.crossings(draft))
        staged: list[Row] = []
        planned = self._plan(pool, draft, replaced)
        for one in planned:
            draft = one.draft
            if one.repeats is not None:
                origin = planned[one.repeats].pool.journal.info.pool_id
                draft = draft._replace(origin=(origin, staged[one.repeats]["seq"]))
            staged.append(one.pool.stage(draft, one.crossings))
        return staged[0]

    def _flagged(
        self, pool: PoolBatch, draft: Draft, amounts: UsageEstimate | Usage | UsageDifference
    ) -> Draft:
        """Flag a draft that leaves out a figure that its pool, or one above that shares, limits."""
        if draft.detail is not None and "carving" in draft.detail:
            return draft  # capacity that is set aside is no call
        policies = [one.head.policy for one in self.lineage(pool)]
        flag = rules.unpriced_flag(policies, amounts)
        return draft._replace(flags=draft.flags | flag) if flag else draft

    def _plan(self, pool: PoolBatch, draft: Draft, replaced: Totals) -> list[_Planned]:
        decided = [(pool, draft)]
        if draft.lease is not None:
            above = self.lineage(pool)[1:]
            decided += [(one, mirror_of(one, draft, pool.journal)) for one in above]
        planned = []
        for number, (at, decision) in enumerate(decided):
            final = in_window(at, decision, replaced)
            planned.append(_Planned(at, final, at.crossings(final), 0 if number else None))
        top = len(planned) - 1  # the highest pool that shares; it may be carved out of yet another
        passed_on = self._passed_on(*decided[top])
        if passed_on is not None:
            first = len(planned)
            for one in self._plan(*passed_on, _NOTHING):
                repeats = top if one.repeats is None else first + one.repeats
                planned.append(one._replace(repeats=repeats))
        return planned

    def _passed_on(self, pool: PoolBatch, draft: Draft) -> tuple[PoolBatch, Draft] | None:
        """Return the pool that funds a carved one, and the entry that a draft leads to there."""
        if pool.info.carved_lease is None or pool.journal.parent is None:
            return None
        if draft.kind is EntryKind.CLOSING:
            funder = self.pool(pool.journal.parent.info.pool_id)
            self.require_rolled_over(funder)
            lease = funder.lease(pool.info.carved_lease)
            spent = pool.head.balance.committed
            return funder, carved_pools.settlement(pool.info, spent, lease, funder.head.balance)
        if not pool.head.closed or draft.usage is None:
            return None
        funder = self.pool(pool.journal.parent.info.pool_id)
        self.require_rolled_over(funder)
        lease = funder.lease(pool.info.carved_lease)
        settled = funder.settlement_of(lease.state.lease)
        late = carved_pools.correction(pool.info, draft, settled, lease, funder.head.balance)
        return None if late is None else (funder, late)

    def require_rolled_over(self, pool: PoolBatch) -> None:
        """Make sure that a pool and the pools above that share capacity have begun their windows.

        Raises:
            UnsweptError: Leases must expire first, since the window may carry over what they held.
        """
        if any(one.info.pool_id in self.unrolled for one in pool.journal.lineage):
            raise UnsweptError

    def require_swept(
        self, pool: PoolBatch, *, below: bool = True, before: Micros | None = None
    ) -> None:
        """Make sure that no due lease still holds any of a pool's capacity.

        Args:
            pool: The pool.
            below: Whether to look for such leases in pools that this transaction does not sweep.
            before: Only those count whose holds ended before this time.

        Raises:
            MorePoolsError: Some are in pools that this transaction does not sweep.
            UnsweptError: Some are left in pools that it sweeps.
        """
        pool_id = pool.info.pool_id
        if below and pool_id not in self._swept_below:
            due = snapshot.sharing_with_due(self.connection, pool.journal, self.now)
            missing = due - self.pools.keys() - self.damaged.keys()  # damaged pools cannot be swept
            if missing:
                raise MorePoolsError(missing)
            # A full page: there may be more such pools, after these are swept.
            if len(due) == snapshot.POOLS_PAGE and any(
                one.expired for one in self.pools.values() if one.info.pool_id in due
            ):
                raise UnsweptError
            self._swept_below.add(pool_id)
        if any(one.may_hold(before) for one in self.sharing(pool)):
            raise UnsweptError
