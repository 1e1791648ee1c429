"""Figures and how they are printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

LATENCY_PERCENTILES = (50, 99)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One run of a workload: how many operations, in how long, and how long each took."""

    operations: int
    seconds: float
    latencies_s: list[float]

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A workload's figures over all rounds; ratios are taken round by round."""

    store: str
    workload: str
    rate_median: float
    ratio_median: float
    ratio_min: float
    ratio_max: float
    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, store: str, workload: str, rounds: list[Round], floors: list[Round]) -> Figure:
        """Return the figures of rounds, each against the floor measured beside it."""
        ratios = [one.rate / floor.rate for one, floor in zip(rounds, floors, strict=True)]
        latencies = sorted(latency for one in rounds for latency in one.latencies_s)
        return cls(
            store=store,
            workload=workload,
            rate_median=statistics.median(one.rate for one in rounds),
            ratio_median=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            p50_us=latencies[len(latencies) // 2] * 1e6,
            p99_us=latencies[len(latencies) * 99 // 100] * 1e6,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def timed(latencies_s: list[float], work: Callable[[], object]) -> None:
    """Do some work and note how long it took."""
    began = time.perf_counter()
    work()
    latencies_s.append(time.perf_counter() - began)


def table(figures: list[Figure]) -> str:
    """Return the figures as a table."""
    lines = [
        (
            f"{'store':<11} {'workload':<42} {'per second':>11} {'ratio':>7} {'min':>6} {'max':>6}"
            f" {'p50 us':>9} {'p99 us':>9}"
        )
    ]
    lines += [
        f"{one.store:<11} {one.workload:<42} {one.rate_median:>11,.0f} {one.ratio_median:>7.2f} "
        f"{one.ratio_min:>6.2f} {one.ratio_max:>6.2f} {one.p50_us:>9,.0f} {one.p99_us:>9,.0f}"
        for one in figures
    ]
    return "\n".join(lines)
