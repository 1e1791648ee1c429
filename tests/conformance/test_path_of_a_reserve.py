"""The way of a `reserve` from its call to its verdict is short enough to be read down."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import ledger
from ledger import Ledger, SharedPoolBudgetOptions
from ledger.core.rules.released import RELEASED
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

ROOT = str(Path(ledger.__file__).parent)

FRAMES_MAX = 10
"""The most functions of the library that are entered and not left when `admit` is asked."""


def test_a_reserve_is_decided_ten_frames_down(store_url: str) -> None:
    """No closure and no lambda is on the way: the path is listed in docs/architecture.md."""
    admit = RELEASED[1].admit.__code__  # type: ignore[attr-defined]
    way: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or way or not frame.f_code.co_filename.startswith(ROOT):
            return
        above: FrameType | None = frame
        while frame.f_code is admit and above is not None:
            if above.f_code.co_filename.startswith(ROOT):
                way.append(above.f_code.co_qualname)
            above = above.f_back

    with Ledger.open(store_url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
        budget.release(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))
        sys.setprofile(note)
        try:
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        finally:
            sys.setprofile(None)
    assert "admit" == way[0]
    assert len(way) <= FRAMES_MAX, way
    assert [] == [name for name in way if "<" in name]
