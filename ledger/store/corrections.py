"""Queries for recorded usage: as entries were written, and after their corrections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, text

from ledger.core.checks import I64_MAX
from ledger.core.entries import (
    Entry,
    EntryFlag,
    LeaseState,
    PoolId,
    Totals,
    late_in,
    requests_made,
)
from ledger.core.errors import InvalidInputError, UncorrectableEntryError
from ledger.core.kinds import CORRECTABLE, ENDS_LEASE, FOLLOWS_UP, EntryKind, named, sql
from ledger.core.values import Usage
from ledger.store import queries, rows
from ledger.store.amounts import USAGE
from ledger.store.heads import Interned
from ledger.store.history import correction_in
from ledger.store.journal import PoolJournal
from ledger.store.rows import Row
from ledger.store.schema import entries
from ledger.store.statements import Prepared

_POOL = entries.c.pool_id == bindparam("pool_id")
_ENTRY = Prepared(select(*entries.columns).where(_POOL, entries.c.seq == bindparam("seq")))
_CORRECTIONS = Prepared(
    select(*entries.columns)
    .where(
        _POOL,
        entries.c.lease == bindparam("lease"),
        entries.c.seq < bindparam("before"),
        text(sql(FOLLOWS_UP)),
        entries.c.kind == EntryKind.CORRECTION,
    )
    .order_by(entries.c.seq)
)
_SETTLED = EntryKind.SETTLEMENT
_SETTLEMENT = Prepared(
    select(entries.c.seq).where(
        _POOL,
        entries.c.lease == bindparam("lease"),
        text(sql(ENDS_LEASE)),
        entries.c.kind == _SETTLED,
    )
)
_EXPIRY = Prepared(
    select(entries.c.seq).where(
        _POOL, entries.c.lease == bindparam("lease"), text(sql([EntryKind.EXPIRY]))
    )
)


class Spending(NamedTuple):
    """An entry that records usage.

    Attributes:
        row: The entry.
        usage: Its usage after all its corrections.
        attribution: Whom it is for.
    """

    row: Row
    usage: Usage
    attribution: Interned | None


def seq_of(entry: Entry | int, pool: PoolJournal) -> int:
    """Return the number of an entry, which must be an entry of this pool.

    Raises:
        InvalidInputError: It is neither an entry nor a number.
        UncorrectableEntryError: It is an entry of another pool, or no entry can have this number.
    """
    if isinstance(entry, Entry):
        if entry.pool_id != pool.info.pool_id:
            raise UncorrectableEntryError(entry.seq, "it is of another pool")
        return entry.seq
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise InvalidInputError(
            "entry", f"must be an Entry or its number, not {type(entry).__name__}"
        )
    if not 0 < entry <= I64_MAX:
        raise UncorrectableEntryError(entry, "there is no such entry")
    return entry


def spending(
    connection: Connection,
    pool: PoolJournal,
    seq: int,
    *,
    staged: Sequence[Row] = (),
    before: int = I64_MAX,
) -> Spending:
    """Return an entry that records usage, with its usage after corrections.

    Args:
        connection: A transaction.
        pool: The entry's pool.
        seq: The entry.
        staged: Entries that are decided, and not yet written.
        before: Only corrections with a lower number count.

    Raises:
        UncorrectableEntryError: There is no such entry, or it records no usage of its own.
        JournalDamagedError: The entry or a correction of it cannot be read.
    """
    new = next((one for one in staged if one["seq"] == seq), None)
    row = new or entry_row(connection, pool.info.pool_id, seq)
    if row is None:
        raise UncorrectableEntryError(seq, "there is no such entry")
    if row["kind"] not in CORRECTABLE:
        if row["kind"] != EntryKind.EXPIRY:
            raise UncorrectableEntryError(
                seq,
                f"it is of kind {row['kind']}{_instead(connection, pool, row)}. What can be "
                f"corrected is {named(CORRECTABLE)}, and {named([EntryKind.EXPIRY])} for what it "
                "assumed",
            )
        if row["usage_total_tokens"] is None:
            raise UncorrectableEntryError(seq, "it gave back what was held, and assumed nothing")
    given = {"pool_id": pool.info.pool_id, "lease": row["lease"], "before": before}
    corrections: list[Row] = [*_CORRECTIONS.rows(connection, given)]
    corrections += [one for one in staged if one["kind"] == EntryKind.CORRECTION]
    at: Row = row
    try:
        usage = Usage(**USAGE.of(row))
        for at in corrections:
            detail = rows.detail_of(at)
            if detail["corrects"] == seq:
                usage = Usage(**detail["to"])
    except rows.UNREADABLE as error:
        raise pool.damaged(at["seq"], f"its usage cannot be read: {error}") from error
    return Spending(row, usage, pool.attributions.read(connection, row["attribution_id"], seq=seq))


def _instead(connection: Connection, pool: PoolJournal, row: Row) -> str:
    """Return text that names the entry that settled the lease of a reservation."""
    given = {"pool_id": pool.info.pool_id, "lease": row["lease"]}
    found = _SETTLEMENT.rows(connection, given)
    return f", and entry {found[0]['seq']} settles its lease" if found else ""


def moved_since(
    connection: Connection,
    pool: PoolJournal,
    seq: int,
    lease: int,
    *,
    after: int,
    staged: Sequence[Row],
) -> list[Totals]:
    """Return by how much each correction of an entry moved the committed totals of its pool.

    Corrections that take back an assumed charge are left out, since the entry after them replaces
    it.

    Args:
        connection: A transaction.
        pool: The entry's pool.
        seq: The entry.
        lease: The lease that it is about.
        after: Only corrections with a higher number count.
        staged: Entries that are decided, and not yet written.

    Raises:
        JournalDamagedError: One of them cannot be read.
    """
    given = {"pool_id": pool.info.pool_id, "lease": lease, "before": I64_MAX}
    found: list[Row] = [*_CORRECTIONS.rows(connection, given)]
    found += [one for one in staged if one["kind"] == EntryKind.CORRECTION]
    moved = []
    for row in found:
        try:
            correction = correction_in(row)
        except rows.UNREADABLE as error:
            raise pool.damaged(row["seq"], f"what it corrects cannot be read: {error}") from error
        if correction.of == seq and correction.seq > after and late_in(rows.detail_of(row)) is None:
            moved.append(correction.by)
    return moved


def counted_late(
    connection: Connection, pool: PoolJournal, seq: int, *, began: int, staged: Sequence[Row]
) -> Totals | None:
    """Return by how much late usage exceeds the charge of an earlier window that it replaced.

    None if it replaced no such charge: then all of it counts in the window in which it was
    recorded.

    Args:
        connection: A transaction.
        pool: The pool.
        seq: The entry that records the usage.
        began: The number of the entry that began the pool's window.
        staged: Entries that are decided, and not yet written.

    Raises:
        JournalDamagedError: What it replaced cannot be read.
    """

    def row_of(number: int) -> Row | None:
        new = next((one for one in staged if one["seq"] == number), None)
        return new or entry_row(connection, pool.info.pool_id, number)

    row = row_of(seq)
    if row is None or not row["flags"] & EntryFlag.LATE:
        return None
    before = row_of(seq - 1)  # the replaced charge is taken back by the entry right before it
    try:
        if before is None or late_in(rows.detail_of(before)) is None:
            return None
        taken_back = correction_in(before)
        usage = Usage(**USAGE.of(row))
    except rows.UNREADABLE as error:
        raise pool.damaged(seq, f"what it replaced cannot be read: {error}") from error
    if taken_back.of >= began:
        return None
    return taken_back.by.plus(Totals.of(usage, requests=requests_made(row["kind"], None)))


def entry_row(connection: Connection, pool_id: PoolId, seq: int) -> Row | None:
    """Return an entry as it is stored, None if there is no entry of this number."""
    found = _ENTRY.rows(connection, {"pool_id": pool_id, "seq": seq})
    return found[0] if found else None


def settlement_of(
    connection: Connection, pool: PoolJournal, lease: int, *, staged: Sequence[Row] = ()
) -> int:
    """Return the number of the entry that settled a lease.

    Raises:
        JournalDamagedError: No entry settled it.
    """
    given = {"pool_id": pool.info.pool_id, "lease": lease}
    ends = [one["seq"] for one in staged if (one["lease"], one["kind"]) == (lease, _SETTLED)]
    ends += [row["seq"] for row in _SETTLEMENT.rows(connection, given)]
    if not ends:
        raise pool.damaged(lease, "nothing settles this lease, though the pool it funds is closed")
    return int(ends[0])


def expiry_of(
    connection: Connection, pool: PoolJournal, lease: int, *, staged: Sequence[Row] = ()
) -> int:
    """Return the number of the entry by which the hold of a lease expired.

    Raises:
        JournalDamagedError: There is none.
    """
    given = {"pool_id": pool.info.pool_id, "lease": lease}
    expired = EntryKind.EXPIRY
    found = [one["seq"] for one in staged if (one["lease"], one["kind"]) == (lease, expired)]
    found += [row["seq"] for row in _EXPIRY.rows(connection, given)]
    if not found:
        raise pool.damaged(lease, "this lease has expired, and no entry says so")
    return int(found[0])


def mirror_of(
    connection: Connection,
    pool: PoolJournal,
    origin: tuple[PoolId, int],
    *,
    staged: Sequence[Row] = (),
) -> int:
    """Return the number of the entry in this pool that repeats an entry of a pool below.

    Raises:
        JournalDamagedError: No entry repeats it.
    """
    pool_id, seq = origin
    for one in staged:
        if (one["origin_pool_id"], one["origin_seq"]) == origin:
            return int(one["seq"])
    given = {"pool_id": pool.info.pool_id, "origin_pool_id": pool_id, "origin_seq": seq}
    found = queries.MIRROR.rows(connection, given)
    if not found:
        raise pool.damaged(1, f"nothing repeats entry {seq} of pool {pool_id}")
    return int(found[0]["seq"])


def lease_before(
    connection: Connection, pool: PoolJournal, lease: int, *, before: int
) -> LeaseState | None:
    """Return a lease as the entries before a given one left it, None if none is about it.

    Raises:
        JournalDamagedError: It cannot be read.
    """
    given = {"pool_id": pool.info.pool_id, "lease": lease, "before": before}
    found = queries.LEASE_BEFORE.rows(connection, given)
    return pool.lease_row(connection, found[0]).state if found else None
