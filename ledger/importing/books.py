"""What the store already has of calls that are to be imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    bindparam,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    text,
)

from ledger.core.axes import AMOUNTS, AXES
from ledger.core.checks import I64_MAX, Micros, to_micros
from ledger.core.extensions import ATTRIBUTION_TEXTS, Attribution
from ledger.core.kinds import CORRECTABLE, ENDS_LEASE, FOLLOWS_UP, MAKES_CALL, EntryKind, sql
from ledger.core.past_calls import PastCall, import_key
from ledger.core.policy import SettlementPolicy
from ledger.core.tokens import lost_key, parse_token
from ledger.core.values import GUESSED, USAGE_FIELDS, Usage, UsageDifference
from ledger.files.rows import digest_of
from ledger.ledger import Ledger
from ledger.reports.figures import has_expired, is_open
from ledger.reports.filters import EVERYTHING, Filter
from ledger.reports.leases import held_of, with_newest_of_lease
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.stream import ends, stream
from ledger.store.amounts import USAGE
from ledger.store.rows import detail_of
from ledger.store.schema import IS_OF_ENTRY, attributions, entries, pools

_USAGE = [entries.c[f"usage_{name}"] for name in USAGE_FIELDS]
_OF_POOL = entries.c.pool_id == bindparam("pool_id")
_WHOM = [attributions.c[name] for name in ATTRIBUTION_TEXTS]
_PRICED = ", priced by "
_IMPORTS = (
    select(entries.c.seq, entries.c.idempotency_key, entries.c.detail, *_USAGE, *_WHOM)
    .select_from(entries.outerjoin(attributions, IS_OF_ENTRY))
    .where(
        _OF_POOL,
        entries.c.payload_digest.is_not(None),
        entries.c.idempotency_key.in_(bindparam("keys", expanding=True)),
        entries.c.kind == EntryKind.IMPORT,
    )
)
_CORRECTIONS = (
    select(entries.c.lease, entries.c.idempotency_key, entries.c.detail, *_USAGE)
    .where(
        _OF_POOL,
        entries.c.lease.in_(bindparam("leases", expanding=True)),
        text(sql(FOLLOWS_UP)),
        entries.c.kind == EntryKind.CORRECTION,
    )
    .order_by(entries.c.seq)
)


class CallInBooks(NamedTuple):
    """A call that was imported.

    Attributes:
        seq: The number of its entry.
        imported: The usage that it was imported with.
        usage: Its usage after all corrections.
        whom: Its attribution, without ids and tags.
        brought: The usage that the last import gave it which said anything new of it.
        priced: Whether that import had a price list.
    """

    seq: int
    imported: Usage
    usage: Usage
    whom: Attribution
    brought: Usage
    priced: bool


def _rows(
    connection: Connection, query: Select[Any], asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query, asked).mappings()]


class KnownEntry(NamedTuple):
    """An entry about a call that is in the books.

    Attributes:
        pool: The name of its pool.
        seq: Its number.
        lease: Its lease; None for an import, or if entries with its id have different leases.
    """

    pool: str
    seq: int
    lease: int | None = None


def standing(book: Ledger, pool: str, keys: Sequence[str]) -> dict[str, CallInBooks]:
    """Return what a pool has of the calls that were imported under some keys.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """

    def query(connection: Connection, scope: Scope) -> dict[str, CallInBooks]:
        asked = {"pool_id": scope.pool}
        rows = _rows(connection, _IMPORTS, {**asked, "keys": list(keys)})
        found = {row["seq"]: _imported(row) for row in rows}
        names = {row["seq"]: row["idempotency_key"] for row in rows}
        for row in _rows(connection, _CORRECTIONS, {**asked, "leases": list(found)}):
            seq, detail = row["lease"], detail_of(row)
            usage = UsageDifference(**USAGE.of(row)).added_to(found[seq].usage)
            found[seq] = found[seq]._replace(usage=usage)
            if f"{row['idempotency_key']}".startswith(correction_key(names[seq], "")):
                priced = is_priced(detail["reason"])
                found[seq] = found[seq]._replace(brought=usage, priced=priced)
        return {names[seq]: one for seq, one in found.items()}

    return snapshot(book, pool, query)


def _imported(row: dict[str, Any]) -> CallInBooks:
    usage, detail = Usage(**USAGE.of(row)), detail_of(row)
    whom = Attribution(**{name: row[name] for name in ATTRIBUTION_TEXTS})
    return CallInBooks(row["seq"], usage, usage, whom, usage, is_priced(detail["reason"]))


def reason_of(file: str, sha256: str, prices: str | None) -> str:
    """Return the reason of what an import writes, given the name of its price list, if any."""
    return f"imported: {file}, SHA-256 {sha256}" + (f"{_PRICED}{prices}" if prices else "")


def is_priced(reason: str) -> bool:
    """Tell whether a reason is that of an import with a price list."""
    return _PRICED in reason


def correction_key(key: str, said: str) -> str:
    """Return the key of the correction of an import under a key, as a file now says."""
    return f"{key}:{said}"


def find_recorded(
    book: Ledger, pool: str, ids: Collection[bytes], *, since: datetime
) -> dict[bytes, KnownEntry]:
    """Return which request ids of a file the store has, apart from imports of this file.

    All pools of the store are searched, in bounded memory. Denials and released leases do not
    count, since no call is known of them. An import into this pool counts if it was made under
    another key than the file's, since the file would import the call again.

    Args:
        book: The store.
        pool: The pool.
        ids: The hashes of the request ids, as `digest_of` makes them.
        since: Only entries of calls from this time on.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    found: dict[bytes, KnownEntry] = {}
    for request_id, one in _others(book, pool, Filter(since=since), import_key):
        digest = digest_of(request_id)
        if digest in ids:
            before = found.setdefault(digest, one)
            if (before.pool, before.lease) != (one.pool, one.lease):
                found[digest] = before._replace(lease=None)
    return found


def find_call(book: Ledger, pool: str, call: PastCall) -> KnownEntry | None:
    """Return an entry with a call's request id, other than its import into a pool under its key.

    Entries of all times are searched, since the time of the call may not be known. The same entries
    count as for `find_recorded`.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    same = entries.c.request_id == call.request_id
    others = _others(book, pool, EVERYTHING, lambda _request_id: call.key, same)
    return next((one for _, one in others), None)


def find_lease(book: Ledger, token: str) -> tuple[KnownEntry | None, KnownEntry | None]:
    """Return the reservation of a lease, and the entry that booked it as lost, of whatever pool.

    Args:
        book: The store.
        token: The lease's token.

    Raises:
        InvalidInputError: It is no token.
        LedgerUnavailableError: The store cannot be read.
    """
    lease, proof = parse_token(token)
    e, of_any_pool = entries.c, entries.c.pool_id.in_(select(pools.c.pool_id))
    granted = select(e.pool_id, e.seq, e.hash).where(
        of_any_pool, e.seq == min(lease, I64_MAX), e.kind == EntryKind.RESERVATION
    )
    booked = select(e.pool_id, e.seq).where(
        of_any_pool, e.payload_digest.is_not(None), e.idempotency_key == lost_key(token)
    )

    def query(connection: Connection, scope: Scope) -> tuple[KnownEntry | None, KnownEntry | None]:
        of = scope.pools
        found = (row for row in connection.execute(granted) if row.hash.startswith(proof))
        each = (found, connection.execute(booked))
        one, other = (
            next((KnownEntry(of[row.pool_id], row.seq) for row in rows), None) for rows in each
        )
        return one, other

    return snapshot(book, EVERYTHING, query)


def _others(
    book: Ledger,
    pool: str,
    where: Filter,
    key_of: Callable[[str], str],
    *conditions: ColumnElement[bool],
) -> Iterator[tuple[str, KnownEntry]]:
    """Yield the request ids that the store has, apart from imports under their own key.

    Args:
        book: The store.
        pool: The pool that calls are to be imported into.
        where: Which entries are searched.
        key_of: Returns the key under which a call is imported, given its request id.
        conditions: Further conditions that an entry must fulfil.
    """
    scope, last = snapshot(book, where, lambda connection, scope: (scope, ends(connection, scope)))
    for pool_id, end in last.items():
        name = scope.pools[pool_id]
        query = _with_ids(scope).where(entries.c.pool_id == pool_id, *conditions)
        for row in stream(book, query, after=0, end=end):
            request_id = row["request_id"]
            is_import = name == pool and row["kind"] == EntryKind.IMPORT
            if not (is_import and row["idempotency_key"] == key_of(request_id)):
                yield request_id, KnownEntry(name, row["seq"], row["lease"])


def _with_ids(scope: Scope) -> Select[Any]:
    e = entries.c
    return select(e.seq, e.kind, e.lease, e.request_id, e.idempotency_key).where(
        *scope.conditions,
        e.request_id.is_not(None),
        e.kind != EntryKind.CORRECTION,  # it repeats the corrected entry's id and time
        e.usage_total_tokens.is_not(None) | is_open(None),
    )


def recorded_between(book: Ledger, pool: str, first: datetime, last: datetime) -> int:
    """Return how many entries of a pool record usage in a time range, without imports.

    Args:
        book: The store.
        pool: The pool.
        first: The first moment of the time.
        last: The last moment of the time.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    upto = to_micros("last", last)

    def query(connection: Connection, scope: Scope) -> int:
        counted = select(func.count()).where(
            *scope.conditions,
            scope.at <= upto,
            entries.c.kind.in_(CORRECTABLE),
            entries.c.kind != EntryKind.IMPORT,
        )
        return int(connection.execute(counted).scalar_one())

    return snapshot(book, Filter(pools=[pool], since=first), query)


def assumed_between(
    book: Ledger, ids: Collection[bytes], first: datetime, last: datetime
) -> dict[str, int]:
    """Return how many calls in a time range are charged assumed usage, by their pools.

    Their leases expired, are due, or ended without recorded usage, and were not corrected since. A
    file may have the same calls under the provider's ids. All pools are searched.

    Args:
        book: The store.
        ids: The hashes of the request ids that the file names, which are no other calls.
        first: The first moment of the time.
        last: The last moment of the time.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    upto, now = to_micros("last", last), to_micros("now", book.now())

    def counted(connection: Connection, scope: Scope, query: Select[Any]) -> Counter[str]:
        return Counter(
            scope.pools[row.pool_id]
            for row in connection.execute(query)
            if row.request_id is None or digest_of(row.request_id) not in ids
        )

    def query(connection: Connection, scope: Scope) -> tuple[Counter[str], Counter[str]]:
        due = _due(scope, upto, now)
        return counted(connection, scope, _assumed(scope, upto)), counted(connection, scope, due)

    found, due = snapshot(book, Filter(since=first), query)
    for pool in due:
        # Under other policies an expiry assumes nothing.
        if book.pool(pool).status().policy.settlement is SettlementPolicy.ESTIMATED:
            found[pool] += due[pool]
    return dict(found)


def _assumed(scope: Scope, upto: int) -> Select[Any]:
    e, granted, end = entries.c, entries.alias("granted"), entries.alias("ended")
    newest, joined = with_newest_of_lease(e.lease, None)
    # An entry stores what its lease has used only if that is more than its own usage.
    charged = [
        func.coalesce(newest.c[f"used_{amount}"], newest.c[f"usage_{amount}"]) != 0
        for amount in AMOUNTS
    ]
    begun = (granted.c.pool_id == e.pool_id) & (granted.c.seq == e.lease)
    # Not a correction for late usage, after which the rest is still assumed.
    said = entries.alias("said")
    corrected = exists().where(
        said.c.pool_id == e.pool_id,
        said.c.lease == e.lease,
        said.c.seq > e.seq,
        text(sql(FOLLOWS_UP, "said.kind")),
        said.c.kind == EntryKind.CORRECTION,
        said.c.detail.like(literal('%"corrects":') + cast(e.seq, String) + literal(",%")),
        said.c.detail.not_like('%"late":%'),
    )
    ended = exists().where(
        end.c.pool_id == e.pool_id,
        end.c.lease == e.lease,
        end.c.seq > e.seq,
        text(sql(ENDS_LEASE, "ended.kind")),
    )
    return (
        select(e.pool_id, e.request_id)
        .select_from(joined.join(granted, begun))
        .where(
            *scope.conditions,
            e.kind.in_(MAKES_CALL),
            e.provenance.in_(GUESSED),
            # An expiry comes long after its call; the reservation has the time of the call.
            func.coalesce(granted.c.occurred_at, granted.c.recorded_at) <= upto,
            ~ended,
            ~corrected,
            or_(*charged),
        )
    )


def _due(scope: Scope, upto: Micros, now: Micros) -> Select[Any]:
    """Return the due leases whose expiries will charge something."""
    e = entries.c
    newest, joined = with_newest_of_lease(e.seq, None)
    return (
        select(e.pool_id, e.request_id)
        .select_from(joined)
        .where(
            *scope.conditions,
            is_open(None),
            ~has_expired(None),
            func.coalesce(e.occurred_at, e.recorded_at) <= upto,
            newest.c.expires_at <= now,
            or_(*(held_of(axis, newest) != 0 for axis in AXES if axis.amount is not None)),
        )
    )
