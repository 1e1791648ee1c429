"""Every kind of entry is written by some operation, and holds what its row says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger import (
    Credit,
    EntryKind,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    PastCall,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
)
from ledger.core.kinds import KINDS, LeasePhase
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock

ASKED = UsageEstimate(total_tokens=10)
LITTLE = UsageEstimate(total_tokens=8)
"""What one call leaves that is settled, and another one that is charged its estimate."""


def test_every_kind_is_written_by_an_operation(timed: Ledger, clock: Clock) -> None:
    """A kind that nothing writes has no place in the table. Each entry has what its row says."""
    window = Window(period=timedelta(minutes=30))
    pool = timed.pool(
        "team",
        SharedPoolBudgetOptions(capacity_tokens=21, thresholds={"some": 10}, window=window),
    )
    short = RequestExtensions()
    short.insert(LeaseTtl(timedelta(minutes=1)))
    settled, expiring = (pool.reserve(short, ASKED, UNLIMITED) for _ in range(2))
    keyed = RequestExtensions()
    keyed.insert(IdempotencyKey("kept"))
    with pytest.raises(ThresholdExceededError):
        pool.reserve(keyed, ASKED, UNLIMITED)
    pool.observe(settled, Usage(total_tokens=1))
    pool.renew(settled, timedelta(minutes=5))
    pool.record_used(settled, Usage(total_tokens=1))
    clock.minutes(2)
    timed.expire_due("team")
    pool.release(pool.reserve(RequestExtensions(), LITTLE, UNLIMITED))
    settlement = next(one for one in timed.entries("team") if one.kind == EntryKind.SETTLEMENT)
    pool.correct(settlement.seq, Usage(total_tokens=2), reason="billed so")
    clock.minutes(60)
    pool.release(pool.reserve(RequestExtensions(), ASKED, UNLIMITED))
    more = SharedPoolBudgetOptions(capacity_tokens=30, window=window, prepaid=["requests"])
    timed.adjust("team", more, reason="more")
    timed.credit("team", Credit(name="calls", requests=2), reason="paid")
    past = PastCall(usage=Usage(total_tokens=1), occurred_at=from_micros(0), idempotency_key="past")
    pool.import_calls([past], reason="lost")
    timed.close_pool("team", reason="done")
    written = list(timed.entries("team"))
    assert expiring.id < settlement.seq
    assert set(EntryKind) == {one.kind for one in written}
    for one in written:
        row = KINDS[EntryKind(one.kind)]
        present = {
            name
            for name in ("policy", "estimate", "usage", "lease")
            if getattr(one, name) is not None
        }
        assert row.has <= present <= row.has | row.may_have
        phase = None if one.lease is None else one.lease.phase
        assert row.phase is phase or phase is LeasePhase.EXPIRED
    assert all(one.ok for one in timed.verify("team"))
