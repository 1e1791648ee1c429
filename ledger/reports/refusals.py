"""What refused a call, in words: a capacity, limit or credits, with the pool and axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.core.axes import AXES, Axis
from ledger.store.rows import Row

REFUSAL_COLUMNS = tuple(
    f"{side}_{name}"
    for axis in AXES
    if axis.amount is not None
    for side, name in (("estimate", axis.amount), ("budget", axis.name))
)
"""The columns of a denial that `refusal_of` reads, in addition to its detail."""


def refusal_of(row: Row, figures: Mapping[str, Any]) -> str:
    """Return what refused a call, such as `limit rate of org, requests`.

    If enough was left on every axis, the stop threshold refused. If several axes have a limit, the
    denial does not say on which.

    Args:
        row: The denial.
        figures: The figures in its detail.
    """
    if figures["reason"] == "request_budget":
        return _with_axes("request budget", [axis for axis in AXES if _is_over_budget(axis, row)])
    short = [axis for axis in AXES if _is_short(axis, row, figures)]
    what = "capacity" if short else "stop threshold"
    if "limit" in figures:
        what = f"limit {figures['limit']}"
    elif "top_up" in figures:
        what, short = "credits", [axis for axis in AXES if axis.name in figures["top_up"]]
    bounded = [axis for axis in AXES if f"remaining_{axis.name}" in figures]
    where = f" of {figures['pool']}" if "pool" in figures else ""
    return _with_axes(what + where, short or (bounded if len(bounded) == 1 else []))


def _is_short(axis: Axis, row: Row, figures: Mapping[str, Any]) -> bool:
    asked = 1 if axis.amount is None else row[f"estimate_{axis.amount}"]
    return bool(asked > figures.get(f"remaining_{axis.name}", asked))


def _is_over_budget(axis: Axis, row: Row) -> bool:
    budget = None if axis.amount is None else row[f"budget_{axis.name}"]
    return budget is not None and bool(row[f"estimate_{axis.amount}"] > budget)


def _with_axes(what: str, axes: list[Axis]) -> str:
    return ", ".join((what, *([" and ".join(axis.shown for axis in axes)] if axes else [])))
