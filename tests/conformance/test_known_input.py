"""A lease that ends without a record, of which more input was observed than was estimated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    Attribution,
    EntryKind,
    InvalidInputError,
    Ledger,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    reports,
)
from ledger.core.values import ESTIMATE_FIELDS
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.conformance.conftest import Vandal

CAPACITY = 10_000
ESTIMATE = UsageEstimate(
    input_tokens=12, output_tokens=1_000, total_tokens=1_012, cost_micros_usd=1_012
)
KNOWN = Usage(input_tokens=1_240, output_tokens=1, total_tokens=1_241, cost_micros_usd=200)
AT_MOST = UsageEstimate(
    input_tokens=1_240, output_tokens=1_000, total_tokens=2_240, cost_micros_usd=1_199
)


def options(settlement: SettlementPolicy = SettlementPolicy.ESTIMATED) -> SharedPoolBudgetOptions:
    """Return a policy that limits tokens and cost."""
    return SharedPoolBudgetOptions(
        capacity_tokens=CAPACITY, capacity_cost_micros_usd=CAPACITY, settlement=settlement
    )


def test_a_total_without_parts_is_charged_once(
    timed_budgets: Callable[[SharedPoolBudgetOptions], Any],
) -> None:
    """It may be for the parts that are missing: the larger of observed and estimated is charged."""
    budget = timed_budgets(options())
    for observed, charged in ((1_000, 1_012), (1_100, 1_100)):
        before = budget.remaining(EXTENSIONS).tokens
        lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
        budget.observe(lease, Usage(total_tokens=observed, output_tokens=100))
        budget.abandon(lease)
        assert charged == before - budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize(
    ("settlement", "estimate", "spent"),
    [
        (SettlementPolicy.ESTIMATED, None, (2_240, 1_012)),
        (SettlementPolicy.ESTIMATED, AT_MOST, (2_240, 1_199)),
        (SettlementPolicy.OBSERVED, AT_MOST, (1_241, 200)),
        (SettlementPolicy.RELEASE, AT_MOST, (1_241, 200)),
    ],
)
def test_the_total_follows_its_parts(
    timed_budgets: Callable[[SharedPoolBudgetOptions], Any],
    settlement: SettlementPolicy,
    estimate: UsageEstimate | None,
    spent: tuple[int, int],
) -> None:
    """And the cost what the caller knows; what the policy does not assume is not charged."""
    budget = timed_budgets(options(settlement))
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    budget.observe(lease, KNOWN)
    budget.abandon(lease, estimate=estimate)
    left = budget.remaining(EXTENSIONS)
    assert spent == (CAPACITY - left.tokens, CAPACITY - left.cost_micros_usd)


@pytest.mark.parametrize(
    ("observed", "charged", "abandoned"),
    [
        ((0, 0, 0, 0), (1_012, 1_012), (1_012, 1_012)),
        ((10, 0, 10, 2), (1_012, 1_012), (1_012, 1_012)),
        ((400, 0, 400, 350), (1_012, 1_012), (1_400, 1_012)),
        ((400, 7, 407, 360), (1_012, 1_012), (1_400, 1_012)),
        ((2_000, 0, 2_000, 1_500), (2_000, 1_500), (3_000, 1_500)),
    ],
)
def test_a_process_that_dies_in_mid_stream_is_charged_what_it_held(
    timed_budgets: Callable[[SharedPoolBudgetOptions], Any],
    clock: Clock,
    observed: tuple[int, int, int, int],
    charged: tuple[int, int],
    abandoned: tuple[int, int],
) -> None:
    """More input than was estimated takes from what was held for the output, as the contract says.

    What ends in a process that lives covers the tokens of all output.
    """
    budget = timed_budgets(replace(options(), lease_ttl=timedelta(minutes=1)))
    part = Usage(**dict(zip(ESTIMATE_FIELDS, observed, strict=True)))

    def spent() -> tuple[int, int]:
        left = budget.remaining(EXTENSIONS)
        return CAPACITY - left.tokens, CAPACITY - left.cost_micros_usd

    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    budget.observe(lease, part)
    budget.abandon(lease)
    assert abandoned == (before := spent())
    budget.observe(budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED), part)
    assert charged == (spent()[0] - before[0], spent()[1] - before[1])
    clock.minutes(2)  # nobody recorded the end, nor will
    budget.release(budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED))
    assert charged == (spent()[0] - before[0], spent()[1] - before[1])


def test_a_block_restates_what_its_call_used_at_most(timed: Ledger) -> None:
    """The settlement says so in its detail, and its figures agree: nothing is missing."""
    budget = timed.pool("pool", options())
    with budget.lease(ESTIMATE) as lease:
        lease.observe(KNOWN)
        with pytest.raises(InvalidInputError, match="estimate"):
            lease.restate(KNOWN)  # type: ignore[arg-type]
        lease.restate(AT_MOST)
    (settled,) = timed.entries("pool", kind=EntryKind.SETTLEMENT)
    assert {"input_tokens": 1_240, "output_tokens": 1_000, "total_tokens": 2_240} == {
        name: amount for name, amount in settled.detail["estimate"].items() if "tokens" in name
    }
    total = reports.spend(timed, "pool").total
    assert (2_240, 1_199, 0) == (total.total_tokens, total.cost_micros_usd, total.unpriced)
    assert timed.verify("pool")[0].ok


def test_less_input_than_estimated_is_charged_as_it_is(timed: Ledger) -> None:
    """What the caller knows takes the place of the estimate, in both directions."""
    budget = timed.pool("pool", options())
    with budget.lease(ESTIMATE) as lease:
        lease.observe(Usage(input_tokens=5, total_tokens=5, cost_micros_usd=5))
        lease.restate(
            UsageEstimate(
                input_tokens=5, output_tokens=1_000, total_tokens=1_005, cost_micros_usd=1_005
            )
        )
    committed = budget.status().balance.committed
    assert (1_005, 1_005) == (committed.tokens, committed.cost_micros_usd)


@pytest.mark.parametrize("settlement", list(SettlementPolicy))
def test_what_is_charged_has_the_id_and_the_model_that_are_known(
    timed: Ledger, settlement: SettlementPolicy
) -> None:
    """They say which line of a bill it is; a release that charges nothing is as it was granted."""
    budget = timed.pool("pool", options(settlement))
    asked = Attribution(model="alias", run_id="run", request_id="call-1.1")
    report = UsageReport(model="model-2", request_id="id-1", tags={"not": "kept"})
    with budget.lease(ESTIMATE, attribution=asked) as lease:
        lease.restate(ESTIMATE, report=report)
        with pytest.raises(InvalidInputError, match="report"):
            lease.restate(ESTIMATE, report=asked)  # type: ignore[arg-type]
    kind = EntryKind.RELEASE if settlement is SettlementPolicy.RELEASE else EntryKind.SETTLEMENT
    (ended,) = timed.entries("pool", kind=kind)
    expected = ("id-1", "model-2") if kind is EntryKind.SETTLEMENT else ("call-1.1", "alias")
    assert ended.attribution is not None
    assert expected == (ended.request_id, ended.attribution.model)
    assert ("run", {}) == (ended.attribution.run_id, ended.attribution.tags)
    assert timed.verify("pool")[0].ok


def test_anything_but_an_estimate_is_refused(
    timed_budgets: Callable[[SharedPoolBudgetOptions], Any],
) -> None:
    """The lease stays open."""
    budget = timed_budgets(options())
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    with pytest.raises(InvalidInputError, match="estimate"):
        budget.abandon(lease, estimate=KNOWN)
    budget.release(lease)


@pytest.mark.parametrize(
    ("estimate", "says"),
    [
        ("x", "the estimate that it goes by"),
        ({"output_tokens": 1_000, "total_tokens": 1_012}, "the estimate that it goes by"),
        ({"total_tokens": 9_000}, "should be settled at"),
    ],
)
def test_a_forged_estimate_is_damage(
    book: Ledger, vandal: Vandal, estimate: object, says: str
) -> None:
    """The settlement must come to what it says that it assumed."""
    budget = book.pool("pool", options())
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    budget.observe(lease, KNOWN)
    budget.abandon(lease, estimate=AT_MOST)
    assert book.verify("pool")[0].ok
    detail = {"estimate": estimate, "settlement": "estimated"}
    vandal.forge(4, detail=json.dumps(detail, sort_keys=True, separators=(",", ":")))
    damage = book.verify("pool")[0].damage
    assert damage is not None
    assert says in damage.reason
