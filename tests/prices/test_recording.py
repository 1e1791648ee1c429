"""Priced calls in the journal: reserved, recorded, kept with what they were priced with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger import (
    EntryFlag,
    InvalidInputError,
    Ledger,
    Provenance,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownPriceError,
    Unpriced,
    UnpricedCallError,
    Usage,
)
from ledger.core.checks import JsonObject, canonical_json
from ledger.core.usage_reports import fit
from ledger.prices import Counts, PriceList, PriceTable
from ledger.prices.answers import Answer
from ledger.prices.kept import Kept, kept_in

ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "model": "claude-sonnet-4-5-20250929",
    "usage": {
        "input_tokens": 100,
        "cache_read_input_tokens": 5_000,
        "cache_creation_input_tokens": 2_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 1_500, "ephemeral_1h_input_tokens": 500},
        "output_tokens": 50,
    },
}


def test_an_answer_is_recorded_with_what_it_was_priced_with(
    store_url: str, library: PriceList
) -> None:
    """Reserve what it may cost, record what it did; the entry has source, version and rates."""
    options = SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000_000)
    with Ledger.open(store_url) as book:
        budget = book.pool("team", options)
        estimate = library.estimate(
            model="claude-sonnet-4-5", input_tokens=8_000, max_output_tokens=1_000
        )
        lease = budget.reserve(RequestExtensions(), estimate, RequestBudget())
        it = library.recording(ANSWER, provider="anthropic")
        budget.record_used(lease, it.usage, report=it.report)
        settled = list(book.entries("team"))[-1]
        assert [None] == [found.damage for found in book.verify()]
    assert settled.usage == Usage(
        input_tokens=7_100,
        output_tokens=50,
        total_tokens=7_150,
        cost_micros_usd=11_175,
        cache_creation_tokens=2_000,
        cache_read_tokens=5_000,
    )
    assert "msg_1" == settled.request_id
    kept = settled.detail["report"]["price"]
    assert {
        "source": "genai-prices",
        "version": library.sources[0].version,
        "model": "claude-sonnet-4-5",
        "provider": "anthropic",
        "cost_usd": "0.011175",
        "lines": [
            ["input", 100, "3", 1_000_000],
            ["cache_read", 5_000, "0.3", 1_000_000],
            ["cache_write", 1_500, "3.75", 1_000_000],
            ["cache_write_1h", 500, "6", 1_000_000],
            ["output", 50, "15", 1_000_000],
        ],
        "requests": [
            {
                "input": 7_100,
                "cache_read": 5_000,
                "cache_write": 2_000,
                "cache_write_1h": 500,
                "output": 50,
            }
        ],
    } == kept
    assert estimate.cost_micros_usd >= settled.usage.cost_micros_usd


def test_a_cost_finer_than_a_micro_is_kept_exactly(store_url: str) -> None:
    """Whole micros are charged; what a call cost exactly is in its hashed entry, to be summed."""
    prices = PriceList(PriceTable({"price": [{"model": "m", "input": "0.15"}]}), library=False)
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        for tokens in (1, 2, 7):
            it = prices.recording(Counts(input_tokens=tokens), model="m")
            estimate = prices.estimate(model="m", input_tokens=tokens, max_output_tokens=0)
            lease = budget.reserve(RequestExtensions(), estimate, RequestBudget())
            budget.record_used(lease, it.usage, report=it.report)
        settled = [entry for entry in book.entries("team") if entry.kind == "settlement"]
        assert [None] == [found.damage for found in book.verify()]
    assert [1, 1, 2] == [one.usage and one.usage.cost_micros_usd for one in settled]
    exactly = [one.detail["report"]["price"]["cost_usd"] for one in settled]
    assert ["0.00000015", "0.0000003", "0.00000105"] == exactly
    assert Decimal("0.0000015") == sum(map(Decimal, exactly))


def test_a_later_price_changes_nothing_that_is_written(store_url: str) -> None:
    """Two calls of one day, before and after the table was replaced: each keeps its own price."""
    tables = [
        PriceTable({"version": version, "price": [{"model": "m", "input": usd}]})
        for version, usd in (("old", 1), ("new", 5))
    ]
    used = Counts(input_tokens=1_000)
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        for table in tables:
            prices = PriceList(table, library=False)
            it = prices.recording(used, model="m")
            lease = budget.reserve(
                RequestExtensions(),
                prices.estimate(model="m", input_tokens=1_000, max_output_tokens=0),
                RequestBudget(),
            )
            budget.record_used(lease, it.usage, report=it.report)
        found = [entry for entry in book.entries("team") if entry.kind == "settlement"]
    assert [1_000, 5_000] == [entry.usage.cost_micros_usd for entry in found]
    assert [
        ("old", [["input", 1_000, "1", 1_000_000]]),
        ("new", [["input", 1_000, "5", 1_000_000]]),
    ] == [
        (price["version"], price["lines"])
        for price in (entry.detail["report"]["price"] for entry in found)
    ]


def test_an_unknown_model_stops_before_the_call_and_not_after_it(store_url: str) -> None:
    """No estimate without a price; but what was used is recorded, and says why it has no cost."""
    prices = PriceList()
    with pytest.raises(UnknownPriceError, match="'nobodys-model'"):
        prices.estimate(model="nobodys-model", input_tokens=1, max_output_tokens=1)
    answer = {**ANSWER, "model": "nobodys-model"}
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000_000))
        known = prices.estimate(model="gpt-4o", input_tokens=10, max_output_tokens=10)
        lease = budget.reserve(RequestExtensions(), known, RequestBudget())
        it = prices.recording(answer)
        budget.record_used(lease, it.usage, report=it.report)
        settled = list(book.entries("team"))[-1]
    assert it.price is None
    assert EntryFlag.UNPRICED in settled.flags
    assert it.unpriced == settled.detail["report"]["price"]["unpriced"]
    assert "no price for the model 'nobodys-model'" in str(it.unpriced)
    assert (7_150, 0) == (settled.usage.total_tokens, settled.usage.cost_micros_usd)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({**ANSWER, "model": None}, "names no model"),
        (
            {
                "model": "gpt-4o-audio-preview",
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 9,
                    "completion_tokens_details": {"audio_tokens": 9},
                },
            },
            "no price for output audio",
        ),
        (
            {"model": "gpt-4.1", "service_tier": "flex", "usage": {"prompt_tokens": 9}},
            "service_tier 'flex'",
        ),
    ],
)
def test_what_is_known_only_after_the_call_is_flagged(
    library: PriceList, answer: dict[str, Any], said: str
) -> None:
    """Sound that was not asked for, or another tier than was asked for, have no price either."""
    it = library.recording(answer)
    assert it.unpriced is not None
    assert said in it.unpriced
    assert 0 == it.usage.cost_micros_usd < it.usage.total_tokens
    assert it.report.detail is not None
    assert it.unpriced == it.report.detail["price"]["unpriced"]


def test_the_tier_of_the_answer_decides(library: PriceList) -> None:
    """A call asked for flex and was served at the ordinary tier; or the answer does not say."""
    usage = {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}
    costs = [
        library.recording(
            {"model": "gpt-5", **more, **usage}, service_tier=asked
        ).usage.cost_micros_usd
        for more, asked in (
            ({}, None),
            ({"service_tier": "flex"}, None),
            ({}, "flex"),
            ({"service_tier": "default"}, "flex"),
            ({"service_tier": "priority"}, "flex"),
        )
    ]
    assert [1_250_000, 625_000, 625_000, 1_250_000, 2_500_000] == costs


def test_counts_can_be_recorded_without_an_answer(library: PriceList) -> None:
    """For clients that this library does not read."""
    it = library.recording(Counts(input_tokens=1_000_000), model="gpt-4o", provider="openai")
    assert (2_500_000, Provenance.REPORTED) == (it.usage.cost_micros_usd, it.report.provenance)
    with pytest.raises(InvalidInputError):
        library.recording({"usage": {}})


def test_an_estimate_holds_what_a_cache_may_cost(library: PriceList) -> None:
    """Writing to a cache costs a quarter more than not caching: that is what is reserved."""
    estimate = library.estimate(
        model="claude-sonnet-4-5", input_tokens=100_000, max_output_tokens=1_000
    )
    assert (100_000, 1_000, 101_000) == (
        estimate.input_tokens,
        estimate.output_tokens,
        estimate.total_tokens,
    )
    assert 375_000 + 15_000 == estimate.cost_micros_usd
    long = library.estimate(model="claude-sonnet-4-5", input_tokens=200_001, max_output_tokens=0)
    assert 1_500_008 == long.cost_micros_usd
    batch = library.estimate(
        model="claude-haiku-4-5", input_tokens=1_000_000, max_output_tokens=0, service_tier="batch"
    )
    assert 625_000 == batch.cost_micros_usd


def test_a_budget_holds_in_dollars(store_url: str, library: PriceList) -> None:
    """Of a budget of 0.05 USD, calls of 0.02 USD at most are granted twice."""
    estimate = library.estimate(model="gpt-4o", input_tokens=4_000, max_output_tokens=1_000)
    assert 20_000 == estimate.cost_micros_usd
    options = SharedPoolBudgetOptions(capacity_cost_micros_usd=50_000)
    with Ledger.open(store_url) as book:
        budget = book.pool("team", options)
        for _ in range(2):
            budget.reserve(RequestExtensions(), estimate, RequestBudget())
        with pytest.raises(ThresholdExceededError):
            budget.reserve(RequestExtensions(), estimate, RequestBudget())


def test_what_is_kept_is_read_again(library: PriceList) -> None:
    """By kind and by request; where a correction says otherwise, what it says."""
    it = library.recording(ANSWER)
    detail = json.loads(json.dumps({"report": dict(it.report.detail or {})}))
    kept = kept_in(detail, it.usage)
    assert it.price is not None
    assert Kept(requests=it.price.requests, conditions={}) == kept
    other = Usage(input_tokens=5, output_tokens=1, total_tokens=6)
    assert (Counts(input_tokens=5, output_tokens=1),) == kept_in(detail, other).requests
    for strange in ({}, {"report": 1}, {"report": {"price": {"requests": [{"words": 1}]}}}):
        assert (Counts(input_tokens=5, output_tokens=1),) == kept_in(strange, other).requests


def test_pricing_by_the_time_of_the_call(library: PriceList) -> None:
    """A call that is recorded late has the price of its own day."""
    usage = {"model": "o3", "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}
    at = datetime(2025, 6, 9, tzinfo=UTC)
    assert 10_000_000 == library.recording(usage, at=at).usage.cost_micros_usd
    assert 2_000_000 == library.recording(usage).usage.cost_micros_usd


def test_a_total_that_says_more_counts_against_the_budget(library: PriceList) -> None:
    """What a provider calls the total is recorded if it is more than its parts."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 125}
    assert 125 == library.recording({"model": "gpt-4o", "usage": usage}).usage.total_tokens


def test_a_model_of_ones_own_that_is_free(store_url: str) -> None:
    """A price of 0 is a price; in a pool that limits cost the call says that it means it."""
    prices = PriceList({"price": [{"model": "m", "input": 0, "output": 0}]}, library=False)
    estimate = prices.estimate(model="m", input_tokens=5, max_output_tokens=5)
    assert (10, 0) == (estimate.total_tokens, estimate.cost_micros_usd)
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=100))
        with pytest.raises(UnpricedCallError):
            budget.reserve(RequestExtensions(), estimate, RequestBudget())
        free = RequestExtensions()
        free.insert(Unpriced.FLAG)
        lease = budget.reserve(free, estimate, RequestBudget())
        it = prices.recording(Counts(input_tokens=5, output_tokens=1), model="m")
        budget.record_used(lease, it.usage, report=it.report)
        settled = list(book.entries("team"))[-1]
    assert it.unpriced is None
    assert "0" == settled.detail["report"]["price"]["cost_usd"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "m" * 300}, "1 to 255 characters"),
        ({"model": "nul\0"}, "NUL"),
        ({"provider": ""}, "provider"),
        ({"at": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the point
        ({"service_tier": 5}, "service_tier '5'"),
    ],
)
def test_whatever_is_said_of_a_call_it_is_recorded(
    library: PriceList, given: dict[str, Any], said: str
) -> None:
    """A name or a time that cannot be used leaves the call without a price, and not unrecorded."""
    it = library.recording(Counts(input_tokens=7), **{"model": "gpt-4o", **given})
    assert (7, 0) == (it.usage.total_tokens, it.usage.cost_micros_usd)
    assert it.unpriced is not None
    assert said in it.unpriced


@pytest.mark.parametrize(
    "given",
    [{"model": 5}, {"model": "gpt-4o", "provider": 5}, {"model": "gpt-4o", "service_tier": 5}],
)
def test_before_the_call_other_types_are_refused(library: PriceList, given: dict[str, Any]) -> None:
    """An estimate is made of names alone."""
    with pytest.raises(InvalidInputError):
        library.estimate(input_tokens=1, max_output_tokens=1, **given)


@pytest.mark.parametrize(
    "more",
    [{}, {"b": 1, "a b": None, 'a"': ["é"], "price": "mine"}, {"zz": {"y": 1, "x": 2.5}}],
)
@pytest.mark.parametrize(
    "answer",
    [
        Counts(),
        Counts(input_tokens=10, cache_read_tokens=3, output_tokens=4, web_searches=2),
        Answer(requests=(Counts(input_tokens=1), Counts(output_tokens=2)), total_tokens=3),
    ],
)
@pytest.mark.parametrize("model", ["m", 'ü "quoted"', "nobody's\n"])
def test_what_is_kept_is_written_as_json_would(
    more: dict[str, Any], answer: Counts | Answer, model: str
) -> None:
    """Part by part, to the letter: a digest is made of it."""
    prices = PriceList(
        {
            "price": [
                {"model": "m", "input": "1.50", "output": 6, "web_searches": 10},
                {"model": 'ü "*', "input": "0.001", "output": 0, "web_searches": 1},
            ]
        },
        library=False,
    )
    for tier in (None, "fléx"):
        found = prices.recording(answer, model=model, service_tier=tier, detail=more)
        kept = found.report.detail
        assert isinstance(kept, JsonObject)
        assert canonical_json(kept.content) == kept.text
        assert {**more, "price": kept["price"]} == kept
        assert (found.price is None) == ("unpriced" in kept["price"])


@pytest.mark.parametrize("more", [{"a": object()}, {1: 2}, {"a": float("nan")}, {"a": "\0"}])
def test_a_detail_that_is_no_json_is_shortened(more: dict[Any, Any]) -> None:
    """As that of any report: the usage is recorded."""
    found = PriceList(
        {"price": [{"model": "m", "input": 1, "output": 1}]}, library=False
    ).recording(Counts(input_tokens=1), model="m", detail=more)
    fitted = fit(found.report)
    assert found.price is not None
    assert ("detail",) == fitted.shortened
    assert "begins" in fitted.detail
