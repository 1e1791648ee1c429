"""The usage in answers: how events and whole answers of each protocol are read.

Usage comes in parts, and each figure is the usage so far. Some providers send 0 or nothing later
for a figure that they have sent before. So the larger figure counts, and nothing is added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger.prices.answers import Fields


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
        """Keep some parts of an answer, if it has them."""
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


def chat_event(said: Said, event: Fields) -> None:
    """Read an event of OpenAI's chat, or of one like it."""
    said.keep(event, "id", "model", "service_tier")
    said.use("usage", event.get("usage"))
    groq = event.get("x_groq")
    if isinstance(groq, Mapping):
        said.use("usage", groq.get("usage"))
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if choice.get("finish_reason"):
            said.finished.add(choice.get("index"))
    # The usage comes in the chunk with the last finish_reason, or in a later one without choices.
    if said.answer.get("usage") and (len(said.finished) >= said.answers or choices == []):
        said.final = True


def response_event(said: Said, event: Fields) -> None:
    """Read an event of OpenAI's responses."""
    answer = event.get("response")
    if not isinstance(answer, Mapping):
        return
    if event.get("type") in _RESPONSE_ENDS:
        response(said, answer)
    else:
        said.keep(answer, "id", "model")


def response(said: Said, answer: Fields) -> None:
    """Read a response."""
    said.keep(answer, "id", "model", "service_tier", "output", "usage")
    # A background response is returned at once, without its usage.
    said.final = answer.get("status", "completed") in _RESPONSE_STATUSES


def message_event(said: Said, event: Fields) -> None:
    """Read an event of Anthropic's messages."""
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


def gemini_event(said: Said, event: Fields) -> None:
    """Read an answer of Gemini's, or a part of it."""
    said.keep(event, "modelVersion", "responseId")
    said.use("usageMetadata", event.get("usageMetadata"))
    candidates, feedback = event.get("candidates"), event.get("promptFeedback")
    for candidate in candidates if isinstance(candidates, list) else ():
        if candidate.get("finishReason"):
            said.finished.add(candidate.get("index", 0))
    if isinstance(feedback, Mapping) and feedback.get("blockReason"):
        said.final = True  # no candidate will come
    if len(said.finished) >= said.answers:
        said.final = True


def whole(*names: str) -> Callable[[Said, Fields], None]:
    """Return a reader of answers that have everything under these names."""

    def read(said: Said, answer: Fields) -> None:
        said.keep(answer, *names)
        said.final = True

    return read


def cohere_event(said: Said, event: Fields) -> None:
    """Read an event of Cohere's chat."""
    delta = event.get("delta")
    if event.get("type") == "message-end" and isinstance(delta, Mapping):
        cohere(said, delta)


def cohere_1(said: Said, answer: Fields) -> None:
    """Read an answer of version 1, or an event of a stream, whose last one holds an answer."""
    if answer.get("event_type") == "stream-end" and isinstance(answer.get("response"), Mapping):
        answer = answer["response"]
    if "event_type" not in answer:
        cohere(said, {"id": answer.get("response_id"), "usage": answer.get("meta")})


def cohere_meta(said: Said, answer: Fields) -> None:
    """Read an answer of Cohere's that has its usage beside it."""
    cohere(said, {"id": answer.get("id"), "usage": answer.get("meta")})


def cohere(said: Said, answer: Fields) -> None:
    """Read an answer of Cohere's chat."""
    said.keep(answer, "id")
    usage = answer.get("usage")
    units = usage.get("billed_units") if isinstance(usage, Mapping) else None
    # The usage also has the tokens that the model saw, which are more than what is charged. Units
    # of another kind, such as pictures or classifications, have no price by tokens; then the answer
    # has no usage.
    units = units if isinstance(units, Mapping) else {}
    used = {name for name, value in units.items() if value}
    # A billed 0 counts as 0, if tokens or searches are billed at all.
    if used <= _BILLED and any(units.get(name) is not None for name in _BILLED):
        counts = {name: math.ceil(units.get(name) or 0) for name in _BILLED}
        parts = counts.pop("text_tokens") + counts["image_tokens"]
        counts["input_tokens"] = max(counts["input_tokens"], parts)
        details = {"image_tokens": counts.pop("image_tokens")}
        said.use("usage", {**counts, "input_tokens_details": details})
    said.final = True


_BILLED = frozenset(
    ["input_tokens", "text_tokens", "image_tokens", "output_tokens", "search_units"]
)
"""What Cohere bills that has a price."""


def images(said: Said, answer: Fields) -> None:
    """Read an answer with pictures, or the event of a stream that has the last one."""
    usage = answer.get("usage")
    if isinstance(usage, Mapping):
        made = usage.get("output_tokens_details") or {"image_tokens": usage.get("output_tokens")}
        said.use("usage", {**usage, "output_tokens_details": made})
    said.final = True


def images_event(said: Said, event: Fields) -> None:
    """Read an event of OpenAI's pictures; earlier ones hold unfinished pictures."""
    if event.get("type") in {"image_generation.completed", "image_edit.completed"}:
        images(said, event)


def transcription_event(said: Said, event: Fields) -> None:
    """Read an event of OpenAI's transcriptions."""
    if event.get("type") == "transcript.text.done":
        said.keep(event, "usage")
        said.final = True


def speech_event(said: Said, event: Fields) -> None:
    """Read an event of OpenAI's speech."""
    if event.get("type") == "speech.audio.done":
        said.keep(event, "usage")
        said.final = True


def no_event(_said: Said, _event: Fields) -> None:
    """Read nothing: the protocol has no stream."""


def converse_event(said: Said, event: Fields) -> None:
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


def amazon_head(said: Said, headers: Mapping[str, str]) -> None:
    """Read the id of an answer."""
    said.keep({"id": headers.get("x-amzn-requestid")}, "id")


def invoked_head(said: Said, headers: Mapping[str, str]) -> None:
    """Read what Bedrock counted of a model's answer."""
    amazon_head(said, headers)
    counts = {name: headers.get(header) for name, (header, _) in _INVOKED.items()}
    said.use("usage", {name: int(n) for name, n in counts.items() if n is not None})
    said.final = bool(said.answer.get("usage"))  # the content may break off


def invoked_event(said: Said, event: Fields) -> None:
    """Read an event of a model's answer by Bedrock."""
    message_event(said, event)  # Claude's; other models' events have only the metrics
    metrics = event.get(_METRICS)
    if isinstance(metrics, Mapping):
        if not said.answer.get("usage"):
            said.use("usage", {name: metrics.get(metric) for name, (_, metric) in _INVOKED.items()})
        said.final = True
    said.answer.pop("model", None)  # it is priced by the requested name, which has the region


def invoked(said: Said, answer: Fields) -> None:
    """Read a model's answer by Bedrock."""
    said.keep(answer, "id")
    usage = answer.get("usage")
    # Claude's answer says more than the headers, and other models' answers have formats of their
    # own.
    if isinstance(usage, Mapping) and ("input_tokens" in usage or not said.answer.get("usage")):
        said.use("usage", usage)
    said.final = True


_RESPONSE_STATUSES = frozenset({"completed", "incomplete", "failed", "cancelled"})
_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
