"""What a report says stays with its own entry: the others have what the reservation captured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import (
    Attribution,
    BudgetLease,
    Entry,
    EntryKind,
    LeaseTtl,
    Ledger,
    OccurredAt,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock

ASKED = Attribution(run_id="r", provider="p", model="asked", request_id="ours", tags={"a": "1"})
AT = datetime(2023, 11, 12, tzinfo=UTC)
LATER = AT + timedelta(hours=1)
REPORT = UsageReport(
    provider="q", model="answered", request_id="theirs", tags={"b": "2"}, occurred_at=LATER
)
PART = Usage(total_tokens=1)

End = Callable[[Any, BudgetLease], object]
ENDS: dict[str, End] = {
    "settlement": lambda budget, lease: budget.record_used(lease, PART),
    "release": lambda budget, lease: budget.release(lease),
    "abandoned": lambda budget, lease: budget.abandon(lease),
}


def begun(budget: Any, *more: object) -> BudgetLease:  # noqa: ANN401 - any manager
    """Return a lease that one part was observed of, with a report."""
    call = RequestExtensions(ASKED, OccurredAt(AT), *more)
    lease: BudgetLease = budget.reserve(call, UsageEstimate(total_tokens=9), UNLIMITED)
    budget.observe(lease, PART, report=REPORT)
    return lease


def said(entry: Entry) -> tuple[object, ...]:
    """Return what an entry says of its call."""
    found = entry.attribution
    assert found is not None
    assert "r" == found.run_id
    return found.provider, found.model, dict(found.tags), entry.request_id, entry.at


CAPTURED = ("p", "asked", {"a": "1"}, "ours", AT)
REPORTED = ("q", "answered", {"b": "2"}, "theirs", LATER)


@pytest.mark.parametrize("afresh", [False, True], ids=["remembered", "read again"])
@pytest.mark.parametrize("end", ENDS)
def test_a_later_entry_does_not_repeat_it(store_url: str, end: str, afresh: bool) -> None:  # noqa: FBT001 - a parameter
    """Whether this process remembers the lease, or another one reads it from the store."""
    with Ledger.open(store_url) as book:
        budget = book.pool("org", SharedPoolBudgetOptions(capacity_tokens=99))
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=99), parent="org")
        lease = begun(budget)
        budget.observe(lease, PART)
        with Ledger.open(store_url) if afresh else book as other:
            ENDS[end](other.pool("team"), lease)
            for pool in ("team", "org"):
                _, *entries = other.entries(pool)
                assert [CAPTURED, REPORTED, CAPTURED, CAPTURED] == [said(one) for one in entries]
                assert [None] == [one.damage for one in other.verify(pool)]


def test_expiry_and_late_usage_do_not_repeat_it(timed: Ledger, clock: Clock) -> None:
    """An expiry has no report, and usage that comes late has its own or none."""
    budget = timed.pool("pool", SharedPoolBudgetOptions(capacity_tokens=99))
    lease = begun(budget, LeaseTtl(timedelta(minutes=1)))
    clock.minutes(2)
    timed.expire_due("pool")
    budget.record_used(lease, PART)
    found = {one.kind: said(one) for one in timed.entries("pool") if one.lease is not None}
    assert CAPTURED == found[EntryKind.EXPIRY]
    assert CAPTURED == found[EntryKind.SETTLEMENT]
    assert [None] == [one.damage for one in timed.verify("pool")]


def test_a_settlement_s_own_report_builds_on_what_was_captured(
    shared_book: Ledger, fresh_name: str
) -> None:
    """A field that it does not give is the reservation's, and not an earlier part's."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(capacity_tokens=99))
    lease = begun(budget)
    budget.record_used(lease, PART, report=UsageReport(model="third"))
    newest = list(shared_book.entries(fresh_name))[-1]
    assert ("p", "third", {"a": "1"}, "ours", AT) == said(newest)
