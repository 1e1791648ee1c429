"""Append and read: every query on pools, attributions and entries that the books are kept with."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    CursorResult,
    Select,
    bindparam,
    exists,
    func,
    insert,
    select,
)

from ledger import proof, rows
from ledger.checks import Micros
from ledger.database import Database
from ledger.dialects import dialect_named
from ledger.errors import JournalDamagedError, NotALedgerError
from ledger.model import ATTRIBUTION_TEXTS, Attribution, SharedPoolBudgetOptions
from ledger.prepared import Prepared
from ledger.records import EntryKind, LeasePhase, PoolId, PoolInfo, Seq
from ledger.rows import Head, Interned, LeaseRow, Memo
from ledger.schema import FORMAT_VERSION, attributions, entries, pools, store

K = TypeVar("K")
V = TypeVar("V")

PAGE = 1_000
"""How many entries are read in one go."""

_POOL: BindParameter[int] = bindparam("pool_id")
_CONTENT = tuple(attributions.c[name] for name in ("digest", "salt", *ATTRIBUTION_TEXTS, "tags"))
_JOINED = select(*entries.columns, *_CONTENT).select_from(
    entries.outerjoin(
        attributions,
        (attributions.c.pool_id == entries.c.pool_id)
        & (attributions.c.attribution_id == entries.c.attribution_id),
    )
)
_OF_POOL = _JOINED.where(entries.c.pool_id == _POOL)


def _newest(*columns: Column[Any]) -> Select[Any]:
    return (
        select(*columns).where(entries.c.pool_id == _POOL).order_by(entries.c.seq.desc()).limit(1)
    )


_HEAD = Prepared(
    _newest(
        *(
            entries.c[name]
            for name in ("seq", "policy_seq", "window_seq", "swept_until", "recorded_at", "hash")
        ),
        *(
            column
            for column in entries.columns
            if column.name.startswith(("committed_", "reserved_"))
        ),
    )
)
_DETAIL = Prepared(
    select(entries.c.detail).where(entries.c.pool_id == _POOL, entries.c.seq == bindparam("seq"))
)
_PAGE = (
    _OF_POOL.where(entries.c.seq > bindparam("after"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_BY_KEYS = _OF_POOL.where(
    entries.c.idempotency_key.is_not(None),
    entries.c.idempotency_key.in_(bindparam("keys", expanding=True)),
)
_NEWEST_OF_LEASE = Prepared(
    _OF_POOL.where(entries.c.lease.is_not(None), entries.c.lease == bindparam("lease"))
    .order_by(entries.c.seq.desc())
    .limit(1)
)
_NEWEST_OF_LEASES = _OF_POOL.where(
    entries.c.seq.in_(
        select(func.max(entries.c.seq))
        .where(
            entries.c.pool_id == _POOL,
            entries.c.lease.is_not(None),
            entries.c.lease.in_(bindparam("leases", expanding=True)),
        )
        .group_by(entries.c.lease)
    )
)
_end = entries.alias("lease_end")
_OPEN_LEASES = Prepared(
    select(entries.c.seq, entries.c.recorded_at)
    .where(
        entries.c.pool_id == _POOL,
        entries.c.seq > bindparam("after"),
        entries.c.kind == EntryKind.RESERVATION,
        ~exists().where(
            _end.c.pool_id == entries.c.pool_id,
            _end.c.lease == entries.c.seq,
            (_end.c.kind == EntryKind.SETTLEMENT) | (_end.c.kind == EntryKind.RELEASE),
        ),
    )
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_ATTRIBUTION = Prepared(
    select(attributions.c.attribution_id, attributions.c.digest).where(
        attributions.c.pool_id == _POOL, attributions.c.content_key == bindparam("content_key")
    )
)
_INSERT_ENTRY = Prepared(insert(entries))
_INSERT_ATTRIBUTION = insert(attributions)


def store_identity(connection: Connection) -> bytes:
    """Return the store's random identity.

    Raises:
        NotALedgerError: Its entries are written in a format this version does not know.
    """
    row = connection.execute(select(store.c.identity, store.c.format_version)).one()
    if row.format_version != FORMAT_VERSION:
        raise NotALedgerError(
            f"the store's entries have format {row.format_version}, this version of ledger reads "
            f"and writes {FORMAT_VERSION}. Run: pip install --upgrade budget-ledger"
        )
    return bytes(row.identity)


def newest_seqs(connection: Connection) -> dict[str, int]:
    """Return the number of each pool's newest entry, by the pool's name."""
    newest = (
        select(pools.c.name, func.max(entries.c.seq).label("seq"))
        .join_from(pools, entries, entries.c.pool_id == pools.c.pool_id)
        .group_by(pools.c.name)
    )
    return {row.name: row.seq for row in connection.execute(newest)}


def find_pools(connection: Connection, name: str | None = None) -> list[PoolInfo]:
    """Return the pools of the store, or the one of this name, by id."""
    query = select(pools).order_by(pools.c.pool_id)
    if name is not None:
        query = query.where(pools.c.name == name)
    return [
        PoolInfo(
            pool_id=row.pool_id,
            identity=UUID(bytes=bytes(row.identity)),
            name=row.name,
            parent_id=row.parent_id,
        )
        for row in connection.execute(query)
    ]


def add_pool(connection: Connection, name: str) -> PoolInfo:
    """Give a new pool its number and its identity."""
    highest = connection.execute(select(func.max(pools.c.pool_id))).scalar()
    info = PoolInfo(pool_id=PoolId((highest or 0) + 1), identity=uuid4(), name=name)
    connection.execute(
        insert(pools), {"pool_id": info.pool_id, "identity": info.identity.bytes, "name": name}
    )
    return info


def stray_pool_ids(connection: Connection) -> list[PoolId]:
    """Return the ids that entries name and `pools` does not."""
    known = select(pools.c.pool_id)
    strays = select(entries.c.pool_id).where(entries.c.pool_id.not_in(known)).distinct()
    return [PoolId(found) for found in connection.execute(strays).scalars()]


class PoolJournal:
    """One pool's entries, and what is known of them that can never change.

    Policies and attributions are immutable once they are committed, so they are remembered. So
    are leases, together with the hash of the entry at which they stood: while that is still the
    newest entry, nobody has touched them. The newest entry itself is always read.
    """

    _REMEMBERED = 4_096

    def __init__(self, info: PoolInfo, *, store: bytes) -> None:
        self.info = info
        self.genesis = proof.genesis(store=store, pool=info.identity.bytes, name=info.name)
        self._policies: dict[int, SharedPoolBudgetOptions] = {}
        self._interned: dict[bytes, Interned] = {}
        self._leases_at = b""
        self._leases: dict[int, LeaseRow] = {}

    def head(self, connection: Connection) -> Head:
        """Read the newest entry: the balance, and what the next entry builds on.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
        """
        row = self._newest(_HEAD.rows(connection, {"pool_id": self.info.pool_id}))
        return rows.head_of(row, self.policy(connection, row["policy_seq"]))

    def _newest(self, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the one row that was found.

        Raises:
            JournalDamagedError: The pool has no entry.
        """
        if not found:
            raise self.damaged(1, "the pool's opening is missing")
        return found[0]

    def head_alone(self, database: Database) -> Head:
        """Read the newest entry in a transaction of its own, in one round trip.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
            LedgerUnavailableError: The store cannot be reached or read.
        """
        row = self._newest(database.read_rows(_HEAD, {"pool_id": self.info.pool_id}))
        policy = self._policies.get(row["policy_seq"])
        if policy is None:
            policy = database.read(lambda connection: self.policy(connection, row["policy_seq"]))
        return rows.head_of(row, policy)

    def policy(self, connection: Connection, seq: Seq) -> SharedPoolBudgetOptions:
        """Return the policy that entry `seq` set.

        Raises:
            JournalDamagedError: It set none.
        """
        if seq not in self._policies:
            found = _DETAIL.rows(connection, {"pool_id": self.info.pool_id, "seq": seq})
            try:
                policy = rows.policy_of(found[0]) if found else None
            except rows.UNREADABLE as error:
                raise self.damaged(seq, f"its policy cannot be read: {error}") from error
            if policy is None:
                raise self.damaged(seq, "it should set a policy, and does not")
            _remember(self._policies, seq, policy, self._REMEMBERED)
        return self._policies[seq]

    def leases(
        self, connection: Connection, lease_ids: Collection[int], *, head: Head | None = None
    ) -> dict[int, LeaseRow]:
        """Return the newest entry of each of these leases; unknown ones are left out.

        Args:
            connection: A transaction.
            lease_ids: Which leases.
            head: The newest entry, if it was read in the same transaction; leases that are
                remembered as they stood there are not read again.
        """
        found: dict[int, LeaseRow] = {}
        if head is not None and head.hash == self._leases_at:
            found = {lease: self._leases[lease] for lease in lease_ids if lease in self._leases}
        unknown = [lease for lease in lease_ids if lease not in found]
        pool_id = self.info.pool_id
        stored: list[dict[str, Any]] = []
        if len(unknown) == 1:
            stored = _NEWEST_OF_LEASE.rows(connection, {"pool_id": pool_id, "lease": unknown[0]})
        elif unknown:
            parameters = {"pool_id": pool_id, "leases": unknown}
            stored = _rows(connection.execute(_NEWEST_OF_LEASES, parameters))
        for row in stored:
            state = rows.lease_of(row)
            if state is not None:
                found[state.lease] = LeaseRow(
                    state, attribution_in(row), row["request_id"], row["occurred_at"]
                )
        return found

    def remember(self, memo: Memo) -> None:
        """Keep what a batch knows of leases; only once it is committed."""
        if memo.hash_before != self._leases_at:
            self._leases.clear()
        for lease, row in memo.leases.items():
            if row.state.phase is LeasePhase.ENDED:
                self._leases.pop(lease, None)
            else:
                _remember(self._leases, lease, row, self._REMEMBERED)
        self._leases_at = memo.hash_after

    def by_keys(
        self, connection: Connection, keys: Collection[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Read the entries that hold these idempotency keys."""
        if not keys:
            return {}
        found = connection.execute(_BY_KEYS, {"pool_id": self.info.pool_id, "keys": list(keys)})
        return {row["idempotency_key"]: row for row in _rows(found)}

    def page(
        self, connection: Connection, *, after: int, kind: EntryKind | None = None
    ) -> list[dict[str, Any]]:
        """Read the next entries in order, with their attributions."""
        parameters = {"pool_id": self.info.pool_id, "after": after, "page": PAGE}
        query = _PAGE if kind is None else _PAGE.where(entries.c.kind == kind)
        return _rows(connection.execute(query, parameters))

    def open_leases(self, connection: Connection, *, after: int) -> list[tuple[LeaseRow, Micros]]:
        """Read the next leases that have not ended, oldest first, and when each was reserved."""
        parameters = {"pool_id": self.info.pool_id, "after": after, "page": PAGE // 4}
        opened = _OPEN_LEASES.rows(connection, parameters)
        reserved_at = {row["seq"]: Micros(row["recorded_at"]) for row in opened}
        found = self.leases(connection, reserved_at)
        return [(found[lease], reserved_at[lease]) for lease in sorted(found)]

    def intern(self, connection: Connection, attribution: Attribution, content: str) -> Interned:
        """Return the stored form of an attribution, storing it if it is new to the pool.

        Args:
            connection: A writing transaction.
            attribution: The attribution.
            content: Its content, as `proof.attribution_content` gives it.
        """
        key = proof.content_key(content)
        if key in self._interned:
            return self._interned[key]
        parameters = {"pool_id": self.info.pool_id, "content_key": key}
        found = _ATTRIBUTION.rows(connection, parameters)
        if found:
            known = Interned(found[0]["attribution_id"], found[0]["digest"], attribution)
            # Only what an earlier transaction committed is safe to remember: this one may fail.
            _remember(self._interned, key, known, self._REMEMBERED)
            return known
        return self._add_attribution(connection, attribution, content)

    def _add_attribution(
        self, connection: Connection, attribution: Attribution, content: str
    ) -> Interned:
        highest = connection.execute(
            select(func.max(attributions.c.attribution_id)).where(
                attributions.c.pool_id == self.info.pool_id
            )
        ).scalar()
        salt = os.urandom(16)
        fresh = Interned(
            (highest or 0) + 1, proof.attribution_digest(content, salt=salt), attribution
        )
        connection.execute(
            _INSERT_ATTRIBUTION,
            {
                "pool_id": self.info.pool_id,
                "attribution_id": fresh.attribution_id,
                "digest": fresh.digest,
                "salt": salt,
                "content_key": proof.content_key(content),
                **{name: getattr(attribution, name) for name in ATTRIBUTION_TEXTS},
                "tags": proof.tags_text(attribution),
            },
        )
        return fresh

    def damaged(self, seq: int, reason: str) -> JournalDamagedError:
        """Return the error that says what is wrong with an entry of this pool."""
        return JournalDamagedError(pool=self.info.name, seq=seq, reason=reason)


def attribution_in(row: Mapping[str, Any]) -> Interned | None:
    """Return the attribution that a joined row points to."""
    if row["attribution_id"] is None:
        return None
    return Interned(row["attribution_id"], row["digest"], rows.attribution_of(row))


def append(connection: Connection, staged: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that `rows.to_row` made."""
    if len(staged) > 1 and dialect_named(connection.dialect.name).insert_many(
        connection, entries.name, staged
    ):
        return
    _INSERT_ENTRY.write(connection, staged)


def _remember(memory: dict[K, V], key: K, value: V, most: int) -> None:
    if len(memory) >= most:
        memory.pop(next(iter(memory)), None)
    memory[key] = value


def _rows(result: CursorResult[Any]) -> list[dict[str, Any]]:
    # Plain dicts: a row is looked into seventy times, and SQLAlchemy's mappings are slow at that.
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]
