"""Opening a pool: finds it, or makes it, without a parent, below a parent or carved out of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy import Connection

from ledger.core import carving, rules
from ledger.core.axes import AXES
from ledger.core.checks import I64_MAX, REASON_MAX_CHARS, Micros, check_text, check_type
from ledger.core.entries import Actor, Balance, PoolId, PoolInfo, Seq
from ledger.core.errors import InvalidInputError, ParentConflictError, PoolConflictError
from ledger.core.kinds import EntryKind
from ledger.core.policy import (
    SharedPoolBudgetOptions,
    check_carved,
    check_storable_policy,
)
from ledger.core.values import RequestBudget
from ledger.engine.admission import begin_sessions, refusal
from ledger.engine.batch import Batch, UnsweptError
from ledger.engine.perform import Done, finish, no_calls, prepare
from ledger.engine.pool_batch import PoolBatch
from ledger.store import actors, pools
from ledger.store.directory import Directory
from ledger.store.drafts import Draft, first_row
from ledger.store.journal import PoolJournal
from ledger.store.keys import new_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A request to open a pool."""

    name: str
    options: SharedPoolBudgetOptions | None
    parent: str | None
    carved: bool
    actor: Actor
    reason: str | None = None
    key: str = field(default_factory=new_key)

    @classmethod
    def of(
        cls,
        name: str,
        options: SharedPoolBudgetOptions | None,
        parent: str | None,
        *,
        carved: bool,
        actor: str | None,
        reason: str | None = None,
    ) -> Opening:
        """Return what a call asks for.

        Raises:
            InvalidInputError: A name, the actor or the reason is empty, too long, or not text; or
                the pool is to be carved out, and no parent is named.
            AmountOutOfRangeError: The policy has an amount that a store cannot hold.
        """
        check_text("name", name)
        if options is not None:
            check_type("options", options, SharedPoolBudgetOptions)
            check_storable_policy(options)
        if parent is not None:
            check_text("parent", parent)
        if reason is not None:
            check_text("reason", reason, max_chars=REASON_MAX_CHARS)
        check_type("carved", carved, bool)
        if carved and parent is None:
            raise InvalidInputError("carved", "needs the parent that the pool is carved out of")
        if carved and options is not None:
            check_carved(options)
        return cls(
            name=name,
            options=options,
            parent=parent,
            carved=carved,
            actor=actors.named(actor),
            reason=reason,
        )

    def find_or_make(
        self,
        connection: Connection,
        locked: Sequence[PoolJournal],
        *,
        look_up: bool,  # noqa: ARG002 - the pool is looked for in any case
        directory: Directory,
        parent: PoolJournal | None,
        now: Callable[[], Micros | None],
    ) -> Done:
        """Return a result with the pool, which is made if it does not exist.

        If more leases must expire first than one transaction expires, the result has no pool: then
        the transaction must be committed, and the pool opened again.

        Args:
            connection: A transaction.
            locked: The pools that it has locked; the parent and the pools above it are among them.
            look_up: As `transaction.Do` has it.
            directory: Finds the pool, or makes its journal.
            parent: The pool above it.
            now: Returns the time; None to take the server's.

        Raises:
            ParentConflictError, PoolConflictError: As `find`.
            PoolClosedError: A pool above is closed.
            ThresholdExceededError: A pool above has not enough left to carve the pool out.
            InvalidInputError: A carved pool has no limit on an axis where a pool above has one.
            MorePoolsError: Leases that are due must expire first.
        """
        found = self.find(connection, directory)
        if found is not None:
            return Done((), [], {}, set(), [], opened=found)
        return self._make(connection, locked, directory=directory, parent=parent, now=now)

    def find(self, connection: Connection, directory: Directory) -> PoolJournal | None:
        """Return the pool if it exists as requested, None if it does not exist.

        Raises:
            ParentConflictError: It has another parent, or shares its capacity instead of being
                carved, or the other way round.
            PoolConflictError: It has another policy.
        """
        pool = directory.named(connection, self.name)
        if pool is None:
            return None
        above = None if pool.parent is None else pool.parent.info.name
        carved = pool.info.carved_lease is not None
        if self.parent is not None and (above, carved) != (self.parent, self.carved):
            raise ParentConflictError(self.name, parent=above, carved=carved)
        if self.options is not None:
            opening = pool.terms.policy(connection, 1)
            current = pool.head(connection).policy
            if self.options not in (opening, current):
                raise PoolConflictError(
                    self.name, opening=opening, current=current, given=self.options
                )
        return pool

    def _make(
        self,
        connection: Connection,
        locked: Sequence[PoolJournal],
        *,
        directory: Directory,
        parent: PoolJournal | None,
        now: Callable[[], Micros | None],
    ) -> Done:
        assert self.options is not None  # noqa: S101 - without options a pool is only found
        detail = actors.detail(connection, self.actor, "open pool", self.reason)
        batch, _ = prepare(connection, locked, look_up=False, calls=no_calls, now=now)
        pool_id = pools.next_pool_id(connection)
        lease = None
        if parent is not None:
            funder = batch.pool(parent.info.pool_id)
            for above in batch.lineage(funder):
                above.require_open()
            try:
                batch.require_rolled_over(funder)
                lease = self._fund(batch, funder, self.options, pool_id) if self.carved else None
            except UnsweptError:
                return finish(batch, ())
        info = PoolInfo(
            pool_id=pool_id,
            identity=uuid4(),
            name=self.name,
            parent_id=None if parent is None else parent.info.pool_id,
            carved_lease=lease,
        )
        pools.add_pool(connection, info)
        # Not remembered yet, since another pool may get the number if this transaction fails.
        pool = directory.fresh(info, parent)
        place = pool.place()
        opening = Draft(
            kind=EntryKind.OPENING,
            balance=Balance(),
            policy=self.options,
            detail=detail if place is None else {**detail, "parent": place},
            idempotency_key=self.key,
        )
        row = first_row(opening, pool_id=pool_id, genesis=pool.genesis, now=batch.now)
        return finish(batch, (), opened=pool, also=[row])

    def _fund(
        self,
        batch: Batch,
        pool: PoolBatch,
        options: SharedPoolBudgetOptions,
        pool_id: PoolId,
    ) -> int:
        """Reserve a carved pool's whole capacity in its parent `pool`, and return the lease."""
        line = batch.lineage(pool)
        for axis in AXES:
            if axis.is_unlimited(options) and not all(
                one.head.policy.is_unlimited(axis) for one in line
            ):
                raise InvalidInputError(
                    axis.capacity,
                    f"must have a limit: pool {self.parent!r}, or one above it, has one",
                )
        estimate, requests = carving.funding(options)
        unlimited_budget = RequestBudget.unlimited()
        denial = refusal(batch, line, estimate, unlimited_budget, requests=requests)
        if denial is not None:
            raise denial
        begin_sessions(batch, line, estimate, unlimited_budget, requests=requests)
        balance, lease, flags = rules.reserve(
            pool.head.balance,
            lease_id=pool.head.seq + 1,
            estimate=estimate,
            request_budget=unlimited_budget,
            ceiling=I64_MAX,
            requests=requests,
        )
        batch.post(
            pool,
            Draft(
                kind=EntryKind.RESERVATION,
                balance=balance,
                flags=flags,
                detail=carving.detail(self.name, requests),
                estimate=estimate,
                request_budget=unlimited_budget,
                lease=lease,
                origin=(pool_id, Seq(1)),
            ),
        )
        return lease.lease
