"""The class `Books`: every question about a store that writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from ledger.core.alerts import Alert
from ledger.core.checks import (
    I64_MAX,
    check_amount,
    check_callable,
    check_several,
    check_text,
    check_type,
    from_micros,
)
from ledger.core.entries import Entry, PoolInfo
from ledger.core.errors import LeftOut, OtherStoreError, UnknownPoolError
from ledger.core.fold import Replay
from ledger.core.kinds import EntryKind
from ledger.core.status import OpenLease, Standby
from ledger.store import audit, pools, verify
from ledger.store.alerts import alerts
from ledger.store.anchors import Anchor
from ledger.store.database import Database, Reads
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.leases import open_leases
from ledger.store.pools import leave_out
from ledger.store.verifications import Progress, Verification

T = TypeVar("T")


class Books:
    """The pools of a store and their entries, to be read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._directory = Directory(database.read(pools.store_identity))

    def _check_store(self) -> None:
        store = self._directory.store
        look = partial(audit.pools_of_another_store, store=store)
        if self._database.read(look, serializable=False):
            raise OtherStoreError(url=self.url)

    @property
    def url(self) -> str:
        """The store's address, without its password."""
        return self._database.url

    @property
    def files(self) -> Sequence[Path]:
        """The files of the store. No other program may write to them."""
        return self._database.dialect.files()

    def standby(self) -> Standby | None:
        """Return how far a standby of PostgreSQL has replayed; None if the store is no standby.

        Raises:
            LedgerUnavailableError: The store cannot be read.
        """
        dialect = self._database.dialect
        found = self._database.read(dialect.standby, serializable=False)
        if found is None:
            return None
        at, until = found
        replayed_until = None if until is None else from_micros(until)
        return Standby(at=from_micros(at), replayed_until=replayed_until)

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

    def alerts(
        self, after: str | None = None, *, pool: str | None = None, left_out: LeftOut | None = None
    ) -> Iterator[Alert]:
        """Yield every threshold crossing after a cursor, each pool's in order, at least once.

        Keep the `cursor` of an alert once it is dealt with, and give it as `after` next time, in
        this process or another. Then all later crossings are given, and none is lost. A crossing
        whose cursor was not kept is given again, under the same `key`. After a restored backup, all
        crossings of a pool are given again if its journal has changed.

        Args:
            after: The cursor of the last alert that was dealt with; None for all crossings.
            pool: Only crossings of this pool; by default those of all pools, one pool after
                another.
            left_out: A list that gets the error of each damaged pool. Without it the first of these
                errors is raised, after all readable crossings were given.

        Raises:
            UnknownPoolError: There is no such pool.
            InvalidInputError: `after` is no cursor, or one of another store.
            JournalDamagedError: A pool, or a crossing, cannot be read.
            LedgerUnavailableError: The store cannot be read.
        """
        damaged: LeftOut = []
        if pool is not None:
            journals = [self._journal(pool)]
        else:
            journals, found = self._database.read(self._directory.all)
            damaged += found.damaged.values()
        return alerts(
            self._database,
            self._directory.store,
            journals,
            after=after,
            damaged=damaged,
            left_out=left_out,
        )

    def replay(self, pool: str) -> Replay:
        """Rebuild a pool from its entries and nothing else, in bounded memory.

        Raises:
            UnknownPoolError: There is no such pool.
            JournalDamagedError: An entry contradicts the rules.
        """
        return verify.replay(self._database, self._journal(pool))

    def verify(
        self,
        pool: str | None = None,
        *,
        expect: Iterable[Anchor] = (),
        progress: Progress | None = None,
    ) -> list[Verification]:
        """Check every entry of a pool, or of every pool: order, hashes, verdicts, totals, leases.

        Args:
            pool: The pool. By default all pools are checked; also that each entry belongs to one of
                them, and that the store's indexes agree with its tables. Damaged indexes give a
                verification without a pool, with `damage.seq` 0, at the end.
            expect: Entries that must be there, each with its hash: the `anchor` of earlier
                verifications, kept outside the store. With a pool, those of others are passed over.
            progress: Called with the number of entries checked since its previous call.

        Raises:
            UnknownPoolError: There is no such pool.
            InvalidInputError: `progress` is no function, or `expect` holds something else.
            NotPermittedError: All pools are asked for, and row-level security hides some.
            LedgerUnavailableError: The store cannot be read.
        """
        check_callable("progress", progress)
        check_several("expect", expect)
        anchors = list(expect)
        for one in anchors:
            check_type("expect", one, Anchor)
        if pool is not None:
            journal = self._journal(pool)
            found = [verify.verify(self._database, journal, expect=anchors, progress=progress)]
        else:
            found = audit.verify_all(
                self._database, self._directory, expect=anchors, progress=progress
            )
        return audit.explained(self._database, self._directory.store, found)

    def saw(self, found: Iterable[tuple[PoolInfo, int]], began_s: float) -> None:
        """Note the newest entries of pools that a report has read; warn if the store went back.

        Args:
            found: Pools, each with the number of its newest entry.
            began_s: When the report began, on the clock of `time.monotonic`.
        """
        for info, seq in found:
            self._directory.seen(info).note(info.name, seq, began_s)

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

    def _journal(self, name: str, reads: Reads | None = None) -> PoolJournal:
        check_text("name", name)
        reads = self._database.reads() if reads is None else reads
        found = reads.read(lambda connection: self._directory.named(connection, name))
        if found is None:
            raise UnknownPoolError(name)
        return found
