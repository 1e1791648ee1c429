"""This tree against another commit: the same slices of work on both, by turns, in one run.

Each side is a process of its own, with its own code and its own store on the same disk. So the
other commit may have another schema and other modules inside. Both are measured by the benchmarks
of this tree, beside the floor.
"""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import psycopg

from benchmarks.bench import Scale
from benchmarks.disks import under_way
from benchmarks.floor import require_a_disk
from benchmarks.instructions import FIGURE as INSTRUCTIONS
from benchmarks.instructions import countable, counter
from benchmarks.measure import Round
from benchmarks.processes import added_up
from benchmarks.report import aligned, count
from benchmarks.start import BARE, PROGRAMS
from benchmarks.stores import beside, sqlite_path
from benchmarks.trees import ROOT, Process, Tree

HERE = "this tree"
SECTIONS = ("callers", "growth", "processes", "start")

_PROCESSES = "processes"
_PAIRS_EACH = 100
_WARM_UP_SHARE = 8
_ENTRIES = "SELECT count(*) FROM entries"
_TABLES = (
    "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)


class Slice(NamedTuple):
    """A piece of work that both sides do, in a round."""

    section: str
    name: str
    order: str
    told: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of one slice, on both sides: the median of the rounds.

    `ratio` is this tree's figure over the other's, round by round.
    """

    section: str
    store: str
    workload: str
    figure: str
    then: float
    now: float
    ratio: float
    ratio_min: float
    ratio_max: float

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


_Pairs = Sequence[tuple[float | None, float | None]]

FIGURES: dict[str, Callable[[Round, Round], float | None]] = {
    "operations a second": lambda mine, _: mine.rate,
    "ratio to the floor": lambda mine, floor: mine.rate / floor.rate,
    "CPU us an operation": lambda mine, _: mine.cpu_us,
    "context switches": lambda mine, _: mine.switches_each,
    "p50 us": lambda mine, _: mine.latency_us(50),
    "p99 us": lambda mine, _: mine.latency_us(99),
}
"""The figures of a round, by name; the second round is that of the floor beside it."""


def less(scale: Scale) -> Scale:
    """Return shorter slices for fewer numbers of callers: many short turns are worth more."""
    return replace(
        scale,
        floor_operations=scale.floor_operations // 4,
        threads=(1, 16, 64),
        tasks=(1, 64, 256),
        seconds=scale.seconds / 2,
    )


def slices(scale: Scale, sections: Iterable[str]) -> list[Slice]:
    """Return the work of a round."""
    chosen = set(sections)
    kinds = (("thread", scale.threads), ("task", scale.tasks))
    found = [
        Slice(
            "callers",
            f"{count} {kind}{'s' if count > 1 else ''}",
            f"{kind}s",
            {"count": count, "pairs": min(scale.pairs, _PAIRS_EACH * count)},
        )
        for kind, counts in kinds
        for count in counts
    ]
    found.append(Slice("growth", "remaining", "remaining", {"calls": 10 * scale.calls}))
    found += [
        Slice("start", name, "start", {"program": name, "times": scale.starts})
        for name in PROGRAMS
        if name != BARE
    ]
    found += [
        Slice(
            "processes",
            f"{scale.processes} x {scale.threads_each} threads, {pools:,} pool{'s' * (pools > 1)}",
            _PROCESSES,
            {"pools": pools, "threads": scale.threads_each, "seconds": scale.seconds},
        )
        for pools in (1, scale.pools)
    ]
    return [one for one in found if one.section in chosen]


class Rounds(NamedTuple):
    """What one round of a slice came to on each side."""

    now: Round
    then: Round
    floor: Round


class Measured:
    """A library on a store of its own: one process, and more where processes are measured."""

    def __init__(self, stack: ExitStack, tree: Tree, url: str, scale: Scale) -> None:
        self.tree = tree
        self.url = url
        self._stack = stack
        self._processes = [stack.enter_context(Process(tree, self.url))]
        self._count = scale.processes
        self._pools: dict[int, list[str]] = {}

    @property
    def first(self) -> Process:
        """The process that does what one process does."""
        return self._processes[0]

    def run(self, one: Slice) -> Round:
        """Do a slice."""
        if one.order != _PROCESSES:
            return self.first.slice(one.order, **one.told)
        told = dict(one.told)
        names = self._opened(told.pop("pools"))
        for number, process in enumerate(self._processes):
            process.send("share", names=names, process=number, **told)
        return added_up([Round(**process.answer()) for process in self._processes])

    def _opened(self, pools: int) -> list[str]:
        if pools not in self._pools:
            while len(self._processes) < self._count:
                self._processes.append(self._stack.enter_context(Process(self.tree, self.url)))
            self._pools[pools] = self.first.ask("new_pools", count=pools)
            for process in self._processes:
                process.send("open_pools", names=self._pools[pools])
            for process in self._processes:
                process.answer()
        return self._pools[pools]


def compare(
    store: str,
    url: str,
    other: Tree,
    scale: Scale,
    sections: Iterable[str],
    tell: Callable[[str], None],
) -> tuple[list[Compared], float]:
    """Measure slices on this tree and on another by turns, each in a store of its own.

    Args:
        store: The kind of store.
        url: An empty store of that kind; others are made beside it.
        other: The other commit.
        scale: The amount of work.
        sections: The sections of it.
        tell: Is told what is being done.

    Returns:
        The figures, and the operations a second of the floor.

    Raises:
        SystemExit: The books of a side are damaged afterwards.
    """
    work = slices(scale, sections)
    here = Tree(name=HERE, folder=ROOT)
    with ExitStack() as stack:
        places = (url, *(stack.enter_context(beside(url, name)) for name in ("other", "third")))
        now, then = (
            Measured(stack, tree, place, scale)
            for tree, place in zip((here, other), places, strict=False)
        )
        # The floor runs beside both, in a process of neither: its database is one of its own.
        bare = stack.enter_context(Process(here, places[2]))
        bare.ask("open_floor", url=url, operations=scale.floor_operations)
        require_a_disk(bare.slice("bare"), under_way())
        tell(f"{store}: warming up")
        for one in work:  # the first time includes what is done once
            now.run(_small(one))
            then.run(_small(one))
        before = [written(side.url) for side in (now, then)]
        seen: list[list[Rounds]] = [[] for _ in work]
        for number in range(scale.rounds):
            tell(f"{store}: round {number + 1} of {scale.rounds}")
            for place, one in enumerate(work):
                sides: dict[str, Callable[[], Round]] = {
                    "now": partial(now.run, one),
                    "then": partial(then.run, one),
                    "floor": partial(bare.slice, "bare"),
                }
                seen[place].append(Rounds(**_by_turns(sides, number + place)))
        tell(f"{store}: verifying the books of both sides")
        _require_whole(now, then)
        after = [written(side.url) for side in (now, then)]
        counts: Sequence[Mapping[str, float]] = ({}, {})
        if scale.count_instructions:
            tell(f"{store}: counting the instructions of both sides")
            counts = [_counted(url, tree, work) for tree in (here, other)]
    found = [
        compared
        for one, rounds in zip(work, seen, strict=True)
        for compared in _figures(store, one, rounds, [count.get(one.name) for count in counts])
    ]
    each = [
        (late.size - early.size) / max(1, late.entries - early.entries)
        for early, late in zip(before, after, strict=True)
    ]
    found += _ratios(store, "", "all of these", "bytes an entry", [(each[0], each[1])])
    return found, statistics.median(one.floor.rate for rounds in seen for one in rounds)


def _require_whole(*sides: Measured) -> None:
    for side in sides:
        damaged = side.first.ask("verify")
        if damaged:
            raise SystemExit(f"{side.tree.name} damaged its books: {damaged}")


def _counted(url: str, tree: Tree, work: Sequence[Slice]) -> dict[str, float]:
    """Return thousands of instructions an operation, by workload."""
    with beside(url, "counted") as fresh, counter(tree, fresh) as valgrind:
        return {
            one.name: valgrind.count(one.order, **one.told) / 1_000
            for one in work
            if one.section != _PROCESSES and countable(one.told)
        }


def _small(one: Slice) -> Slice:
    told = {
        name: value / _WARM_UP_SHARE if name == "seconds" else value
        for name, value in one.told.items()
    }
    return one._replace(told=told)


def _by_turns(sides: Mapping[str, Callable[[], Round]], number: int) -> dict[str, Round]:
    """Run each side once; which is first, and in which direction they follow, changes."""
    names = list(sides)
    first = number % len(names)
    order = names[first:] + names[:first]
    return {name: sides[name]() for name in (order if number % 2 else reversed(order))}


class Written(NamedTuple):
    """What a store holds: its size with indexes in bytes, and how many entries there are."""

    size: int
    entries: int


def written(url: str) -> Written:
    """Return what a store holds now."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url))) as file:
            pages, size, entries = (
                file.execute(text).fetchone()[0]
                for text in ("PRAGMA page_count", "PRAGMA page_size", _ENTRIES)
            )
            return Written(pages * size, entries)
    with psycopg.connect(url) as server:
        size, entries = (
            server.execute(text).fetchone()[0]  # type: ignore[index] # an aggregate has a row
            for text in (_TABLES, _ENTRIES)
        )
    return Written(size, entries)


def _figures(
    store: str, one: Slice, rounds: Sequence[Rounds], counts: Sequence[float | None]
) -> Iterator[Compared]:
    for name, figure in FIGURES.items():
        pairs = [(figure(done.now, done.floor), figure(done.then, done.floor)) for done in rounds]
        yield from _ratios(store, one.section, one.name, name, pairs)
    yield from _ratios(store, one.section, one.name, INSTRUCTIONS, [(counts[0], counts[1])])


def _ratios(
    store: str,
    section: str,
    workload: str,
    figure: str,
    pairs: _Pairs,
) -> Iterator[Compared]:
    """Yield a figure, if every round has it: a rate of nothing has no ratio."""
    known = [(now, then) for now, then in pairs if now and then]
    if len(known) < len(pairs):
        return
    ratios = [now / then for now, then in known]
    yield Compared(
        section=section,
        store=store,
        workload=workload,
        figure=figure,
        now=statistics.median(now for now, _ in known),
        then=statistics.median(then for _, then in known),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
    )


def table(found: Sequence[Compared], other: Tree) -> str:
    """Return the figures as a table: the other commit's, this tree's, and their ratio."""
    header = ["store", "workload", "figure", other.name, HERE, "ratio", "min", "max"]
    lines = [header]
    last: tuple[str, str] | None = None
    for one in found:
        row = (one.store, one.workload)
        lines.append(
            [
                *(row if row != last else ("", "")),
                one.figure,
                count(one.then),
                count(one.now),
                *(f"{value:.2f}" for value in (one.ratio, one.ratio_min, one.ratio_max)),
            ]
        )
        last = row
    return (
        f"{HERE} against {other.name} (ratio: {HERE}'s figure over the other's, round by round)\n"
        f"{aligned(lines, left=3)}"
    )
