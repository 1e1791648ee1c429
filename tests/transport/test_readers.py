"""Answers are read while they pass, however they are cut into chunks, and pass unchanged."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace

import pytest

from ledger.prices import read_answer
from ledger.transport import answers
from ledger.transport.answers import EventReader, FrameReader, JsonReader, Reader
from ledger.transport.protocols import CONVERSE, INVOKE, PROTOCOLS
from ledger.transport.requests import read_request
from tests.transport import wire
from tests.transport.frames import chunk, event
from tests.transport.shapes import CHAT_USAGE, GEMINI_USAGE, SHAPES, Shape, chat_events

BY_NAME = {one.name: one for one in PROTOCOLS}


def read(reader: Reader, content: bytes, size: int) -> bytes:
    """Feed a content in chunks of a size, and return what was passed on."""
    chunks = [content[place : place + size] for place in range(0, len(content), size)]
    return b"".join([*map(reader.feed, chunks), reader.end()])


@pytest.mark.parametrize("gap", [b"\n\n", b"\r\n\r\n", b"\r\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_chunks_of_any_size_say_the_same(shape: Shape, gap: bytes) -> None:
    """The usage is that of the whole stream; nothing is changed, lines may end in any way."""
    line_end = gap[: len(gap) // 2]
    content = b"".join(shape.stream.parts).replace(b"\n", line_end)
    for size in (1, 2, 3, 5, 7, 64, 1_000, len(content)):
        reader = EventReader(BY_NAME[shape.name], 1, hides_usage=False)
        assert content == read(reader, content, size)
        assert reader.said.final
        expected = EventReader(BY_NAME[shape.name], 1, hides_usage=False)
        read(expected, b"".join(shape.stream.parts), 100_000)
        assert expected.said.answer == reader.said.answer


@pytest.mark.parametrize("name", ["chat"])
def test_the_chunk_of_usage_is_hidden_whole(name: str) -> None:
    """Whatever chunks it comes in; all else passes, the end without an empty line, too."""
    said = chat_events(CHAT_USAGE)
    content = b"".join(wire.events(said).parts)
    rest = b"".join(wire.events([one for one in said if one != said[-2]]).parts)
    for size in (1, 3, 50, len(content)):
        for end in (None, -2):  # the last event without its end
            reader = EventReader(BY_NAME[name], 1, hides_usage=True)
            assert rest[:end] == read(reader, content[:end], size)
            assert reader.said.final
            assert CHAT_USAGE == reader.said.answer["usage"]


def test_a_chunk_of_usage_with_choices_is_not_hidden() -> None:
    """Some servers send usage with every chunk: the words in them are the caller's."""
    choice = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}
    content = b"".join(wire.events([{"choices": [choice], "usage": CHAT_USAGE}]).parts)
    reader = EventReader(BY_NAME["chat"], 1, hides_usage=True)
    assert content == read(reader, content, 10)
    assert not reader.said.final  # usage so far, and no end


def test_all_answers_are_waited_for() -> None:
    """Of two that were asked for, the first one's end is not the end of the usage."""
    ends = [
        {"choices": [{"index": i, "delta": {}, "finish_reason": "stop"}], "usage": CHAT_USAGE}
        for i in (0, 1)
    ]
    reader = EventReader(BY_NAME["chat"], 2, hides_usage=False)
    finals = []
    for part in wire.events(ends).parts:
        reader.feed(part)
        finals.append(reader.said.final)
    assert [False, True] == finals


def test_later_figures_replace_earlier_ones_and_none_is_added() -> None:
    """Anthropic's are cumulative; a 0 or a null later on says nothing."""
    begin = {"input_tokens": 100, "cache_read_input_tokens": 5, "output_tokens": 1}
    end = {"input_tokens": 0, "cache_read_input_tokens": None, "output_tokens": 200}
    said = [
        {"type": "message_start", "message": {"id": "m", "model": "x", "usage": begin}},
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 90}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
    ]
    reader = EventReader(BY_NAME["messages"], 1, hides_usage=False)
    read(reader, b"".join(wire.events(said).parts), 1_000)
    expected = {"input_tokens": 100, "cache_read_input_tokens": 5, "output_tokens": 200}
    assert expected == reader.said.answer["usage"]
    assert reader.said.final


def test_lists_of_pieces_are_read_as_far_as_they_are_whole() -> None:
    """Gemini streams a list of JSON where no events are asked for; its end may be missing."""
    pieces = [
        {"candidates": [], "usageMetadata": {"promptTokenCount": 1_000}},
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": GEMINI_USAGE},
    ]
    content = json.dumps(pieces, indent=1).encode()
    for cut, final in ((None, True), (-1, True), (-30, False)):
        reader = JsonReader(BY_NAME["gemini"], 1)
        assert content[:cut] == read(reader, content[:cut], 16)
        assert final == reader.said.final
        assert 1_000 == reader.said.answer["usageMetadata"]["promptTokenCount"]


def test_a_list_of_lists_is_read() -> None:
    """However many brackets stand around the objects."""
    content = b"[" * 100_000 + json.dumps({"usage": CHAT_USAGE}).encode() + b"]]"
    reader = JsonReader(BY_NAME["chat"], 1)
    assert content == read(reader, content, 1_000)
    assert CHAT_USAGE == reader.said.answer["usage"]


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"usage":' * 100_000], ids=["list", "object"])
def test_what_is_too_deep_passes_unread(deep: bytes) -> None:
    """An answer, an event, a frame and a request: no error of `json` reaches the caller."""
    frame = event("chunk", {"bytes": base64.b64encode(deep).decode()})
    for reader, content in (
        (JsonReader(BY_NAME["chat"], 1), deep),
        (EventReader(BY_NAME["chat"], 1, hides_usage=False), b"data: " + deep + b"\n\n"),
        (FrameReader(CONVERSE, 1, hides_usage=False), frame),
    ):
        assert content == read(reader, content, 100_000)
        assert not reader.said.final
    asked = read_request(BY_NAME["chat"], "/chat/completions", deep, provider=None)
    assert asked.model is None


@pytest.mark.parametrize(
    "event",
    [
        '{"usage": {"prompt_tokens": 1}, "choices": [7]}',
        '{"usage": {"prompt_tokens": 1}, "choices": {}}',
        '[{"usage": {}}]',
        '{"usage": {',
        '"usage": {}',
    ],
)
def test_events_of_another_form_pass(event: str) -> None:
    """What cannot be understood is no reason to keep an answer back."""
    content = f"data: {event}\n\n".encode()
    reader = EventReader(BY_NAME["chat"], 1, hides_usage=True)
    assert content == read(reader, content, 5)
    assert not reader.said.final


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_name_that_answered_is_kept(shape: Shape) -> None:
    """Each protocol's, whole and as a stream: it says more than the one that was asked for."""
    protocol = BY_NAME[shape.name]
    whole = JsonReader(protocol, 1)
    read(whole, b"".join(shape.whole.parts), 100)
    stream = EventReader(protocol, 1, hides_usage=False)
    read(stream, b"".join(shape.stream.parts), 100)
    names = {read_answer(one.said.answer).model for one in (whole, stream)}
    assert {json.loads(shape.whole.parts[0]).get("model", "gemini-2.5-pro")} == names


def test_amazons_frames_may_come_in_chunks_of_any_size() -> None:
    """Each is read when it is whole; what is no frame is passed on, and read no further."""
    metrics = {"inputTokenCount": 7, "outputTokenCount": 2}
    content = chunk({"generation": "Hi"}) + chunk({"amazon-bedrock-invocationMetrics": metrics})
    usage = event("metadata", {"usage": {"inputTokens": 7, "outputTokens": 2, "totalTokens": 9}})
    for protocol, framed in ((INVOKE, content), (CONVERSE, usage)):
        for size in (1, 2, 11, 12, 13, 50, len(framed)):
            reader = FrameReader(protocol, 1, hides_usage=False)
            assert framed == read(reader, framed, size)
            assert reader.said.final
            assert 9 == read_answer(reader.said.answer).total_tokens
    broken = FrameReader(INVOKE, 1, hides_usage=False)
    for no_frame in (b"\0" * 100, b"\xff" * 100, chunk("Hi")[:-1], event("chunk", {"bytes": "!"})):
        assert no_frame == read(broken, no_frame, 40)
    assert not broken.said.final


TEXTS = ("Hel", "lo ", "", 'a "quoted" word', "back\\", "\n\n", "[DONE]", '"usage":{', "über")


def _chunk(text: str, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "model": "m", "choices": [choice], "usage": None, **more}


@pytest.mark.parametrize("hides_usage", [False, True], ids=["shown", "hidden"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_events_of_one_form_are_not_searched_and_say_the_same(
    monkeypatch: pytest.MonkeyPatch, shape: Shape, *, hides_usage: bool
) -> None:
    """Whatever texts come in between, and wherever the events that say something stand."""
    chosen = random.Random(shape.name)
    telling = [json.loads(part.partition(b"data: ")[2]) for part in shape.stream.parts[:-1]]
    for _ in range(300):
        said: list[object] = []
        for _ in range(chosen.randint(1, 25)):
            if chosen.random() < 0.2:
                said.append(chosen.choice(telling))
            else:
                more = {"obfuscation": chosen.choice(TEXTS)} if chosen.random() < 0.5 else {}
                kinds = {"type": chosen.choice(["content_block_delta", "message_stop"])}
                said.append(_chunk(chosen.choice(TEXTS), **more, **kinds))
        parts: list[bytes] = []
        for part in wire.events([*said, "[DONE]"]).parts:  # a chunk may hold several
            joined = parts.pop() if parts and chosen.random() < 0.2 else b""
            parts.append(joined + part)
        found = []
        for forms in (8, 0):
            monkeypatch.setattr(answers, "_FORMS_MAX", forms)
            reader = EventReader(BY_NAME[shape.name], 1, hides_usage=hides_usage)
            passed = [reader.feed(part) for part in parts]
            found.append((passed, reader.end(), reader.said))
        assert found[0] == found[1]


def test_events_of_one_form_are_searched_for_nothing() -> None:
    """Nor is one that is filled up to hide its length; one of another form is."""
    searched: list[bytes] = []

    class Tells:
        def search(self, content: bytes, *place: int) -> object:
            searched.append(content)
            return BY_NAME["chat"].tells.search(content, *place)

    protocol = replace(BY_NAME["chat"], tells=Tells())
    reader = EventReader(protocol, 1, hides_usage=False)
    many = [_chunk(f"word {n}", obfuscation="x" * (n % 7)) for n in range(100)]
    for part in wire.events([*many, {"choices": [], "usage": CHAT_USAGE}]).parts:
        reader.feed(part)
    assert CHAT_USAGE == reader.said.answer["usage"]
    assert len(searched) <= 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "ping"}, {"type": "pong"}),
        ({"a": 1, "b": "x"}, {"a": 2, "b": "x"}),
        ({"usage": None, "content": "x"}, {"usage": 0, "content": "x"}),
        ({"finish_reason": "", "content": "x"}, {"finish_reason": "stop", "content": "x"}),
    ],
)
def test_events_that_differ_in_more_than_texts_have_no_form(one: object, other: object) -> None:
    """What kind an event is, or a number, is no text of the answer."""
    first, second, _ = wire.events([one, other, ""]).parts
    assert answers._Form.of(first, second) is None
