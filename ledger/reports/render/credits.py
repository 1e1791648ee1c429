"""The table of credits: what was given in advance, and what is used, left and lost of it."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.core.axes import AXES
from ledger.reports.credits import PoolCredit
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.values import figures, moment, text


def credits_sheet(found: Sequence[PoolCredit]) -> Sheet:
    """Return credits as a table, a line each, on the axes on which one of them gives something."""
    axes = [axis for axis in AXES if any(getattr(one.granted, axis.name) for one in found)]
    owing = [axis for axis in AXES if any(getattr(one.owed, axis.name) for one in found)]
    unpriced = any(one.unpriced for one in found)

    def for_each(what: str, rank: int) -> list[Column]:
        return [Column(heading=f"{what}\n{axis.shown}", rank=rank) for axis in axes]

    sheet = Sheet(
        columns=[
            Column(heading="Pool"),
            Column(heading="Entry", rank=5),
            Column(heading="Credit", left=True),
            Column(heading="Priority", rank=6),
            Column(heading="Given", rank=4, left=True),
            Column(heading="Expires", left=True),
            *for_each("Amount", 2),
            *for_each("Used", 1),
            *for_each("Left", 0),
            *for_each("Lost", 3),
            *(Column(heading=f"Owed by\nthe pool, {axis.shown}") for axis in owing),
            *([Column(heading="Unpriced\nin the pool", rank=1)] if unpriced else []),
        ],
        title=f"Credits: {len(found):,}",
    )
    for one in found:
        sheet.add(
            text(one.pool),
            str(one.seq),
            text(one.name),
            str(one.priority),
            moment(one.granted_at),
            moment(one.expires_at) or "never",
            *figures(axes, one.granted),
            *figures(axes, one.used),
            *figures(axes, one.left),
            *figures(axes, one.lost),
            *figures(owing, one.owed),
            *([f"{one.unpriced:,}"] if unpriced else []),
        )
    return sheet
