"""What was refused, and what remained when it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from ledger import (
    U64_MAX,
    Ledger,
    RequestBudget,
    RequestBudgetExceededError,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.reports import Denied

Noon = Callable[[int], datetime]
LIMIT = RequestBudget.from_tokens(10)


def test_every_figure_in_order(audited: Ledger, call: Callable[..., object], noon: Noon) -> None:
    """Both reasons, with what was asked, what was left, whose it was and when, oldest first."""
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=100, capacity_cost_micros_usd=50))
    call(audited, "team", UsageEstimate(total_tokens=30), Usage(total_tokens=30, cost_micros_usd=9))
    asked = UsageEstimate(total_tokens=71, cost_micros_usd=3)
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", asked, run="big", after_noon_s=60)
    with pytest.raises(RequestBudgetExceededError):
        call(audited, "team", UsageEstimate(total_tokens=11), limit=LIMIT, after_noon_s=1)
    expected = [
        Denied(
            seq=4,
            at=noon(60),
            run_id="big",
            reason="threshold",
            requested_tokens=71,
            requested_cost_micros_usd=3,
            remaining_tokens=70,
            remaining_cost_micros_usd=41,
        ),
        Denied(
            seq=5,
            at=noon(1),
            run_id=None,
            reason="request_budget",
            requested_tokens=11,
            requested_cost_micros_usd=0,
            remaining_tokens=None,
            remaining_cost_micros_usd=None,
        ),
    ]
    found = list(reports.denials(audited, "team"))
    assert expected == [replace(one, idempotency_key=None) for one in found]
    second = str(found[1].idempotency_key)
    assert found[1:] == list(reports.denials(audited, "team", key_prefix=second))


def test_what_is_left_of_an_unlimited_capacity(
    audited: Ledger, call: Callable[..., object]
) -> None:
    """The figure beyond what a store can hold comes back whole."""
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=1))
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", UsageEstimate(total_tokens=2))
    (denied,) = reports.denials(audited, "team")
    assert (1, U64_MAX) == (denied.remaining_tokens, denied.remaining_cost_micros_usd)


def test_a_pool_is_asked_alone(busy: Ledger) -> None:
    """Denials of other pools, and other kinds of entries, are left out."""
    assert [(7, "two")] == [(one.seq, one.run_id) for one in reports.denials(busy, "team")]
    assert [] == list(reports.denials(busy, "other"))


def test_denials_are_kept_only_where_asked_for(book: Ledger, call: Callable[..., object]) -> None:
    """Books that were opened without `record_denials` have none to report."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1))
    with pytest.raises(ThresholdExceededError):
        call(book, "team", UsageEstimate(total_tokens=2))
    assert [] == list(reports.denials(book, "team"))
    assert 1 == reports.statement(book, "team").seq


def test_an_unknown_pool_is_named(busy: Ledger) -> None:
    """The error says which pool there is not."""
    with pytest.raises(UnknownPoolError, match="no pool 'nope'"):
        list(reports.denials(busy, "nope"))
