"""The usage in an answer: the one place that knows each provider's convention.

===========  ==============================  =============================================
provider     input tokens                    output tokens
===========  ==============================  =============================================
OpenAI       include what was cached         include reasoning
xAI chat     include what was cached         leave reasoning out
Anthropic    leave out what was cached       include thinking
Gemini       include what was cached, leave  leave thoughts out
             out results of tools
Bedrock      leave out what was cached       include reasoning
===========  ==============================  =============================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ledger.core.checks import I64_MAX, check_amount
from ledger.core.errors import InvalidInputError
from ledger.core.values import Counting
from ledger.prices.counts import Counts
from ledger.prices.table import CONDITIONS

Fields = Mapping[str, Any]
MAPPINGS = (dict, Mapping)
"""The built-in type comes first, since it is recognised fastest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The content of an answer that concerns its cost.

    Attributes:
        requests: The usage. There are several if the provider worked in several iterations, each of
            which is charged separately.
        total_tokens: The provider's total, or the sum of the requests if that is more.
        model: The model that answered, None if the answer does not say.
        request_id: The provider's id of the answer.
        conditions: The conditions of the charge that the answer names, such as `{"service_tier":
            "flex"}`.
    """

    requests: tuple[Counts, ...]
    total_tokens: int
    model: str | None = None
    request_id: str | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """All requests together."""
        first, *others = self.requests
        for other in others:
            first = first.plus(other)
        return first


def read_answer(answer: object) -> Answer:
    """Read the usage in an answer of OpenAI, Anthropic, Gemini, Bedrock or a compatible provider.

    Args:
        answer: The answer's JSON as a mapping, an object of the provider's library (one that has
            `model_dump`), or the usage of either alone.

    Raises:
        InvalidInputError: It has no usage, or a count in it is no whole number of 0 or more.
    """
    whole = _mapping(answer)
    for outer in _EVENTS:  # an event of a stream holds the answer
        inner = whole.get(outer)
        if inner is not None and isinstance(inner, MAPPINGS) and inner.get("usage"):
            whole = inner
    usage = {_snake(name): value for name, value in _usage_of(whole).items()}
    read = _reader_of(usage)
    if read is None:
        raise InvalidInputError(
            "answer",
            "has no usage that is known here; give the counts yourself, as "
            "Counts(input_tokens=..., output_tokens=...)",
        )
    if "output" in whole:
        usage.update(_searches(whole["output"]))
    requests = tuple(read(usage))
    stated = _count(usage, "total_tokens") or _count(usage, "total_token_count")
    return Answer(
        requests=requests,
        total_tokens=max(stated, sum(request.total_tokens for request in requests)),
        model=model_of(whole),
        request_id=id_of(whole),
        conditions=_conditions(usage, whole),
    )


def _usage_of(whole: Fields) -> Fields:
    for name in _USAGES:
        if found := whole.get(name):
            return _mapping(found)
    return whole


def _reader_of(usage: Fields) -> Callable[[Fields], Sequence[Counts]] | None:
    for wanted, read in _READERS:
        if wanted <= usage.keys():
            return read
    return None


def model_of(whole: Fields) -> str | None:
    """Return the model that answered, None if the answer does not say."""
    return _text(whole, "model", "modelVersion", "model_version")


def id_of(whole: Fields) -> str | None:
    """Return the provider's id of an answer, None if it has none."""
    return _text(whole, "id", "responseId", "response_id")


def _conditions(usage: Fields, whole: Fields) -> dict[str, str]:
    said = {
        name: value
        for name in CONDITIONS
        if (name in usage or name in whole)
        and (value := _text(usage, name) or _text(whole, name)) is not None
    }
    # Bedrock has the tier in a separate object, Gemini in the kind of traffic.
    bedrock, gemini = whole.get("serviceTier"), usage.get("traffic_type")
    if isinstance(bedrock, MAPPINGS):
        tier = _text(bedrock, "type")
    elif gemini is not None and (named := _text(usage, "traffic_type")) is not None:
        tier = named.lower().removeprefix("on_demand_")
    else:
        return said
    return said if tier is None else {**said, "service_tier": tier}


def _openai_chat(usage: Fields) -> Sequence[Counts]:
    given, made = _part(usage, "prompt_tokens_details"), _part(usage, "completion_tokens_details")
    return [_openai(usage, "prompt_tokens", "completion_tokens", given, made)]


def _openai_responses(usage: Fields) -> Sequence[Counts]:
    given = _part(usage, "input_tokens_details") or _part(usage, "input_token_details")
    made = _part(usage, "output_tokens_details")
    return [_openai(usage, "input_tokens", "output_tokens", given, made)]


def _openai(usage: Fields, input_: str, output: str, given: Fields, made: Fields) -> Counts:
    input_tokens, output_tokens = _count(usage, input_), _count(usage, output)
    kinds: dict[str, int] = {}
    for details, names in ((given, _OPENAI_INPUT), (made, _OPENAI_OUTPUT)):
        if details:
            kinds.update({kind: _count(details, name) for name, kind in names})
    reasoning = kinds.pop("reasoning", 0)
    read, written = kinds.pop("read", 0), kinds.pop("written", 0)
    # xAI excludes reasoning from the completion, and some gateways exclude cached tokens from the
    # prompt and the total. The total shows this, or a part that is more than the whole.
    counting = Counting.OPENAI
    stated = _count(usage, "total_tokens")
    if read + written > input_tokens:
        counting = Counting.ANTHROPIC
    elif stated == input_tokens + output_tokens + reasoning or reasoning > output_tokens:
        counting = Counting.GEMINI
    return _counts(
        counting,
        (input_tokens, output_tokens),
        read=read,
        written=written,
        reasoning=reasoning,
        audio_seconds=_seconds(usage, _HEARD) if usage.get(_HEARD) else 0,
        file_searches=_count(usage, _FILE_SEARCHES),
        web_searches=_count(usage, _SEARCHES) + _count(usage, "search_units"),
        **kinds,
    )


def _anthropic(usage: Fields) -> Sequence[Counts]:
    whole = _anthropic_part(usage)
    searches = _count(_part(usage, "server_tool_use"), "web_search_requests")
    iterations = [
        _anthropic_part(_mapping(one)) for one in usage.get("iterations") or () if one is not None
    ]
    others: list[Counts] = []
    # The top level leaves out some iterations, such as a compaction. Each is a separate request.
    if iterations and all(
        sum(getattr(one, name) for one in iterations) >= getattr(whole, name)
        for name in ("input_tokens", "output_tokens")
    ):
        whole, *others = iterations
    return [replace(whole, web_searches=searches) if searches else whole, *others]


def _anthropic_part(usage: Fields) -> Counts:
    split = _part(usage, "cache_creation")
    hour = _count(split, "ephemeral_1h_input_tokens")
    # `message_delta` updates the sum, and never the split.
    written = max(
        _count(usage, "cache_creation_input_tokens"),
        hour + _count(split, "ephemeral_5m_input_tokens"),
    )
    return _counts(
        Counting.ANTHROPIC,
        (_count(usage, "input_tokens"), _count(usage, "output_tokens")),
        read=_count(usage, "cache_read_input_tokens"),
        written=written,
        reasoning=_count(_part(usage, "output_tokens_details"), "thinking_tokens"),
        cache_write_1h_tokens=hour,
    )


def _gemini(usage: Fields) -> Sequence[Counts]:
    # Some embeddings are said to have `promptTokenDetails`.
    given = _modalities(
        usage, "prompt_tokens_details", "prompt_token_details", "tool_use_prompt_tokens_details"
    )
    cached = _modalities(usage, "cache_tokens_details")
    made = _modalities(usage, "candidates_tokens_details")
    prompts = ("prompt_token_count", "tool_use_prompt_token_count")
    return [
        _counts(
            Counting.GEMINI,
            (
                sum(_count(usage, name) for name in prompts),
                _count(usage, "candidates_token_count"),
            ),
            read=_count(usage, "cached_content_token_count"),
            reasoning=_count(usage, "thoughts_token_count"),
            input_audio_tokens=given["AUDIO"],
            cache_read_audio_tokens=cached["AUDIO"],
            input_image_tokens=given["IMAGE"] + given["DOCUMENT"],
            cache_read_image_tokens=cached["IMAGE"] + cached["DOCUMENT"],
            input_video_tokens=given["VIDEO"],
            output_audio_tokens=made["AUDIO"],
            output_image_tokens=made["IMAGE"],
            output_video_tokens=made["VIDEO"],
        )
    ]


def _bedrock(usage: Fields) -> Sequence[Counts]:
    hour = sum(
        _count({_snake(name): value for name, value in one.items()}, "input_tokens")
        for one in map(_mapping, usage.get("cache_details") or ())
        if one.get("ttl") == "1h"
    )
    return [
        _counts(
            Counting.ANTHROPIC,
            (_count(usage, "input_tokens"), _count(usage, "output_tokens")),
            read=_count(usage, "cache_read_input_tokens"),
            written=_count(usage, "cache_write_input_tokens"),
            cache_write_1h_tokens=hour,
        )
    ]


def _duration(usage: Fields) -> Sequence[Counts]:
    return [Counts(audio_seconds=_seconds(usage, "seconds"))]


def _counts(
    counting: Counting,
    said: tuple[int, int],
    *,
    read: int = 0,
    written: int = 0,
    reasoning: int = 0,
    **more: int,
) -> Counts:
    """Return the counts, from the input and the output as a provider counts them."""
    input_tokens, output_tokens = counting.whole(
        *said, cached=read + written, reasoning_tokens=reasoning
    )
    return Counts(
        input_tokens=input_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        **more,
    )


_EVENTS = ("response", "message")
_USAGES = ("usage", "usageMetadata", "usage_metadata")
_HEARD = "prompt_audio_seconds"
"""Mistral's: null, or an empty object, where there was no sound."""
_SEARCHES, _FILE_SEARCHES = "searches in the output", "searches in files in the output"

_OPENAI_INPUT = (
    ("cached_tokens", "read"),
    ("cache_write_tokens", "written"),
    ("audio_tokens", "input_audio_tokens"),
    ("image_tokens", "input_image_tokens"),
)
_OPENAI_OUTPUT = (
    ("reasoning_tokens", "reasoning"),
    ("audio_tokens", "output_audio_tokens"),
    ("image_tokens", "output_image_tokens"),
)
"""Names in the details of OpenAI's usage, and what they are here."""

_READERS: Sequence[tuple[set[str], Callable[[Fields], Sequence[Counts]]]] = (
    ({"prompt_tokens"}, _openai_chat),
    ({"prompt_token_count"}, _gemini),
    ({"cache_write_input_tokens"}, _bedrock),
    ({"input_tokens", "cache_creation_input_tokens"}, _anthropic),
    ({"input_tokens", "cache_read_input_tokens", "total_tokens"}, _bedrock),
    ({"input_tokens", "cache_read_input_tokens"}, _anthropic),
    ({"input_tokens"}, _openai_responses),
    ({"seconds"}, _duration),
)
"""The reader for a usage with these fields; names are in snake case here."""


def _searches(output: object) -> dict[str, int]:
    """Return how often OpenAI's answer searched the web and files, which its usage does not say."""
    given = output if isinstance(output, list) else ()
    parts = [one for one in given if isinstance(one, Mapping)]
    in_files = sum(one.get("type") == "file_search_call" for one in parts)
    calls = [one for one in parts if one.get("type") == "web_search_call"]
    # Opening a page that was found is no search.
    in_web = sum(_part(call, "action").get("type", "search") == "search" for call in calls)
    return {_SEARCHES: in_web, _FILE_SEARCHES: in_files}


def _mapping(value: object) -> Fields:
    if isinstance(value, MAPPINGS):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump() if callable(dump) else None
    if not isinstance(found, Mapping):
        raise InvalidInputError("answer", f"must be a mapping, not a {type(value).__name__}")
    return found


def _part(fields: Fields, name: str) -> Fields:
    value = fields.get(name)
    return {} if value is None else _mapping(value)


def _count(fields: Fields, name: str) -> int:
    value = fields.get(name)
    if value.__class__ is int and 0 <= value <= I64_MAX:
        return value
    return 0 if value is None else check_amount(name, value, ceiling=I64_MAX)


def _seconds(fields: Fields, name: str) -> int:
    """Return a length in whole seconds: one that has begun is one."""
    value = fields.get(name)
    if isinstance(value, float) and math.isfinite(value):
        value = math.ceil(value)
    return 0 if value is None else check_amount(name, value, ceiling=I64_MAX)


def _modalities(usage: Fields, *names: str) -> dict[str, int]:
    found = dict.fromkeys(("TEXT", "AUDIO", "IMAGE", "DOCUMENT", "VIDEO"), 0)
    for name in names:
        for given in usage.get(name) or ():
            one = {_snake(key): value for key, value in _mapping(given).items()}
            modality = str(getattr(one.get("modality"), "value", one.get("modality"))).upper()
            if modality in found:
                found[modality] += _count(one, "token_count")
    return found


def _text(fields: Fields, *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        value = getattr(value, "value", value)
        if isinstance(value, str) and value:
            return value
    return None


@lru_cache(maxsize=256)
def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
