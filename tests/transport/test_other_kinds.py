"""Pictures, sound, embeddings and rerank: counted by what their answers say, or else refused."""

from __future__ import annotations

import asyncio
import logging
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ledger import (
    EntryFlag,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    ThresholdExceededError,
    Unpriced,
    UnpricedCallError,
    usd,
)
from ledger.integrations.calls import Counted
from ledger.prices import Counts, PriceList
from ledger.transport import budgeted, denial_of
from ledger.transport.protocols import PROTOCOLS
from ledger.transport.requests import read_request
from tests.fixtures import MakePool
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.matrix import PAGE
from tests.transport.wire import Reply

OWN = {"price": [{"model": "rerank-v3.5", "provider": "cohere", "web_searches": "2"}]}
PICTURE, SOUND = ("a.png", b"\x89PNG\r\n\r\n--" * 200, "image/png"), ("a.wav", b"RIFF" * 99)

IMAGES_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
    "output_tokens": 1_056,
    "total_tokens": 1_106,
}
EDIT_USAGE = {
    "input_tokens": 1_000,
    "input_tokens_details": {"text_tokens": 100, "image_tokens": 900},
    "output_tokens": 1_100,
    "output_tokens_details": {"text_tokens": 100, "image_tokens": 1_000},
    "total_tokens": 2_100,
}
SOUND_USAGE = {
    "type": "tokens",
    "input_tokens": 100,
    "input_token_details": {"text_tokens": 10, "audio_tokens": 90},
    "output_tokens": 20,
    "total_tokens": 120,
}
DRAWN = {"created": 1, "data": [{"b64_json": "AAAA"}]}
EMBEDDED = {"id": "e1", "embeddings": {"float": [[0.1]]}, "texts": ["Hi"]}
RANKED = {"id": "r1", "results": [{"index": 0, "relevance_score": 0.9}]}

SPEECH_FILE = ("a.mp3", b"\xff\xfb" * 12_000)
"""Held at 13 seconds."""
LENGTH = {"type": "duration", "seconds": 11.2}


def _event(kind: str, **more: object) -> dict[str, object]:
    return {"type": kind, "b64_json": "AAAA", "created_at": 1, **more}


@dataclass(frozen=True)
class Kind:
    """A kind of call.

    Attributes:
        call: Makes it, by a client that has made one like it.
        said: What the server answers.
        unsaid: The same without usage.
        billed: Tokens and micro-USD.
    """

    call: Callable[[Any], Any]
    said: Reply
    unsaid: Reply
    billed: tuple[int, int]


def _draw(client: Any, **more: Any) -> Any:
    return client.images.generate(model="gpt-image-1", prompt="A cat", **more)


def _edit(client: Any) -> Any:
    return client.images.edit(model="gpt-image-1.5", image=[PICTURE, PICTURE], prompt="A dog", n=1)


def _transcribe(client: Any, **more: Any) -> Any:
    return client.audio.transcriptions.create(model="gpt-4o-transcribe", file=SOUND, **more)


def _hear(client: Any, **more: Any) -> Any:
    return client.audio.transcriptions.create(model="whisper-1", file=SPEECH_FILE, **more)


def _embed_by_google(client: Any) -> Any:
    return client.models.embed_content(model="gemini-embedding-001", contents="Say hello.")


def _embed_by_cohere(client: Any) -> Any:
    return client.embed(
        model="embed-v4.0", texts=["Hi"], input_type="search_document", embedding_types=["float"]
    )


def _rank(client: Any) -> Any:
    return client.rerank(model="rerank-v3.5", query="Hi", documents=["Ho", "Hu"])


def _whole(content: dict[str, Any], **usage: object) -> tuple[Reply, Reply]:
    return wire.whole({**content, **usage}), wire.whole(content)


def _events(first: str, last: str, usage: object) -> tuple[Reply, Reply]:
    begun = [_event(first, partial_image_index=0, delta="He")] * 2
    return (
        wire.events([*begun, _event(last, text="Hello", usage=usage)]),
        wire.events([*begun, _event(last, text="Hello")]),
    )


# 50 at 5 a million and 1,056 at 40; 100 at 5, 900 at 8, 100 at 10 and 1,000 at 32; 10 at 2.50,
# 90 at 6 and 20 at 10; 12 seconds at 0.36 an hour; 1,000 at 0.15; 1,000 at 0.12; a search at 2 a
# thousand.
OPENAI = {
    "openai, images.generate": Kind(_draw, *_whole(DRAWN, usage=IMAGES_USAGE), (1_106, 42_490)),
    "openai, images.generate, stream": Kind(
        lambda client: _draw(client, stream=True, partial_images=1),
        *_events("image_generation.partial_image", "image_generation.completed", IMAGES_USAGE),
        (1_106, 42_490),
    ),
    "openai, images.edit": Kind(_edit, *_whole(DRAWN, usage=EDIT_USAGE), (2_100, 40_700)),
    "openai, audio.transcriptions": Kind(
        _transcribe, *_whole({"text": "Hello"}, usage=SOUND_USAGE), (120, 765)
    ),
    "openai, audio.transcriptions, stream": Kind(
        lambda client: _transcribe(client, stream=True),
        *_events("transcript.text.delta", "transcript.text.done", SOUND_USAGE),
        (120, 765),
    ),
}
OPENAI |= {
    "openai, audio.transcriptions, by length": Kind(
        _hear, *_whole({"text": "Hello"}, usage=LENGTH), (0, 1_200)
    ),
    "openai, audio.transcriptions, by length, as it says more": Kind(
        lambda client: _hear(client, response_format="verbose_json"),
        wire.whole({"text": "Hello", "language": "english", "duration": 11.2}),
        wire.whole({"text": "Hello", "language": "english"}),
        (0, 1_200),
    ),
}
GOOGLE = {
    "google-genai, embed_content": Kind(
        _embed_by_google,
        *_whole(
            {"embeddings": [{"values": [0.1]}]},
            usageMetadata={"promptTokenCount": 1_000, "totalTokenCount": 1_000},
        ),
        (1_000, 150),
    ),
}
COHERE = {
    "cohere, embed": Kind(
        _embed_by_cohere,
        *_whole(EMBEDDED, meta={"billed_units": {"input_tokens": 1_000.0}}),
        (1_000, 120),
    ),
    "cohere, rerank": Kind(
        _rank, *_whole(RANKED, meta={"billed_units": {"search_units": 1}}), (0, 2_000)
    ),
}
KINDS = OPENAI | GOOGLE | COHERE

SPEECH = Reply(parts=(b"ID3\xff\xfb", b"\x00" * 9_000, b"end"), content_type="audio/mpeg")
SPOKEN_USAGE = {"input_tokens": 20, "output_tokens": 100, "total_tokens": 120}
SPOKEN = wire.events(
    [_event("speech.audio.delta", audio="AAAA"), _event("speech.audio.done", usage=SPOKEN_USAGE)]
)
TEXT = "Say hello, Zoë."


def of_openai(url: str, options: dict[str, Any], *, tasks: bool) -> Any:
    """Return a client of openai."""
    import openai

    make = openai.AsyncOpenAI if tasks else openai.OpenAI
    client = make(api_key="none", base_url=f"{url}/v1", max_retries=0)
    return budgeted(client, provider="openai", **options)


def of_google(url: str, options: dict[str, Any], *, tasks: bool) -> Any:
    """Return a client of google-genai."""
    from google import genai

    client = genai.Client(api_key="none", http_options={"base_url": url})
    budgeted(client, provider="google", **options)
    return client.aio if tasks else client


def of_cohere(url: str, options: dict[str, Any], *, tasks: bool) -> Any:
    """Return a client of cohere."""
    import cohere

    make = cohere.AsyncClientV2 if tasks else cohere.ClientV2
    return budgeted(make(api_key="none", base_url=url), provider="cohere", **options)


def made(name: str, pool: LedgerBudgetManager, url: str) -> None:
    """Make a call in a thread, and one in asyncio; streams are read to their end."""
    make = of_openai if name in OPENAI else of_google if name in GOOGLE else of_cohere
    options = {"pool": pool, "prices": PriceList(OWN)}
    client = make(url, options, tasks=False)
    answer = KINDS[name].call(client)
    if name.endswith("stream"):
        list(answer)
    _http(client).close()

    async def in_asyncio() -> None:
        client = make(url, options, tasks=True)
        answer = await KINDS[name].call(client)
        if name.endswith("stream"):
            _ = [part async for part in answer]
        await _http(client).aclose()

    asyncio.run(in_asyncio())


def _http(client: Any) -> Any:
    """Return what a client is closed by: its HTTP client; google-genai's and openai's for tasks."""
    if hasattr(client, "_client_wrapper"):
        return client._client_wrapper.httpx_client.httpx_client
    return client if hasattr(client, "models") and hasattr(client, "caches") else client._client


NAMES = [
    *OPENAI,
    *GOOGLE,
    *(pytest.param(name, marks=pytest.mark.clients) for name in COHERE),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_said", [True, False], ids=["billed", "estimated"])
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_a_call_is_recorded_as_it_is_billed(
    request: pytest.FixtureRequest,
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    name: str,
    is_said: bool,  # noqa: FBT001
) -> None:
    """For threads and for tasks, whole and as streams, as JSON and as forms; else as estimated."""
    if name in COHERE:
        request.getfixturevalue("libraries")
    kind = KINDS[name]
    server.answers(kind.said if is_said else kind.unsaid)
    made(name, pool, server.url)
    found = attempts(book, pool)
    assert ["billed" if is_said else "estimated"] * 2 == [one.end for one in found]
    assert {kind.billed} == {one.used for one in found} or not is_said
    assert 2 == len(server.requests)
    assert all(kind.billed[1] <= one.reserved[1] or name in _MORE for one in found)


_MORE = {"google-genai, embed_content", "cohere, embed"}
"""Their answers say more input here than the request has."""


@pytest.mark.parametrize("name", KINDS)
def test_the_page_names_each_kind(name: str) -> None:
    """docs/clients.md says what becomes of it."""
    library, call, *_ = name.split(", ")
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    assert any(f"`{call}`" in row for row in rows if row.startswith(f"| {library} | "))


def test_rerank_and_embed_are_counted_by_plain_calls_too(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """By their bytes alone: 250 texts are three searches, and pictures are tokens of their own."""
    options: dict[str, Any] = {"pool": pool, "prices": PriceList(OWN), "provider": "cohere"}
    units = {"text_tokens": 10, "image_tokens": 990}
    with budgeted(httpx.Client(base_url=server.url), **options) as client:
        server.answers(wire.whole({**RANKED, "meta": {"billed_units": {"search_units": 3}}}))
        documents = ["word"] * 250
        asked = {"model": "rerank-v3.5", "query": "Hi", "documents": documents}
        client.post("/v2/rerank", json=asked).raise_for_status()
        server.answers(wire.whole({**EMBEDDED, "meta": {"billed_units": units}}))
        pictures = ["data:image/png;base64,AAAA"]
        client.post("/v2/embed", json={"model": "embed-v4.0", "images": pictures})
    ranked, embedded = attempts(book, pool)
    assert ((0, 6_000), 6_000) == (ranked.used, ranked.reserved[1])
    assert (1_000, 120) == embedded.used
    kept = [one.detail["report"]["price"] for one in book.entries(pool.name) if one.usage]
    assert [{"web_searches": 3}] == kept[0]["requests"]
    assert [{"input": 1_000, "input_image": 990}] == kept[1]["requests"]


@pytest.mark.parametrize("units", [{"images": 1}, {"input_tokens": None, "images": 1}, {}])
def test_what_is_billed_in_units_without_a_price_is_estimated(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, units: dict[str, Any]
) -> None:
    """Pictures are held as pictures, not by their characters, and charged so."""
    server.answers(wire.whole({**EMBEDDED, "meta": {"billed_units": units}}))
    with budgeted(httpx.Client(base_url=server.url), pool=pool, provider="cohere") as client:
        pictures = ["data:image/png;base64," + "A" * 100_000]
        client.post("/v2/embed", json={"model": "embed-v4.0", "images": pictures})
    (found,) = attempts(book, pool)
    assert "estimated" == found.end
    assert found.used == found.reserved
    assert 2_000 < found.used[0] < 2_100


@pytest.mark.parametrize(
    "units",
    [
        {"input_tokens": 0},
        {"input_tokens": 0.0, "output_tokens": 0, "search_units": 0, "classifications": 0},
        {"image_tokens": 0, "images": None},
    ],
)
def test_nothing_is_charged_where_nothing_is_billed(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, units: dict[str, Any]
) -> None:
    """Cohere says what is billed beside what the model saw; the first is the bill."""
    usage = {"billed_units": units, "tokens": {"input_tokens": 71, "output_tokens": 9}}
    with budgeted(httpx.Client(base_url=server.url), pool=pool, provider="cohere") as client:
        server.answers(wire.whole({**EMBEDDED, "meta": usage}))
        client.post("/v2/embed", json={"model": "embed-v4.0", "texts": ["Hi"]})
        server.answers(wire.whole({"id": "c1", "usage": usage}))
        client.post("/v2/chat", json={"model": "command-r-08-2024", "messages": []})
    assert [("billed", (0, 0))] * 2 == [(one.end, one.used) for one in attempts(book, pool)]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
def test_a_file_of_a_form_is_not_decoded(path: str) -> None:
    """It is held as a file, whatever its bytes are: that takes no memory but its own."""
    (protocol,) = [one for one in PROTOCOLS if path.endswith(one.paths)]
    asked = []
    for file in (b"word " * 2, b"word " * 2_000_000, b"\xff" * 10_000_000):
        request = httpx.Request(
            "POST",
            f"http://localhost{path}",
            data={"model": "gpt-4o-transcribe", "prompt": "Say hello."},
            files={"file": ("a.txt", file, "text/plain"), "image[]": ("b.png", b"\x89P")},
        )
        content = request.read()
        tracemalloc.start()
        asked.append(read_request(protocol, path, content, provider="openai"))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1.5 * len(content) + 100_000  # its parts
    assert [asked[0].tokens(100)] * 3 == [one.tokens(100) for one in asked]
    assert {"type": "file", "seconds": 5_001} == asked[1].body["file"]
    assert {"type": "file", "seconds": 1} == asked[1].body["image[]"]


def test_a_form_names_its_fields_with_quotes_or_without() -> None:
    """And a file is none of its texts, whatever its bytes are."""
    (speech,) = [one for one in PROTOCOLS if "/audio/transcriptions" in one.paths]
    parts = [b"name=model\r\n\r\nwhisper-1", b'name="file"; filename="a.wav"\r\n\r\n\xff\xfe7']
    form = b"".join(b"--x\r\nContent-Disposition: form-data; " + one + b"\r\n" for one in parts)
    asked = read_request(speech, speech.paths[0], form + b"--x--\r\n", provider="openai")
    assert ("whisper-1", {"type": "file", "seconds": 1}) == (asked.model, asked.body["file"])


def _wav(seconds: int) -> bytes:
    head = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + head + b"data" + b"\0" * (32_000 * seconds - 100)


@pytest.mark.parametrize(
    ("model", "file", "held", "usage", "billed"),
    [
        # 0.45 USD an hour
        ("house-whisper", _wav(12), 12, {"seconds": 12}, 1_500),
        ("house-whisper", b"\xff" * 20_000, 11, {"seconds": 3.01}, 500),
        # 0.18 USD an hour; the tokens beside cost nothing.
        (
            "voxtral-mini-2602",
            b"OggS" * 500,
            2,
            {"prompt_audio_seconds": 1, "prompt_tokens": 4, "completion_tokens": 63},
            50,
        ),
    ],
)
def test_sound_is_charged_by_its_length(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    model: str,
    file: bytes,
    held: int,
    usage: dict[str, Any],
    billed: int,
) -> None:
    """By what the answer says, whole seconds; held by what the file is, and charged so without."""
    own = PriceList({"price": [{"model": "house-whisper", "audio_seconds": "0.45"}]})
    an_hour = {"house-whisper": "0.45", "voxtral-mini-2602": "0.18"}[model]
    estimate = -(-usd(an_hour) * held // 3_600)
    with budgeted(httpx.Client(base_url=server.url), pool=pool, prices=own) as client:
        for said in ({"usage": usage}, {}):
            server.answers(wire.whole({"text": "Hello", **said}))
            asked = {"data": {"model": model}, "files": {"file": ("a.wav", file)}}
            client.post("/v1/audio/transcriptions", **asked).raise_for_status()  # type: ignore[arg-type]
        # What is named by its address alone is held at an hour.
        client.post("/v1/audio/transcriptions", json={"model": model, "file_url": "https://a.b/c"})
    first, second, third = attempts(book, pool)
    assert ("billed", billed, estimate) == (first.end, first.used[1], first.reserved[1])
    assert ("estimated", estimate) == (second.end, second.used[1])
    assert usd(an_hour) == third.reserved[1]
    kept = next(one for one in book.entries(pool.name) if one.usage).detail["report"]["price"]
    (line,) = kept["lines"]
    assert ["audio_seconds", an_hour, 3_600] == [line[0], line[2], line[3]]


def test_a_rerank_counts_its_query_with_each_text(
    pool: LedgerBudgetManager, server: wire.Server, book: Ledger
) -> None:
    """Cohere cuts a text that is longer than 500 tokens with the query: 60 texts are 120."""
    server.answers(wire.whole({**RANKED, "meta": {"billed_units": {"search_units": 2}}}))
    options: dict[str, Any] = {"pool": pool, "prices": PriceList(OWN), "provider": "cohere"}
    with budgeted(httpx.Client(base_url=server.url), **options) as client:
        asked = {"model": "rerank-v3.5", "query": "a" * 600, "documents": ["b" * 930] * 60}
        client.post("/v2/rerank", json=asked)
    (found,) = attempts(book, pool)
    assert ((0, 4_000), 4_000) == (found.used, found.reserved[1])


@pytest.mark.parametrize(
    "name", ["openai, audio.transcriptions", "openai, images.edit", "openai, images.generate"]
)
def test_what_a_picture_may_cost_is_reserved(
    new_pool: MakePool, server: wire.Server, name: str
) -> None:
    """At the price of pictures and of sound: nothing leaves if that is more than there is."""
    server.answers(KINDS[name].said)
    small = new_pool(capacity_cost_micros_usd=usd("0.01"))
    client = of_openai(server.url, {"pool": small}, tasks=False)
    with client, pytest.raises(Exception, match="ledger-denial") as caught:
        KINDS[name].call(client)
    assert isinstance(denial_of(caught.value), ThresholdExceededError)
    assert [] == server.requests


def test_what_has_no_price_is_refused_or_flagged(
    book: Ledger, new_pool: MakePool, server: wire.Server
) -> None:
    """A model of pictures that is charged by the picture; the pool may let it pass, flagged."""
    server.answers(wire.whole(DRAWN))
    asked = {"model": "dall-e-3", "prompt": "A cat"}
    closed, flagged = new_pool(), new_pool()
    extensions = RequestExtensions(Unpriced.FLAG)
    with budgeted(httpx.Client(base_url=server.url), pool=closed) as client:
        refused = client.post("/v1/images/generations", json=asked)
    assert 402 == refused.status_code
    assert isinstance(denial_of(refused), UnpricedCallError)
    with budgeted(httpx.Client(base_url=server.url), pool=flagged, extensions=extensions) as client:
        client.post("/v1/images/generations", json=asked).raise_for_status()
    assert 1 == len(server.requests)
    assert any(EntryFlag.UNPRICED in one.flags for one in book.entries(flagged.name))


@pytest.mark.parametrize(
    ("model", "reply", "end", "used"),
    [
        ("tts-1", SPEECH, "billed", (0, 225)),  # 15 characters at 15 a million
        ("tts-1-hd", SPEECH.cut(1, wire.End.SHORT), "billed", (0, 450)),
        ("gpt-4o-mini-tts", SPOKEN, "billed", (120, 1_212)),  # 20 at 0.60, 100 at 12
        # Of 16 bytes: 132 tokens at 12, and 7 of the text at 0.60.
        ("gpt-4o-mini-tts", SPEECH, "estimated", (139, 1_589)),
        ("gpt-4o-mini-tts", SPOKEN.cut(1, wire.End.MARKED), "estimated", (139, 1_589)),
    ],
)
def test_speech_is_charged_by_the_character_or_by_tokens(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    model: str,
    reply: Reply,
    end: str,
    used: tuple[int, int],
) -> None:
    """Characters are known by the request; tokens by events alone, and else estimated."""
    server.answers(reply)
    asked = {"model": model, "input": TEXT, "voice": "alloy"}
    sounds = b"".join(reply.parts)

    def read(client: Any) -> None:
        with suppress(httpx.RemoteProtocolError):
            assert sounds == client.post("/v1/audio/speech", json=asked).content

    async def in_asyncio() -> None:
        client = httpx.AsyncClient(base_url=server.url)
        async with budgeted(client, pool=pool, provider="openai") as tasks:
            with suppress(httpx.RemoteProtocolError):
                assert sounds == (await tasks.post("/v1/audio/speech", json=asked)).content

    with budgeted(httpx.Client(base_url=server.url), pool=pool, provider="openai") as client:
        read(client)
    asyncio.run(in_asyncio())
    found = attempts(book, pool)
    assert [(end, used)] * 2 == [(one.end, one.used) for one in found]
    assert all(one.used[1] <= one.reserved[1] for one in found)
    if model.startswith("tts"):
        kept = [one.detail["report"]["price"] for one in book.entries(pool.name) if one.usage]
        assert [[{"characters": 15}]] * 2 == [one["requests"] for one in kept]
        assert [["characters", 15, "15" if model == "tts-1" else "30", 1_000_000]] == (
            kept[0]["lines"]
        )


def test_speech_by_the_library_is_held_before_it_is_made(
    book: Ledger, new_pool: MakePool, server: wire.Server
) -> None:
    """An answer of sound is none of JSON; nothing leaves if it costs more than there is."""
    server.answers(SPEECH)
    pool, small = new_pool(), new_pool(capacity_cost_micros_usd=200)
    asked: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT}
    with of_openai(server.url, {"pool": pool}, tasks=False) as client:
        assert b"".join(SPEECH.parts) == client.audio.speech.create(**asked).content
        with client.audio.speech.with_streaming_response.create(**asked) as answer:
            next(answer.iter_bytes(2))  # and it is left there
    assert [("billed", (0, 225))] * 2 == [(one.end, one.used) for one in attempts(book, pool)]
    with (
        of_openai(server.url, {"pool": small}, tasks=False) as client,
        pytest.raises(Exception, match="ledger-denial") as caught,
    ):
        client.audio.speech.create(**asked)
    assert isinstance(denial_of(caught.value), ThresholdExceededError)
    assert 2 == len(server.requests)


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/files", "/v1/batches", "/v1/other"])
def test_what_cannot_be_counted_is_refused_on_request(
    pool: LedgerBudgetManager, server: wire.Server, path: str
) -> None:
    """For threads and for tasks; questions, what is free, and what a block counts pass."""
    server.answers(wire.whole({}))
    options: dict[str, Any] = {"pool": pool, "refuse_uncounted": True}
    with budgeted(httpx.Client(base_url=server.url), **options) as client:
        refused = client.post(path, json={})
        for free in ("/v1/messages/count_tokens", "/v1beta/models/g:countTokens"):
            client.post(free, json={}).raise_for_status()
        client.get(path).raise_for_status()
        with Counted(pool, model="gpt-4o").call("Hi") as call:
            client.post(path, json={}).raise_for_status()
            call.record(Counts(input_tokens=1))

    async def in_asyncio() -> httpx.Response:
        async with budgeted(httpx.AsyncClient(base_url=server.url), **options) as tasks:
            return await tasks.post(path, json={})

    for answer in (refused, asyncio.run(in_asyncio())):
        assert (402, "false") == (answer.status_code, answer.headers["x-should-retry"])
        denial = denial_of(answer)
        assert isinstance(denial, UnpricedCallError)
        assert path in str(denial)
    assert 4 == len(server.requests)


def test_what_is_free_is_not_said_to_pass_uncounted(
    pool: LedgerBudgetManager, server: wire.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Providers count tokens for nothing."""
    server.answers(wire.whole({}))
    with (
        caplog.at_level(logging.WARNING, "ledger"),
        budgeted(httpx.Client(base_url=server.url), pool=pool) as client,
    ):
        client.post("/v1/messages/count_tokens", json={})
    assert [] == caplog.records


def test_whether_to_refuse_is_yes_or_no(pool: LedgerBudgetManager) -> None:
    """Anything else is no answer."""
    with pytest.raises(InvalidInputError, match="refuses_uncounted"):
        budgeted(httpx.Client(), pool=pool, refuse_uncounted="always")  # type: ignore[arg-type]
