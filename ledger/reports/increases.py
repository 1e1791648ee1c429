"""How much more capacity would have admitted denied calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ledger.core import rules
from ledger.core.axes import AMOUNTS, AXES, CAPACITIES
from ledger.core.entries import Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.reports.ranks import percentile
from ledger.store.rows import Row, balance_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Increase:
    """How much more capacity would have let denials in, on one axis.

    Attributes:
        half: Enough for at least half of the denials, each taken by itself, all else unchanged.
        most: Enough for at least nine in ten of them, each taken alone.
        each: Enough for any one of them, each taken alone.
        all: Enough for all of them together, even if each had then used all that it asked for.
    """

    half: int
    most: int
    each: int
    all: int


class Shortfall(NamedTuple):
    """By how much a pool was short on each axis, what was asked for, and the window's start."""

    lack: Totals
    asked: Totals
    window: int | None


Lack = tuple[int, int, int | None]
"""By how much a pool was short on one axis, what was asked for, and the window's start."""


def shortfall_of(
    row: Row,
    policy: SharedPoolBudgetOptions,
    window: WindowState | None,
    top_up: Mapping[str, int] | None,
) -> Shortfall:
    """Return by how much the capacity was too small on each axis; below 0 there was room.

    The balance is used, since what remains is 0 however far a pool is over its capacity.

    Args:
        row: The denial.
        policy: The policy in force.
        window: The window that the pool was in.
        top_up: Where its credits refused, the least credit that would have admitted the call.
    """
    tokens, cost = (row[f"estimate_{name}"] for name in AMOUNTS)
    asked = Totals(tokens, cost, 1)
    if top_up is not None:
        return Shortfall(Totals(**top_up), asked, None)
    used = rules.counted(balance_of(row), window)
    lack = [
        # In a strict pool more than the threshold must remain, whatever is asked for.
        max(wanted, int(policy.strict)) + getattr(policy, axis.stop_threshold) + spent - capacity
        for axis, wanted, spent, capacity in zip(
            AXES, asked, used, (getattr(policy, name) for name in CAPACITIES), strict=True
        )
    ]
    return Shortfall(Totals(*lack), asked, window and window.start)


def increase(short: Sequence[Lack]) -> Increase | None:
    """Return the increases for the denials of one axis, which are in the order of entries.

    A call admitted in one window would not have used capacity of the next window.
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
