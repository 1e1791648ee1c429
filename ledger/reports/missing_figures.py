"""Records of usage that leave out a figure which their pool limits, as corrected by now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    String,
    and_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    text,
)

from ledger.core.axes import AMOUNTS
from ledger.core.entries import EntryFlag
from ledger.core.kinds import FOLLOWS_UP, EntryKind, sql
from ledger.core.values import USAGE_FIELDS
from ledger.reports.filters import TimeBasis
from ledger.reports.scopes import Shape
from ledger.store.schema import entries

_PARTS = tuple(name for name in USAGE_FIELDS if name not in AMOUNTS)
_TOTAL, _COST = "total_tokens", "cost_micros_usd"


def is_unpriced(
    shape: Shape,
    record: FromClause = entries,
    value: Callable[[str], BindParameter[Any]] = bindparam,
) -> ColumnElement[bool]:
    """Return the condition for a record that leaves out a figure which its pool limits.

    The record is flagged, and corrections have not said since what it leaves out
    (`rules.left_out`).

    Args:
        shape: The filter, after whose end no correction counts.
        record: The table that the query selects the record from.
        value: Returns the parameter for a value of the filter, given the value's name.
    """
    flagged = record.c.flags.bitwise_and(int(EntryFlag.UNPRICED)) != 0
    return and_(flagged, ~_is_completed(shape, record, value))


def _is_completed(
    shape: Shape, record: FromClause, value: Callable[[str], BindParameter[Any]]
) -> ColumnElement[bool]:
    r, c = record.c, entries.alias("corrects").c
    corrections: list[Any] = [
        c.pool_id == r.pool_id,
        c.lease == r.lease,
        c.seq > r.seq,
        text(sql(FOLLOWS_UP, "corrects.kind")),  # as the index has it
        c.kind == EntryKind.CORRECTION,
        # Of a lease with several records.
        c.detail.like(literal('%"corrects":') + cast(r.seq, String) + literal(",%")),
    ]
    if "as_of" in shape.asked:
        corrections.append(c.seq <= value("as_of"))
    if shape.basis is TimeBasis.RECORDED and "until" in shape.asked:
        corrections.append(c.recorded_at < value("until"))

    def by_now(name: str) -> ColumnElement[Any]:
        column = f"usage_{name}"
        # A part that is 0 may be NULL.
        return func.coalesce(r[column], 0) + func.coalesce(func.sum(c[column]), 0)

    completed = or_(
        and_(by_now(_TOTAL) != 0, by_now(_COST) != 0),
        and_(*(by_now(name) == 0 for name in (_TOTAL, *_PARTS))),
    )
    found = select(c.lease).where(*corrections).group_by(c.lease).having(completed)
    return found.correlate(record).exists()
