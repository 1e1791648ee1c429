"""The report on denials: what was refused, what remained, and how much was missing."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, select

from ledger.core.axes import NAMES
from ledger.core.checks import check_several, from_micros
from ledger.core.entries import PoolId, WindowState
from ledger.core.errors import InvalidInputError, JournalDamagedError, LeftOut
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.ledger import Ledger
from ledger.reports.dimensions import DIMENSION_COLUMNS
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.increases import Increase, Lack, Shortfall, increase, shortfall_of
from ledger.reports.position import SIDES
from ledger.reports.refusals import REFUSAL_COLUMNS, refusal_of
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.stream import ends, stream, unreadable
from ledger.store.columns import Columns
from ledger.store.policies import Terms
from ledger.store.pools import leave_out
from ledger.store.rows import UNREADABLE, Row, detail_of
from ledger.store.schema import IS_OF_ENTRY, REFUSES, attributions, entries

_DECIDED = (
    "seq",
    "policy_seq",
    "window_seq",
    *REFUSAL_COLUMNS,
    "detail",
)
_COLUMNS = Columns(entries, (*_DECIDED, *SIDES))
_WHO = tuple(DIMENSION_COLUMNS.values())
WHO = (*DIMENSION_COLUMNS, "reason")
"""The dimensions by which denials can be grouped."""
_THRESHOLD = "threshold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """One denial that was kept.

    Attributes:
        seq: The number of its entry.
        at: When it happened.
        run_id: The caller's run.
        reason: `threshold` (the pool had not enough left) or `request_budget`.
        requested_tokens: What was asked for.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        remaining_tokens: What remained in the pool; None if it had no limit, or the request's own
            budget refused.
        remaining_cost_micros_usd: The same in millionths of a US dollar.
        idempotency_key: The call's key.
        request_id: The id that the call named. For a budgeted client's call it is `call-` and the
            text after `ledger-denial-` in the error.
        pool: The pool that was asked.
        refused_by: The pool that had not enough left: `pool` or one above it. The remaining
            amounts are those of this pool. None if the request's own budget refused.
        tenant: The tenant that the call named.
        agent: The agent that the call named.
        operation: The operation that the call named.
        provider: The provider that the call named.
        model: The model that the call named.
        increase_tokens: The smallest increase of the pool's capacity, or the smallest top-up if its
            credits refused, with which this call would have been admitted, all else unchanged. None
            if the request's own budget or a pool above refused, since more capacity of this pool
            would not have helped.
        increase_cost_micros_usd: The same in millionths of a US dollar; each axis must grow.
        remaining_requests: How many calls remained in the pool, None as for `remaining_tokens`.
        increase_requests: The smallest increase of the number of calls, as `increase_tokens`.
        limit: The limit that refused, to which the remaining amounts belong; None if the pool's own
            capacity refused. If a limit refused, more capacity would not have helped.
        retry_at: When the call would have been admitted if nothing else had happened; None for
            never.
        held_by_leases: Whether open leases held what was missing, where `retry_at` is None.
        too_large: Whether the call would never have fitted, with nothing spent or held either.
        refusal: What refused it, in words: `capacity, USD`, `limit rate of org, requests` and so
            on; of another pool than `pool` with its name.
        by_credits: Whether the credits of a prepaid pool refused.
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
    request_id: str | None = None
    pool: str
    refused_by: str | None = None
    tenant: str | None = None
    agent: str | None = None
    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    increase_tokens: int | None = None
    increase_cost_micros_usd: int | None = None
    remaining_requests: int | None = None
    increase_requests: int | None = None
    limit: str | None = None
    retry_at: datetime | None = None
    by_credits: bool = False
    held_by_leases: bool = False
    too_large: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedGroup:
    """The denials of one pool that have something in common.

    Attributes:
        pool: The pool that was asked.
        group: The value of each dimension that they share, None if a call named none.
        denials: How many there are.
        by_request_budget: How many of them the request's own budget refused.
        by_pools_above: How many of them a pool above refused. The increases leave out these,
            `by_limits` and `by_request_budget`: more capacity of this pool would not have helped.
        requested_tokens: What they asked for together.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        first_at: When the first one happened.
        last_at: When the last one happened.
        tokens: How many more tokens of capacity or credits would have admitted them; None if
            neither would.
        cost_micros_usd: How many more millionths of a US dollar; each axis must grow.
        requests: How many more calls.
        by_limits: How many of them a limit of the pool refused.
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
    requests: Increase | None = None
    by_limits: int = 0


class _Found(NamedTuple):
    """A denial as it is stored.

    Attributes:
        pool: The pool that was asked.
        row: Its columns.
        figures: What its detail says.
        shortfall: By how much the pool was short; None if no capacity would have helped.
    """

    pool: str
    row: Row
    figures: Mapping[str, Any]
    shortfall: Shortfall | None

    @property
    def reason(self) -> str:
        """Why it was refused."""
        return str(self.figures["reason"])

    @property
    def refused_by(self) -> str | None:
        """The pool that had not enough left."""
        return self.figures.get("pool", self.pool) if self.reason == _THRESHOLD else None


def denials(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    keys: Collection[str] | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Denied]:
    """Yield the denials in the journal, oldest first in each pool, in bounded memory.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        keys: Only denials with one of these idempotency keys.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    for found in _stream(book, where, [*_WHO, "idempotency_key", "request_id"], left_out):
        if keys is None or found.row["idempotency_key"] in keys:
            yield _denial(found)


def denials_by(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    by: Sequence[str] = ("run",),
    left_out: LeftOut | None = None,
) -> list[DeniedGroup]:
    """Return denials in groups, the largest first, with the increases that would have helped.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        by: Any of run, tenant, agent, model, provider, operation and reason. Pools are always
            separate groups, since each has its own capacity.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: No such dimension.
        LedgerUnavailableError: The store cannot be read.
    """
    check_several("by", by)
    for name in by:
        if name not in WHO:
            raise InvalidInputError("by", f"{name!r} is none of {', '.join(WHO)}")
    columns = [DIMENSION_COLUMNS.get(name) for name in by]  # None, since the reason is no column
    groups: dict[tuple[str, tuple[str | None, ...]], _Tally] = defaultdict(_Tally)
    asked = [name for name in columns if name is not None]
    for found in _stream(book, where, asked, left_out):
        row = found.row
        who = tuple([found.reason if name is None else row[name] for name in columns])
        groups[found.pool, who].add(found)
    counted = [
        tally.group(pool, dict(zip(by, who, strict=True))) for (pool, who), tally in groups.items()
    ]
    return sorted(counted, key=lambda group: -group.denials)


def _stream(
    book: Ledger, where: Where, more: Sequence[str], left_out: LeftOut | None
) -> Iterator[_Found]:
    """Yield denials with the columns `more` and those from which the figures are computed.

    A damaged pool is left out from its first bad entry on.
    """
    scope, last = snapshot(
        book, where, lambda connection, scope: (scope, ends(connection, scope)), left_out=left_out
    )
    query = _denied(scope, more)
    for pool_id, end in last.items():
        of_pool = query.where(entries.c.pool_id == pool_id)
        rows = stream(book, of_pool, after=0, end=end)
        try:
            yield from _of_pool(book, pool_id, scope.pools[pool_id], rows)
        except JournalDamagedError as error:
            leave_out([error], None if scope.where.pools else left_out)


def _of_pool(book: Ledger, pool_id: PoolId, pool: str, rows: Iterable[Row]) -> Iterator[_Found]:
    terms = Terms(pool_id, pool)
    for row in rows:
        try:
            _COLUMNS.check(row)
            from_micros(row["at"])
            decided = terms.known(row) or book.read(functools.partial(terms.of, row=row))
            found = _found(pool, row, decided.policy, decided.window)
        except JournalDamagedError:
            raise
        except UNREADABLE as error:
            raise unreadable(pool, row["seq"], error) from error
        yield found


def _denied(scope: Scope, more: Sequence[str]) -> Select[Any]:
    e, a = entries.c, attributions.c
    return (
        select(
            *(e[name] for name in (*_DECIDED, *SIDES)),
            scope.at.label("at"),
            *((a if name in a else e)[name] for name in more),
        )
        .select_from(entries.outerjoin(attributions, IS_OF_ENTRY))
        .where(*scope.conditions, REFUSES)
    )


def _found(
    pool: str, row: Row, policy: SharedPoolBudgetOptions, window: WindowState | None
) -> _Found:
    figures = detail_of(row)["denial"]
    own = figures["reason"] == _THRESHOLD and not figures.keys() & {"pool", "limit"}
    short = shortfall_of(row, policy, window, figures.get("top_up")) if own else None
    return _Found(pool, row, figures, short)


def _denial(found: _Found) -> Denied:
    pool, row, figures, shortfall = found
    retry_at = figures.get("retry_at")
    return Denied(
        seq=row["seq"],
        at=from_micros(row["at"]),
        reason=found.reason,
        requested_tokens=row["estimate_total_tokens"],
        requested_cost_micros_usd=row["estimate_cost_micros_usd"],
        **{f"remaining_{name}": figures.get(f"remaining_{name}") for name in NAMES},
        idempotency_key=row["idempotency_key"],
        request_id=row["request_id"],
        pool=pool,
        refused_by=found.refused_by,
        **{name: row[name] for name in _WHO},
        **{
            f"increase_{name}": None if shortfall is None else max(0, getattr(shortfall.lack, name))
            for name in NAMES
        },
        limit=figures.get("limit"),
        retry_at=None if retry_at is None else from_micros(retry_at),
        by_credits="top_up" in figures,
        held_by_leases=figures.get("held_by_leases", False),
        too_large=figures.get("too_large", False),
        refusal=refusal_of(row, figures),
    )


class _Tally:
    """Collects the denials of one group, in the order of entries."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._tokens: list[int] = []
        self._cost: list[int] = []
        self._by_request_budget = 0
        self._by_pool = self._by_limit = 0
        self._short: dict[str, list[Lack]] = {name: [] for name in NAMES}

    def add(self, found: _Found) -> None:
        """Count one more."""
        row = found.row
        tokens, cost = row["estimate_total_tokens"], row["estimate_cost_micros_usd"]
        self._times.append(row["at"])
        self._tokens.append(tokens)
        self._cost.append(cost)
        short = found.shortfall
        if short is not None:
            for name, of_axis in self._short.items():
                asked = getattr(short.asked, name)
                of_axis.append((getattr(short.lack, name), asked, short.window))
            self._by_pool += 1
        elif found.reason != _THRESHOLD:
            self._by_request_budget += 1
        elif found.refused_by == found.pool:
            self._by_limit += 1

    def group(self, pool: str, group: Mapping[str, str | None]) -> DeniedGroup:
        """Return the group as a row of the report."""
        denials = len(self._times)
        return DeniedGroup(
            pool=pool,
            group=group,
            denials=denials,
            by_request_budget=self._by_request_budget,
            by_pools_above=denials - self._by_request_budget - self._by_pool - self._by_limit,
            by_limits=self._by_limit,
            requested_tokens=sum(self._tokens),
            requested_cost_micros_usd=sum(self._cost),
            first_at=from_micros(min(self._times)),
            last_at=from_micros(max(self._times)),
            **{name: increase(of_axis) for name, of_axis in self._short.items()},
        )
