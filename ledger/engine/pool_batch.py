"""One pool's part of a batch. It knows no other pool: `engine.batch` plans entries of others."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import (
    Balance,
    EntryFlag,
    LeaseState,
    PoolId,
    PoolInfo,
    WindowState,
    make,
)
from ledger.core.errors import (
    JournalDamagedError,
    LostLeaseError,
    PoolClosedError,
    UncorrectableEntryError,
)
from ledger.core.kinds import CHANGES_WINDOW, GIVES_BACK, EntryKind
from ledger.core.values import Usage, UsageDifference
from ledger.engine.pool_counts import PoolCounts
from ledger.engine.thresholds import PoolThresholds
from ledger.store import corrections, drafts
from ledger.store import journal as journals
from ledger.store.attributions import NO_CONTENT
from ledger.store.drafts import Draft, Staged
from ledger.store.heads import Head, Interned, LeaseRow, Memo
from ledger.store.journal import PoolJournal, Wanted, leases
from ledger.store.rows import Row
from ledger.store.snapshot import Ending


class PoolBatch:
    """One pool inside one transaction: what was read of it, and its new entries."""

    frees = False
    """Whether entries that are staged give back capacity, or set another policy."""
    thresholds: PoolThresholds | None = None
    """None until they are needed, and always if the pool's policy has none."""
    expired = 0
    """How many leases this transaction has expired."""
    unswept = False
    """Whether more leases are due than this transaction expires."""
    _began: int | None = None
    _counts: PoolCounts | None = None

    def __init__(
        self,
        connection: Connection,
        journal: PoolJournal,
        head: Head,
        *,
        now: Micros,
        due: Sequence[Ending],
        quiet_until: Micros,
    ) -> None:
        self.connection = connection
        self.journal = journal
        self.info: PoolInfo = journal.info
        self.head = head
        self.now = now
        self.due = due
        """The next due leases that this transaction expires."""
        self.pending: Sequence[Ending] = due
        """The due leases that still hold something."""
        self.spared: set[int] = set()
        """Leases that operations of the batch are about. The operation comes before the expiry."""
        self.kept: set[int] = set()
        """Those of them whose operation comes before the expiry even if they were due in an earlier
        window."""
        self.leases: dict[int, LeaseRow] = {}
        """The state of leases after the newest entry."""
        self.mirrors: dict[tuple[PoolId, int], int] = {}
        """The mirror in this pool of each lease that a pool below granted, by pool and lease."""
        self.unreadable: dict[int | None, JournalDamagedError] = {}
        """The errors of leases that cannot be read."""
        self.known: dict[str, Row] = {}
        """Entries by their idempotency keys."""
        self.staged: list[Staged] = []
        """Entries that are decided and not yet written."""
        self.reads_more = len(due) == journals.ENDING_PAGE
        """Whether more leases may be due than were read."""
        self._before = self._after = head
        self._quiet_until = quiet_until
        self._interned: dict[str, Interned] = {}

    @property
    def counts(self) -> PoolCounts:
        """What its limits and credits count. Most pools have none, and do not make this object."""
        if self._counts is None:
            upto = self._before.seq
            self._counts = PoolCounts(self.connection, self.journal, upto=upto, staged=self.staged)
        return self._counts

    @property
    def at(self) -> Micros:
        """When the next entry here is recorded: now, but never before the newest entry."""
        return max(self.now, self.head.recorded_at)

    def session(self, balance: Balance | None = None) -> WindowState | None:
        """Return the session that a reservation begins here, with this or the newest balance."""
        head = self.head
        if head.window is None:  # most pools have no sessions; each reservation calls this twice
            return None
        return rules.begin_session(head.policy, head.window, balance or head.balance, self.at)

    def dating_flag(self, effect: rules.Effect, usage: Usage | UsageDifference | None) -> EntryFlag:
        """Return `AT_EXPIRY` if the next entry counts when the hold of its lease ended."""
        return rules.dating_flag(self.head.rules_version, effect.lease, usage, self.at)

    def require_open(self) -> None:
        """Refuse an operation that a closed pool does not take.

        Raises:
            PoolClosedError: This pool is closed.
        """
        if self.head.closed:
            raise PoolClosedError(self.info.name)

    def require_readable(self, lease_id: int | None) -> None:
        """Refuse to decide anything about a lease that cannot be read.

        Raises:
            JournalDamagedError: The lease cannot be read.
        """
        if lease_id in self.unreadable:
            raise copy.copy(self.unreadable[lease_id])

    def require_granted(self, lease_id: int, proof: bytes | None) -> LeaseRow | None:
        """Return a lease; refuse one that this store did not grant.

        Args:
            lease_id: The lease.
            proof: The hash of its reservation, or the beginning of that hash; None skips the
                comparison.

        Raises:
            LostLeaseError: The reservation is not in this store.
        """
        found = self.leases.get(lease_id)
        if proof is not None and (found is None or not found.is_proved(proof)):
            raise LostLeaseError(lease_id, pool=self.info.name)
        return found

    def recall_mirrors(self, pool_id: PoolId, leases: Collection[int]) -> list[Wanted]:
        """Load the remembered mirrors of a lower pool's leases; return those still to be read."""
        missing = []
        for lease in sorted(leases):
            own = self.journal.mirror(pool_id, lease)
            remembered = {} if own is None else self.journal.remembered([own])
            if own is None or not remembered:
                missing.append(Wanted(self.journal, lease, pool_id))
            else:
                self.leases |= remembered
                self.mirrors[pool_id, lease] = own
        return missing

    def learn(self, wanted: Wanted, row: LeaseRow | JournalDamagedError | None) -> None:
        """Keep a lease that was read, or the error of one that cannot be read."""
        if isinstance(row, LeaseRow):
            self.leases[row.state.lease] = row
            if wanted.origin_pool_id is not None:
                self.mirrors[wanted.origin_pool_id, wanted.lease] = row.state.lease
        elif row is not None and wanted.origin_pool_id is None:
            self.unreadable[wanted.lease] = row

    def _read(self, wanted: Wanted) -> None:
        (row,) = leases(self.connection, [wanted])
        self.learn(wanted, row)

    def crossings(self, draft: Draft) -> Sequence[rules.Crossing]:
        """Return the thresholds that a draft crosses here and that are not reported yet."""
        if not (draft.policy or self.head.policy).thresholds:
            return ()
        if self.thresholds is None:
            self.thresholds = PoolThresholds(
                self.connection, self.info, self.window_began, self.counts
            )
        return self.thresholds.crossings(self.head, self.at, draft)

    def mirrored(self, pool_id: PoolId, lease: int) -> LeaseRow:
        """Return this pool's mirror of a lease that a pool below granted.

        Raises:
            JournalDamagedError: There is none, or it cannot be read.
        """
        if (pool_id, lease) not in self.mirrors:
            self._read(Wanted(self.journal, lease, pool_id))
        found = self.leases.get(self.mirrors.get((pool_id, lease), 0))
        if found is None:
            reason = f"nothing repeats lease {lease} of pool {pool_id}, which it should hold"
            raise self.journal.damaged(self.head.seq, reason)
        return found

    def stage(self, draft: Draft, crossings: Sequence[rules.Crossing]) -> Row:
        """Stage a draft as the newest entry, then an entry for each threshold that it crosses."""
        row = self._append(draft)
        self.frees = self.frees or draft.kind in GIVES_BACK
        if self.thresholds is not None:
            self.thresholds.begin(draft)
            for crossing in crossings:
                detail = rules.crossing_detail(crossing)
                report = Draft(kind=EntryKind.THRESHOLD, balance=draft.balance, detail=detail)
                self.thresholds.note(crossing, self._append(report), self.head)
        return row

    def window_began(self) -> int:
        """Return the number of the entry that began the pool's window, 0 without windows.

        Raises:
            JournalDamagedError: It cannot be read.
        """
        if self._began is None:
            named = self.head.window_seq
            self._began = 0 if named is None else self.journal.terms.began(self.connection, named)
        return self._began

    def _append(self, draft: Draft) -> Row:
        before, lease = self.head, draft.lease
        row, head = drafts.row_behind(before, draft, pool_id=self.info.pool_id, now=self.now)
        if head.window_seq != before.window_seq and draft.kind not in CHANGES_WINDOW:
            self._began = head.window_seq or 0
        self.head = self._after = head
        self.staged.append(row)
        if lease is not None:
            granted = self.leases.get(lease.lease)
            if granted is None:
                told = draft.attribution, draft.request_id, draft.occurred_at
                origin = None if draft.origin is None else draft.origin[0]
                found = make(LeaseRow, (lease, *told, origin, head.hash))
            else:  # the detail of a report stays with its own entry
                found = make(LeaseRow, (lease, *granted[1:]))
            self.leases[lease.lease] = found
        return row

    def may_hold(self, before: Micros | None) -> bool:
        """Tell whether leases that were not read may still be due, with holds that ended before.

        False if none of the leases that were read could expire, since the next transaction would
        get no further.
        """
        if before is None:
            return self.unswept
        stuck = len(self.pending) == len(self.due)
        return self.reads_more and self.due[-1].expires_at < before and not stuck

    def note_swept(self, until: Micros) -> None:
        """Note that no lease that was due by `until` still holds anything."""
        swept_until = self.head.swept_until
        if swept_until is not None and until > swept_until:
            self.head = self.head._replace(swept_until=until)

    def state(self, lease_id: int) -> LeaseState | None:
        """Return the current state of a lease that this pool granted, None for any other."""
        found = self.leases.get(lease_id)
        return None if found is None or found.origin_pool_id is not None else found.state

    def spending(self, seq: int) -> corrections.Spending:
        """Return an entry that records usage, with its usage after corrections.

        Raises:
            UncorrectableEntryError: There is no such entry, or it records no usage of its own.
            JournalDamagedError: The entry or a correction of it cannot be read.
        """
        return corrections.spending(self.connection, self.journal, seq, staged=self.staged)

    def assumed(self, lease_id: int) -> corrections.Spending | None:
        """Return the entry by which a lease expired, None if the hold was given back.

        Raises:
            JournalDamagedError: There is none, or it cannot be read.
        """
        seq = corrections.expiry_of(self.connection, self.journal, lease_id, staged=self.staged)
        with contextlib.suppress(UncorrectableEntryError):
            return self.spending(seq)
        return None

    def settlement_of(self, lease_id: int) -> corrections.Spending:
        """Return the entry that settled a lease, with its usage after corrections.

        Raises:
            JournalDamagedError: No entry settled it, or the entry cannot be read.
        """
        seq = corrections.settlement_of(self.connection, self.journal, lease_id, staged=self.staged)
        return self.spending(seq)

    def lease(self, lease_id: int) -> LeaseRow:
        """Return a lease that an entry names; read it if it was not read before.

        Raises:
            JournalDamagedError: It cannot be read, or there is no such lease.
        """
        if lease_id not in self.leases:
            self._read(Wanted(self.journal, lease_id))
        self.require_readable(lease_id)
        if lease_id not in self.leases:
            raise self.journal.damaged(lease_id, "this lease is missing, though others name it")
        return self.leases[lease_id]

    def memo(self) -> Memo:
        """Return what the pool's journal may remember after COMMIT."""
        told = self._before, self._after, self.leases, self.mirrors, self._quiet_until, self.now
        return make(Memo, told)

    def intern(self, content: str | None) -> Interned | None:
        """Return the stored form of an attribution's content. An empty attribution is not stored.

        Raises:
            InvalidInputError: The content holds a value that an attribution may not have.
        """
        if content is None or content == NO_CONTENT:
            return None
        if content not in self._interned:
            stored = self.journal.attributions.intern(self.connection, content)
            self._interned[content] = stored
        return self._interned[content]
