"""One pool inside a transaction: where entries are decided, chained and passed upwards."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import Balance, EntryKind, LeaseState, PoolId, requests_of
from ledger.core.values import Attribution, RequestBudget, Usage, UsageEstimate
from ledger.engine import carved_pools
from ledger.engine.thresholds import PoolThresholds
from ledger.errors import (
    IdempotencyConflictError,
    JournalDamagedError,
    PoolClosedError,
    ThresholdExceededError,
)
from ledger.store import journal, rows
from ledger.store.corrections import Spending, mirror_of, spending
from ledger.store.journal import PoolJournal, Wanted
from ledger.store.rows import Draft, Head, Interned, LeaseRow, Memo, Row

if TYPE_CHECKING:
    from ledger.engine.batch import Batch
    from ledger.engine.operations.base import Operation

_NO_CONTENT = hashing.attribution_content(Attribution())


class Step(NamedTuple):
    """An entry to be staged, and the thresholds that are reported behind it."""

    pool_batch: PoolBatch
    draft: Draft
    crossings: Sequence[rules.Crossing]
    repeats: int | None
    """Which of the steps it repeats, by its place among them."""


class PoolBatch:
    """One pool inside one transaction: what was read of it, and the entries that follow."""

    def __init__(self, batch: Batch, pool: PoolJournal, head: Head, quiet_until: Micros) -> None:
        self.batch = batch
        self.pool = pool
        self.head = head
        self.now = batch.now
        self.leases: dict[int, LeaseRow] = {}
        """Leases as the newest entry leaves them."""
        self.mirrors: dict[tuple[PoolId, int], int] = {}
        """The leases here of leases that pools below have granted."""
        self.unreadable: dict[int | None, JournalDamagedError] = {}
        """Leases that cannot be read, and why."""
        self.known: dict[str, Row] = {}
        """Entries by their idempotency keys."""
        self.staged: list[Row] = []
        """Entries that are decided, and not yet written."""
        self.thresholds = PoolThresholds(batch.connection, pool.info)
        self.expired = 0
        """How many leases this transaction found due."""
        self._began_at = head.seq, head.hash
        self._quiet_until = quiet_until
        self._interned: dict[str, Interned] = {}

    def do(self, operation: Operation[Any]) -> Row:
        """Decide an operation, unless its key says that it was done, and return its entry.

        Raises:
            BudgetError: The rules refuse, and the refusal is not kept.
            IdempotencyConflictError: The key was used with other arguments.
            JournalDamagedError: The lease it is about cannot be read.
            MorePoolsError: It needs pools that this transaction has not begun on.
        """
        first = self.known.get(operation.key)
        if first is not None:
            if first["payload_digest"] != operation.payload_digest():
                raise IdempotencyConflictError(operation.key, seq=first["seq"])
            return first
        if operation.lease_id in self.unreadable:
            raise copy.copy(self.unreadable[operation.lease_id])
        row = self.post(operation.decide(self))
        self.known[operation.key] = row
        return row

    @property
    def at(self) -> Micros:
        """When the next entry here is recorded: now, but never before the newest entry."""
        return max(self.now, self.head.recorded_at)

    def require_open(self) -> None:
        """Refuse what a closed pool does not take.

        Raises:
            PoolClosedError: This pool is closed.
        """
        if self.head.closed:
            raise PoolClosedError(self.pool.info.name)

    def lineage(self) -> list[PoolBatch]:
        """Return this pool's part of the batch, and those of the pools above that share it.

        Raises:
            JournalDamagedError: One of them cannot be read.
        """
        if len(self.pool.lineage) == 1:
            return [self]
        return [self.batch.pool_batch(pool.info.pool_id) for pool in self.pool.lineage]

    def post(self, draft: Draft) -> Row:
        """Make a draft the newest entry here, with all that follows from it in pools above.

        Everything is decided before anything is staged: an entry is there with its mirrors, or
        none of them is.

        Raises:
            AmountOutOfRangeError: What is reserved in one of the pools would be too much.
            JournalDamagedError: One of them cannot be read.
            MorePoolsError: The transaction has not begun on one of them.
        """
        rows_of: list[Row] = []
        steps = self.plan(draft)
        for step in steps:
            one = step.draft
            if step.repeats is not None:
                origin = steps[step.repeats].pool_batch.pool.info.pool_id
                one = one._replace(origin=(origin, rows_of[step.repeats]["seq"]))
            rows_of.append(step.pool_batch.stage(one, step.crossings))
        return rows_of[0]

    def plan(self, draft: Draft) -> list[Step]:
        """Return the entries that a draft leads to, here and above, as they are to be staged."""
        steps = [self.step(draft)]
        if draft.lease is not None:
            above = self.lineage()[1:]
            steps += [
                pool_batch.step(pool_batch.repeat(draft, self.pool), 0) for pool_batch in above
            ]
        top = len(steps) - 1  # the highest pool that shares; it may be carved out of another
        pool_batch, what = steps[top].pool_batch, steps[top].draft
        funder = carved_pools.funder(pool_batch, what)
        passed_on = None if funder is None else carved_pools.passed_on(pool_batch, what, funder)
        if funder is not None and passed_on is not None:
            first = len(steps)
            for one in funder.plan(passed_on):
                steps.append(
                    one._replace(repeats=top if one.repeats is None else first + one.repeats)
                )
        return steps

    def step(self, draft: Draft, repeats: int | None = None) -> Step:
        """Return how a draft is to be staged here."""
        return Step(self, draft, self.thresholds.crossings(self.head, draft), repeats)

    def refusal(
        self, estimate: UsageEstimate, request_budget: RequestBudget, *, requests: int = 1
    ) -> rules.Denial | None:
        """Ask this pool, and then each above it that shares, up to one that denies a reservation.

        Raises:
            PoolClosedError: One of them is closed.
            MorePoolsError: Leases that are due must expire before one of them denies it.
        """
        for pool_batch in self.lineage():
            name = pool_batch.pool.info.name
            pool_batch.require_open()
            policy, balance = pool_batch.head.policy, pool_batch.head.balance
            asked = estimate, request_budget, pool_batch.head.window
            denial = rules.admit(policy, balance, *asked, requests=requests)
            if isinstance(denial, ThresholdExceededError):
                # Where not even all that is held would be enough, nothing that is due is.
                spent = Balance(balance.committed)
                if rules.admit(policy, spent, *asked, requests=requests) is None:
                    self.batch.sweep_below(pool_batch)
                return denial.of_pool(name)
            if denial is not None:
                return denial
        return None

    def fetch(self, wanted: Wanted) -> None:
        """Lay a lease on the pool_batch that nobody had asked for before."""
        (row,) = journal.leases(self.batch.connection, [wanted])
        self.put_lease(wanted, row)

    def put_lease(self, wanted: Wanted, row: LeaseRow | JournalDamagedError | None) -> None:
        """Lay a lease on the pool_batch, as it was found."""
        if isinstance(row, LeaseRow):
            self.leases[row.state.lease] = row
            if wanted.origin_pool_id is not None:
                self.mirrors[wanted.origin_pool_id, wanted.lease] = row.state.lease
        elif row is not None and wanted.origin_pool_id is None:
            self.unreadable[wanted.lease] = row

    def repeat(self, draft: Draft, below: PoolJournal) -> Draft:
        """Return what an entry about a lease of a pool below comes to here.

        Raises:
            AmountOutOfRangeError: What is reserved here would be too much.
            JournalDamagedError: The lease here cannot be read.
        """
        assert draft.lease is not None  # noqa: S101 - the caller asks for no other
        assert draft.estimate is not None  # noqa: S101 - likewise
        assert draft.request_budget is not None  # noqa: S101 - likewise
        granted = below.info.pool_id, draft.lease.lease
        captured, detail = None, draft.detail
        if draft.kind is EntryKind.RESERVATION:
            effect = rules.reserve(
                self.head.balance,
                lease_id=self.head.seq + 1,
                estimate=draft.estimate,
                request_budget=draft.request_budget,
                ceiling=I64_MAX,
                expires_at=draft.lease.expires_at,
                requests=requests_of(detail),
            )
            self.mirrors[granted] = effect.lease.lease
        else:
            found = self.mirror(*granted)
            captured = found.attribution
            if detail is not None and draft.kind is EntryKind.CORRECTION:
                detail = {**detail, "corrects": self._mirror_of(below, detail["corrects"])}
            effect = self._follow(draft, found.state, detail)
        balance, lease, flags = effect
        return draft._replace(
            balance=balance,
            lease=lease,
            flags=flags,
            detail=detail,
            attribution=self._own(draft.attribution, captured),
            idempotency_key=None,
            payload_digest=None,
        )

    def _follow(
        self, draft: Draft, lease: LeaseState, detail: Mapping[str, Any] | None
    ) -> rules.Effect:
        """Return what an entry below leaves behind of its lease here."""
        assert draft.lease is not None  # noqa: S101 - it is about one
        if detail is not None and draft.kind is EntryKind.CORRECTION:
            return rules.correct(
                self.head.balance,
                lease,
                Usage(**detail["from"]),
                Usage(**detail["to"]),
                seq=detail["corrects"],
                ceiling=I64_MAX,
                requests=requests_of(detail, otherwise=0),
            )
        return rules.follow(
            draft.kind,
            self.head.balance,
            lease,
            draft.usage if isinstance(draft.usage, Usage) else None,
            lease_id=lease.lease,
            expires_at=draft.lease.expires_at,
            ceiling=I64_MAX,
            requests=requests_of(detail),
        )

    def mirror(self, pool_id: PoolId, lease: int) -> LeaseRow:
        """Return the lease here of a lease that a pool below has granted.

        Raises:
            JournalDamagedError: There is none, or it cannot be read.
        """
        if (pool_id, lease) not in self.mirrors:
            self.fetch(Wanted(self.pool, lease, pool_id))
        found = self.leases.get(self.mirrors.get((pool_id, lease), 0))
        if found is None:
            reason = f"nothing repeats lease {lease} of pool {pool_id}, which it should hold"
            raise self.pool.damaged(self.head.seq, reason)
        return found

    def _mirror_of(self, below: PoolJournal, seq: int) -> int:
        return mirror_of(self.batch.connection, self.pool, (below.info.pool_id, seq))

    def _own(self, attribution: Interned | None, captured: Interned | None) -> Interned | None:
        """Return the attribution of an entry below as it is stored here.

        One that was redacted there is what the lease was granted with here.
        """
        if attribution is None:
            return None
        if attribution.value is None:
            return captured
        return self.intern(hashing.attribution_content(attribution.value))

    def stage(self, draft: Draft, crossings: Sequence[rules.Crossing]) -> Row:
        """Make a draft the newest entry, and behind it the reports of what it crosses."""
        self.thresholds.begin(draft)
        row = self._append(draft)
        for crossing in crossings:
            detail = rules.crossing_detail(crossing)
            report = Draft(kind=EntryKind.THRESHOLD, balance=draft.balance, detail=detail)
            self.thresholds.note(crossing, self._append(report), self.head)
        return row

    def _append(self, draft: Draft) -> Row:
        row = rows.to_row(
            draft,
            pool_id=self.pool.info.pool_id,
            head=self.head,
            genesis=self.pool.genesis,
            now=self.now,
        )
        self.staged.append(row)
        window = rows.window_behind(self.head, draft)
        self.head = rows.head_of(row, draft.policy or self.head.policy, draft.balance, window)
        if draft.lease is not None:
            self.leases[draft.lease.lease] = LeaseRow(
                draft.lease,
                draft.attribution,
                draft.request_id,
                draft.occurred_at,
                None if draft.origin is None else draft.origin[0],
            )
        return row

    def sweep(self, until: Micros) -> None:
        """Note that no lease that was due until then still holds anything."""
        self.head = self.head._replace(swept_until=max(self.head.swept_until, until))

    def state(self, lease_id: int) -> LeaseState | None:
        """Return a lease that this pool granted as the newest entry leaves it, None for another."""
        found = self.leases.get(lease_id)
        return None if found is None or found.origin_pool_id is not None else found.state

    def spending(self, seq: int) -> Spending:
        """Return an entry that records usage, and what it says by now.

        Raises:
            UncorrectableEntryError: There is no such entry, or it records no usage of its own.
            JournalDamagedError: It, or a correction of it, cannot be read.
        """
        return spending(self.batch.connection, self.pool, seq, staged=self.staged)

    def lease(self, lease_id: int) -> LeaseRow:
        """Return a lease that an entry names, whether it was laid here or not.

        Raises:
            JournalDamagedError: It cannot be read, or there is none.
        """
        if lease_id not in self.leases:
            self.fetch(Wanted(self.pool, lease_id))
        if lease_id in self.unreadable:
            raise copy.copy(self.unreadable[lease_id])
        if lease_id not in self.leases:
            raise self.pool.damaged(lease_id, "this lease is missing, though others name it")
        return self.leases[lease_id]

    def memo(self) -> Memo:
        """Return what the pool's journal may remember once the entries are committed."""
        return Memo(
            before=self._began_at,
            after=(self.head.seq, self.head.hash),
            leases=self.leases,
            mirrors=self.mirrors,
            quiet_until=self._quiet_until,
            now=self.now,
        )

    def intern(self, content: str | None) -> Interned | None:
        """Return the stored form of an attribution's content; one that is empty is not stored.

        Raises:
            InvalidInputError: A value in it is none that an attribution may have.
        """
        if content is None or content == _NO_CONTENT:
            return None
        if content not in self._interned:
            connection = self.batch.connection
            self._interned[content] = self.pool.attributions.intern(connection, content)
        return self._interned[content]
