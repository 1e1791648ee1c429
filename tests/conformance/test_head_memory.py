"""What a ledger remembers of a pool's newest entry is what that entry says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from ledger import (
    BudgetLease,
    Credit,
    EntryKind,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    PastCall,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    Window,
    from_micros,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock

WINDOW = Window(period=timedelta(minutes=30), carry_over=True)
SHORT = RequestExtensions(LeaseTtl(timedelta(minutes=1)))


@pytest.mark.parametrize("window", [None, WINDOW], ids=["no windows", "windows"])
def test_the_head_that_is_remembered_is_the_head_that_is_read(
    store_url: str, clock: Clock, window: Window | None
) -> None:
    """After every kind of entry, in a pool and in the pool above that shares with it."""
    options = SharedPoolBudgetOptions(capacity_tokens=100, thresholds={"some": 10}, window=window)
    leases: list[BudgetLease] = []
    remembered = 0
    with Ledger.open(store_url, clock=clock) as book, Ledger.open(store_url) as elsewhere:
        above = book.pool("team", options)
        below = book.pool("agent", options, parent="team")

        def reserve(extensions: RequestExtensions, amount: int = 10) -> None:
            leases.append(below.reserve(extensions, tokens(amount), UNLIMITED))

        def deny() -> None:
            with pytest.raises(ThresholdExceededError):
                reserve(RequestExtensions(IdempotencyKey("kept")), 1_000)

        def correct() -> None:
            spent = next(book.entries("agent", kind=EntryKind.SETTLEMENT))
            below.correct(spent.seq, Usage(total_tokens=2), reason="billed so")

        def bring() -> None:
            call = PastCall(
                usage=Usage(total_tokens=3), occurred_at=from_micros(0), idempotency_key="past"
            )
            below.import_calls([call], reason="moved here")

        def adjust(name: str) -> None:
            less = SharedPoolBudgetOptions(
                capacity_tokens=90, window=window, prepaid=["requests"] if name == "team" else ()
            )
            book.adjust(name, less)

        steps: list[Callable[[], object]] = [
            partial(reserve, EXTENSIONS),
            partial(reserve, SHORT),
            deny,
            lambda: below.observe(leases[0], Usage(total_tokens=1)),
            lambda: below.renew(leases[0], timedelta(minutes=5)),
            lambda: below.record_used(leases[0], Usage(total_tokens=1)),
            correct,
            bring,
            partial(clock.minutes, 2),
            partial(book.expire_due, "agent"),
            partial(clock.minutes, 60),
            partial(reserve, EXTENSIONS),
            lambda: below.release(leases[-1]),
            partial(adjust, "agent"),
            partial(adjust, "team"),
            lambda: book.credit("team", Credit(name="calls", requests=9)),
            partial(reserve, SHORT),
            partial(clock.minutes, 2),
            partial(reserve, EXTENSIONS),
            partial(book.close_pool, "agent"),
        ]
        for step in steps:
            step()
            for budget in (above, below):
                remembered += _is_right(budget, elsewhere)
        written = {entry.kind for name in ("team", "agent") for entry in book.entries(name)}
    assert remembered > len(steps)
    assert written == set(EntryKind) - (set() if window else {EntryKind.ROLLOVER})


def _is_right(budget: LedgerBudgetManager, elsewhere: Ledger) -> bool:
    """Tell whether a head is remembered; it is the one that another ledger reads."""
    head = budget._journal._head
    read = elsewhere._database.read(elsewhere.pool(budget.name)._journal.head)
    assert head is None or head == read
    return head is not None
