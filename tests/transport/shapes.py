"""What providers answer: by protocol, in one piece and as a stream, and what they bill for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.transport import wire
from tests.transport.wire import Reply

WORDS = ("Hel", "lo ", "the", "re")

CHAT_USAGE = {
    "prompt_tokens": 1_000,
    "completion_tokens": 200,
    "total_tokens": 1_200,
    "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 50},
}
RESPONSES_USAGE = {
    "input_tokens": 1_000,
    "input_tokens_details": {"cached_tokens": 600},
    "output_tokens": 200,
    "output_tokens_details": {"reasoning_tokens": 50},
    "total_tokens": 1_200,
}
MESSAGES_USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 2_000,
    "cache_read_input_tokens": 5_000,
    "output_tokens": 200,
}
GEMINI_USAGE = {
    "promptTokenCount": 1_000,
    "candidatesTokenCount": 150,
    "thoughtsTokenCount": 50,
    "totalTokenCount": 1_200,
    "cachedContentTokenCount": 600,
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A way in which a provider answers.

    Attributes:
        name: Of the protocol.
        model: The model that is asked.
        whole: The answer in one piece.
        stream: The same answer as events.
        middle: After how many parts of the stream it may break off.
        unsaid: The answer in one piece, without usage.
        unsaid_stream: The stream without usage.
        broken: The stream, with an error in its middle.
        billed: Tokens and micro-USD.
        known: What a stream that breaks off in its middle has said of its input, in the same way.
        at_most: What such a stream used at most: that input, and all output that was reserved.
    """

    name: str
    model: str
    whole: Reply
    stream: Reply
    middle: int = 4
    unsaid: Reply
    unsaid_stream: Reply
    broken: Reply
    billed: tuple[int, int]
    known: tuple[int, int] = (0, 0)
    at_most: tuple[int, int] = (0, 0)


def _chat(usage: object) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "choices": [choice],
        **({} if usage is None else {"usage": usage}),
    }


def chat_events(usage: object) -> list[object]:
    """Return a stream of chat; usage comes behind the last choice, as with `include_usage`."""
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "usage": None,
    }
    made: list[object] = [
        {**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        for word in WORDS
    ]
    made.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        made.append({**base, "choices": [], "usage": usage})
    return [*made, "[DONE]"]


def _responses(usage: object, status: str = "completed") -> dict[str, Any]:
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-4o-2024-08-06",
        "output": [] if status == "in_progress" else [{**message, "content": [text]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def _responses_events(usage: object, end: str = "completed") -> list[object]:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    item = {"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant"}
    made: list[dict[str, Any]] = [
        {"type": "response.created", "response": _responses(None, "in_progress")},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "content": []},
        },
        {"type": "response.content_part.added", **where, "part": part},
        *({"type": "response.output_text.delta", **where, "delta": word} for word in WORDS),
        {"type": f"response.{end}", "response": _responses(usage, end)},
    ]
    return [{**one, "sequence_number": number} for number, one in enumerate(made)]


def _message(usage: object, text: str = "".join(WORDS)) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": "end_turn" if text else None,
        "stop_sequence": None,
        "usage": usage,
    }


def _message_events(begin: dict[str, int] | None, end: dict[str, int] | None) -> list[object]:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": _message(begin, "")},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word},
            }
            for word in WORDS
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": end},
        {"type": "message_stop"},
    ]


def _gemini(usage: object, text: str = "".join(WORDS), finish: str | None = "STOP") -> Any:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [{**candidate, "index": 0}],
        "modelVersion": "gemini-2.5-pro",
        "responseId": "g1",
        **({} if usage is None else {"usageMetadata": usage}),
    }


def _gemini_events(usage: dict[str, int] | None) -> list[object]:
    begun = (
        None
        if usage is None
        else {"promptTokenCount": 1_000, "cachedContentTokenCount": 600, "totalTokenCount": 1_000}
    )
    *some, last = WORDS
    return [*(_gemini(begun, word, None) for word in some), _gemini(usage, last)]


_ERROR = {"type": "server_error", "message": "overloaded", "code": 500, "status": "INTERNAL"}
_BEGUN = {**MESSAGES_USAGE, "output_tokens": 1}


def _broken(made: list[object], at: int, said: object) -> Reply:
    return wire.events([*made[:at], said])


SHAPES = (
    Shape(
        name="chat",
        model="gpt-4o",
        whole=wire.whole(_chat(CHAT_USAGE)),
        stream=wire.events(chat_events(CHAT_USAGE)),
        unsaid=wire.whole(_chat(None)),
        unsaid_stream=wire.events(chat_events(None)),
        broken=_broken(chat_events(CHAT_USAGE), 2, {"error": _ERROR}),
        # 400 at 2.50 a million, 600 at 1.25, 200 at 10
        billed=(1_200, 3_750),
    ),
    Shape(
        name="responses",
        model="gpt-4o",
        whole=wire.whole(_responses(RESPONSES_USAGE)),
        stream=wire.events(_responses_events(RESPONSES_USAGE)),
        unsaid=wire.whole(_responses(None)),
        unsaid_stream=wire.events(_responses_events(None)),
        broken=_broken(
            _responses_events(RESPONSES_USAGE),
            5,
            {
                "type": "error",
                "code": "server_error",
                "message": "no",
                "param": None,
                "sequence_number": 5,
            },
        ),
        billed=(1_200, 3_750),
    ),
    Shape(
        name="messages",
        model="claude-sonnet-4-6",
        whole=wire.whole(_message(MESSAGES_USAGE)),
        stream=wire.events(_message_events(_BEGUN, {"output_tokens": 200})),
        unsaid=wire.whole({**_message(None), "usage": None}),
        unsaid_stream=wire.events(_message_events(None, None)),
        broken=_broken(
            _message_events(_BEGUN, {"output_tokens": 200}), 4, {"type": "error", "error": _ERROR}
        ),
        # 100 at 3 a million, 5,000 at 0.30, 2,000 at 3.75, 200 at 15; then with 1 of output
        billed=(7_300, 12_300),
        known=(7_101, 9_315),
        at_most=(8_100, 24_300),
    ),
    Shape(
        name="gemini",
        model="gemini-2.5-pro",
        whole=wire.whole(_gemini(GEMINI_USAGE)),
        stream=wire.events(_gemini_events(GEMINI_USAGE)),
        middle=2,
        unsaid=wire.whole(_gemini(None)),
        unsaid_stream=wire.events(_gemini_events(None)),
        broken=_broken(_gemini_events(GEMINI_USAGE), 2, {"error": _ERROR}),
        # 400 at 1.25 a million, 600 at 0.125, 200 at 10
        billed=(1_200, 2_575),
        known=(1_000, 575),
        at_most=(5_096, 41_535),
    ),
)
BY_NAME = {shape.name: shape for shape in SHAPES}
