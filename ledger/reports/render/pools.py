"""Pools side by side: what each may spend, has spent, holds, and has left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.text import Text

from ledger.model import Remaining
from ledger.policy import SharedPoolBudgetOptions
from ledger.records import PoolStatus, Totals
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.values import limit, text, usd


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A pool for programs.

    Attributes:
        pool: Its name.
        seq: Its newest entry.
        policy: The policy in force.
        committed: Spent for good.
        reserved: Held by open leases.
        remaining: What is left of it, whatever the pools above have left.
        closed: Whether it takes nothing new.
        parent: The pool above it.
        carved: Whether it is carved out of that, and not only below it.
    """

    pool: str
    seq: int
    policy: SharedPoolBudgetOptions
    committed: Totals
    reserved: Totals
    remaining: Remaining
    closed: bool
    parent: str | None
    carved: bool

    @classmethod
    def of(cls, status: PoolStatus) -> PoolRow:
        """Return the row of a pool."""
        return cls(
            pool=status.pool.name,
            seq=status.seq,
            policy=status.policy,
            committed=status.balance.committed,
            reserved=status.balance.reserved,
            remaining=status.remaining,
            closed=status.closed,
            parent=status.parent,
            carved=status.pool.carved_lease is not None,
        )


def pools_sheet(found: Iterable[PoolStatus]) -> Sheet:
    """Return pools as a table, a line each; where they are is said if one of them has a parent."""
    shown = tuple(found)
    nested = any(one.parent is not None for one in shown)
    figures = columns(
        "Pool",
        *(
            f"{figure}\n{unit}"
            for figure in ("Capacity", "Committed", "Held", "Remaining")
            for unit in ("tokens", "USD")
        ),
    )
    place = [Column(heading="Parent", left=True)] if nested else []
    sheet = Sheet(columns=[figures[0], *place, *figures[1:]])
    for one in shown:
        rules, (committed, held), left = one.policy, one.balance, one.remaining
        sheet.add(
            text(one.pool.name) + Text(" (closed)" * one.closed),
            *([_place(one)] if nested else []),
            limit(rules.capacity_tokens, f"{rules.capacity_tokens:,}"),
            limit(rules.capacity_cost_micros_usd, usd(rules.capacity_cost_micros_usd)),
            f"{committed.tokens:,}",
            usd(committed.cost_micros_usd),
            f"{held.tokens:,}",
            usd(held.cost_micros_usd),
            limit(rules.capacity_tokens, f"{left.tokens:,}"),
            limit(rules.capacity_cost_micros_usd, usd(left.cost_micros_usd)),
        )
    return sheet


def _place(one: PoolStatus) -> Text:
    if one.parent is None:
        return Text()
    return text(one.parent) + Text(" (carved)" * (one.pool.carved_lease is not None))
