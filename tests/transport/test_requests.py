"""What a request is held at: its text, its pictures, and the output that it allows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.prices import count_tokens
from ledger.transport.protocols import PROTOCOLS
from ledger.transport.requests import MEDIUM_TOKENS, read_request

BY_NAME = {one.name: one for one in PROTOCOLS}
PNG = "iVBORw0K" * 10_000


def tokens(protocol: str, **body: Any) -> tuple[int, int]:
    """Return the tokens of a request, as input and as output at most."""
    content = json.dumps(body).encode()
    return read_request(BY_NAME[protocol], "/x", content, provider=None).tokens(4_096)


def message(*parts: object) -> list[dict[str, object]]:
    """Return a message of these parts."""
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (
            "chat",
            {
                "messages": message(
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
                )
            },
        ),
        (
            "messages",
            {
                "messages": message(
                    {
                        "type": "tool_result",
                        "content": [
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": PNG,
                                },
                            }
                        ],
                    }
                )
            },
        ),
        (
            "gemini",
            {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}]},
        ),
    ],
    ids=["openai", "anthropic", "gemini"],
)
def test_a_picture_counts_as_a_large_one(protocol: str, body: dict[str, Any]) -> None:
    """Whatever its size: its bytes are no text."""
    given, _ = tokens(protocol, **body)
    assert MEDIUM_TOKENS < given < MEDIUM_TOKENS + 50


def test_the_schema_of_a_tool_is_text() -> None:
    """Types that are lists, and properties that are named as a file's would be, are no media."""
    properties = {"data": {"type": ["string", "null"]}, "media_type": {"type": "string"}}
    tool = {
        "name": "save",
        "input_schema": {"type": "object", "properties": properties},
    }
    given, _ = tokens("messages", messages=message(), tools=[tool])
    plain = count_tokens(json.dumps([tool]))
    assert plain / 3 < given < 2 * plain


def test_text_that_looks_like_a_file_is_text() -> None:
    """A message may begin with `data:`."""
    (given, _), (plain, _) = (
        tokens("chat", messages=[{"role": "user", "content": f"{word} sets of figures"}])
        for word in ("data:", "more:")
    )
    assert plain <= given <= plain + 1


@pytest.mark.parametrize(
    ("protocol", "body", "output"),
    [
        ("chat", {}, 4_096),
        ("chat", {"max_tokens": 5}, 5),
        ("chat", {"max_tokens": 5, "max_completion_tokens": 7, "n": 3}, 21),
        ("responses", {"max_output_tokens": 9}, 9),
        ("gemini", {"generationConfig": {"maxOutputTokens": 6, "candidateCount": 2}}, 12),
        ("embeddings", {"input": "a"}, 0),
        ("chat", {"max_tokens": "many", "n": None}, 4_096),
    ],
)
def test_the_output_is_what_the_request_allows(
    protocol: str, body: dict[str, Any], output: int
) -> None:
    """For each answer that it asks for; without a limit, the client's own."""
    assert output == tokens(protocol, **body)[1]


def test_content_that_is_no_object_is_held_at_the_most() -> None:
    """The provider will refuse it."""
    for content in (b"", b"[1]", b"{"):
        asked = read_request(BY_NAME["chat"], "/x", content, provider=None)
        assert 4_096 == asked.tokens(4_096)[1]
