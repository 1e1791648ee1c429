"""The class `Ledger`: a store of pools, opened to be read and written."""

from __future__ import annotations

import contextlib
import math
import os
from datetime import datetime
from typing import Self
from uuid import UUID

from ledger.core.checks import check_clock, check_text, check_type, from_micros
from ledger.core.credits import Credit
from ledger.core.errors import LeftOut, PoolConflictError, UnknownPoolError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.engine.announcements import Announcer, OnThreshold, check_callback
from ledger.engine.group_commit import Clock, Writer
from ledger.engine.opening import Opening
from ledger.engine.operations import Adjust, ClosePool, Ensure, InForceError, Operation, TopUp
from ledger.engine.sweeping import sweep, sweep_pools
from ledger.engine.waiting import WaitingReservations
from ledger.managers.pool import LedgerBudgetManager
from ledger.managers.router import BudgetRouter, Choose
from ledger.store import migrate, snapshot
from ledger.store.books import Books
from ledger.store.database import Database, Reads
from ledger.store.journal import PoolJournal
from ledger.store.pools import leave_out

DEFAULT_URL = "sqlite:///ledger.db"
DEFAULT_TIMEOUT_S = 10.0


class Ledger(Books):
    """A store of pools, opened by `Ledger.open`.

    Share one among the threads of a process; open one in each process.
    """

    def __init__(
        self,
        database: Database,
        *,
        record_denials: bool = False,
        exact_costs: bool = False,
        clock: Clock | None = None,
        on_threshold: OnThreshold | None = None,
        actor: str | None = None,
    ) -> None:
        check_type("database", database, Database)
        super().__init__(database)
        if not database.dialect.read_only:
            self._check_store()
        self._writer = Writer(
            database, self._directory, None if clock is None else check_clock(clock)
        )
        self._waiting = WaitingReservations(self._writer)
        self._announcer = Announcer(on_threshold)
        self._writer.on_crossed.append(self._announcer.tell)
        self._record_denials = record_denials
        self._exact_costs = exact_costs
        self._actor = actor

    @classmethod
    def open(  # noqa: PLR0913 - each is an option of its own
        cls,
        url: str | None = None,
        *,
        create: bool = True,
        read_only: bool = False,
        record_denials: bool = False,
        exact_costs: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        clock: Clock | None = None,
        on_threshold: OnThreshold | None = None,
        actor: str | None = None,
    ) -> Self:
        """Open the store at `url`; make its schema if the store is empty.

        Args:
            url: `sqlite:///ledger.db` or `postgresql://user@host/database`. By default
                LEDGER_URL from the environment, or else `sqlite:///ledger.db`.
            create: Whether an empty or missing store is given a schema.
            read_only: Whether to only read, as from a standby, or a file that may not be written.
                No file is made, and a call that would write raises `ReadOnlyLedgerError`.
            record_denials: Whether denied reservations are kept as entries, for the audit.
            exact_costs: Whether an import keeps the exact cost of a call if its file states it
                finer than in micro-USD, as `ledger.prices` does for a live call. Whole micro-USD
                are charged.
            timeout_s: How long one call may take, in seconds: above 0, at most a day. A server is
                then asked to cancel, and given a second to answer.
            clock: Returns the time in microseconds since 1970: by default the database server's
                clock, and this machine's for SQLite. A time outside the years 1971 to 2999 is
                refused (`InvalidInputError`) before anything is written.
            on_threshold: Called with each `ThresholdCrossing` that a call through this object
                caused, once it is committed: on a thread of its own, one at a time, in order. An
                exception in it is logged.
            actor: Who opens, adjusts and closes pools and corrects entries through this object,
                1 to 255 characters. Such entries also say the database's role and the operating
                system's user; without a name, these alone.

        Raises:
            InvalidInputError: An option of another type, or a time out of range.
            InvalidUrlError: Not the address of a store.
            MissingExtraError: The database's driver is not installed.
            LedgerUnavailableError: The store cannot be reached, read or written.
            NotALedgerError: The file or database holds something else.
            SchemaVersionError: The schema is older or newer than this library.
            OtherStoreError: Data was restored without its schema into the schema of a new store.
        """
        check_type("read_only", read_only, bool)
        check_type("exact_costs", exact_costs, bool)
        check_callback(on_threshold)
        if actor is not None:
            check_text("actor", actor)
        url = os.environ.get("LEDGER_URL", DEFAULT_URL) if url is None else url
        database = migrate.open_current(url, timeout_s, create=create, read_only=read_only)
        try:
            store = cls(
                database,
                record_denials=record_denials,
                exact_costs=exact_costs,
                clock=clock,
                on_threshold=on_threshold,
                actor=actor,
            )
        except BaseException:
            database.close()
            raise
        database.until_s = math.inf
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store's connections. Leases stay open: they are kept in the store.

        A call that waits for capacity gets a `LedgerUnavailableError`. Calls of `on_threshold`
        that are still due are made before the connections are closed.
        """
        self._waiting.close()
        self._writer.close()
        self._announcer.close()
        self._database.close()

    @property
    def actor(self) -> str | None:
        """Who acts where a call names nobody: the `actor` of `open`."""
        return self._actor

    def now(self) -> datetime:
        """Return the time by the clock that says what is due and which window it is.

        Raises:
            LedgerUnavailableError: The store, whose clock that is, cannot be read.
        """
        now = self._writer.now()
        return from_micros(
            self.read(lambda read: snapshot.clock(read, None)) if now is None else now
        )

    def pool(
        self,
        name: str,
        options: SharedPoolBudgetOptions | None = None,
        *,
        parent: str | None = None,
        carved: bool = False,
        actor: str | None = None,
    ) -> LedgerBudgetManager:
        """Open the pool of this name; with `options`, make it if there is none.

        An existing pool accepts the policy it was opened with and the one in force, so that a
        program restarted after an adjustment does not fail.

        Args:
            name: The pool's name.
            options: The pool's policy, if the pool has to be made.
            parent: The pool's parent, if it has one; it never changes. A reservation in the pool
                is also held, and usage is also committed, in each ancestor, in one transaction.
            carved: Whether the whole capacity is set aside in the parent at once, by a lease
                there. No later call on the pool then touches the parent, until `close_pool`
                returns what was not spent.
            actor: Who makes the pool, if it has to be made; by default the `actor` of `open`.

        Raises:
            UnknownPoolError: There is no such pool and no `options` were given, or there is no
                such parent.
            PoolConflictError: The pool exists with another policy; `ensure` brings it to this one.
            ParentConflictError: The pool exists with another parent.
            ThresholdExceededError: The parent has not enough left for the carved capacity.
            PoolClosedError: The parent is closed.
            InvalidInputError: The name is empty, too long, or not text; a carved pool without a
                parent, or without a limit where its parent has one.
            AmountOutOfRangeError: The policy has an amount above what a store holds.
        """
        opening = Opening.of(name, options, parent, carved=carved, actor=self._acting(actor))
        return self._manager(self._opened(opening, options, self._database.reads()))

    def _opened(
        self, opening: Opening, options: SharedPoolBudgetOptions | None, reads: Reads
    ) -> PoolJournal:
        pool = reads.read(lambda connection: opening.find(connection, self._directory))
        if pool is not None:
            return pool
        if options is None:
            raise UnknownPoolError(opening.name)
        above = None if opening.parent is None else self._journal(opening.parent, reads)
        return self._directory.of(self._writer.open(opening, above, began_s=reads.began_s).info)

    def ensure(
        self,
        name: str,
        options: SharedPoolBudgetOptions,
        *,
        reason: str | None = None,
        parent: str | None = None,
        carved: bool = False,
        actor: str | None = None,
    ) -> LedgerBudgetManager:
        """Bring the pool of this name to a policy; make it if there is none.

        Use it if the program's code determines the policy. Any number of processes may call it at
        once: the first of them adjusts the pool, and if the policy is in force nothing is written.
        It replaces an adjustment that was made elsewhere, while `pool` keeps it.

        Args:
            name: The pool's name.
            options: The whole policy, as for `adjust`.
            reason: Why, 1 to 2,000 characters; the journal keeps it.
            parent: As for `pool`.
            carved: As for `pool`.
            actor: Who makes or adjusts the pool; by default the `actor` of `open`.

        Raises:
            UnknownPoolError: There is no such parent.
            ParentConflictError: The pool exists with another parent.
            ThresholdExceededError: The parent has not enough left for the carved capacity.
            PoolClosedError: The pool is closed under another policy, or its parent is closed.
            InvalidInputError: As for `pool` and `adjust`; or a carved pool would get more capacity
                than was set aside for it.
            AmountOutOfRangeError: The policy has an amount above what a store holds.
        """
        check_type("options", options, SharedPoolBudgetOptions)
        change = Ensure.of(options, reason, None, self._acting(actor))
        opening = Opening.of(
            name, options, parent, carved=carved, actor=self._acting(actor), reason=reason
        )
        reads = self._database.reads()
        with contextlib.suppress(PoolConflictError):
            self._opened(opening, options, reads)
        pool = self._journal(name, reads)
        if options != reads.read(lambda connection: pool.head(connection).policy):
            with contextlib.suppress(InForceError):
                self._writer.run(pool, change, began_s=reads.began_s)
        return self._manager(pool)

    def router(self, choose: Choose) -> BudgetRouter:
        """Return one budget manager for many pools.

        Args:
            choose: Takes a request's extensions, and returns the name of the pool that pays.
        """
        return BudgetRouter(choose, named=self.pool, granting=self._granting)

    def close_pool(
        self,
        name: str,
        *,
        reason: str | None = None,
        idempotency_key: str | None = None,
        actor: str | None = None,
    ) -> None:
        """Close a pool for good: it still takes settlements and releases, but nothing new.

        What a carved pool spent is committed in its parent, and the rest goes back there; so no
        lease may be open in it. Late usage of an expired lease can still be recorded after that,
        in the pool and in the parent. `actor` is as in `open`, for this call.

        Raises:
            UnknownPoolError: There is no such pool.
            PoolClosedError: The pool is closed already.
            OpenLeasesError: The pool is carved, and leases in it are open.
            InvalidInputError: The reason, the key or the actor is empty or too long.
            IdempotencyConflictError: The key was used with other arguments.
        """
        self._change(name, ClosePool.of(reason, idempotency_key, self._acting(actor)))

    def adjust(
        self,
        name: str,
        options: SharedPoolBudgetOptions,
        *,
        reason: str | None = None,
        idempotency_key: str | None = None,
        actor: str | None = None,
    ) -> None:
        """Replace a pool's whole policy by an appended entry.

        The new capacity may be below what is committed and reserved: remaining is then 0, and no
        lease is revoked. A repeated call with the same idempotency key changes nothing more, and
        the first actor stays. `actor` is as in `open`, for this call.

        Raises:
            UnknownPoolError: There is no such pool.
            InvalidInputError: The reason, the key or the actor is empty or too long.
            IdempotencyConflictError: The key was used with other arguments.
            AmountOutOfRangeError: The policy has an amount above what a store holds.
        """
        check_type("options", options, SharedPoolBudgetOptions)
        self._change(name, Adjust.of(options, reason, idempotency_key, self._acting(actor)))

    def credit(
        self,
        name: str,
        credit: Credit,
        *,
        reason: str | None = None,
        idempotency_key: str | None = None,
        actor: str | None = None,
    ) -> None:
        """Give a prepaid pool an amount that it may spend until it expires, by an appended entry.

        A debt is paid first: what was spent when no credit was left. A repeated call with the same
        idempotency key changes nothing more, and the first actor stays. `actor` is as in `open`,
        for this call.

        Args:
            name: The pool's name; its policy names the axes that are `prepaid`.
            credit: The amount, until when, and its priority.
            reason: Why, 1 to 2,000 characters; the entry keeps it.
            idempotency_key: The caller's name for this call, the payment's number say.
            actor: Who gives it.

        Raises:
            UnknownPoolError: There is no such pool.
            PoolClosedError: The pool is closed.
            InvalidInputError: The pool is not prepaid on an axis on which the credit gives
                something, or the credit has expired, or 32 credits have something left; or the
                reason, the key or the actor is empty or too long.
            IdempotencyConflictError: The key was used with other arguments.
            NotPermittedError: The database's role may not give credits.
        """
        check_type("credit", credit, Credit)
        self._change(name, TopUp.of(credit, reason, idempotency_key, self._acting(actor)))

    def expire_due(self, pool: str | None = None, *, left_out: LeftOut | None = None) -> int:
        """Expire the leases that are due, and return their number.

        Each write to a pool expires its due leases too; this call is for pools that are seldom
        written to. A damaged pool does not keep the others from being swept.

        Args:
            pool: The pool's name; by default all pools.
            left_out: A list that gets the error of each damaged pool. Without it the first of
                these errors is raised after all other pools are swept.

        Raises:
            UnknownPoolError: There is no such pool.
            JournalDamagedError: A pool, or one above it, cannot be read.
        """
        if pool is not None:
            return sweep(self._writer, self._journal(pool))
        pools, found = self._database.read(self._directory.all)
        expired, damaged = sweep_pools(self._writer, pools)
        leave_out([*found.damaged.values(), *damaged], left_out)
        return expired

    def _granting(self, identity: UUID) -> LedgerBudgetManager | None:
        found = self._database.read(lambda read: self._directory.identified(read, identity))
        return None if found is None else self._manager(found)

    def _manager(self, pool: PoolJournal) -> LedgerBudgetManager:
        return LedgerBudgetManager(
            self._writer,
            pool,
            self._waiting,
            record_denials=self._record_denials,
            exact_costs=self._exact_costs,
            actor=self._actor,
        )

    def _change(self, name: str, operation: Operation[None]) -> None:
        reads = self._database.reads()
        self._writer.run(self._journal(name, reads), operation, began_s=reads.began_s)

    def _acting(self, actor: str | None) -> str | None:
        return self._actor if actor is None else actor
