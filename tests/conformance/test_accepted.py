"""Whatever is accepted can be written, read back, rolled over, verified, reported and exported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ledger import (
    I64_MAX,
    U64_MAX,
    AmountOutOfRangeError,
    Attribution,
    BudgetError,
    Credit,
    IdempotencyKey,
    InvalidInputError,
    LeaseTtl,
    Ledger,
    Limit,
    OccurredAt,
    Period,
    Provenance,
    RequestBudget,
    RequestExtensions,
    Rolling,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
    exports,
    from_micros,
    reports,
)
from ledger.core.checks import CLOCK_EARLIEST, EARLIEST, LATEST
from tests.clocks import Clock
from tests.shared import numbers

TEN_YEARS = timedelta(days=3_650)
ZONES = sorted(available_timezones())
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
) | st.sampled_from(["=1+1", "a\rb", "\u2028", '"', "ä" * 255, "\U0010ffff"])
CLOCKS = st.integers(CLOCK_EARLIEST, LATEST - 1) | st.sampled_from([CLOCK_EARLIEST, LATEST - 1])
MOMENTS = (st.integers(EARLIEST, LATEST - 1) | st.sampled_from([EARLIEST, LATEST - 1])).map(
    from_micros
)
TIMES = st.timedeltas(timedelta(microseconds=1), TEN_YEARS) | st.just(TEN_YEARS)
AMOUNTS = st.integers(0, 200) | st.sampled_from([0, I64_MAX])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def windows(draw: Any) -> Window:  # noqa: ANN401 - hypothesis's own
    """Return any window that is accepted."""
    period = draw(st.sampled_from(Period) | st.timedeltas(timedelta(seconds=1), TEN_YEARS))
    fixed = isinstance(period, timedelta)
    carry = draw(st.booleans())
    return Window(
        period=period,
        time_zone="UTC" if fixed else draw(st.sampled_from(ZONES)),
        anchor=draw(st.none() | MOMENTS),
        carry_over=carry,
        carry_cap_tokens=draw(AMOUNTS) if carry else U64_MAX,
        deduct_overage=draw(st.booleans()),
    )


SESSIONS = st.builds(
    Window, period=st.timedeltas(timedelta(seconds=1), TEN_YEARS), session=st.just(True)
)


@st.composite
def limits(draw: Any) -> list[Limit]:  # noqa: ANN401 - hypothesis's own
    """Return any limits that are accepted: rolling ones, and those of the calendar."""
    rolling = st.builds(Rolling, st.timedeltas(timedelta(seconds=1), TEN_YEARS))
    plain = windows().map(
        lambda one: Window(period=one.period, time_zone=one.time_zone, anchor=one.anchor)
    )
    return [
        Limit(name=f"{number}", period=period, capacity_tokens=draw(AMOUNTS))
        for number, period in enumerate(draw(st.lists(rolling | plain, max_size=3)))
    ]


POLICIES = st.builds(
    SharedPoolBudgetOptions,
    capacity_tokens=st.sampled_from([0, 300, I64_MAX, U64_MAX]),
    capacity_cost_micros_usd=st.sampled_from([300, I64_MAX, U64_MAX]),
    stop_threshold_tokens=AMOUNTS,
    strict=st.booleans(),
    lease_ttl=st.none() | TIMES,
    settlement=st.sampled_from(SettlementPolicy),
    thresholds=st.dictionaries(TEXTS.map(lambda text: text[:64]), st.integers(1, 100), max_size=3),
    window=st.none() | windows() | SESSIONS,
    limits=limits(),
    prepaid=st.sampled_from([(), (), ("tokens",), ("cost_micros_usd", "requests")]),
)
CREDITS = st.fixed_dictionaries(
    {
        "name": TEXTS,
        "amount": st.sampled_from([1, 50, I64_MAX]),
        "expires_at": st.none() | MOMENTS,
        "priority": st.integers(0, 100),
    }
)
ATTRIBUTIONS = st.builds(
    Attribution,
    **dict.fromkeys(("run_id", "parent_run_id", "tenant", "agent", "operation"), st.none() | TEXTS),
    **dict.fromkeys(("provider", "model", "request_id"), st.none() | TEXTS),
    tags=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
REPORTS = st.builds(
    UsageReport,
    provider=st.none() | TEXTS,
    model=st.none() | TEXTS,
    request_id=st.none() | TEXTS,
    provenance=st.none() | st.sampled_from(Provenance),
    occurred_at=st.none() | MOMENTS,
    tags=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2),
    detail=st.none() | st.dictionaries(TEXTS, JSON, max_size=3),
)
ESTIMATES = st.builds(
    UsageEstimate, input_tokens=AMOUNTS, total_tokens=AMOUNTS, cost_micros_usd=AMOUNTS
)
USAGES = st.builds(Usage, total_tokens=AMOUNTS, cost_micros_usd=AMOUNTS, reasoning_tokens=AMOUNTS)
CASES = st.fixed_dictionaries(
    {
        "policies": st.lists(POLICIES, min_size=2, max_size=2),
        "clocks": st.lists(CLOCKS, min_size=3, max_size=3),
        "attribution": ATTRIBUTIONS,
        "report": REPORTS,
        "estimate": ESTIMATES,
        "usages": st.lists(USAGES, min_size=3, max_size=3),
        "occurred": st.none() | MOMENTS,
        "ttl": st.none() | TIMES,
        "reason": TEXTS,
        "credits": st.lists(CREDITS, min_size=3, max_size=3),
    }
)


REFUSED = (BudgetError, AmountOutOfRangeError)


def call(budget: Any, case: dict[str, Any], **keyed: str) -> None:  # noqa: ANN401 - any manager
    """Make the calls of a case, whatever the verdicts are."""
    carried: list[object] = [case["attribution"]]
    if case["occurred"] is not None:  # a call is dated at most a day ahead of the clock
        carried.append(OccurredAt(min(case["occurred"], from_micros(min(case["clocks"])))))
    carried += [] if case["ttl"] is None else [LeaseTtl(case["ttl"])]
    for number, usage in enumerate(case["usages"]):
        key = [IdempotencyKey(f"{keyed['key']} {number}")] if keyed else []
        with contextlib.suppress(*REFUSED):
            lease = budget.reserve(
                RequestExtensions(*carried, *key), case["estimate"], RequestBudget.unlimited()
            )
            if number == 0:
                continue
            with contextlib.suppress(*REFUSED):
                budget.renew(lease, TEN_YEARS)
            with contextlib.suppress(*REFUSED):
                budget.observe(lease, usage, report=case["report"])
            budget.record_used(lease, usage, report=case["report"])


def top_up(give: Callable[[Credit], object], prepaid: Sequence[str], given: Any) -> None:  # noqa: ANN401 - a case's
    """Give a credit on each axis that is prepaid, unless it has expired."""
    if prepaid:
        amounts = dict.fromkeys(prepaid, given["amount"])
        said = {name: given[name] for name in ("name", "expires_at", "priority")}
        with contextlib.suppress(InvalidInputError):
            give(Credit(**amounts, **said))


def read(book: Ledger, name: str) -> None:
    """Ask for everything that the books say of a pool."""
    seqs = [entry.seq for entry in book.entries(name)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert [entry.at for entry in book.entries(name)]
    list(book.open_leases(name))
    budget = book.pool(name)
    assert budget.status().seq == len(seqs)
    budget.remaining(RequestExtensions())
    list(reports.statement_lines(book, reports.statement(book, name)))
    reports.burn_down(book, name)
    reports.forecast(book, name)
    reports.runs(book, name)
    reports.run_trees(book, name)
    for zone in ("UTC", "Asia/Tokyo"):
        reports.spend(book, name, by=["hour", "week", "month", "model", "tag:x"], zone=zone)
    reports.estimates(book, name)
    reports.leases(book, name)
    list(reports.denials(book, name))
    reports.denials_by(book, name, by=["reason"])
    reports.standing(book, name)
    reports.credits(book, name)
    reports.unpriced(book, name)
    for wanted in (exports.Format.CSV, exports.Format.JSONL, exports.Format.FOCUS):
        with contextlib.suppress(InvalidInputError):  # a text that a format cannot hold
            exports.write(book, name, BytesIO(), format=wanted)
    assert book.replay(name).entries == len(seqs)
    (found,) = book.verify(name)
    assert found.damage is None, found.damage


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        ("sqlite", 4),
        ("postgresql", 2),
        pytest.param("sqlite", 30, marks=pytest.mark.long),
        pytest.param("postgresql", 8, marks=pytest.mark.long),
    ],
)
def test_whatever_is_accepted_can_be_read(
    new_store: Callable[[str], str], kind: str, examples: int
) -> None:
    """Policies, attributions, reports, tags, details, amounts and times of every kind."""
    clock = Clock()
    with Ledger.open(new_store(kind), clock=clock, record_denials=True) as book:

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking takes longer than a test may
        )
        @given(CASES)
        def run(case: dict[str, Any]) -> None:
            name = f"pool {next(numbers)}"
            first, second = case["policies"]
            memory = None
            for number, now in enumerate(case["clocks"]):
                clock.now = now
                budget = book.pool(name, first if number == 0 else None)
                memory = memory or SharedPoolBudgetManager(first, clock=clock)
                given = case["credits"][number]
                prepaid = budget.status().policy.prepaid
                top_up(partial(book.credit, name), prepaid, given)
                top_up(memory.credit, first.prepaid, given)
                for one, keyed in ((budget, {"key": f"{number}"}), (memory, {})):
                    call(one, case, **keyed)
                    one.remaining(RequestExtensions())
                if number == 1:
                    book.adjust(name, second, reason=case["reason"])
                book.expire_due(name)
                read(book, name)

        run()
        reports.overview(book, verify=False, now=datetime(2026, 1, 1, tzinfo=UTC))
        reports.glance(book)
