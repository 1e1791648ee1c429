"""What the machines choose from: amounts, policies, times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from ledger import (
    I64_MAX,
    U64_MAX,
    Limit,
    Period,
    RequestBudget,
    Rolling,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Unpriced,
    Usage,
    UsageEstimate,
    Window,
)
from tests.clocks import HOUR

# Small amounts make limits be met, those at the end of the range make totals overflow.
AMOUNTS = st.integers(0, 12) | st.sampled_from([0, 1, 40, 100, I64_MAX - 1, I64_MAX])
CAPACITIES = st.integers(0, 100) | st.sampled_from([100, I64_MAX, U64_MAX])
KEPT_BACK = st.sampled_from([0, 0, 1, 10])
SAYS = st.sampled_from([None, None, Unpriced.FLAG, Unpriced.REFUSE])
"""What a call itself says of figures that it leaves out."""
LIMITS = st.none() | AMOUNTS
NUMBERS = st.integers(0, 99)
"""Which manager, pool, lease or entry: taken modulo how many there are."""

WINDOWS = st.none() | st.sampled_from(
    [
        Window(period=HOUR, session=True),
        Window(period=HOUR),
        Window(period=HOUR, carry_over=True),
        Window(period=HOUR, deduct_overage=True),
        Window(period=HOUR, carry_over=True, carry_cap_tokens=10, carry_cap_cost_micros_usd=0),
        Window(period=Period.DAY, time_zone="Europe/Berlin", carry_over=True),
        Window(period=Period.MONTH, time_zone="Europe/Berlin", deduct_overage=True),
        Window(
            period=Period.WEEK,
            time_zone="Europe/Berlin",
            anchor=datetime(2026, 1, 4, 1, 30, tzinfo=UTC),  # Sundays, 02:30
            carry_over=True,
        ),
    ]
)
MORE_LIMITS = st.sampled_from(
    [
        (),
        (),
        (Limit(name="hour", period=Rolling(HOUR), capacity_tokens=20, capacity_requests=4),),
        (
            Limit(name="rate", period=Rolling(timedelta(minutes=60)), capacity_requests=3),
            Limit(name="two hours", period=Rolling(2 * HOUR), capacity_cost_micros_usd=30),
            Limit(
                name="day",
                period=Window(period=Period.DAY, time_zone="Europe/Berlin"),
                capacity_tokens=40,
                capacity_cost_micros_usd=40,
            ),
        ),
    ]
)
MINUTES = st.sampled_from([1, 30, 59, 60, 61, 200, 1_440, 4_000, 20_000, 303_110])
"""The last one leads from where the machines begin, in a spring night, into one in autumn."""
TIMES = st.sampled_from([timedelta(minutes=number) for number in (1, 30, 59, 60, 90, 1_500)])
"""How long leases hold."""
THRESHOLDS = st.sampled_from([{}, {"half": 50, "warning": 80}, {"little": 1, "all": 100}])

PREPAID = st.sampled_from(
    [(), (), (), (), ("cost_micros_usd",), ("tokens", "cost_micros_usd"), ("requests",)]
)
CREDITS = st.builds(
    dict,
    name=st.sampled_from(["paid", "promotion"]),
    tokens=st.sampled_from([0, 3, 20, 60, I64_MAX]),
    cost_micros_usd=st.sampled_from([1, 3, 20, 60, I64_MAX]),
    requests=st.sampled_from([0, 2, 9]),
    priority=st.sampled_from([0, 50, 50]),
)
"""What a credit gives; the pool may not be prepaid on one of these axes."""

POLICIES = st.builds(
    SharedPoolBudgetOptions,
    capacity_tokens=CAPACITIES,
    capacity_cost_micros_usd=CAPACITIES,
    stop_threshold_tokens=KEPT_BACK,
    stop_threshold_cost_micros_usd=KEPT_BACK,
    capacity_requests=st.sampled_from([U64_MAX, U64_MAX, I64_MAX, 2, 7]),
    stop_threshold_requests=st.sampled_from([0, 0, 0, 1]),
    strict=st.sampled_from([False, False, True]),
    lease_ttl=st.none() | TIMES,
    settlement=st.sampled_from(SettlementPolicy),
    thresholds=THRESHOLDS,
    window=WINDOWS,
    unpriced=st.sampled_from([Unpriced.FLAG, Unpriced.FLAG, Unpriced.REFUSE]),
    limits=MORE_LIMITS,
    prepaid=PREPAID,
)
ESTIMATES = st.builds(
    UsageEstimate, input_tokens=AMOUNTS, total_tokens=AMOUNTS, cost_micros_usd=AMOUNTS
)
USAGES = st.builds(
    Usage, total_tokens=AMOUNTS, cost_micros_usd=AMOUNTS, reasoning_tokens=st.integers(0, 3)
)
BUDGETS = st.just(RequestBudget.unlimited()) | st.builds(
    RequestBudget, tokens=LIMITS, cost_micros_usd=LIMITS
)
UNKNOWN_IDS = st.sampled_from([0, -1, 1, 3, 7, 10_000, I64_MAX, I64_MAX + 1, U64_MAX])
