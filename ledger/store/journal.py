"""A pool's journal: appends and reads entries, and remembers some between transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, CursorResult, text

from ledger.core import hashing
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import PoolId, PoolInfo
from ledger.core.errors import JournalDamagedError, UnknownPoolError
from ledger.core.kinds import EntryKind, LeasePhase, sql
from ledger.store import heads, queries, restored, rows
from ledger.store.attributions import Attributions, remember
from ledger.store.database import Reads
from ledger.store.dialects import dialect_named
from ledger.store.drafts import ENTRY_COLUMNS, Staged
from ledger.store.heads import Head, LeaseRow, Memo
from ledger.store.marks import NO_MARK, KnownCounts, mark_at, mark_of
from ledger.store.policies import InForce, Terms
from ledger.store.rows import Row
from ledger.store.schema import entries
from ledger.store.statements import Prepared, ReadEach, rows_of_each

K = TypeVar("K")
V = TypeVar("V")

PAGE = 1_000
"""How many entries are read at once."""

ENDING_PAGE = 256
"""How many leases of a pool expire in one transaction."""

AHEAD_US = 1_000_000
"""How far ahead, in microseconds, a query looks for holds that are about to end."""

_OPEN, _ENDED = LeasePhase.OPEN, LeasePhase.ENDED
_NO_KEYS: Mapping[str, int] = {}

NO_OPENING = "the pool's opening is missing"


class PoolJournal:
    """One pool's entries, and what is remembered of them between transactions.

    Terms and attributions never change after COMMIT, so they are remembered. Leases, and the time
    before which no hold ends, are remembered as of one entry: only later entries can change them.
    If that entry no longer exists, all of this is forgotten. The newest entry itself is always
    read.
    """

    def __init__(
        self,
        info: PoolInfo,
        *,
        store: bytes,
        parent: PoolJournal | None = None,
        seen: restored.Seen | None = None,
    ) -> None:
        self.info = info
        self.parent = parent
        self.seen = restored.Seen() if seen is None else seen
        shared = parent.lineage if parent is not None and info.carved_lease is None else ()
        self.lineage: tuple[PoolJournal, ...] = (self, *shared)
        """The pools in which its holds count: this one, and those above that share with it."""
        self.genesis = hashing.genesis(store=store, pool=info.identity.bytes, name=info.name)
        self.is_there = True
        """Whether the store had this pool under its number when its first entry was read. A
        restored store may have given the number to another pool."""
        self.terms = Terms(info.pool_id, info.name)
        self.attributions = Attributions(info)
        self._leases: dict[int, LeaseRow] = {}
        self._mirrors: dict[tuple[PoolId, int], int] = {}
        self._head: Head | None = None
        self._leases_at = NO_MARK
        self.quiet_until = Micros(0)
        """The time before which no hold ends, if the remembered entry is the newest."""
        self._quiet_until_s = 0.0
        self.said_ahead = Micros(0)  # the newest time of which the log said that it is ahead
        self.holding = False
        """Whether open leases held something at the last read. It decides which query is tried
        first."""
        self.counted = KnownCounts()
        self._asked = KnownCounts()
        """What reading calls have read; kept apart, since a transaction forgets only what
        transactions have read."""

    def place(self) -> dict[str, Any] | None:
        """Return the pool's parent as its opening records it, None if it has none."""
        if self.parent is None:
            return None
        return {"name": self.parent.info.name, "carved": self.info.carved_lease is not None}

    def head(self, connection: Connection) -> Head:
        """Read the newest entry, and return the state that the next entry builds on.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
        """
        found = queries.HEAD.rows(connection, {"pool_id": self.info.pool_id, "now": None})
        return self.head_from(connection, found[0] if found else None)

    def head_from(self, connection: Connection, newest: Row | None) -> Head:
        """Return the head of the newest entry; read its terms if they are not known.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy or window cannot be read.
        """
        known = self._known(newest)
        if known is not None:
            return known
        row = self._there(newest)
        return _head(row, self.terms.of(connection, row))

    def _known(self, newest: Row | None) -> Head | None:
        """Return the remembered head if the newest entry has its number and hash."""
        head = self._head
        if newest and head and mark_of(newest) == mark_at(head):
            return head
        return None

    def _there(self, newest: Row | None) -> Row:
        if not self.is_there:
            raise UnknownPoolError(self.info.name)
        if newest is None:
            raise self.damaged(1, NO_OPENING)
        try:
            queries.HEAD_COLUMNS.check(newest)
        except ValueError as error:
            raise self.damaged(newest["seq"], f"it cannot be read: {error}") from error
        if newest["seq"] == I64_MAX:
            raise self.damaged(newest["seq"], "no number is left for an entry behind it")
        return newest

    def head_of(self, reads: Reads, newest: Row | None) -> Head:
        """Return the head of the newest entry; read its terms if they are not known.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
            LedgerUnavailableError: The store cannot be reached or read.
        """
        known = self._known(newest)
        if known is not None:
            return known
        row = self._there(newest)
        terms = self.terms.known(row)
        if terms is None:
            terms = reads.read(lambda connection: self.terms.of(connection, row))
        self._head = head = _head(row, terms)
        return head

    def leases(self, connection: Connection, lease_ids: Collection[int]) -> dict[int, LeaseRow]:
        """Read the newest entry of each of these leases. Unknown leases are left out.

        Raises:
            JournalDamagedError: One of them cannot be read.
        """
        wanted = [Wanted(self, lease) for lease in lease_ids]
        found = {}
        for (_, lease, _), row in zip(wanted, leases(connection, wanted), strict=True):
            if isinstance(row, JournalDamagedError):
                raise row
            if row is not None:
                found[lease] = row
        return found

    def remembered(self, lease_ids: Collection[int]) -> dict[int, LeaseRow]:
        """Return the leases that are remembered. Call `recall` first."""
        return {lease: self._leases[lease] for lease in lease_ids if lease in self._leases}

    def mirror(self, pool_id: PoolId, lease: int) -> int | None:
        """Return this pool's mirror of a lower pool's lease if it is remembered, else None."""
        return self._mirrors.get((pool_id, lease))

    def forget(self, since: Sequence[Row], newest: Row) -> bool:
        """Forget the leases that entries after the remembered one changed.

        If the remembered entry no longer exists, a backup was restored, and everything is
        forgotten. Returns whether that is so.
        """
        anew = not since or mark_of(since[0]) != self._leases_at
        went_back = anew and self.remembers
        if anew:
            if went_back:
                self.seen.forget(self.info.name, seen=self._leases_at[0], newest=newest["seq"])
            self.forget_terms()
            self._leases, self._mirrors = {}, {}
            self.attributions = Attributions(self.info)
            self.quiet_until = Micros(0)
        elif len(since) == PAGE or not self._leases:  # later entries may not have been read
            self._leases.clear()
            self.quiet_until = Micros(0)
        # Others may have granted leases. Their entries say when these expire.
        ends = [row["expires_at"] for row in since[1:] if row["expires_at"] is not None]
        self.quiet_until = min([self.quiet_until, *ends])
        for row in since[1:]:
            self._leases.pop(row["lease"], None)
        self._leases_at = mark_of(newest)
        return went_back

    def counted_at(self, read: ReadEach, head: Head) -> KnownCounts:
        """Return what reading calls have read for limits and credits, as of a newest entry."""
        found = self._asked.as_of(read, self.info.pool_id, mark_at(head))
        if found.at[0] >= self._asked.at[0]:  # else another thread asks about a later state
            self._asked = found
        return found

    def forget_terms(self) -> None:
        """Forget the policies and the sums of earlier entries, which are read again when needed."""
        self.terms = Terms(self.info.pool_id, self.info.name)
        self.counted, self._asked = KnownCounts(), KnownCounts()

    def since(self) -> dict[str, int]:
        """Return the parameters that read the remembered entry, and later entries if needed."""
        page = PAGE if self._leases else 1
        return {"pool_id": self.info.pool_id, "known": self._leases_at[0], "page": page}

    @property
    def remembers(self) -> bool:
        """Whether anything is remembered as of an entry."""
        return self._leases_at != NO_MARK

    def stands_at(self, newest: Row) -> bool:
        """Tell whether the remembered entry is this newest entry."""
        return self._leases_at == mark_of(newest)

    def stays_quiet(self, now: Micros) -> bool:
        """Tell whether no hold can have ended, unless by an entry that is not remembered.

        What `since` reads shows such entries; see `forget`.
        """
        return bool(self._leases) and now < self.quiet_until

    def seems_quiet(self, now: Micros | None) -> bool:
        """Guess `stays_quiet` before the newest entry is read; without `now` by the local clock."""
        if now is None:
            return time.monotonic() < self._quiet_until_s
        return now < self.quiet_until

    def ending(self, now: Micros | None) -> tuple[Prepared, dict[str, Any]]:
        """Return the query, with its parameters, for the next holds that end."""
        pool_id = self.info.pool_id
        return queries.ENDING, {
            "pool_id": pool_id,
            "now": now,
            "ahead": AHEAD_US,
            "page": ENDING_PAGE,
        }

    def lease_row(self, connection: Connection, row: Row) -> LeaseRow:
        """Return the lease after an entry.

        Raises:
            JournalDamagedError: It cannot be read, or its attribution is missing.
        """
        try:
            queries.LEASE_COLUMNS.check(row)
            state = rows.lease_of(row)
            if type(row["proof"]) is not bytes:
                raise ValueError("the hash of its reservation is none")
        except rows.UNREADABLE as error:
            raise self.damaged(row["seq"], f"its lease cannot be read: {error}") from error
        return LeaseRow(
            state,
            self.attributions.read(connection, row["attribution_id"], seq=row["seq"]),
            row["request_id"],
            row["occurred_at"],
            row["origin_pool_id"],
            row["proof"],
        )

    def remember(self, memo: Memo) -> None:
        """Remember what a batch knows of leases. Call it only after COMMIT."""
        if mark_at(memo.before) != self._leases_at:
            self._leases.clear()
        quiet_until = memo.quiet_until
        for lease, row in memo.leases.items():
            state = row.state
            if state.phase is _ENDED:
                self._leases.pop(lease, None)
                continue
            remember(self._leases, lease, row)
            if state.phase is _OPEN and row.origin_pool_id is None and state.expires_at:
                quiet_until = min(quiet_until, state.expires_at)
        self.quiet_until = quiet_until
        self._quiet_until_s = time.monotonic() + (quiet_until - memo.now) / 1_000_000
        for origin, lease in memo.mirrors.items():
            if lease in self._leases:
                remember(self._mirrors, origin, lease)
            else:
                self._mirrors.pop(origin, None)
        self._head = memo.after
        self.holding = memo.after.balance.reserved.requests != 0
        self._leases_at = mark_at(memo.after)

    def by_keys(
        self, connection: Connection, given: Collection[str], made: Mapping[str, int] = _NO_KEYS
    ) -> dict[str, Mapping[str, Any]]:
        """Read the entries that hold these idempotency keys.

        Args:
            connection: A transaction.
            given: Keys that callers gave.
            made: Keys that the library made, each with the entry after which to look for it.
        """
        found: list[dict[str, Any]] = []
        pool: dict[str, Any] = {"pool_id": self.info.pool_id}
        if given:
            asked = pool | {"keys": list(given)}
            found += _rows(connection.execute(queries.BY_KEYS, asked))
        if made:
            asked = pool | {"keys": list(made), "after": min(made.values())}
            found += _rows(connection.execute(queries.BY_MADE_KEYS, asked))
        return {row["idempotency_key"]: row for row in found}

    def page(
        self, connection: Connection, *, after: int, kind: EntryKind | None = None
    ) -> list[dict[str, Any]]:
        """Read the next entries in order, with their attributions."""
        parameters = {"pool_id": self.info.pool_id, "after": after, "page": PAGE}
        query = queries.ENTRIES_BEHIND
        if kind is not None:  # in the form of the partial indexes that some kinds have
            query = query.where(text(sql([kind])))
        return _rows(connection.execute(query, parameters))

    def open_leases(self, connection: Connection, *, after: int) -> list[tuple[LeaseRow, Micros]]:
        """Read the next leases that have not ended, oldest first, and when each was reserved."""
        parameters = {"pool_id": self.info.pool_id, "after": after, "page": PAGE // 4}
        opened = queries.OPEN_LEASES.rows(connection, parameters)
        reserved_at = {row["seq"]: Micros(row["recorded_at"]) for row in opened}
        found = self.leases(connection, reserved_at)
        return [(found[lease], reserved_at[lease]) for lease in sorted(found)]

    def damaged(self, seq: int, reason: str) -> JournalDamagedError:
        """Return the error for a damaged entry of this pool."""
        return JournalDamagedError(pool=self.info.name, seq=seq, reason=reason)


class Wanted(NamedTuple):
    """A lease to be read: one that the pool granted, or its mirror of another pool's lease."""

    pool: PoolJournal
    lease: int
    origin_pool_id: PoolId | None = None
    """The pool that granted the lease, None for the pool itself."""

    def select(self) -> tuple[Prepared, dict[str, Any]]:
        """Return the query, with its parameters, for the lease's newest entry."""
        pool = {"pool_id": self.pool.info.pool_id}
        if self.origin_pool_id is None:
            return queries.LEASE, {**pool, "lease": self.lease}
        origin = {"origin_pool_id": self.origin_pool_id, "origin_seq": self.lease}
        return queries.MIRRORED_LEASE, {**pool, **origin}


def leases(
    connection: Connection, wanted: Sequence[Wanted]
) -> list[LeaseRow | JournalDamagedError | None]:
    """Read the newest entry of each lease, all in one message; None if there is no such lease.

    For a damaged lease its error is returned, so that the others can still be read.
    """
    read = rows_of_each(connection, [one.select() for one in wanted])
    found: list[LeaseRow | JournalDamagedError | None] = []
    for asked, one in zip(wanted, read, strict=True):
        if asked.origin_pool_id is None and one and one[0]["lease"] != asked.lease:
            reason = f"it is of lease {one[0]['lease']}, and not of its own number"
            found.append(asked.pool.damaged(asked.lease, reason))
            continue
        try:
            found.append(asked.pool.lease_row(connection, one[0]) if one else None)
        except JournalDamagedError as error:
            found.append(error)
    return found


def append(connection: Connection, staged: Sequence[Staged]) -> None:
    """Write staged entries."""
    if staged:
        values = list(map(_in_order, staged))
        dialect = dialect_named(connection.dialect.name)
        dialect.insert(connection, entries.name, ENTRY_COLUMNS, values)


_in_order: Callable[[Staged], tuple[Any, ...]] = attrgetter("in_order")


def _head(newest: Row, terms: InForce) -> Head:
    policy, window, rules_version = terms
    return heads.head_of(newest, policy, rows.balance_of(newest), window, rules_version)


def _rows(result: CursorResult[Any]) -> list[dict[str, Any]]:
    # Plain dicts, since each row is read seventy times, and SQLAlchemy's mappings are slow.
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]
