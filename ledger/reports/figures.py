"""The figures of all reports, and the one query that computes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    select,
    text,
)

from ledger.core.axes import AMOUNTS
from ledger.core.checks import from_micros
from ledger.core.entries import EntryFlag
from ledger.core.kinds import (
    CORRECTABLE,
    COUNTED_ALONE,
    COUNTED_AS,
    ENDS_LEASE,
    LEAVES_OPEN,
    EntryKind,
    sql,
)
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS, Provenance
from ledger.reports.missing_figures import is_unpriced
from ledger.reports.scopes import Scope, Shape
from ledger.reports.sums import Sums, summed, whole
from ledger.store.schema import attributions, entries

PROVENANCES = tuple(str(provenance) for provenance in Provenance)
_SPLIT = AMOUNTS
"""The amounts that are also reported by provenance."""

Label = Callable[[Any], ColumnElement[Any]]
"""Returns the column to group by, given the columns of the innermost query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The totals of some entries.

    Usage is counted from every entry that records usage: settlements, observed attempts, expiries
    that are charged, imports, and corrections (which may be negative). Cache and reasoning tokens
    are included in input and output tokens.

    Attributes:
        requests: Calls that were admitted.
        denied: Denials that were kept; they are charged nothing.
        open_leases: Admitted calls that have not ended.
        input_tokens: Input tokens that were used.
        output_tokens: Output tokens that were used.
        total_tokens: All tokens that were used.
        cost_micros_usd: What was spent, in millionths of a US dollar.
        estimated_input_tokens: Input tokens estimated when the calls were admitted.
        estimated_output_tokens: Output tokens estimated when the calls were admitted.
        estimated_total_tokens: All tokens estimated when the calls were admitted.
        estimated_cost_micros_usd: The cost estimated when the calls were admitted, in millionths of
            a US dollar.
        first_at: When the first entry happened, None if there is none.
        last_at: When the last entry happened, None if there is none.
        attempts: Entries that record what an attempt used: settlements, observations and imports.
        releases: Calls that were closed unused.
        expiries: Holds that ended by time-out; what they assume is in the amounts.
        late: Attempts that were recorded after the hold had expired.
        corrections: Entries that correct earlier ones.
        imports: Calls of the past that were imported.
        unpriced: Attempts, and charges that expiry assumed, that leave out a figure which their
            pool limits: tokens without a cost, or parts without a total. Their real cost is not in
            these figures: those that a correction completed do not count.
        cache_creation_tokens: Input tokens that were written to the provider's cache.
        cache_read_tokens: Input tokens that were read from the provider's cache.
        reasoning_tokens: Output tokens that were used for reasoning.
        total_tokens_reported: The part of `total_tokens` that a provider reported; the parts of
            the four provenances add up to it.
        total_tokens_recovered: The part that was recovered later.
        total_tokens_estimated: The part that was estimated.
        total_tokens_unknown: The part of unknown provenance.
        cost_micros_usd_reported: The part of `cost_micros_usd` that a provider reported.
        cost_micros_usd_recovered: The part that was recovered later.
        cost_micros_usd_estimated: The part that was estimated.
        cost_micros_usd_unknown: The part of unknown provenance.
    """

    requests: int = 0
    denied: int = 0
    open_leases: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros_usd: int = 0
    estimated_input_tokens: int = 0
    estimated_output_tokens: int = 0
    estimated_total_tokens: int = 0
    estimated_cost_micros_usd: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    attempts: int = 0
    releases: int = 0
    expiries: int = 0
    late: int = 0
    corrections: int = 0
    imports: int = 0
    unpriced: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens_reported: int = 0
    total_tokens_recovered: int = 0
    total_tokens_estimated: int = 0
    total_tokens_unknown: int = 0
    cost_micros_usd_reported: int = 0
    cost_micros_usd_recovered: int = 0
    cost_micros_usd_estimated: int = 0
    cost_micros_usd_unknown: int = 0


_FIGURES = tuple(part.name for part in fields(Figures))
SUMMED = tuple(name for name in _FIGURES if name not in {"first_at", "last_at"})
"""The figures that add up."""


def added(parts: Iterable[Figures]) -> dict[str, Any]:
    """Return the figures of several parts added up, by name, and the earliest and latest time."""
    known = list(parts)
    if len(known) == 1:
        return {name: getattr(known[0], name) for name in _FIGURES}
    firsts = [part.first_at for part in known if part.first_at is not None]
    lasts = [part.last_at for part in known if part.last_at is not None]
    return {
        **{name: sum(getattr(part, name) for part in known) for name in SUMMED},
        "first_at": min(firsts, default=None),
        "last_at": max(lasts, default=None),
    }


AsOf = ColumnElement[int] | int | None
"""The last entry that counts, a parameter for it, or None without a limit."""


def is_open(as_of: AsOf) -> ColumnElement[bool]:
    """Return the condition for a reservation with a lease that has not ended, or not by `as_of`."""
    _end, is_end = _end_of_lease(as_of)
    # SQLite plans a statement again for each value of a parameter on which a partial index depends.
    return and_(text(sql([EntryKind.RESERVATION], "entries.kind")), ~exists().where(is_end))


def has_expired(as_of: AsOf) -> ColumnElement[bool]:
    """Return the condition for a reservation whose lease has an expiry, or had one by `as_of`."""
    expiry = entries.alias("expiry")
    return exists().where(
        expiry.c.pool_id == entries.c.pool_id,
        expiry.c.lease == entries.c.seq,
        text(sql([EntryKind.EXPIRY], "expiry.kind")),
        *([] if as_of is None else [expiry.c.seq <= as_of]),
    )


def aggregate(
    connection: Connection, scope: Scope, labels: Sequence[Label], *, grain_us: int | None = None
) -> list[Any]:
    """Return the figures of the entries in scope by group: rows of `label_0`, ... and figures.

    Args:
        connection: A snapshot.
        scope: Which entries.
        labels: What to group by; nothing gives one row.
        grain_us: Group by pieces of time of this many microseconds as well: the column `grain` is
            where a piece begins.
    """
    query = functools.partial(_query, scope.shape, tuple(labels), grained=grain_us is not None)
    values = scope.values if grain_us is None else {**scope.values, "grain_us": grain_us}
    return list(summed(connection, query, values))


@functools.lru_cache(maxsize=128)
def _query(shape: Shape, labels: tuple[Label, ...], sums: Sums, *, grained: bool) -> Select[Any]:
    """Return the query of figures; its parameters are the values of a filter of this shape.

    Entries are first summed by kind and provenance, and with labels also by pool and attribution.
    Only the few resulting rows are joined to the texts and tags of attributions.
    """
    a = attributions.c
    parts = _parts(shape, sums, grained=grained, attributed=bool(labels))
    chosen = [label(parts.c).label(f"label_{number}") for number, label in enumerate(labels)]
    if grained:
        chosen.append(parts.c.grain.label("grain"))
    return (
        select(
            *chosen,
            *_folded(parts, sums),
            func.min(parts.c.first_at).label("first_at"),
            func.max(parts.c.last_at).label("last_at"),
        )
        .select_from(
            parts.outerjoin(
                attributions,
                (a.pool_id == parts.c.pool_id) & (a.attribution_id == parts.c.attribution),
            )
            if labels
            else parts
        )
        .group_by(*(text(column.name) for column in chosen))
    )


def _parts(shape: Shape, sums: Sums, *, grained: bool, attributed: bool) -> Subquery:
    """Return the entries of a shape, summed before texts and tags are joined; see `_query`."""
    e, at = entries.c, shape.at
    as_of: AsOf = bindparam("as_of") if "as_of" in shape.asked else None
    end, is_end = _end_of_lease(as_of)
    # The keys are not in the order of an index, or SQLite would scan that whole index to avoid a
    # sort.
    keys: list[ColumnElement[Any]] = [e.kind, e.provenance]
    columns = list(keys)
    # A call counts with its cost under the attribution of its end, which may name another model.
    named = case((end.c.seq.is_(None), e.attribution_id), else_=end.c.attribution_id)
    # Only for filters that need it, since the entries' own attribution is in an index.
    compared = named if shape.reported else e.attribution_id
    if attributed:
        keys += [e.pool_id, literal_column("attribution")]
        columns += [e.pool_id, named.label("attribution")]
    if grained:
        grain = bindparam("grain_us", type_=BigInteger())
        # SQL's % has the sign of the dividend, so a time before 1970 would be rounded up.
        columns.append((at - ((at % grain) + grain) % grain).label("grain"))
    late = e.flags.bitwise_and(int(EntryFlag.LATE)) != 0
    return (
        select(
            *columns,
            func.count().label("entries"),
            func.sum(case((late, 1), else_=0)).label("late"),
            func.sum(case((is_unpriced(shape), 1), else_=0)).label("unpriced"),
            func.sum(case((end.c.seq.is_(None), 1), else_=0)).label("open"),
            *(part for name in USAGE_FIELDS for part in sums.of(name, e[f"usage_{name}"])),
            *(
                part
                for name in ESTIMATE_FIELDS
                for part in sums.of(f"estimated_{name}", e[f"estimate_{name}"])
            ),
            func.min(at).label("first_at"),
            func.max(at).label("last_at"),
        )
        .select_from(entries.outerjoin(end, is_end))
        .where(
            *shape.conditions(attribution=compared),
            e.kind.in_(COUNTED_ALONE) | e.usage_total_tokens.is_not(None),
        )
        .group_by(*keys, *([text("grain")] if grained else []))
        .subquery("parts")
    )


def _end_of_lease(as_of: AsOf) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the entry that ends the lease of a reservation or observation, and its join."""
    end = entries.alias("lease_end")
    found: list[Any] = [
        text(sql(LEAVES_OPEN, "entries.kind")),
        end.c.pool_id == entries.c.pool_id,
        end.c.lease == entries.c.lease,
        text(sql(ENDS_LEASE, "lease_end.kind")),
    ]
    if as_of is not None:
        found.append(end.c.seq <= as_of)
    return end, and_(*found)


def _folded(parts: Subquery, sums: Sums) -> Sequence[ColumnElement[Any]]:
    """Return the figures, summed over the parts by kind and provenance."""
    c = parts.c
    reserved = c.kind == EntryKind.RESERVATION
    attempted = c.kind.in_(CORRECTABLE)
    counts = {
        **{name: (c.kind == kind, c.entries) for name, kind in COUNTED_AS.items()},
        "open_leases": (reserved, c.open),
        "attempts": (attempted, c.entries),
        "late": (attempted, c.late),
        # A reservation itself is not charged; its expiry may be.
        "unpriced": (~reserved, c.unpriced),
    }
    amounts: dict[str, tuple[str, ColumnElement[bool]]] = {
        **{name: (name, c.kind.is_not(None)) for name in USAGE_FIELDS},
        **{f"estimated_{name}": (f"estimated_{name}", reserved) for name in ESTIMATE_FIELDS},
        **{
            f"{amount}_{provenance}": (amount, c.provenance == provenance)
            for amount in _SPLIT
            for provenance in PROVENANCES[:-1]
        },
    }
    return [
        *(
            func.coalesce(func.sum(case((wanted, value), else_=0)), 0).label(name)
            for name, (wanted, value) in counts.items()
        ),
        *(
            part
            for name, (source, wanted) in amounts.items()
            for part in sums.again(name, c, source, wanted)
        ),
    ]


def figures_in(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row has the columns of its query
    """Return the figures of a row of `aggregate`, by name."""
    found = {name: int(getattr(row, name)) for name in _COUNTS}
    found |= {name: whole(row, name) for name in _AMOUNTS}
    for amount in _SPLIT:
        known = sum(found[f"{amount}_{provenance}"] for provenance in PROVENANCES[:-1])
        found[f"{amount}_unknown"] = found[amount] - known
    return {
        **found,
        "first_at": None if row.first_at is None else from_micros(row.first_at),
        "last_at": None if row.last_at is None else from_micros(row.last_at),
    }


_COUNTS = (*COUNTED_AS, "open_leases", "attempts", "late", "unpriced")
_AMOUNTS = (
    *USAGE_FIELDS,
    *(f"estimated_{name}" for name in ESTIMATE_FIELDS),
    *(f"{amount}_{provenance}" for amount in _SPLIT for provenance in PROVENANCES[:-1]),
)
