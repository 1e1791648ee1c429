"""Percentiles by the nearest rank: always a value that was there, never one in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PERCENTS = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}


def percentile(ascending: Sequence[T], percent: int) -> T:
    """Return the smallest value that at least `percent` in a hundred of them do not exceed."""
    rank = max(1, -(-percent * len(ascending) // 100))
    return ascending[rank - 1]
