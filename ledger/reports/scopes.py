"""Filters on one snapshot: the one place that builds the WHERE clause of a report."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, bindparam, func, select, tuple_

from ledger.core.checks import check_type, to_micros
from ledger.core.entries import EntryFlag, PoolId, PoolInfo
from ledger.core.errors import InvalidInputError, JournalDamagedError, LeftOut, UnknownPoolError
from ledger.ledger import Ledger
from ledger.reports.filters import ATTRIBUTED, Filter, PoolState, TimeBasis, Where
from ledger.store.damage import FAILS, find_damage, not_a_number
from ledger.store.dialects.expressions import tag_value
from ledger.store.pools import closed_pools, find_lines, find_pools, leave_out, newest_seqs
from ledger.store.schema import attributions, entries, pools

T = TypeVar("T")

UNPRICED_ENTRY = entries.c.flags.bitwise_and(int(EntryFlag.UNPRICED)) != 0
"""The condition for an entry that leaves out a figure which its pool limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A filter without its values. Filters of one shape have the same WHERE clause.

    Queries are cached by shape. SQLAlchemy takes longer to build a query than the database takes
    to look up a run, a day or a balance: ten times as long for a run (docs/performance.md).

    Attributes:
        asked: The names of the values that an entry is compared with.
        tags: The names of the tags among them; their values are `tag_0`, `tag_1` and so on.
        basis: Which time counts.
        mirrors: Whether mirrors of other pools' entries count, too.
    """

    asked: frozenset[str]
    tags: tuple[str, ...] = ()
    basis: TimeBasis = TimeBasis.OCCURRED
    mirrors: bool

    @property
    def at(self) -> ColumnElement[int]:
        """The time of an entry that counts."""
        e = entries.c
        if self.basis is TimeBasis.RECORDED:
            return e.recorded_at
        return func.coalesce(e.occurred_at, e.recorded_at)

    @property
    def reported(self) -> bool:
        """Whether a compared value may differ between a request and its answer."""
        return bool(self.tags or self.asked & {"model", "provider"})

    def conditions(
        self,
        value: Callable[[str], BindParameter[Any]] = bindparam,
        attribution: ColumnElement[Any] = entries.c.attribution_id,
    ) -> list[ColumnElement[bool]]:
        """Return the conditions that an entry must fulfil.

        Args:
            value: Returns the parameter for a value, given the value's name.
            attribution: The number of the attribution that an entry counts under.
        """
        e, asked = entries.c, self.asked
        found: list[ColumnElement[bool]] = []
        if "pools" in asked:
            found.append(e.pool_id.in_(value("pools")))
        elif asked & {"since", "until"}:
            # All pools are listed, since the index of times begins with the pool.
            found.append(e.pool_id.in_(select(pools.c.pool_id)))
        if not self.mirrors:
            found.append(e.origin_seq.is_(None))
        if "as_of" in asked:
            found.append(e.seq <= value("as_of"))
        if "since" in asked:
            found.append(self.at >= value("since"))
        if "until" in asked:
            found.append(self.at < value("until"))
        return found + self._attributed(value, attribution)

    def _attributed(
        self, value: Callable[[str], BindParameter[Any]], attribution: ColumnElement[Any]
    ) -> list[ColumnElement[bool]]:
        a = attributions.c
        wanted: list[ColumnElement[bool]] = [
            a[name] == value(name) for name in ATTRIBUTED if name in self.asked
        ]
        wanted += [
            tag_value(a.tags, name) == value(f"tag_{number}")
            for number, name in enumerate(self.tags)
        ]
        if not wanted:
            return []
        # There are few attributions and many entries, so the attributions are looked up first.
        found: Any = select(a.pool_id, a.attribution_id).where(*wanted)
        return [tuple_(entries.c.pool_id, attribution).in_(found)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A filter with the pools and values that were looked up for it in one snapshot.

    Attributes:
        where: The filter.
        pools: The names of the pools that it selects, by their numbers.
        shape: The shape of its query.
        values: The values of the query's parameters, by their names in the shape.
        infos: The pools that were looked up, a parent before its children: the selected ones, all
            above them, and maybe others.
        newest: Filled with the newest entry of each pool that is read, by the pool's number.
    """

    where: Filter
    pools: Mapping[PoolId, str]
    shape: Shape
    values: Mapping[str, Any]
    infos: Sequence[PoolInfo]
    newest: dict[PoolId, int] = field(default_factory=dict)

    @property
    def pool(self) -> PoolId:
        """The pool, if the report is about exactly one."""
        (pool_id,) = self.pools
        return pool_id

    @property
    def at(self) -> ColumnElement[int]:
        """The time of an entry that counts."""
        return self.shape.at

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions that an entry must fulfil, with their values."""
        return self.shape.conditions(self.value)

    def value(self, name: str) -> BindParameter[Any]:
        """Return the parameter for a value of the filter, with the value."""
        return bindparam(name, self.values[name])

    def between(self, since: int, until: int) -> Scope:
        """Return this scope from `since` on and before `until`, microseconds since 1970."""
        return replace(
            self,
            shape=replace(self.shape, asked=self.shape.asked | {"since", "until"}),
            values={**self.values, "since": since, "until": until},
        )

    def name(self, pool_id: PoolId) -> str:
        """Return a pool's name, or the name that `verify` uses for entries without a pool."""
        return self.pools.get(pool_id, f"(pool {pool_id})")

    def without(self, damaged: Collection[PoolId]) -> Scope:
        """Return this scope without these pools."""
        rest = {pool_id: self.pools[pool_id] for pool_id in self.pools if pool_id not in damaged}
        return replace(
            self,
            pools=rest,
            shape=replace(self.shape, asked=self.shape.asked | {"pools"}),
            values={**self.values, "pools": list(rest)},
        )

    def whole(self, pool_id: PoolId) -> Scope:
        """Return the scope of one pool's entries, all of them up to the filter's `as_of`."""
        return self.of(pool_id, self.pools[pool_id])

    def of(self, pool_id: PoolId, name: str) -> Scope:
        """Return the same scope of a pool that may be another one."""
        values: dict[str, Any] = {"pools": [pool_id]}
        if self.where.as_of is not None:
            values["as_of"] = self.values["as_of"]
        return replace(
            self,
            pools={pool_id: name},
            shape=Shape(asked=frozenset(values), basis=self.where.basis, mirrors=True),
            values=values,
        )


def snapshot(
    book: Ledger,
    where: Where,
    query: Callable[[Connection, Scope], T],
    *,
    mirrors: bool = False,
    left_out: LeftOut | None = None,
    named: bool = False,
) -> T:
    """Run a report's query on one snapshot; if it fails, again without the damaged pools.

    Args:
        book: The store.
        where: Which entries.
        query: Called with the connection and the scope of the filter.
        mirrors: Whether mirrors of other pools' entries count, too, for reports about one pool's
            balance.
        left_out: A list that gets the error of each pool that is left out, if no pool is named.
            Without it the first of these errors is raised.
        named: Whether damaged pools are left out even if they are named.

    Raises:
        JournalDamagedError: A pool cannot be read.
        UnknownPoolError: There is no such pool.
        InvalidInputError: `as_of` is an entry that the pool does not have yet; an argument of
            another type.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("book", book, Ledger)
    chosen = Filter(pools=[where]) if isinstance(where, str) else where
    check_type("where", chosen, Filter)
    named = named and left_out is not None
    wanted = left_out if named or not chosen.pools else None
    scopes: list[Scope] = []

    def run(connection: Connection) -> tuple[T, LeftOut]:
        scope, damaged = _looked_up(connection, chosen, mirrors=mirrors, named=named)
        leave_out(damaged, [] if wanted is not None else None)
        scopes[:] = [scope]
        return query(connection, scope), damaged

    began_s = time.monotonic()
    try:
        answer, unnamed = book.read(run)
    except FAILS as error:
        if not scopes:
            raise
        answer, unnamed = _without_damaged(book, scopes[0], query, wanted, error)
    newest = scopes[0].newest
    book.saw(
        [(one, newest[one.pool_id]) for one in scopes[0].infos if one.pool_id in newest], began_s
    )
    leave_out(unnamed, wanted)
    return answer


def _without_damaged(
    book: Ledger,
    scope: Scope,
    query: Callable[[Connection, Scope], T],
    left_out: LeftOut | None,
    error: Exception,
) -> tuple[T, LeftOut]:
    """Run a failed query again, without the damaged pools that made it fail."""
    lost: LeftOut = []
    # One search finds unreadable pools. Entries that contradict each other are found only by the
    # query, whose error names the pool.
    damaged = book.read(lambda connection: find_damage(connection, scope.pools))
    while True:
        if isinstance(error, JournalDamagedError):
            numbers = {name: pool_id for pool_id, name in scope.pools.items()}
            if error.pool in numbers:
                damaged.setdefault(numbers[error.pool], error)
        if not damaged:
            raise error
        if left_out is None:
            raise next(iter(damaged.values())) from error
        lost += damaged.values()
        scope, damaged = scope.without(damaged), {}
        try:
            return book.read(functools.partial(_called, query, scope)), lost
        except FAILS as another:
            error = another


def _called(query: Callable[[Connection, Scope], T], scope: Scope, connection: Connection) -> T:
    return query(connection, scope)


def scope_of(connection: Connection, where: Filter, *, mirrors: bool) -> Scope:
    """Look a filter up in a snapshot; see `snapshot`."""
    return _looked_up(connection, where, mirrors=mirrors)[0]


def _looked_up(
    connection: Connection, where: Filter, *, mirrors: bool, named: bool = False
) -> tuple[Scope, LeftOut]:
    """Look a filter up; also return the errors of damaged pools, which are left out."""
    infos, chosen, damaged = _pools(connection, where, named=named)
    values: dict[str, Any] = {
        name: given for name in ATTRIBUTED if (given := getattr(where, name)) is not None
    }
    values |= {f"tag_{number}": given for number, given in enumerate(where.tags.values())}
    if where.pools or where.narrowed or damaged:
        values["pools"] = list(chosen)
    if where.as_of is not None:
        (pool_id,) = chosen
        values["as_of"] = _checked_as_of(connection, pool_id, chosen[pool_id], where.as_of)
    for name, at in (("since", where.since), ("until", where.until)):
        if at is not None:
            values[name] = to_micros(name, at)
    shape = Shape(
        asked=frozenset(values), tags=tuple(where.tags), basis=where.basis, mirrors=mirrors
    )
    return Scope(where=where, pools=chosen, shape=shape, values=values, infos=infos), damaged


def _pools(
    connection: Connection, where: Filter, *, named: bool
) -> tuple[list[PoolInfo], dict[PoolId, str], LeftOut]:
    """Return pools, those that a filter selects, and the errors of damaged ones."""
    # Only the named pools are read, since a store may hold many.
    few = where.pools and not where.descendants and where.parent is None
    infos, damaged = (
        find_lines(connection, pools.c.name, where.pools) if few else find_pools(connection)
    )
    ids = {info.name: info.pool_id for info in infos}
    broken = {error.pool: error for error in damaged.values()}
    above = [] if where.parent is None else [where.parent]
    for name in (*where.pools, *above):
        if name in broken and not (named and name in where.pools):
            raise broken[name]
        if name not in broken and name not in ids:
            raise UnknownPoolError(name)
    chosen = {ids[name] for name in where.pools if name not in broken}
    if where.descendants:
        for info in infos:  # a parent comes before its children
            if info.parent_id in chosen:
                chosen.add(info.pool_id)
    wanted = [info for info in infos if not where.pools or info.pool_id in chosen]
    if where.parent is not None:
        wanted = [info for info in wanted if info.parent_id == ids[where.parent]]
    if where.matching is not None:
        wanted = [info for info in wanted if fnmatchcase(info.name, where.matching)]
    if where.state not in {None, PoolState.ALL}:
        closed = closed_pools(connection)
        sought = where.state is PoolState.CLOSED
        wanted = [info for info in wanted if (info.pool_id in closed) is sought]
    # The place of a damaged pool is not known; it may be below a named pool.
    every = where.descendants or not where.pools
    lost = [error for error in damaged.values() if every or error.pool in where.pools]
    return infos, {info.pool_id: info.name for info in wanted}, lost


def _checked_as_of(connection: Connection, pool_id: PoolId, name: str, as_of: int) -> int:
    newest = newest_seqs(connection, [pool_id]).get(pool_id, 0)
    if type(newest) is not int:
        raise not_a_number(name, newest)
    # A report as of an entry that does not exist yet would change when entries are added.
    if not 1 <= as_of <= newest:
        raise InvalidInputError("as_of", f"the pool has entries 1 to {newest}, and no {as_of}")
    return as_of
