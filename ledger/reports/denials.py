"""What was refused, to whom, what remained, and what a larger capacity would have let in."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select

from ledger import rules
from ledger.book import Ledger
from ledger.checks import from_micros
from ledger.errors import InvalidInputError
from ledger.policy import SharedPoolBudgetOptions
from ledger.records import PoolId, WindowState
from ledger.reports.dimensions import COLUMNS
from ledger.reports.filters import EVERYTHING, Scope, Where, snapshot
from ledger.reports.position import SIDES, TERMS
from ledger.reports.ranks import percentile
from ledger.reports.stream import readable, stream
from ledger.rows import balance_of
from ledger.schema import IS_OF_ENTRY, REFUSES, attributions, entries
from ledger.terms import Terms

_ASKED = ("estimate_total_tokens", "estimate_cost_micros_usd", "detail", "idempotency_key")
_WHO = tuple(COLUMNS.values())
WHO = (*COLUMNS, "reason")
"""What denials can be grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """One denial that was kept.

    Attributes:
        seq: Its entry.
        at: When it happened.
        run_id: The caller's run.
        reason: `threshold` (the pool had not enough left) or `request_budget`.
        requested_tokens: What was asked for.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        remaining_tokens: What remained in the pool; None where the request's own budget refused.
        remaining_cost_micros_usd: The same in millionths of a US dollar.
        idempotency_key: The call's key.
        pool: The pool that was asked.
        refused_by: The pool that had not enough left: that one, or one above it; None where the
            request's own budget refused. What remained is of this one.
        tenant: Who asked, as the four that follow.
        agent: Likewise.
        operation: Likewise.
        provider: Likewise.
        model: Likewise.
        increase_tokens: The smallest increase of the pool's capacity with which this one would
            have been admitted, all else as it was; None where no capacity of its own would have
            helped, because the request's own budget refused, or a pool above.
        increase_cost_micros_usd: The same in millionths of a US dollar; both are needed.
    """

    seq: int
    at: datetime
    run_id: str | None
    reason: str
    requested_tokens: int
    requested_cost_micros_usd: int
    remaining_tokens: int | None
    remaining_cost_micros_usd: int | None
    idempotency_key: str | None = None
    pool: str
    refused_by: str | None = None
    tenant: str | None = None
    agent: str | None = None
    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    increase_tokens: int | None = None
    increase_cost_micros_usd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Increase:
    """How much more capacity would have let denials in, on one axis.

    Attributes:
        half: With this much more, at least half of them, each taken alone and all else as it was.
        most: Likewise, at least nine in ten.
        each: Likewise, each of them.
        all: With this much more, all of them, even if each had then used all that it asked for.
    """

    half: int
    most: int
    each: int
    all: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedGroup:
    """The denials of one pool that have something in common.

    Attributes:
        pool: The pool that was asked.
        group: What they have in common, None where a call named none.
        denials: How many there are.
        by_request_budget: How many of them the request's own budget refused.
        by_pools_above: How many of them a pool above refused. No capacity of this pool would have
            let these in, nor those, and the increases are of the others.
        requested_tokens: What they asked for together.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        first_at: When the first one happened.
        last_at: When the last one happened.
        tokens: How many more tokens would have let them in, None if no capacity would.
        cost_micros_usd: How many more millionths of a US dollar; both are needed.
    """

    pool: str
    group: Mapping[str, str | None]
    denials: int
    by_request_budget: int
    requested_tokens: int
    requested_cost_micros_usd: int
    first_at: datetime
    last_at: datetime
    tokens: Increase | None
    cost_micros_usd: Increase | None
    by_pools_above: int = 0


class _Shortfall(NamedTuple):
    """By how much a pool was short, and in the window that began when."""

    tokens: int
    cost_micros_usd: int
    window: int | None


_Found = tuple[Denied, _Shortfall | None]
"""A denial, and by how much the pool was short, None where no capacity would have helped."""


def denials(book: Ledger, where: Where = EVERYTHING, *, key_prefix: str = "") -> Iterator[Denied]:
    """Yield the denials that were kept, oldest first in each pool, in bounded memory.

    Args:
        book: The books.
        where: Which entries, or the name of a pool.
        key_prefix: Only denials whose idempotency key begins so.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    for one, _shortfall in _stream(book, where):
        if (one.idempotency_key or "").startswith(key_prefix):
            yield one


def denials_by(
    book: Ledger, where: Where = EVERYTHING, *, by: Sequence[str] = ("run",)
) -> list[DeniedGroup]:
    """Return denials by who was refused, the most often refused first, and what would have helped.

    Args:
        book: The books.
        where: Which entries, or the name of a pool.
        by: Any of run, tenant, agent, model, provider, operation and reason. A capacity is a
            pool's, so pools are always apart.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: No such dimension.
        LedgerUnavailableError: The store cannot be read.
    """
    for name in by:
        if name not in WHO:
            raise InvalidInputError("by", f"{name!r} is none of {', '.join(WHO)}")
    groups: dict[tuple[str | None, ...], list[_Found]] = defaultdict(list)
    for found_one in _stream(book, where):
        one = found_one[0]
        place = (getattr(one, COLUMNS.get(name, name)) for name in by)
        groups[one.pool, *place].append(found_one)
    found = [_group(place, list(by), members) for place, members in groups.items()]
    return sorted(found, key=lambda group: -group.denials)


def _stream(book: Ledger, where: Where) -> Iterator[_Found]:
    scope, ends = snapshot(book, where, lambda connection, scope: (scope, _ends(connection, scope)))
    query = _denied(scope)
    for pool_id, end in ends.items():
        pool = scope.pools[pool_id]
        terms = Terms(pool_id, pool)
        of_pool = query.where(entries.c.pool_id == pool_id)
        for row in stream(book, of_pool, after=0, end=end):
            decided = terms.known(row) or book.read(functools.partial(terms.of, row=row))
            with readable(pool, row["seq"]):
                found = _denial(row, *decided, pool)
            yield found


def _ends(connection: Connection, scope: Scope) -> dict[PoolId, int]:
    e = entries.c
    rows = connection.execute(
        select(e.pool_id, func.max(e.seq).label("seq"))
        .where(e.pool_id.in_(scope.pools))
        .group_by(e.pool_id)
        .order_by(e.pool_id)
    )
    return {row.pool_id: row.seq for row in rows}


def _denied(scope: Scope) -> Select[Any]:
    e, a = entries.c, attributions.c
    return (
        select(
            *TERMS,
            *(e[name] for name in (*_ASKED, *SIDES)),
            scope.at.label("at"),
            *(a[name] for name in _WHO),
        )
        .select_from(entries.outerjoin(attributions, IS_OF_ENTRY))
        .where(*scope.conditions, REFUSES)
    )


def _denial(
    row: Mapping[str, Any],
    policy: SharedPoolBudgetOptions,
    window: WindowState | None,
    pool: str,
) -> _Found:
    figures = json.loads(row["detail"])["denial"]
    threshold, own = figures["reason"] == "threshold", "pool" not in figures
    shortfall = _shortfall(row, policy, window) if threshold and own else None
    denied = Denied(
        seq=row["seq"],
        at=from_micros(row["at"]),
        reason=figures["reason"],
        requested_tokens=row["estimate_total_tokens"],
        requested_cost_micros_usd=row["estimate_cost_micros_usd"],
        remaining_tokens=figures.get("remaining_tokens"),
        remaining_cost_micros_usd=figures.get("remaining_cost_micros_usd"),
        idempotency_key=row["idempotency_key"],
        pool=pool,
        refused_by=figures.get("pool", pool) if threshold else None,
        **{name: row[name] for name in _WHO},
        increase_tokens=None if shortfall is None else max(0, shortfall[0]),
        increase_cost_micros_usd=None if shortfall is None else max(0, shortfall[1]),
    )
    return denied, shortfall


def _shortfall(
    row: Mapping[str, Any], policy: SharedPoolBudgetOptions, window: WindowState | None
) -> _Shortfall:
    """Return by how much the capacity was too small on each axis; below 0 there was room.

    By the exact balance: what remains stops at 0, also where the pool is over its capacity.
    """
    used = rules.counted(balance_of(row), window)
    return _Shortfall(
        row["estimate_total_tokens"]
        + policy.stop_threshold_tokens
        + used.tokens
        - policy.capacity_tokens,
        row["estimate_cost_micros_usd"]
        + policy.stop_threshold_cost_micros_usd
        + used.cost_micros_usd
        - policy.capacity_cost_micros_usd,
        window and window.start,
    )


def _group(place: tuple[str | None, ...], by: list[str], members: list[_Found]) -> DeniedGroup:
    pool, *rest = place
    denied = [one for one, _shortfall in members]
    short = [(one, shortfall) for one, shortfall in members if shortfall is not None]
    times = [one.at for one in denied]
    above = sum(one.refused_by not in {None, one.pool} for one in denied)
    return DeniedGroup(
        pool=str(pool),
        group=dict(zip(by, rest, strict=True)),
        denials=len(denied),
        by_request_budget=len(denied) - len(short) - above,
        by_pools_above=above,
        requested_tokens=sum(one.requested_tokens for one in denied),
        requested_cost_micros_usd=sum(one.requested_cost_micros_usd for one in denied),
        first_at=min(times),
        last_at=max(times),
        tokens=_increase([(lack.tokens, one.requested_tokens, lack.window) for one, lack in short]),
        cost_micros_usd=_increase(
            [
                (lack.cost_micros_usd, one.requested_cost_micros_usd, lack.window)
                for one, lack in short
            ]
        ),
    )


def _increase(short: list[tuple[int, int, int | None]]) -> Increase | None:
    """Return the increases for denials in order: how short the pool was, what was asked, and when.

    What had been let in during one window would not have been missing in the next.
    """
    if not short:
        return None
    alone = sorted(max(0, lack) for lack, _requested, _window in short)
    together = admitted = 0
    before = short[0][2]
    for lack, requested, window in short:
        admitted = admitted if window == before else 0
        before = window
        together = max(together, lack + admitted)
        admitted += requested
    return Increase(
        half=percentile(alone, 50), most=percentile(alone, 90), each=alone[-1], all=together
    )
