"""Append and read: every query on the entries and attributions that the books are kept with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    CursorResult,
    Select,
    bindparam,
    exists,
    insert,
    literal_column,
    select,
)

from ledger import proof, rows
from ledger.attributions import CONTENT, Attributions, remember
from ledger.checks import Micros
from ledger.database import Database
from ledger.dialects import dialect_named
from ledger.dialects.clock import NOW
from ledger.errors import JournalDamagedError
from ledger.policies import Policies
from ledger.policy import SharedPoolBudgetOptions
from ledger.prepared import Prepared, rows_of_each
from ledger.records import EntryKind, LeasePhase, PoolInfo, Seq
from ledger.rows import Head, LeaseRow, Memo, Row
from ledger.schema import SETS_EXPIRY, attributions, entries

K = TypeVar("K")
V = TypeVar("V")

PAGE = 1_000
"""How many entries are read in one go."""

DUE_PAGE = 256
"""How many leases expire in one go."""

_POOL: BindParameter[int] = bindparam("pool_id")
_JOINED = select(*entries.columns, *CONTENT).select_from(
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
_PAGE = (
    _OF_POOL.where(entries.c.seq > bindparam("after"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_BY_KEYS = _OF_POOL.where(
    entries.c.idempotency_key.is_not(None),
    entries.c.idempotency_key.in_(bindparam("keys", expanding=True)),
)
_LEASE = Prepared(
    select(
        *(
            column
            for column in entries.columns
            if column.name.startswith(("lease", "estimate_", "budget_", "held_", "used_"))
            or column.name
            in {"seq", "kind", "flags", "expires_at", "attribution_id", "request_id", "occurred_at"}
        )
    )
    .where(
        entries.c.pool_id == _POOL,
        entries.c.lease.is_not(None),
        entries.c.lease == bindparam("lease"),
    )
    .order_by(entries.c.seq.desc())
    .limit(1)
)
_SINCE = Prepared(
    select(entries.c.seq, entries.c.lease, entries.c.hash)
    .where(entries.c.pool_id == _POOL, entries.c.seq >= bindparam("known"))
    .order_by(entries.c.seq)
    .limit(bindparam("page"))
)
_end = entries.alias("lease_end")
_ENDED = exists().where(
    _end.c.pool_id == entries.c.pool_id,
    _end.c.lease == entries.c.lease,
    _end.c.kind.in_([literal_column(f"'{kind}'") for kind in ("settlement", "release", "expiry")]),
)
_NOW = Prepared(select(NOW.label("now")))
_DUE = Prepared(
    select(entries.c.lease, entries.c.expires_at)
    .where(
        entries.c.pool_id == _POOL,
        SETS_EXPIRY,
        entries.c.expires_at > _newest(entries.c.swept_until).scalar_subquery(),
        entries.c.expires_at <= NOW,
        ~_ENDED,
    )
    .order_by(entries.c.expires_at, entries.c.lease)
    .limit(bindparam("page"))
)
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
_INSERT_ENTRY = Prepared(insert(entries))


class PoolJournal:
    """One pool's entries, and what is known of them that can never change.

    Policies and attributions are immutable once they are committed, so they are remembered. So
    are leases, together with the entry at which they stood: those that no later entry is about
    stand there still. An entry that is there no longer takes all of this with it. The newest
    entry itself is always read.
    """

    def __init__(self, info: PoolInfo, *, store: bytes) -> None:
        self.info = info
        self.genesis = proof.genesis(store=store, pool=info.identity.bytes, name=info.name)
        self.policies = Policies(info)
        self.attributions = Attributions(info)
        self._leases: dict[int, LeaseRow] = {}
        self._leases_at: tuple[int, bytes] = (0, b"")

    def head(self, connection: Connection) -> Head:
        """Read the newest entry: the balance, and what the next entry builds on.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
        """
        found = _HEAD.rows(connection, {"pool_id": self.info.pool_id})
        return self.head_from(connection, found[0] if found else None)

    def head_from(self, connection: Connection, newest: Row | None) -> Head:
        """Return the head that the newest entry makes, reading its policy if that is not known.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
        """
        row = self._there(newest)
        return rows.head_of(row, self.policy(connection, row["policy_seq"]), rows.balance_of(row))

    def _there(self, newest: Row | None) -> Row:
        if newest is None:
            raise self.damaged(1, "the pool's opening is missing")
        return newest

    def head_alone(self, database: Database) -> Head:
        """Read the newest entry in a transaction of its own, in one round trip.

        Raises:
            JournalDamagedError: The pool has no entry, or its policy cannot be read.
            LedgerUnavailableError: The store cannot be reached or read.
        """
        found = database.read_rows(_HEAD, {"pool_id": self.info.pool_id})
        row = self._there(found[0] if found else None)
        policy = self.policies.known(row["policy_seq"])
        if policy is None:
            policy = database.read(lambda connection: self.policy(connection, row["policy_seq"]))
        return rows.head_of(row, policy, rows.balance_of(row))

    def policy(self, connection: Connection, seq: Seq) -> SharedPoolBudgetOptions:
        """Return the policy that entry `seq` set.

        Raises:
            JournalDamagedError: It set none.
        """
        return self.policies.read(connection, seq)

    def leases(self, connection: Connection, lease_ids: Collection[int]) -> dict[int, LeaseRow]:
        """Read the newest entry of each of these leases; unknown ones are left out.

        Raises:
            JournalDamagedError: One of them cannot be read.
        """
        wanted = [(self, lease) for lease in lease_ids]
        found = {}
        for (_, lease), row in zip(wanted, leases(connection, wanted), strict=True):
            if isinstance(row, JournalDamagedError):
                raise row
            if row is not None:
                found[lease] = row
        return found

    def remembered(self, lease_ids: Collection[int]) -> dict[int, LeaseRow]:
        """Return those of the leases that are remembered; `recall` first."""
        return {lease: self._leases[lease] for lease in lease_ids if lease in self._leases}

    def forget(self, since: Sequence[Row], newest: Row) -> None:
        """Forget the leases that others changed, by the entries from the one remembered on.

        If that one is there no longer, the store was put back to a backup: nothing that is
        remembered can be trusted then.
        """
        if not since or (since[0]["seq"], since[0]["hash"]) != self._leases_at:
            self._leases = {}
            self.policies, self.attributions = Policies(self.info), Attributions(self.info)
        elif len(since) == PAGE:
            self._leases.clear()
        for row in since[1:]:
            self._leases.pop(row["lease"], None)
        self._leases_at = newest["seq"], newest["hash"]

    def since(self) -> dict[str, int]:
        """Return what asks for the entry remembered, and those behind it if leases are."""
        page = PAGE if self._leases else 1
        return {"pool_id": self.info.pool_id, "known": self._leases_at[0], "page": page}

    def stands_at(self, newest: Row) -> bool:
        """Tell whether what is remembered is what this newest entry left."""
        return self._leases_at == (newest["seq"], newest["hash"])

    def lease_row(self, connection: Connection, row: Row) -> LeaseRow:
        """Return what an entry says of its lease.

        Raises:
            JournalDamagedError: It cannot be read, or its attribution is missing.
        """
        try:
            state = rows.lease_of(row)
        except rows.UNREADABLE as error:
            raise self.damaged(row["seq"], f"its lease cannot be read: {error}") from error
        return LeaseRow(
            state,
            self.attributions.read(connection, row["attribution_id"], seq=row["seq"]),
            row["request_id"],
            row["occurred_at"],
        )

    def remember(self, memo: Memo) -> None:
        """Keep what a batch knows of leases; only once it is committed."""
        if memo.before != self._leases_at:
            self._leases.clear()
        for lease, row in memo.leases.items():
            if row.state.phase is LeasePhase.ENDED:
                self._leases.pop(lease, None)
            else:
                remember(self._leases, lease, row)
        self._leases_at = memo.after

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

    def damaged(self, seq: int, reason: str) -> JournalDamagedError:
        """Return the error that says what is wrong with an entry of this pool."""
        return JournalDamagedError(pool=self.info.name, seq=seq, reason=reason)


class Due(NamedTuple):
    """A lease whose hold was to end by now."""

    lease: int
    expires_at: Micros


class Seen(NamedTuple):
    """Several pools as a transaction finds them, in the order in which they were asked for."""

    newest: list[Row | None]
    due: list[list[Due]]
    now: Micros


def look(connection: Connection, pools: Sequence[PoolJournal], now: Micros | None) -> Seen:
    """Read the newest entry of each pool and its next due leases, all in one message."""
    ids = [{"pool_id": pool.info.pool_id} for pool in pools]
    asked: list[tuple[Prepared, dict[str, Any]]] = [(_HEAD, one) for one in ids]
    asked += [(_DUE, {**one, "now": now, "page": DUE_PAGE}) for one in ids]
    if now is None:
        asked.append((_NOW, {"now": None}))
    found = rows_of_each(connection, asked)
    if now is None:
        now = Micros(found.pop()[0]["now"])
    return Seen(
        [one[0] if one else None for one in found[: len(ids)]],
        [[Due(**row) for row in one] for one in found[len(ids) :]],
        now,
    )


def clock(connection: Connection, now: Micros | None) -> Micros:
    """Return the time: the one given, or else the store's."""
    return now or Micros(_NOW.rows(connection, {"now": None})[0]["now"])


def recall(connection: Connection, found: Sequence[tuple[PoolJournal, Row | None]]) -> None:
    """Let each pool forget what others changed before this newest entry.

    A pool that is new to this process learns its policy with the same message.
    """
    stale = [(pool, newest) for pool, newest in found if newest and not pool.stands_at(newest)]
    unknown = [
        (pool, newest["policy_seq"])
        for pool, newest in stale
        if pool.policies.known(newest["policy_seq"]) is None
    ]
    read = rows_of_each(
        connection,
        [(_SINCE, pool.since()) for pool, _ in stale]
        + [pool.policies.asked(seq) for pool, seq in unknown],
    )
    for (pool, newest), changed in zip(stale, read[: len(stale)], strict=True):
        pool.forget(changed, newest)
    for (pool, seq), detail in zip(unknown, read[len(stale) :], strict=True):
        pool.policies.learn(seq, detail)


def leases(
    connection: Connection, wanted: Sequence[tuple[PoolJournal, int]]
) -> list[LeaseRow | JournalDamagedError | None]:
    """Read the newest entry of each lease, all in one message; None where there is no such lease.

    One that is damaged must not keep the others from being read: it is answered with its error.
    """
    read = rows_of_each(
        connection,
        [(_LEASE, {"pool_id": pool.info.pool_id, "lease": lease}) for pool, lease in wanted],
    )
    found: list[LeaseRow | JournalDamagedError | None] = []
    for (pool, _), one in zip(wanted, read, strict=True):
        try:
            found.append(pool.lease_row(connection, one[0]) if one else None)
        except JournalDamagedError as error:
            found.append(error)
    return found


def append(connection: Connection, staged: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that `rows.to_row` made."""
    if staged:
        dialect_named(connection.dialect.name).insert(
            connection, entries.name, _INSERT_ENTRY, staged
        )


def _rows(result: CursorResult[Any]) -> list[dict[str, Any]]:
    # Plain dicts: a row is looked into seventy times, and SQLAlchemy's mappings are slow at that.
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]
