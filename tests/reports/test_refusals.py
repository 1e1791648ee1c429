"""What refused a call is said the same way in the report on denials and in a statement."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger import (
    BudgetError,
    Credit,
    Ledger,
    Limit,
    RequestBudget,
    Rolling,
    SharedPoolBudgetOptions,
    UsageEstimate,
    reports,
)
from ledger.reports.render import Sheet, denials_sheet, statement_lines_sheet
from ledger.testing.calls import EXTENSIONS, UNLIMITED

from .test_render import printed

HOUR = Rolling(timedelta(hours=1))
FREE = SharedPoolBudgetOptions()
RATE = SharedPoolBudgetOptions(limits=[Limit(name="rate", period=HOUR, capacity_requests=0)])
PREPAID = SharedPoolBudgetOptions(prepaid=["cost_micros_usd"])
KEPT_BACK = SharedPoolBudgetOptions(capacity_tokens=100, stop_threshold_tokens=60)
BOTH_KEPT_BACK = SharedPoolBudgetOptions(
    capacity_tokens=100, capacity_cost_micros_usd=100, stop_threshold_tokens=60
)


def capacity(**amounts: int) -> SharedPoolBudgetOptions:
    """Return a policy that limits some axes."""
    return SharedPoolBudgetOptions(**{f"capacity_{name}": one for name, one in amounts.items()})


WHAT: dict[str, tuple[SharedPoolBudgetOptions, SharedPoolBudgetOptions, RequestBudget]] = {
    "capacity, tokens": (FREE, capacity(tokens=49), UNLIMITED),
    "capacity, tokens and USD": (FREE, capacity(tokens=49, cost_micros_usd=4), UNLIMITED),
    "capacity, requests": (FREE, capacity(requests=0), UNLIMITED),
    "capacity of org, USD": (capacity(cost_micros_usd=4), capacity(tokens=50), UNLIMITED),
    "limit rate, requests": (FREE, RATE, UNLIMITED),
    "limit rate of org, requests": (RATE, FREE, UNLIMITED),
    "credits, USD": (FREE, PREPAID, UNLIMITED),
    "credits of org, USD": (PREPAID, FREE, UNLIMITED),
    "stop threshold, tokens": (FREE, KEPT_BACK, UNLIMITED),
    "stop threshold of org, tokens": (KEPT_BACK, FREE, UNLIMITED),
    "stop threshold": (FREE, BOTH_KEPT_BACK, UNLIMITED),
    "request budget, USD": (FREE, FREE, RequestBudget.from_cost_micros_usd(4)),
    "request budget, tokens and USD": (FREE, FREE, UNLIMITED.with_limits(1, 1)),
}


@pytest.mark.parametrize("what", WHAT)
def test_what_refused_is_said(audited: Ledger, what: str) -> None:
    """By people who read either table it is seen without another option, and programs get it."""
    above, own, budget = WHAT[what]
    audited.pool("org", above)
    team = audited.pool("team", own, parent="org")
    with pytest.raises(BudgetError):
        team.reserve(EXTENSIONS, UsageEstimate(total_tokens=50, cost_micros_usd=5), budget)
    (denied,) = reports.denials(audited, "team")
    assert what == denied.refusal
    assert what in _flat(denials_sheet([denied]))
    found = reports.statement(audited, "team")
    lines = list(reports.statement_lines(audited, found))
    assert what == lines[-1].reason
    assert what in _flat(statement_lines_sheet(found, lines))


def test_a_top_up_is_not_called_a_refusal(audited: Ledger) -> None:
    """Beside a refusal by credits, the credit itself still says what it gave."""
    audited.pool("team", PREPAID)
    audited.credit("team", Credit(name="july", cost_micros_usd=7))
    found = reports.statement(audited, "team")
    assert "july" in str(list(reports.statement_lines(audited, found))[-1].reason)


def _flat(sheet: Sheet) -> str:
    return " ".join(" ".join(line) for line in printed(sheet))
