"""Percentiles by the nearest rank: always one of the values, never interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PERCENTS = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}


def percentile(ascending: Sequence[T], percent: int) -> T:
    """Return the smallest value that at least `percent` % of the values do not exceed."""
    rank = max(1, -(-percent * len(ascending) // 100))
    return ascending[rank - 1]
