"""The class `Ledger`: a store of pools, and every question about the store as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from ledger.announcements import Announcer, OnThreshold, check_callback
from ledger.core.checks import (
    I64_MAX,
    check_amount,
    check_callable,
    check_clock,
    check_seconds,
    check_text,
    check_type,
)
from ledger.core.entries import Entry, OpenLease, PoolInfo
from ledger.core.fold import Replay
from ledger.core.kinds import EntryKind
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.engine.group_commit import Clock, Writer
from ledger.engine.opening import Opening
from ledger.engine.operations import Adjust, ClosePool
from ledger.engine.waiting import WaitingReservations
from ledger.errors import (
    InvalidInputError,
    JournalDamagedError,
    LedgerUnavailableError,
    UnknownPoolError,
)
from ledger.manager import LedgerBudgetManager
from ledger.router import BudgetRouter, Choose
from ledger.store import audit, migrate, pools, verify
from ledger.store.damage import refused_row
from ledger.store.database import Database
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.leases import open_leases
from ledger.store.pools import LeftOut, leave_out
from ledger.store.verify import Progress, Verification

T = TypeVar("T")

DEFAULT_URL = "sqlite:///ledger.db"
DEFAULT_TIMEOUT_S = 10.0
TIMEOUT_MAX_S = 86_400


class Ledger:
    """A store of pools, opened by `Ledger.open`.

    Share one among the threads of a process; open one in each process.
    """

    def __init__(
        self,
        database: Database,
        *,
        record_denials: bool = False,
        clock: Clock | None = None,
        on_threshold: OnThreshold | None = None,
    ) -> None:
        check_type("database", database, Database)
        self._database = database
        self._directory = Directory(database.read(pools.store_identity))
        self._writer = Writer(
            database, self._directory, None if clock is None else check_clock(clock)
        )
        self._waiting = WaitingReservations(self._writer)
        self._announcer = Announcer(on_threshold)
        self._writer.on_crossed.append(self._announcer.tell)
        self._record_denials = record_denials

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        create: bool = True,
        record_denials: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        clock: Clock | None = None,
        on_threshold: OnThreshold | None = None,
    ) -> Self:
        """Open the store at `url`; make its schema if the store is empty.

        Args:
            url: `sqlite:///ledger.db` or `postgresql://user@host/database`. By default
                LEDGER_URL from the environment, or else `sqlite:///ledger.db`.
            create: Whether an empty or missing store is given a schema.
            record_denials: Whether denied reservations are kept as entries, for the audit.
            timeout_s: How long one call may wait for other writers, in seconds: above 0, at most a
                day.
            clock: Returns the time in microseconds since 1970: by default the database server's
                clock, and this machine's for SQLite. A time outside the years 1971 to 2999 is
                refused (`InvalidInputError`) before anything is written.
            on_threshold: Called with each `ThresholdCrossing` that a call through this object
                caused, once it is committed: on a thread of its own, one at a time, in order. An
                exception in it is logged.

        Raises:
            InvalidInputError: An option of another type, or a time out of range.
            InvalidUrlError: Not the address of a store.
            MissingExtraError: The database's driver is not installed.
            LedgerUnavailableError: The store cannot be reached, read or written.
            NotALedgerError: The file or database holds something else.
            SchemaVersionError: The schema is older or newer than this library.
        """
        url = os.environ.get("LEDGER_URL", DEFAULT_URL) if url is None else url
        check_type("url", url, str)
        check_seconds("timeout_s", timeout_s, maximum=TIMEOUT_MAX_S)
        if timeout_s == 0:
            raise InvalidInputError("timeout_s", "must be above 0 seconds")
        check_callback(on_threshold)
        database = Database(url, timeout_s=timeout_s, create=create)
        try:
            migrate.require_current(database, create=create)
            return cls(
                database, record_denials=record_denials, clock=clock, on_threshold=on_threshold
            )
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
    def url(self) -> str:
        """The store's address, without its password."""
        return self._database.url

    @property
    def files(self) -> Sequence[Path]:
        """The files of the store. No other program may write to them."""
        return self._database.dialect.files()

    def pool(
        self,
        name: str,
        options: SharedPoolBudgetOptions | None = None,
        *,
        parent: str | None = None,
        carved: bool = False,
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

        Raises:
            UnknownPoolError: There is no such pool and no `options` were given, or there is no
                such parent.
            PoolConflictError: The pool exists with another policy.
            ParentConflictError: The pool exists with another parent.
            ThresholdExceededError: The parent has not enough left for the carved capacity.
            PoolClosedError: The parent is closed.
            InvalidInputError: The name is empty, too long, or not text; a carved pool without a
                parent, or without a limit where its parent has one.
            AmountOutOfRangeError: The policy has an amount above what a store holds.
        """
        opening = Opening.of(name, options, parent, carved=carved)
        pool = self._database.read(lambda connection: opening.find(connection, self._directory))
        if pool is None:
            if options is None:
                raise UnknownPoolError(name, known=[info.name for info in self.pools(left_out=[])])
            above = None if parent is None else self._journal(parent)
            pool = self._directory.of(self._writer.open(opening, above).info)
        return self._manager(pool)

    def router(self, choose: Choose) -> BudgetRouter:
        """Return one budget manager for many pools.

        Args:
            choose: Takes a request's extensions, and returns the name of the pool that pays.
        """
        return BudgetRouter(choose, named=self.pool, granting=self._granting)

    def close_pool(
        self, name: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> None:
        """Close a pool for good: it still takes settlements and releases, but nothing new.

        What a carved pool spent is committed in its parent, and the rest goes back there; so no
        lease may be open in it. Late usage of an expired lease can still be recorded after that,
        in the pool and in the parent.

        Raises:
            UnknownPoolError: There is no such pool.
            PoolClosedError: The pool is closed already.
            OpenLeasesError: The pool is carved, and leases in it are open.
            InvalidInputError: The reason or the key is empty or too long.
            IdempotencyConflictError: The key was used with other arguments.
        """
        self._writer.run(self._journal(name), ClosePool.of(reason, idempotency_key))

    def adjust(
        self,
        name: str,
        options: SharedPoolBudgetOptions,
        *,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Replace a pool's whole policy by an appended entry.

        The new capacity may be below what is committed and reserved: remaining is then 0, and no
        lease is revoked. A repeated call with the same idempotency key changes nothing more.

        Raises:
            UnknownPoolError: There is no such pool.
            InvalidInputError: The reason or the key is empty or too long.
            IdempotencyConflictError: The key was used with other arguments.
            AmountOutOfRangeError: The policy has an amount above what a store holds.
        """
        check_type("options", options, SharedPoolBudgetOptions)
        self._writer.run(self._journal(name), Adjust.of(options, reason, idempotency_key))

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
            return self._expire_due(self._journal(pool))
        pools, found = self._database.read(self._directory.all)
        damaged: LeftOut = list(found.damaged.values())
        expired = 0
        for one in pools:
            try:
                expired += self._expire_due(one)
            except JournalDamagedError as error:
                damaged.append(error)
            except LedgerUnavailableError as error:
                if not refused_row(error):
                    raise
                damaged.append(one.damaged(1, f"what follows from it is refused: {error}"))
        leave_out(damaged, left_out)
        return expired

    def _expire_due(self, pool: PoolJournal) -> int:
        pool.heads_alone(self._database)  # raises if the pool or an ancestor cannot be read
        return sum(iter(lambda: self._writer.sweep(pool), 0))

    def pools(self, *, left_out: LeftOut | None = None) -> list[PoolInfo]:
        """Return every pool, oldest first.

        Args:
            left_out: A list that gets an error for each pool row that cannot be read. Without it
                the first of these errors is raised.

        Raises:
            JournalDamagedError: The row of a pool cannot be read.
        """
        found = self._database.read(pools.find_pools)
        leave_out(found.damaged.values(), left_out)
        return found.infos

    def entries(
        self, pool: str, *, after: int = 0, kind: EntryKind | None = None
    ) -> Iterator[Entry]:
        """Yield a pool's entries in order, from the first after number `after`, in bounded memory.

        Args:
            pool: The pool's name.
            after: Only entries with a higher number than this.
            kind: Only entries of this kind.

        Raises:
            UnknownPoolError: There is no such pool.
        """
        check_amount("after", after, ceiling=I64_MAX)
        if kind is not None:
            check_type("kind", kind, EntryKind)
        return audit.entries(self._database, self._journal(pool), after=after, kind=kind)

    def entry_with_key(self, pool: str, idempotency_key: str) -> Entry | None:
        """Return the entry with this idempotency key, which tells how the call ended, or None.

        Raises:
            UnknownPoolError: There is no such pool.
        """
        check_text("idempotency_key", idempotency_key)
        return audit.entry_with_key(self._database, self._journal(pool), idempotency_key)

    def open_leases(self, pool: str) -> Iterator[OpenLease]:
        """Yield the leases of a pool that have not ended, oldest first.

        Raises:
            UnknownPoolError: There is no such pool.
            JournalDamagedError: A lease cannot be read.
        """
        return open_leases(self._database, self._journal(pool))

    def replay(self, pool: str) -> Replay:
        """Rebuild a pool from its entries alone, in bounded memory.

        Raises:
            UnknownPoolError: There is no such pool.
            JournalDamagedError: An entry contradicts the rules.
        """
        return verify.replay(self._database, self._journal(pool))

    def verify(
        self, pool: str | None = None, *, progress: Progress | None = None
    ) -> list[Verification]:
        """Check every entry of a pool, or of every pool: order, hashes, verdicts, totals, leases.

        Args:
            pool: The pool. By default all pools, and that each entry belongs to one of them.
            progress: Called with the number of entries checked since its previous call.

        Raises:
            UnknownPoolError: There is no such pool.
            InvalidInputError: `progress` is no function.
            LedgerUnavailableError: The store cannot be read.
        """
        check_callable("progress", progress)
        if pool is not None:
            return [verify.verify(self._database, self._journal(pool), progress=progress)]
        return audit.verify_all(self._database, self._directory, progress=progress)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a report's query on one read-only snapshot, without disturbing writers.

        Raises:
            LedgerUnavailableError: The store cannot be read.
        """
        return self._database.read(query, serializable=False)

    def size(self, pool: str | None = None) -> int:
        """Return how many entries a pool has, or all pools together, from the newest numbers.

        Raises:
            UnknownPoolError: There is no such pool.
            LedgerUnavailableError: The store cannot be read.
        """
        return audit.size(self._database, None if pool is None else self._journal(pool))

    def _granting(self, identity: UUID) -> LedgerBudgetManager | None:
        found = self._database.read(lambda read: self._directory.identified(read, identity))
        return None if found is None else self._manager(found)

    def _manager(self, pool: PoolJournal) -> LedgerBudgetManager:
        return LedgerBudgetManager(
            self._writer, pool, self._waiting, record_denials=self._record_denials
        )

    def _journal(self, name: str) -> PoolJournal:
        check_text("name", name)
        found = self._database.read(lambda connection: self._directory.named(connection, name))
        if found is None:
            raise UnknownPoolError(name, known=[info.name for info in self.pools(left_out=[])])
        return found
