"""What answers say they used: one normaliser, each provider's convention, the totals proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import InvalidInputError
from ledger.prices import Counts, PriceList, read_answer

few = st.integers(min_value=0, max_value=400_000)


@dataclass(frozen=True)
class Parts:
    """Tokens of which each is one thing alone: their sum is the total, whoever counts."""

    uncached: int
    read: int
    written_5m: int
    written_1h: int
    said: int
    thought: int

    @property
    def written(self) -> int:
        """What was written to a cache."""
        return self.written_5m + self.written_1h

    @property
    def input(self) -> int:
        """All input."""
        return self.uncached + self.read + self.written

    @property
    def output(self) -> int:
        """All output."""
        return self.said + self.thought

    @property
    def total(self) -> int:
        """Everything."""
        return self.input + self.output


parts = st.builds(Parts, few, few, few, few, few, few)


def anthropic(p: Parts) -> dict[str, Any]:
    """Return Anthropic's usage: what was cached is not in the input, and there is no total."""
    return {
        "id": "msg_1",
        "type": "message",
        "model": "claude-sonnet-4-5",
        "usage": {
            "input_tokens": p.uncached,
            "cache_read_input_tokens": p.read,
            "cache_creation_input_tokens": p.written,
            "cache_creation": {
                "ephemeral_5m_input_tokens": p.written_5m,
                "ephemeral_1h_input_tokens": p.written_1h,
            },
            "output_tokens": p.output,
            "output_tokens_details": {"thinking_tokens": p.thought},
            "service_tier": "standard",
        },
    }


def openai_chat(p: Parts) -> dict[str, Any]:
    """Return OpenAI's usage of chat completions: everything is in the two totals."""
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o",
        "service_tier": "default",
        "usage": {
            "prompt_tokens": p.input,
            "completion_tokens": p.output,
            "total_tokens": p.total,
            "prompt_tokens_details": {"cached_tokens": p.read, "cache_write_tokens": p.written},
            "completion_tokens_details": {"reasoning_tokens": p.thought},
        },
    }


def openai_responses(p: Parts) -> dict[str, Any]:
    """Return OpenAI's usage of responses."""
    return {
        "id": "resp_1",
        "model": "gpt-4o",
        "usage": {
            "input_tokens": p.input,
            "output_tokens": p.output,
            "total_tokens": p.total,
            "input_tokens_details": {"cached_tokens": p.read, "cache_write_tokens": p.written},
            "output_tokens_details": {"reasoning_tokens": p.thought},
        },
    }


def xai_chat(p: Parts) -> dict[str, Any]:
    """Return xAI's usage: as OpenAI's, but reasoning is not in the completion."""
    found = openai_chat(p)
    return {**found, "usage": {**found["usage"], "completion_tokens": p.said}}


def gemini(p: Parts) -> dict[str, Any]:
    """Return Gemini's usage: thoughts are not in the candidates; it writes no cache by itself."""
    return {
        "responseId": "r1",
        "modelVersion": "gemini-2.5-pro",
        "usageMetadata": {
            "promptTokenCount": p.input,
            "cachedContentTokenCount": p.read,
            "candidatesTokenCount": p.said,
            "thoughtsTokenCount": p.thought,
            "totalTokenCount": p.total,
        },
    }


def bedrock(p: Parts) -> dict[str, Any]:
    """Return the usage of Bedrock's converse: what was cached is not in the input."""
    return {
        "usage": {
            "inputTokens": p.uncached,
            "cacheReadInputTokens": p.read,
            "cacheWriteInputTokens": p.written,
            "cacheDetails": [
                {"ttl": "5m", "inputTokens": p.written_5m},
                {"ttl": "1h", "inputTokens": p.written_1h},
            ],
            "outputTokens": p.output,
            "totalTokens": p.total,
        }
    }


Shape = Callable[[Parts], dict[str, Any]]
SHAPES = [
    (anthropic, "anthropic", "default"),
    (openai_chat, "openai", "chat"),
    (openai_responses, "openai", "responses"),
    (gemini, "google", "default"),
    (bedrock, "aws", "default"),
    (xai_chat, "x-ai", "chat"),
]


@pytest.mark.parametrize("shape", [shape for shape, _, _ in SHAPES])
@settings(deadline=None)
@given(p=parts)
def test_totals_are_the_sum_of_the_parts(shape: Shape, p: Parts) -> None:
    """Each token is counted once, whatever a provider includes in what."""
    read = read_answer(shape(p))
    assert (p.input, p.output, p.total) == (
        read.counts.input_tokens,
        read.counts.output_tokens,
        read.total_tokens,
    )
    assert p.read == read.counts.cache_read_tokens
    assert p.written == read.counts.cache_write_tokens or shape is gemini
    if shape is not bedrock:
        assert p.thought == read.counts.reasoning_tokens
    usage = read.counts.usage(7, total_tokens=read.total_tokens)
    assert (p.total, 7) == (usage.total_tokens, usage.cost_micros_usd)
    assert usage.cache_read_tokens + usage.cache_creation_tokens <= usage.input_tokens


@pytest.mark.parametrize(("shape", "provider", "flavor"), SHAPES)
@settings(deadline=None)
@given(p=parts)
def test_the_library_reads_the_same(shape: Shape, provider: str, flavor: str, p: Parts) -> None:
    """genai-prices' own reader finds the same counts in these answers."""
    answer = shape(p)
    if provider == "x-ai":
        answer["model"] = "grok-4.3"
    theirs = genai_prices.extract_usage(answer, provider_id=provider, api_flavor=flavor).usage
    ours = read_answer(answer).counts
    assert ours.input_tokens == theirs.reported_value("input_tokens")
    assert ours.output_tokens == theirs.reported_value("output_tokens")
    assert ours.cache_read_tokens == theirs.reported_value("cache_read_tokens")
    if provider not in {"google", "x-ai"}:
        assert ours.cache_write_tokens == theirs.reported_value("cache_write_tokens")


@settings(deadline=None)
@given(p=parts)
def test_the_same_call_costs_the_same_in_each_convention(library: PriceList, p: Parts) -> None:
    """A call that Anthropic and Bedrock report leaves no part out, and pays none twice."""
    p = replace(p, thought=0)
    counts = [read_answer(shape(p)).counts for shape in (anthropic, bedrock)]
    first, second = (library.price(one, model="claude-sonnet-4-5") for one in counts)
    assert first.cost_usd == second.cost_usd


def test_anthropics_cached_tokens_are_not_in_its_input() -> None:
    """100 uncached, 5,000 read, 2,000 written: 7,100 input tokens, with searches beside them."""
    answer = anthropic(Parts(100, 5_000, 1_500, 500, 50, 0))
    answer["usage"]["server_tool_use"] = {"web_search_requests": 2, "web_fetch_requests": 9}
    read = read_answer(answer)
    assert (
        Counts(
            input_tokens=7_100,
            cache_read_tokens=5_000,
            cache_write_tokens=2_000,
            cache_write_1h_tokens=500,
            output_tokens=50,
            web_searches=2,
        )
        == read.counts
    )
    assert ("claude-sonnet-4-5", "msg_1") == (read.model, read.request_id)
    assert {"service_tier": "standard"} == read.conditions


def test_iterations_that_the_top_level_leaves_out_are_requests() -> None:
    """A compaction of 180,000 tokens beside a message of 23,000: two requests, below each step."""
    each = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
    ]
    answer = anthropic(Parts(23_000, 0, 0, 0, 1_000, 0))
    answer["usage"]["iterations"] = each
    read = read_answer(answer)
    assert [180_000, 23_000] == [one.input_tokens for one in read.requests]
    priced = PriceList().recording(answer).price
    assert priced is not None
    assert Decimal("0.6765") == priced.cost_usd


@pytest.mark.parametrize("name", ["promptTokensDetails", "promptTokenDetails"])
def test_gemini_counts_what_an_embedding_is_made_of(name: str) -> None:
    """Whichever way its parts are spelled."""
    parts = [{"modality": "IMAGE", "tokenCount": 250}, {"modality": "TEXT", "tokenCount": 50}]
    usage = {"promptTokenCount": 300, "totalTokenCount": 300, name: parts}
    read = read_answer({"modelVersion": "gemini-embedding-2", "usageMetadata": usage})
    assert Counts(input_tokens=300, input_image_tokens=250) == read.counts


def test_gemini_counts_tools_sound_and_pictures() -> None:
    """Results of tools are input; sound and pictures are parts of it, cached or not."""
    answer = {
        "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {
            "promptTokenCount": 1_000,
            "toolUsePromptTokenCount": 50,
            "cachedContentTokenCount": 400,
            "candidatesTokenCount": 200,
            "thoughtsTokenCount": 300,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 700},
                {"modality": "AUDIO", "tokenCount": 100},
                {"modality": "IMAGE", "tokenCount": 150},
                {"modality": "DOCUMENT", "tokenCount": 50},
            ],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}],
            "trafficType": "ON_DEMAND",
        },
    }
    read = read_answer(answer)
    assert (
        Counts(
            input_tokens=1_050,
            cache_read_tokens=400,
            input_audio_tokens=100,
            cache_read_audio_tokens=40,
            input_image_tokens=200,
            output_tokens=500,
            reasoning_tokens=300,
        )
        == read.counts
    )
    assert {"service_tier": "on_demand"} == read.conditions


@pytest.mark.parametrize(
    ("whole", "usage", "expected"),
    [
        ({"service_tier": "flex"}, {}, {"service_tier": "flex"}),
        ({"service_tier": "default"}, {}, {"service_tier": "default"}),
        ({"service_tier": None}, {}, {}),
        ({}, {"service_tier": "batch"}, {"service_tier": "batch"}),
        ({}, {"speed": "fast"}, {"speed": "fast"}),
        ({}, {"inference_geo": "us"}, {"inference_geo": "us"}),
        ({}, {"inference_geo": "global"}, {"inference_geo": "global"}),
        ({"serviceTier": {"type": "priority"}}, {}, {"service_tier": "priority"}),
        ({}, {"trafficType": "ON_DEMAND_FLEX"}, {"service_tier": "flex"}),
        (
            {},
            {"trafficType": "PROVISIONED_THROUGHPUT"},
            {"service_tier": "provisioned_throughput"},
        ),
    ],
)
def test_what_an_answer_was_charged_under(
    whole: dict[str, Any], usage: dict[str, Any], expected: dict[str, str]
) -> None:
    """Tier, speed and place come from where each provider puts them, ordinary or not."""
    answer = {**whole, "usage": {"input_tokens": 1, "output_tokens": 1, **usage}}
    assert expected == read_answer(answer).conditions


def test_searches_of_openais_responses_are_in_its_output() -> None:
    """Its usage does not count them; opening a page that was found is no search."""
    answer = openai_responses(Parts(10, 0, 0, 0, 5, 0))
    answer["output"] = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "web_search_call"},
        {"type": "message"},
    ]
    assert 2 == read_answer(answer).counts.web_searches


def test_searches_in_files_are_in_the_output_too() -> None:
    """Each call of the tool is charged, however many queries it has."""
    answer = openai_responses(Parts(10, 0, 0, 0, 5, 0))
    answer["output"] = [
        {"type": "file_search_call", "queries": ["a", "b"]},
        {"type": "message"},
    ] * 2
    found = read_answer({"model": "gpt-4.1", **answer})
    assert (2, 0) == (found.counts.file_searches, found.counts.web_searches)
    priced = PriceList().recording(found).price
    assert priced is not None
    assert ("file_searches", 2, Decimal("2.5"), 1_000) in priced.charges


@pytest.mark.parametrize("seconds", ["12", -1, float("nan"), float("inf"), True, [1]])
def test_a_length_that_is_none_is_no_usage(seconds: object) -> None:
    """It is refused, and not charged as nothing."""
    with pytest.raises(InvalidInputError):
        read_answer({"usage": {"type": "duration", "seconds": seconds}})


@pytest.mark.parametrize("heard", [None, {}, 0])
def test_an_answer_of_mistrals_without_sound(heard: object) -> None:
    """The field of its seconds is there all the same."""
    usage = {"prompt_tokens": 4, "completion_tokens": 6, "prompt_audio_seconds": heard}
    assert Counts(input_tokens=4, output_tokens=6) == read_answer({"usage": usage}).counts


def test_events_hold_the_answer() -> None:
    """`response.completed` and `message_start` are read as what they hold."""
    for name, shape in (("response", openai_responses), ("message", anthropic)):
        event = {"type": "any", name: shape(Parts(1, 2, 3, 4, 5, 0))}
        assert 15 == read_answer(event).total_tokens


@pytest.mark.parametrize("total", [{}, {"total_tokens": 110}, {"total_tokens": 5_110}])
def test_a_gateway_that_leaves_cached_tokens_out_is_found_out(total: dict[str, int]) -> None:
    """More cached tokens than input: they cannot be part of it, so they are beside it."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 5_000},
        **total,
    }
    assert 5_100 == read_answer({"usage": usage}).counts.input_tokens


def test_a_total_that_says_more_is_kept() -> None:
    """What a provider calls the total counts against the budget if it is more."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 125}
    read = read_answer({"usage": usage})
    assert 125 == read.total_tokens == read.counts.usage(0, total_tokens=125).total_tokens


def test_objects_of_a_providers_library_are_read() -> None:
    """Anything that has `model_dump`, as pydantic's models do."""

    class Object:
        def model_dump(self) -> dict[str, Any]:
            return openai_chat(Parts(1, 0, 0, 0, 2, 0))

    assert 3 == read_answer(Object()).total_tokens


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"tokens": 5}},
        {"usage": {"input_tokens": 1.5, "output_tokens": 0}},
        {"usage": {"input_tokens": -1, "output_tokens": 0}},
        {"usage": {"input_tokens": True, "output_tokens": 0}},
        {"usage": {"prompt_tokens": 1, "completion_tokens_details": 3}},
        "text",
        None,
        [1],
    ],
)
def test_what_cannot_be_read_is_refused(bad: object) -> None:
    """No usage, fractions, negative counts and other types are errors that say which."""
    with pytest.raises(InvalidInputError):
        read_answer(bad)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"input_tokens": 10, "cache_read_tokens": 11}, "input_tokens"),
        ({"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 5}, "input_tokens"),
        ({"output_tokens": 1, "reasoning_tokens": 2}, "output_tokens"),
        ({"input_tokens": 9, "cache_write_1h_tokens": 1}, "cache_write_tokens"),
        ({"input_tokens": 10, "input_audio_tokens": 6, "input_image_tokens": 5}, "input_tokens"),
        ({"input_tokens": 2**63}, "input_tokens"),
        ({"web_searches": -1}, "web_searches"),
    ],
)
def test_parts_must_fit_into_the_whole(bad: dict[str, int], field: str) -> None:
    """Counts that contradict each other are refused by the name of the whole."""
    with pytest.raises(InvalidInputError) as caught:
        Counts(**bad)
    assert field == caught.value.field
