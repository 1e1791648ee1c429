"""The usage in the journal, entry by entry, for the comparison with a bill."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, select

from ledger.core.axes import AXES
from ledger.core.entries import EntryFlag
from ledger.core.kinds import CORRECTABLE, EntryKind
from ledger.core.rules import left_out
from ledger.core.values import GUESSED, USAGE_FIELDS, Usage
from ledger.ledger import Ledger
from ledger.reconcile.values import EntryRef
from ledger.reports.figures import is_open
from ledger.reports.filters import Filter
from ledger.reports.leases import held_of, with_newest_of_lease
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.stream import ends, stream
from ledger.store.amounts import USAGE
from ledger.store.rows import Row, detail_of
from ledger.store.schema import IS_OF_ENTRY, attributions, entries


class Recorded(NamedTuple):
    """One entry that records usage, or corrects it.

    Attributes:
        ref: The entry.
        corrects: Whether it is a correction of another entry, and so cannot be corrected itself.
        corrected: The number of the entry that it corrects, None if it is no correction.
        assumed: Whether an expiry assumed it, or it is the correction that took that back.
        guessed: Whether the usage was assumed, since the lease expired or ended without a record;
            also for a correction of such usage.
        unpriced: Whether it is flagged unpriced for a figure that is compared; of a correction,
            whether what it corrects still leaves one out.
        request_id: The provider's request id.
        model: The model.
        at: The time at which it counts, in microseconds since 1970.
        amounts: The usage that it adds, in the order of the axes.
    """

    ref: EntryRef
    corrects: bool
    corrected: int | None
    assumed: bool
    guessed: bool
    unpriced: bool
    request_id: str | None
    model: str | None
    at: int
    amounts: tuple[int, ...]


def recorded(book: Ledger, where: Filter, axes: tuple[str, ...]) -> Iterator[Recorded]:
    """Yield the entries of a filter that record usage, in bounded memory.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    scope, last = snapshot(book, where, lambda connection, scope: (scope, ends(connection, scope)))
    query = _used(scope)
    for pool_id, end in last.items():
        pool = scope.pools[pool_id]
        of_pool = query.where(entries.c.pool_id == pool_id)
        for row in stream(book, of_pool, after=0, end=end):
            used = USAGE.of(row)
            correction = _correction(row)
            said = used if correction is None else correction["to"]
            missing = {axis.amount for axis in left_out(Usage(**said))} & {*axes}
            yield Recorded(
                ref=EntryRef(pool, row["seq"], row["lease"]),
                corrects=row["kind"] not in CORRECTABLE,
                corrected=None if correction is None else correction["corrects"],
                assumed=row["kind"] == EntryKind.EXPIRY
                or (row["kind"] == EntryKind.CORRECTION and row["flags"] & EntryFlag.LATE != 0),
                guessed=row["provenance"] in GUESSED,
                unpriced=bool(missing)
                and (correction is not None or row["flags"] & EntryFlag.UNPRICED != 0),
                request_id=row["request_id"],
                model=row["model"],
                at=row["at"],
                amounts=tuple(used[name] for name in axes),
            )


def _correction(row: Row) -> dict[str, Any] | None:
    """Return the content of a correction, None for another entry."""
    return detail_of(row) if row["kind"] == EntryKind.CORRECTION else None


def _used(scope: Scope) -> Select[Any]:
    e, a = entries.c, attributions.c
    return (
        select(
            e.seq,
            e.kind,
            e.flags,
            e.lease,
            e.request_id,
            e.provenance,
            scope.at.label("at"),
            a.model,
            # Only a correction's detail is read; other details hold callers' data.
            case((e.kind == EntryKind.CORRECTION, e.detail)).label("detail"),
            *(e[f"usage_{name}"] for name in USAGE_FIELDS),
        )
        .select_from(entries.outerjoin(attributions, IS_OF_ENTRY))
        .where(*scope.conditions, e.usage_total_tokens.is_not(None))
    )


class OpenCall(NamedTuple):
    """A call that is not recorded yet, since its lease has not ended.

    Attributes:
        request_id: The id in its reservation.
        ref: Its reservation.
        held: What its lease holds: tokens, and millionths of a US dollar; 0 if it has expired.
    """

    request_id: str
    ref: EntryRef
    held: Sequence[int]


def open_calls(book: Ledger, where: Filter, ids: Collection[str]) -> list[OpenCall]:
    """Return the calls with some request ids whose leases have not ended.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """

    def query(connection: Connection, scope: Scope) -> list[OpenCall]:
        e = entries.c
        newest, joined = with_newest_of_lease(e.seq, where.as_of)
        held = [held_of(axis, newest) for axis in AXES if axis.amount is not None]
        asked = (
            select(e.pool_id, e.seq, e.request_id, *held)
            .select_from(joined)
            .where(*scope.conditions, e.request_id.is_not(None), is_open(where.as_of))
            .order_by(e.pool_id, e.seq)
        )
        return [
            OpenCall(request_id, EntryRef(scope.pools[pool_id], seq, seq), held)
            for pool_id, seq, request_id, *held in connection.execute(asked)
            if request_id in ids
        ]

    return snapshot(book, where, query) if ids else []
