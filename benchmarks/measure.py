"""Measuring: rounds of a workload, each beside a round of the base that it is compared with."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Labels = Mapping[str, str | int]
"""Facts on a workload that the pictures need: how many callers, how many entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run of a workload: the number of operations, the time in all, and the time of each."""

    operations: int
    seconds: float
    latencies_s: Sequence[float] = ()
    cpu_s: float | None = None
    """The processor time of all threads of the processes that did the work, in seconds."""
    switches: int | None = None
    """How often one of their threads gave up its processor or lost it."""
    also: Mapping[str, float] = field(default_factory=dict)
    """Other figures, by the name that they are printed under."""

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    @property
    def cpu_us(self) -> float | None:
        """Processor time of an operation, in microseconds; None if it was not measured."""
        return None if self.cpu_s is None else self.cpu_s / self.operations * 1e6

    @property
    def switches_each(self) -> float | None:
        """Context switches an operation; None if they were not counted."""
        return None if self.switches is None else self.switches / self.operations

    def latency_us(self, percent: int) -> float | None:
        """Return a percentile of the latencies in microseconds, None if none was noted."""
        ordered = sorted(self.latencies_s)
        return ordered[len(ordered) * percent // 100] * 1e6 if ordered else None


class Meter:
    """Measures a round from its beginning: the clock, the processor time, the context switches.

    Under callgrind (`benchmarks.instructions`) the system calls at both ends tell it what to count.
    """

    def __init__(self) -> None:
        os.getppid()
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        self._began = time.perf_counter()

    def round(self, latencies_s: Sequence[float]) -> Round:
        """Return the round that has ended, with the latency of each of its operations."""
        seconds = time.perf_counter() - self._began
        now, before = resource.getrusage(resource.RUSAGE_SELF), self._before
        os.getpgrp()
        return Round(
            operations=len(latencies_s),
            seconds=seconds,
            latencies_s=latencies_s,
            cpu_s=now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime,
            switches=now.ru_nvcsw + now.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Work that can be run again and again, and the base that it is compared with.

    A workload without a base is itself a base. `compare` says which ratio to the base is computed:
    of rates (higher is better) or of median latencies (lower is better).
    """

    name: str
    run: Callable[[], Round]
    base: Workload | None = None
    compare: Literal["rate", "latency"] = "rate"
    labels: Labels = field(default_factory=dict)

    def ratio(self, mine: Round, beside: Round) -> float:
        """Return the ratio of a round to the base's round that was run beside it."""
        if self.compare == "rate":
            return mine.rate / beside.rate
        ours, theirs = mine.latency_us(50), beside.latency_us(50)
        if not ours or not theirs:
            raise ValueError(f"{self.name} is compared by latency, but noted none")
        return ours / theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The result of all rounds of one workload."""

    section: str
    store: str
    workload: str
    base: str | None
    compare: str
    labels: Labels
    rate: float
    ratio: float
    ratio_min: float
    ratio_max: float
    p50_us: float | None
    p99_us: float | None
    cpu_us: float | None
    switches: float | None
    instructions: float | None = None
    """Instructions an operation, in thousands, where they were counted."""
    also: Mapping[str, float]
    rounds: Sequence[Mapping[str, float | None]]

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def measure(section: str, store: str, workloads: Iterable[Workload], rounds: int) -> list[Figure]:
    """Run rounds of the workloads in turn, each beside a round of its base, and sum them up.

    The order of the two changes with every round, so that neither always runs right after the
    other. A base is listed before the first workload that is compared with it.
    """
    workloads = list(workloads)
    pairs: dict[Workload, list[tuple[Round, Round]]] = {}
    for number in range(rounds):
        for workload in workloads:
            beside = workload.base or workload
            pairs.setdefault(beside, [])
            order = (beside, workload) if number % 2 == 0 else (workload, beside)
            done = {one: _run(one) for one in dict.fromkeys(order)}
            pairs.setdefault(workload, []).append((done[workload], done[beside]))
            if beside is not workload:
                pairs[beside].append((done[beside], done[beside]))
    return [_figure(section, store, workload, seen) for workload, seen in pairs.items()]


def _run(workload: Workload) -> Round:
    gc.collect()
    return workload.run()


def _figure(
    section: str, store: str, workload: Workload, pairs: Sequence[tuple[Round, Round]]
) -> Figure:
    ratios = [workload.ratio(mine, beside) for mine, beside in pairs]
    together = Round(
        operations=0,
        seconds=0,
        latencies_s=[latency for mine, _ in pairs for latency in mine.latencies_s],
    )
    return Figure(
        section=section,
        store=store,
        workload=workload.name,
        base=None if workload.base is None else workload.base.name,
        compare=workload.compare,
        labels=workload.labels,
        rate=statistics.median(mine.rate for mine, _ in pairs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        p50_us=together.latency_us(50),
        p99_us=together.latency_us(99),
        cpu_us=median_of(mine.cpu_us for mine, _ in pairs),
        switches=median_of(mine.switches_each for mine, _ in pairs),
        also={
            name: statistics.median(mine.also[name] for mine, _ in pairs)
            for name in pairs[0][0].also
        },
        rounds=[
            {
                "rate": mine.rate,
                "ratio": ratio,
                "p50_us": mine.latency_us(50),
                "p99_us": mine.latency_us(99),
                "cpu_us": mine.cpu_us,
                "switches": mine.switches_each,
                **mine.also,
            }
            for (mine, _), ratio in zip(pairs, ratios, strict=True)
        ],
    )


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median, None if one of the values is missing."""
    known = list(values)
    return (
        None if None in known else statistics.median(value for value in known if value is not None)
    )


def timed(latencies_s: list[float], work: Callable[[], object]) -> None:
    """Do some work and note how long it took."""
    began = time.perf_counter()
    work()
    latencies_s.append(time.perf_counter() - began)


def repeated(count: int, work: Callable[[list[float]], object]) -> Round:
    """Do some work `count` times in sequence; it notes the latency of each operation."""
    latencies: list[float] = []
    meter = Meter()
    for _ in range(count):
        work(latencies)
    return meter.round(latencies)
