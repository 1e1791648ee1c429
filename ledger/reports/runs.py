"""The report on runs: what each one cost, alone and with its sub-runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from ledger.core.errors import LeftOut
from ledger.ledger import Ledger
from ledger.reports.dimensions import label
from ledger.reports.figures import Figures, Label, added, aggregate, figures_in
from ledger.reports.filters import EVERYTHING, Filter, Where
from ledger.reports.scopes import Scope, snapshot
from ledger.store.schema import attributions

_LABELS: tuple[Label, ...] = (
    label("run"),
    lambda _: attributions.c.parent_run_id,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost(Figures):
    """One run: what was admitted, estimated and used.

    Attributes:
        run_id: The caller's run, None for calls that named none.
    """

    run_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTree:
    """One run in the tree that `parent_run_id` makes of them.

    Attributes:
        run_id: The caller's run, None for calls that named none.
        parent_run_id: The run that it is a part of; of several that were named, the first.
        depth: How many runs are above it; 0 for a run without a parent.
        own: What the run itself did, None if it is only named as a parent.
        with_subruns: What the run and all runs below it did.
    """

    run_id: str | None
    parent_run_id: str | None
    depth: int
    own: Figures | None
    with_subruns: Figures


def runs(
    book: Ledger, where: Where = EVERYTHING, *, left_out: LeftOut | None = None
) -> list[RunCost]:
    """Return what each run cost, the earliest first.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: `as_of` is an entry that the pool does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    return [cost for cost, _parent in _runs(book, where, left_out)]


def run_trees(
    book: Ledger, where: Where = EVERYTHING, *, left_out: LeftOut | None = None
) -> list[RunTree]:
    """Return what each run cost with its sub-runs: each run is followed by those below it.

    If the filter names a run, the tree begins at that run. Runs that name each other as parents in
    a cycle make a tree, too, which ends before a run that is already in it.

    Args:
        book: The store.
        where: Which entries, or the name of a pool.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: `as_of` is an entry that the pool does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    top = where.run_id if isinstance(where, Filter) else None
    whole = replace(where, run_id=None) if isinstance(where, Filter) else where
    found = _runs(book, whole, left_out)
    own: dict[str | None, Figures | None] = {cost.run_id: cost for cost, _parent in found}
    parents: dict[str | None, str] = {
        cost.run_id: parent
        for cost, parent in found
        if parent is not None and cost.run_id is not None
    }
    for parent in parents.values():
        own.setdefault(parent, None)
    children: dict[str | None, list[str | None]] = defaultdict(list)
    for run, parent in parents.items():
        children[parent].append(run)
    heads = [top] if top is not None else _heads(own, parents)
    return [tree for head in heads if head in own for tree in _tree(head, own, parents, children)]


def _tree(
    head: str | None,
    own: Mapping[str | None, Figures | None],
    parents: Mapping[str | None, str],
    children: Mapping[str | None, list[str | None]],
) -> list[RunTree]:
    walk = list(_below(head, children))
    totals: dict[str | None, list[Figures]] = defaultdict(list)
    trees = []
    for run, depth in reversed(walk):  # from the leaves up, so that each is added once
        figures = own[run]
        if figures is not None:
            totals[run].append(figures)
        whole = Figures(**added(totals.pop(run, [])))
        if depth:
            totals[parents[run]].append(whole)
        trees.append(
            RunTree(
                run_id=run,
                parent_run_id=parents.get(run),
                depth=depth,
                own=None if figures is None else Figures(**added([figures])),
                with_subruns=whole,
            )
        )
    return trees[::-1]


def _runs(book: Ledger, where: Where, left_out: LeftOut | None) -> list[tuple[RunCost, str | None]]:
    def query(connection: Connection, scope: Scope) -> list[tuple[RunCost, str | None]]:
        parts: dict[str | None, list[tuple[str | None, Figures]]] = defaultdict(list)
        for row in aggregate(connection, scope, _LABELS):
            parts[row.label_0].append((row.label_1, Figures(**figures_in(row))))
        return [
            (RunCost(run_id=run, **added(part for _, part in of_run)), _parent(run, of_run))
            for run, of_run in parts.items()
        ]

    found = snapshot(book, where, query, left_out=left_out)
    return sorted(found, key=lambda pair: _order(pair[0]))


def _order(cost: RunCost) -> tuple[object, ...]:
    return (cost.first_at, cost.run_id is None, cost.run_id or "")


def _parent(run: str | None, parts: Iterable[tuple[str | None, Figures]]) -> str | None:
    named = [(part.first_at, parent) for parent, part in parts if parent not in {None, run}]
    return min(named)[1] if named else None


def _heads(
    own: Mapping[str | None, Figures | None], parents: Mapping[str | None, str]
) -> list[str | None]:
    """Return the runs that a walk begins with: those without a parent, and one of each cycle."""
    heads: list[str | None] = []
    reached: set[str | None] = set()
    for run in own:
        path: list[str | None] = []
        at = run
        while at not in reached:
            reached.add(at)
            path.append(at)
            above = parents.get(at)
            if above is None:
                heads.append(at)
                break
            at = above
        else:
            if at in path:  # a new cycle: the walk begins here
                heads.append(at)
    return heads


def _below(
    head: str | None, children: Mapping[str | None, list[str | None]]
) -> Iterator[tuple[str | None, int]]:
    """Yield a run and those below it, each once, with how far below."""
    seen: set[str | None] = set()
    waiting: list[tuple[str | None, int]] = [(head, 0)]
    while waiting:
        run, depth = waiting.pop()
        if run not in seen:
            seen.add(run)
            yield run, depth
            waiting.extend((child, depth + 1) for child in reversed(children.get(run, [])))
