"""The protocols that models are spoken with: where a request says what, and how an answer is read.

Usage comes in parts. A figure in a later part replaces the earlier one: providers send what has
been used so far, and some send 0 or nothing for what they have said before. So the larger figure
holds, and nothing is added up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Fields = Mapping[str, Any]


@dataclass(slots=True)
class Said:
    """What an answer has said so far.

    Attributes:
        answers: How many answers were asked for.
        answer: The parts that matter, as `ledger.prices.read_answer` takes them.
        final: Whether the protocol's own end came: the usage grows no more.
        early: Whether usage came that is worth recording before the end.
        finished: The numbers of the answers that are finished.
    """

    answers: int = 1
    answer: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    early: bool = False
    finished: set[object] = field(default_factory=set)

    def keep(self, whole: Fields, *names: str) -> None:
        """Keep some parts of an answer, those that are there."""
        for name in names:
            if whole.get(name) is not None:
                self.answer[name] = whole[name]

    def use(self, name: str, usage: object) -> None:
        """Keep what was used so far."""
        if isinstance(usage, Mapping):
            kept = self.answer.setdefault(name, {})
            for part, value in usage.items():
                if value is not None:
                    old = kept.get(part)
                    kept[part] = max(value, old) if type(value) is type(old) is int else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How one kind of call is spoken.

    Attributes:
        name: Of the protocol.
        operation: What the call does, as OpenTelemetry names it.
        provider: Who speaks it first of all, as price lists name it; None if anybody may.
        paths: How the paths of its requests end.
        inputs: The parts of a request that the model reads.
        limits: Where a request says how much output it wants at most, by preference.
        answers: Where a request says how many answers it wants.
        writes: 1, or 0 if there is no output.
        usage_on_request: Whether a stream leaves its usage out unless `stream_options` ask for it.
        usage: The part of an answer that says what was used.
        tells: An event of a stream that does not match this says nothing of usage or end.
        more_behind: Whether usage may still come behind the end of a stream.
        head: Reads what the headers of an answer say of its usage; None if they say nothing.
        event: Reads an event of a stream.
        whole: Reads an answer in one piece.
    """

    name: str
    operation: str
    provider: str | None
    paths: tuple[str, ...]
    inputs: tuple[str, ...]
    limits: tuple[tuple[str, ...], ...] = ()
    answers: tuple[str, ...] = ("n",)
    writes: int = 1
    usage_on_request: bool = False
    usage: str = "usage"
    tells: re.Pattern[bytes]
    event: Callable[[Said, Fields], None]
    whole: Callable[[Said, Fields], None]
    more_behind: bool = False
    head: Callable[[Said, Mapping[str, str]], None] | None = None


def _chat_event(said: Said, event: Fields) -> None:
    said.keep(event, "id", "model", "service_tier")
    said.use("usage", event.get("usage"))
    groq = event.get("x_groq")
    if isinstance(groq, Mapping):
        said.use("usage", groq.get("usage"))
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if choice.get("finish_reason"):
            said.finished.add(choice.get("index"))
    # The usage comes in the chunk of the last finish_reason, or in one without choices behind it.
    if said.answer.get("usage") and (len(said.finished) >= said.answers or choices == []):
        said.final = True


def _response_event(said: Said, event: Fields) -> None:
    response = event.get("response")
    if not isinstance(response, Mapping):
        return
    if event.get("type") in _RESPONSE_ENDS:
        _response(said, response)
    else:
        said.keep(response, "id", "model")


def _response(said: Said, response: Fields) -> None:
    said.keep(response, "id", "model", "service_tier", "output", "usage")
    # One that runs in the background is answered at once, without its usage.
    said.final = response.get("status", "completed") in _RESPONSE_STATUSES


def _message_event(said: Said, event: Fields) -> None:
    kind, message = event.get("type"), event.get("message")
    if kind == "message_start" and isinstance(message, Mapping):
        said.keep(message, "id", "model")
        said.use("usage", message.get("usage"))
        said.early = bool(said.answer.get("usage"))
    elif kind == "message_delta":
        said.use("usage", event.get("usage"))
        # Some clients stop reading here, before message_stop.
        delta = event.get("delta")
        if isinstance(delta, Mapping) and delta.get("stop_reason") and event.get("usage"):
            said.final = True
    elif kind == "message_stop":
        said.final = True


def _gemini_event(said: Said, event: Fields) -> None:
    said.keep(event, "modelVersion", "responseId")
    said.use("usageMetadata", event.get("usageMetadata"))
    candidates, feedback = event.get("candidates"), event.get("promptFeedback")
    for candidate in candidates if isinstance(candidates, list) else ():
        if candidate.get("finishReason"):
            said.finished.add(candidate.get("index", 0))
    if isinstance(feedback, Mapping) and feedback.get("blockReason"):
        said.final = True  # there will be no candidate
    if len(said.finished) >= said.answers:
        said.final = True


def _whole(*names: str) -> Callable[[Said, Fields], None]:
    def read(said: Said, answer: Fields) -> None:
        said.keep(answer, *names)
        said.final = True

    return read


def _cohere_event(said: Said, event: Fields) -> None:
    delta = event.get("delta")
    if event.get("type") == "message-end" and isinstance(delta, Mapping):
        _cohere(said, delta)


def _cohere_1(said: Said, answer: Fields) -> None:
    """Read an answer of version 1, or an event of a stream, whose last one holds an answer."""
    if answer.get("event_type") == "stream-end" and isinstance(answer.get("response"), Mapping):
        answer = answer["response"]
    if "event_type" not in answer:
        _cohere(said, {"id": answer.get("response_id"), "usage": answer.get("meta")})


def _cohere(said: Said, answer: Fields) -> None:
    said.keep(answer, "id")
    usage = answer.get("usage")
    units = usage.get("billed_units") if isinstance(usage, Mapping) else None
    if isinstance(units, Mapping):  # what the model saw, beside it, is more than what is charged
        counts = {name: units.get(name) for name in ("input_tokens", "output_tokens")}
        said.use("usage", {name: math.ceil(n) for name, n in counts.items() if n is not None})
    said.final = True


def _converse_event(said: Said, event: Fields) -> None:
    """Read an answer, or an event of a stream, whose last one is `metadata`."""
    metadata = event.get("metadata")
    source = metadata if isinstance(metadata, Mapping) else event
    said.keep(source, "serviceTier")
    said.use("usage", source.get("usage"))
    said.final = bool(said.answer.get("usage"))


_METRICS = "amazon-bedrock-invocationMetrics"
_INVOKED = {
    "input_tokens": ("x-amzn-bedrock-input-token-count", "inputTokenCount"),
    "output_tokens": ("x-amzn-bedrock-output-token-count", "outputTokenCount"),
    "cache_read_input_tokens": (
        "x-amzn-bedrock-cache-read-input-token-count",
        "cacheReadInputTokenCount",
    ),
    "cache_creation_input_tokens": (
        "x-amzn-bedrock-cache-write-input-token-count",
        "cacheWriteInputTokenCount",
    ),
}
"""What Bedrock counted for any model, by its headers, and by the last event of a stream."""


def _amazon_head(said: Said, headers: Mapping[str, str]) -> None:
    said.keep({"id": headers.get("x-amzn-requestid")}, "id")


def _invoked_head(said: Said, headers: Mapping[str, str]) -> None:
    _amazon_head(said, headers)
    counts = {name: headers.get(header) for name, (header, _) in _INVOKED.items()}
    said.use("usage", {name: int(n) for name, n in counts.items() if n is not None})
    said.final = bool(said.answer.get("usage"))  # the bytes behind it may break off


def _invoked_event(said: Said, event: Fields) -> None:
    _message_event(said, event)  # Claude's; others have the metrics alone
    metrics = event.get(_METRICS)
    if isinstance(metrics, Mapping):
        if not said.answer.get("usage"):
            said.use("usage", {name: metrics.get(metric) for name, (_, metric) in _INVOKED.items()})
        said.final = True
    said.answer.pop("model", None)  # it is priced by the name that it was asked by, with its region


def _invoked(said: Said, answer: Fields) -> None:
    said.keep(answer, "id")
    usage = answer.get("usage")
    # Claude's says more than the headers, and others' in ways of their own.
    if isinstance(usage, Mapping) and ("input_tokens" in usage or not said.answer.get("usage")):
        said.use("usage", usage)
    said.final = True


_RESPONSE_STATUSES = frozenset({"completed", "incomplete", "failed", "cancelled"})
_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})

PROTOCOLS = (
    Protocol(
        name="chat",
        operation="chat",
        provider="openai",
        paths=("/chat/completions",),
        inputs=("messages", "tools", "functions", "response_format"),
        limits=(("max_completion_tokens",), ("max_tokens",)),
        usage_on_request=True,
        tells=re.compile(rb'"(?:usage|x_groq)":\s*\{|"finish_reason":\s*"'),
        event=_chat_event,
        whole=_whole("id", "model", "service_tier", "usage"),
    ),
    Protocol(
        name="completions",
        operation="text_completion",
        provider="openai",
        paths=("/v1/completions", "/openai/completions"),
        inputs=("prompt", "suffix"),
        limits=(("max_tokens",),),
        usage_on_request=True,
        tells=re.compile(rb'"usage":\s*\{|"finish_reason":\s*"'),
        event=_chat_event,
        whole=_whole("id", "model", "service_tier", "usage"),
    ),
    Protocol(
        name="responses",
        operation="chat",
        provider="openai",
        paths=("/responses",),
        inputs=("input", "instructions", "tools", "text"),
        limits=(("max_output_tokens",),),
        tells=re.compile(rb'"type":\s*"response\.(?:completed|incomplete|failed)"'),
        event=_response_event,
        whole=_response,
    ),
    Protocol(
        name="messages",
        operation="chat",
        provider="anthropic",
        paths=("/messages", ":rawPredict", ":streamRawPredict"),
        inputs=("system", "messages", "tools"),
        limits=(("max_tokens",),),
        tells=re.compile(rb'"type":\s*"message_(?:start|delta|stop)"'),
        event=_message_event,
        whole=_whole("id", "model", "usage"),
    ),
    Protocol(
        name="gemini",
        operation="generate_content",
        provider="google",
        paths=(":generateContent", ":streamGenerateContent"),
        inputs=("contents", "systemInstruction", "tools"),
        limits=(("generationConfig", "maxOutputTokens"),),
        answers=("generationConfig", "candidateCount"),
        usage="usageMetadata",
        tells=re.compile(rb'"(?:usageMetadata|finishReason|blockReason)":'),
        event=_gemini_event,
        whole=_gemini_event,
        more_behind=True,
    ),
    Protocol(
        name="cohere",
        operation="chat",
        provider="cohere",
        paths=("/v2/chat",),
        inputs=("messages", "tools", "documents", "response_format"),
        limits=(("max_tokens",),),
        answers=(),
        tells=re.compile(rb'"type":\s*"message-end"'),
        event=_cohere_event,
        whole=_cohere,
    ),
    Protocol(
        name="cohere, version 1",
        operation="chat",
        provider="cohere",
        paths=("/v1/chat",),
        inputs=("message", "chat_history", "preamble", "tools", "tool_results", "documents"),
        limits=(("max_tokens",),),
        answers=(),
        tells=re.compile(rb'"event_type":\s*"stream-end"'),
        event=_cohere_1,
        whole=_cohere_1,  # a stream is of lines of JSON, unless events are asked for
    ),
    Protocol(
        name="embeddings",
        operation="embeddings",
        provider="openai",
        paths=("/embeddings",),
        inputs=("input",),
        writes=0,
        tells=re.compile(rb"(?!)"),  # it has no stream
        event=lambda _said, _event: None,
        whole=_whole("model", "usage"),
    ),
)

CONVERSE = replace(
    PROTOCOLS[0],
    name="converse",
    provider="aws",
    paths=("/converse", "/converse-stream"),
    inputs=("system", "messages", "toolConfig"),
    limits=(("inferenceConfig", "maxTokens"),),
    answers=(),
    usage_on_request=False,
    tells=re.compile(rb"(?!)"),  # it has no server-sent events
    event=_converse_event,
    whole=_converse_event,
    head=_amazon_head,
)
"""Amazon Bedrock's own."""

INVOKE = replace(
    CONVERSE,
    name="invoke",
    paths=("/invoke", "/invoke-with-response-stream"),
    inputs=(
        *("system", "messages", "tools", "toolConfig", "prompt", "message", "chat_history"),
        *("preamble", "documents", "inputText", "inputs", "texts"),
    ),
    limits=(
        *(("max_tokens",), ("max_gen_len",), ("maxTokens",), ("max_tokens_to_sample",)),
        ("textGenerationConfig", "maxTokenCount"),
        *(("inferenceConfig", name) for name in ("maxTokens", "max_new_tokens", "maxNewTokens")),
    ),
    answers=("num_generations",),
    event=_invoked_event,
    whole=_invoked,
    head=_invoked_head,
)
"""Amazon Bedrock's for requests as each model's maker writes them."""

INVOKE_EMBEDDINGS = replace(INVOKE, operation="embeddings", writes=0)

ANY = replace(PROTOCOLS[0], name="any", provider=None, paths=(), inputs=("input",), limits=())
"""What a program says for itself, of calls that go by no transport that is known."""
