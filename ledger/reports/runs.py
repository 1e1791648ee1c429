"""What each run cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select

from ledger.book import Ledger
from ledger.checks import from_micros
from ledger.errors import UnknownPoolError
from ledger.model import ESTIMATE_FIELDS
from ledger.records import EntryKind
from ledger.reports.sums import halves, whole
from ledger.schema import attributions, entries, pools

_COUNTED = (
    EntryKind.RESERVATION,
    EntryKind.DENIAL,
    EntryKind.SETTLEMENT,
    EntryKind.RELEASE,
    EntryKind.EXPIRY,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """One run: what was admitted, estimated and used.

    Attributes:
        run_id: The caller's run, None for calls that named none.
        requests: Calls that were admitted.
        denied: Denials that were kept; they are charged nothing.
        open_leases: Admitted calls whose usage is not recorded yet.
        input_tokens: Used, like the three that follow.
        output_tokens: Likewise.
        total_tokens: Likewise.
        cost_micros_usd: Likewise, in millionths of a US dollar.
        estimated_input_tokens: Estimated when the calls were admitted, like the three that follow.
        estimated_output_tokens: Likewise.
        estimated_total_tokens: Likewise.
        estimated_cost_micros_usd: Likewise, in millionths of a US dollar.
        first_at: When its first entry happened.
        last_at: When its last entry happened.
    """

    run_id: str | None
    requests: int
    denied: int
    open_leases: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_micros_usd: int
    estimated_input_tokens: int
    estimated_output_tokens: int
    estimated_total_tokens: int
    estimated_cost_micros_usd: int
    first_at: datetime
    last_at: datetime


def runs(book: Ledger, *, pool: str | None = None) -> list[RunCost]:
    """Return what each run cost, the earliest first.

    Args:
        book: The books.
        pool: Only this pool; without it all of them together.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    e, a = entries.c, attributions.c
    at = func.coalesce(e.occurred_at, e.recorded_at)
    reserved = e.kind == EntryKind.RESERVATION
    query = (
        select(
            a.run_id,
            func.sum(case((reserved, 1), else_=0)).label("requests"),
            func.sum(case((e.kind == EntryKind.DENIAL, 1), else_=0)).label("denied"),
            func.sum(
                case((e.kind.in_([EntryKind.SETTLEMENT, EntryKind.RELEASE]), 1), else_=0)
            ).label("ended"),
            func.min(at).label("first_at"),
            func.max(at).label("last_at"),
            *(
                half
                for name in ESTIMATE_FIELDS
                for half in (
                    *halves(name, e[f"usage_{name}"]),
                    *halves(f"estimated_{name}", case((reserved, e[f"estimate_{name}"]), else_=0)),
                )
            ),
        )
        .select_from(
            entries.outerjoin(
                attributions,
                (a.pool_id == e.pool_id) & (a.attribution_id == e.attribution_id),
            )
        )
        .where(e.origin_seq.is_(None), e.kind.in_(_COUNTED))
        .group_by(a.run_id)
        .order_by("first_at", a.run_id)
    )
    if pool is not None:
        known = {info.name for info in book.pools()}
        if pool not in known:
            raise UnknownPoolError(pool, known=sorted(known))
        query = query.where(
            e.pool_id == select(pools.c.pool_id).where(pools.c.name == pool).scalar_subquery()
        )
    found = book.read(lambda connection: connection.execute(query).all())
    return [
        RunCost(
            run_id=row.run_id,
            requests=int(row.requests),
            denied=int(row.denied),
            open_leases=int(row.requests - row.ended),
            **{name: whole(row, name) for name in ESTIMATE_FIELDS},
            **{f"estimated_{name}": whole(row, f"estimated_{name}") for name in ESTIMATE_FIELDS},
            first_at=from_micros(row.first_at),
            last_at=from_micros(row.last_at),
        )
        for row in found
    ]
