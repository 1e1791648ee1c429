"""The desk: a pool inside a transaction, where entries are decided, chained, and passed upwards."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from ledger import journal, proof, rows, rules
from ledger.checks import I64_MAX, Micros
from ledger.errors import (
    IdempotencyConflictError,
    JournalDamagedError,
    LedgerError,
    PoolClosedError,
    ThresholdExceededError,
)
from ledger.journal import PoolJournal, Wanted
from ledger.model import Attribution, RequestBudget, Usage, UsageEstimate
from ledger.records import EntryKind, LeaseState, PoolId, Seq, requests_of
from ledger.rows import Draft, Head, Interned, LeaseRow, Memo, Row

if TYPE_CHECKING:
    from ledger.operations.base import Operation

_NO_CONTENT = proof.attribution_content(Attribution())


class MorePoolsError(Exception):
    """A transaction must be done again, alone on more pools than it has begun on.

    Locks come before the snapshot, so no pool can be taken in once something was read.
    """

    def __init__(self, pool_ids: Collection[PoolId]) -> None:
        super().__init__(f"pools {sorted(pool_ids)} are needed too")
        self.pool_ids = frozenset(pool_ids)


class Table:
    """The pools of one transaction."""

    def __init__(self, connection: Connection, now: Micros) -> None:
        self.connection = connection
        self.now = now
        self.desks: dict[PoolId, Desk] = {}
        self.damaged: dict[PoolId, LedgerError] = {}
        """Pools that cannot be read, and why."""
        self._swept_below: set[PoolId] = set()

    def desk(self, pool_id: PoolId) -> Desk:
        """Return a pool's desk.

        Raises:
            JournalDamagedError: The pool cannot be read.
            MorePoolsError: The transaction has not begun on this pool.
        """
        if pool_id in self.damaged:
            raise copy.copy(self.damaged[pool_id])
        if pool_id not in self.desks:
            raise MorePoolsError({pool_id})
        return self.desks[pool_id]

    def sweep_below(self, desk: Desk) -> None:
        """See to it that no lease of a pool below is due before this one refuses a reservation.

        Raises:
            MorePoolsError: Some are, in pools that this transaction does not sweep.
        """
        pool_id = desk.pool.info.pool_id
        if pool_id not in self._swept_below:
            due = journal.sharing_with_due(self.connection, desk.pool, self.now)
            if due - self.desks.keys():
                raise MorePoolsError(due - self.desks.keys())
            self._swept_below.add(pool_id)


class Desk:
    """One pool inside one transaction: what was read of it, and the entries that follow."""

    def __init__(self, table: Table, pool: PoolJournal, head: Head) -> None:
        self.table = table
        self.pool = pool
        self.head = head
        self.now = table.now
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
        self.expired = 0
        """How many leases this transaction found due."""
        self._began_at = head.seq, head.hash
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

    def require_open(self) -> None:
        """Refuse what a closed pool does not take.

        Raises:
            PoolClosedError: This pool is closed.
        """
        if self.head.closed:
            raise PoolClosedError(self.pool.info.name)

    def lineage(self) -> list[Desk]:
        """Return the desks of the pools that share what is held here: this one, and those above.

        Raises:
            JournalDamagedError: One of them cannot be read.
        """
        return [self.table.desk(pool.info.pool_id) for pool in self.pool.lineage]

    def post(self, draft: Draft) -> Row:
        """Make a draft the newest entry here, and what it comes to in each pool above.

        Raises:
            AmountOutOfRangeError: What is reserved in one of them would be too much.
            JournalDamagedError: One of them cannot be read.
        """
        above = self.lineage()[1:] if draft.lease is not None else []
        funder = self._funder() if draft.kind is EntryKind.CLOSING else None
        repeated = [(desk, desk.repeat(draft, self.pool)) for desk in above]
        row = self.stage(draft)
        origin = self.pool.info.pool_id, Seq(row["seq"])
        for desk, one in repeated:
            desk.stage(one._replace(origin=origin))
        if funder is not None:
            funder.post(self._spent(funder)._replace(origin=origin))
        return row

    def refusal(
        self, estimate: UsageEstimate, request_budget: RequestBudget, *, requests: int = 1
    ) -> rules.Denial | None:
        """Ask this pool, and then each above it that shares, up to one that denies a reservation.

        Raises:
            PoolClosedError: One of them is closed.
            MorePoolsError: Leases that are due must expire before one of them denies it.
        """
        for desk in self.lineage():
            name = desk.pool.info.name
            desk.require_open()
            denial = rules.admit(
                desk.head.policy,
                desk.head.balance,
                estimate,
                request_budget,
                requests=requests,
            )
            if isinstance(denial, ThresholdExceededError):
                self.table.sweep_below(desk)
                return denial.of_pool(name)
            if denial is not None:
                return denial
        return None

    def _funder(self) -> Desk | None:
        """Return the desk of the pool that this one is carved out of, if it is."""
        parent, lease = self.pool.parent, self.pool.info.carved_lease
        if parent is None or lease is None:
            return None
        funder = self.table.desk(parent.info.pool_id)
        for desk in funder.lineage():
            desk.fetch(Wanted(desk.pool, lease, None if desk is funder else parent.info.pool_id))
        return funder

    def _spent(self, funder: Desk) -> Draft:
        """Return the settlement of the lease that funds this pool, by all that was spent here."""
        lease_id, spent = self.pool.info.carved_lease or 0, self.head.balance.committed
        usage = Usage(total_tokens=spent.tokens, cost_micros_usd=spent.cost_micros_usd)
        found = funder.leases.get(lease_id)
        effect = rules.settle(
            funder.head.balance,
            None if found is None else found.state,
            usage,
            lease_id=lease_id,
            ceiling=I64_MAX,
            requests=spent.requests,
        )
        assert found is not None  # noqa: S101 - or else the rules refuse
        detail = {"carving": {"pool": self.pool.info.name, "requests": spent.requests}}
        return carried(EntryKind.SETTLEMENT, effect, found)._replace(usage=usage, detail=detail)

    def fetch(self, wanted: Wanted) -> None:
        """Lay a lease on the desk that nobody had asked for before."""
        (row,) = journal.leases(self.table.connection, [wanted])
        self.lay(wanted, row)

    def lay(self, wanted: Wanted, row: LeaseRow | JournalDamagedError | None) -> None:
        """Lay a lease on the desk, as it was found."""
        if isinstance(row, LeaseRow):
            self.leases[row.state.lease] = row
            if wanted.origin_pool_id is not None:
                self.mirrors[wanted.origin_pool_id, wanted.lease] = row.state.lease
        elif row is not None and wanted.origin_pool_id is None:
            self.unreadable[wanted.lease] = row

    def repeat(self, draft: Draft, below: PoolJournal) -> Draft:
        """Return what an entry about a lease of a pool below comes to here."""
        assert draft.lease is not None  # noqa: S101 - the caller asks for no other
        assert draft.estimate is not None  # noqa: S101 - likewise
        assert draft.request_budget is not None  # noqa: S101 - likewise
        granted = below.info.pool_id, draft.lease.lease
        captured = None
        if draft.kind is EntryKind.RESERVATION:
            effect = rules.reserve(
                self.head.balance,
                lease_id=self.head.seq + 1,
                estimate=draft.estimate,
                request_budget=draft.request_budget,
                ceiling=I64_MAX,
                expires_at=draft.lease.expires_at,
                requests=requests_of(draft.detail),
            )
            self.mirrors[granted] = effect.lease.lease
        else:
            lease_id = self._mirror(granted)
            captured = self.leases[lease_id].attribution
            effect = rules.follow(
                draft.kind,
                self.head.balance,
                self.leases[lease_id].state,
                draft.usage,
                lease_id=lease_id,
                expires_at=draft.lease.expires_at,
                ceiling=I64_MAX,
                requests=requests_of(draft.detail),
            )
        balance, lease, flags = effect
        return draft._replace(
            balance=balance,
            lease=lease,
            flags=flags,
            attribution=self._own(draft.attribution, captured),
            idempotency_key=None,
            payload_digest=None,
        )

    def _mirror(self, granted: tuple[PoolId, int]) -> int:
        """Return the lease here of a lease that a pool below has granted."""
        lease_id = self.mirrors.get(granted)
        if lease_id is None or lease_id not in self.leases:
            pool_id, lease = granted
            reason = f"nothing repeats lease {lease} of pool {pool_id}, which it should hold"
            raise self.pool.damaged(self.head.seq, reason)
        return lease_id

    def _own(self, attribution: Interned | None, captured: Interned | None) -> Interned | None:
        """Return the attribution of an entry below as it is stored here.

        One that was redacted there is what the lease was granted with here.
        """
        if attribution is None:
            return None
        if attribution.value is None:
            return captured
        return self.intern(proof.attribution_content(attribution.value))

    def stage(self, draft: Draft) -> Row:
        """Make a draft the newest entry, to be written with the others."""
        row = rows.to_row(
            draft,
            pool_id=self.pool.info.pool_id,
            head=self.head,
            genesis=self.pool.genesis,
            now=self.now,
        )
        self.staged.append(row)
        self.head = rows.head_of(row, draft.policy or self.head.policy, draft.balance)
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

    def memo(self) -> Memo:
        """Return what the pool's journal may remember once the entries are committed."""
        return Memo(self._began_at, (self.head.seq, self.head.hash), self.leases, self.mirrors)

    def intern(self, content: str | None) -> Interned | None:
        """Return the stored form of an attribution's content; one that is empty is not stored.

        Raises:
            InvalidInputError: A value in it is none that an attribution may have.
        """
        if content is None or content == _NO_CONTENT:
            return None
        if content not in self._interned:
            connection = self.table.connection
            self._interned[content] = self.pool.attributions.intern(connection, content)
        return self._interned[content]


def carried(kind: EntryKind, effect: rules.Effect, found: LeaseRow) -> Draft:
    """Return an entry about a lease, with all that each of its entries repeats."""
    balance, lease, flags = effect
    return Draft(
        kind=kind,
        balance=balance,
        lease=lease,
        flags=flags,
        estimate=lease.estimate,
        request_budget=lease.request_budget,
        attribution=found.attribution,
        request_id=found.request_id,
        occurred_at=found.occurred_at,
    )
