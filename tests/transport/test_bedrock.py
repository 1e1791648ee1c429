"""boto3 for Amazon Bedrock: each attempt has a lease, also where boto3 repeats it by itself."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from ledger import (
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    ThresholdExceededError,
    UnknownPriceError,
)
from ledger.prices import PriceList
from ledger.transport import budgeted
from ledger.transport.bedrock import _Replayed
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.frames import chunk, event
from tests.transport.shapes import BY_NAME
from tests.transport.wire import End, Reply

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

MODEL = "anthropic.claude-sonnet-4-20250514-v1:0"
USAGE = {
    "inputTokens": 100,
    "outputTokens": 200,
    "totalTokens": 7_300,
    "cacheReadInputTokens": 5_000,
    "cacheWriteInputTokens": 2_000,
}
BILLED = (7_300, 12_300)
"""100 at 3 a million, 5,000 at 0.30, 2,000 at 3.75, 200 at 15."""
MESSAGE = {"role": "assistant", "content": [{"text": "Hello there"}]}
WHOLE = wire.whole(
    {
        "output": {"message": MESSAGE},
        "stopReason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 1},
    }
)
ASKED: Any = {
    "modelId": MODEL,
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    "inferenceConfig": {"maxTokens": 1_000},
}
PICTURE = "data:image/png;base64," + "A" * 100_000
ASKED_OF_CLAUDE: Any = {"messages": [{"role": "user", "content": "Hi"}]}


STREAM = Reply(
    parts=(
        event("messageStart", {"role": "assistant"}),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello there"}}),
        event("messageStop", {"stopReason": "end_turn"}),
        event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
    ),
    content_type="application/vnd.amazon.eventstream",
)


@pytest.fixture
def of_boto3(libraries: None, server: wire.Server) -> Callable[..., Any]:  # noqa: ARG001 - makes it importable
    """Return a function that makes clients, which wait a moment before they repeat a request."""
    import boto3
    import botocore.config

    def make(pool: Any, **options: Any) -> Any:
        config = botocore.config.Config(
            retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=0.5
        )
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=server.url,
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - nobody asks for it
            config=config,
        )
        return budgeted(client, pool=pool, **options)

    return make


CLAUDE = json.loads(BY_NAME["messages"].whole.parts[0])
BODY = json.dumps(
    {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1_000, **ASKED_OF_CLAUDE}
)
COUNTED = {
    "x-amzn-bedrock-input-token-count": "100",
    "x-amzn-bedrock-output-token-count": "200",
    "x-amzn-bedrock-cache-read-input-token-count": "5000",
    "x-amzn-bedrock-cache-write-input-token-count": "2000",
}
METRICS = {
    "inputTokenCount": 100,
    "outputTokenCount": 200,
    "cacheReadInputTokenCount": 5_000,
    "cacheWriteInputTokenCount": 2_000,
}


def chunks(*contents: object) -> Reply:
    """Return such a stream."""
    return Reply(parts=tuple(map(chunk, contents)), content_type=STREAM.content_type)


BY_CLAUDE = [json.loads(one.partition(b"data: ")[2]) for one in BY_NAME["messages"].stream.parts]
INVOKED: dict[str, tuple[Reply, list[str]]] = {
    "whole, as Claude says it": (wire.whole({**CLAUDE, "model": "claude-x"}), ["billed"]),
    "whole, by the headers": (wire.whole({"generation": "Hi"}, headers=COUNTED), ["billed"]),
    "whole, as another says it": (wire.whole({"output": {}, "usage": USAGE}), ["billed"]),
    "whole, by both": (wire.whole(CLAUDE, headers=COUNTED), ["billed"]),
    "whole, half of it": (
        Reply(parts=(b'{"generation": "H',), headers=COUNTED, end=End.SHORT),
        ["billed"],
    ),
    "whole, no usage": (wire.whole({"text": "Hi"}), ["estimated"]),
    "whole, half of it without headers": (
        Reply(parts=(b'{"generation": "H',), end=End.SHORT),
        ["estimated"],
    ),
    "stream of Claude": (chunks(*BY_CLAUDE), ["billed"]),
    "stream of another": (
        chunks(
            {"generation": "Hi"}, {"generation": "", "amazon-bedrock-invocationMetrics": METRICS}
        ),
        ["billed"],
    ),
    "stream of Claude, cut": (
        chunks(*BY_CLAUDE[:4]).cut(4, End.UNMARKED),
        ["estimated"],
    ),
    "stream of another, without its end": (chunks({"generation": "Hi"}), ["estimated"]),
}


@pytest.mark.parametrize("way", INVOKED)
def test_requests_as_the_models_makers_write_them(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[..., Any],
    way: str,
) -> None:
    """`invoke_model`: by the usage of Claude's answers, or by what Bedrock counted itself."""
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    reply, ends = INVOKED[way]
    server.answers(reply)
    client = of_boto3(pool)
    asked = {"modelId": MODEL, "body": BODY}
    with (
        pytest.raises((BotoCoreError, HTTPError))
        if "half" in way or "cut" in way
        else nullcontext()
    ):
        if "stream" in way:
            events = list(client.invoke_model_with_response_stream(**asked)["body"])
            assert len(events) == len(reply.parts)
        else:
            body = client.invoke_model(**asked)["body"]
            assert reply.parts[0][:5] == body.read(5)
            assert reply.parts[0][5:] == body.read()
    found = attempts(book, pool)
    assert ends == [one.end for one in found]
    assert {BILLED} >= {one.used for one in found if one.end == "billed"}
    if way == "stream of Claude, cut":
        (one,) = found
        assert (7_101, 9_315) == one.observed
        assert (8_100, 24_300) == one.used


def test_models_by_the_names_of_profiles(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, of_boto3: Callable[..., Any]
) -> None:
    """A region's profile, by id and by ARN; a profile of one's own says no model, and is named."""
    server.answers(WHOLE)
    client = of_boto3(pool)
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us." + MODEL
    names = ("us." + MODEL, arn, "arn:aws:bedrock:us-east-1::foundation-model/" + MODEL)
    for name in names:
        client.converse(**{**ASKED, "modelId": name})
    settled = [one for one in book.entries(pool.name) if one.kind == "settlement"]
    assert ["us." + MODEL, "us." + MODEL, MODEL] == [one.attribution.model for one in settled]
    assert 3 * BILLED[1] == pool.status().balance.committed.cost_micros_usd
    own = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    with pytest.raises(UnknownPriceError, match="application-inference-profile/abc123"):
        client.converse(**{**ASKED, "modelId": own})
    own_prices = PriceList({"price": [{"model": own, "input": 3, "output": 15}]})
    of_boto3(pool, prices=own_prices).converse(**{**ASKED, "modelId": own})
    server.answers(
        wire.whole({"embedding": [0.1]}, headers={"x-amzn-bedrock-input-token-count": "9"})
    )
    client.invoke_model(
        modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": "Hi"})
    )
    (*_, last) = attempts(book, pool)
    assert ("billed", (9, 1)) == (last.end, last.used)
    assert last.reserved[0] < 100


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("cohere.embed-english-v3", {"input_type": "image", "images": [PICTURE]}),
        (
            "cohere.embed-v4:0",
            {"inputs": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
        ),
        ("amazon.titan-embed-image-v1", {"inputImage": "A" * 100_000}),
        (
            "amazon.nova-2-multimodal-embeddings-v1:0",
            {
                "taskType": "SINGLE_EMBEDDING",
                "singleEmbeddingParams": {
                    "image": {"format": "png", "source": {"bytes": "A" * 100_000}}
                },
            },
        ),
    ],
)
def test_pictures_in_embeddings_are_held(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[..., Any],
    model: str,
    body: dict[str, Any],
) -> None:
    """As a picture, not by their characters; charged so if the answer does not say what it was."""
    server.answers(wire.whole({"embedding": [0.1]}))
    table = {"price": [{"model": model, "input": 1, "output": 1, "input_image": 5}]}
    of_boto3(pool, prices=PriceList(table)).invoke_model(modelId=model, body=json.dumps(body))
    (found,) = attempts(book, pool)
    assert "estimated" == found.end
    assert 2_000 <= found.reserved[0] < 2_050
    assert 5 * found.reserved[0] == found.reserved[1]


def test_sound_in_embeddings_is_not_held_as_text(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[..., Any],
) -> None:
    """Its characters say nothing of its tokens: 300 kB of it would be held as 158,000."""
    server.answers(wire.whole({"embedding": [0.1]}))
    model = "amazon.nova-2-multimodal-embeddings-v1:0"
    sound = {"format": "mp3", "source": {"bytes": "A" * 300_000}}
    body = {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": {"audio": sound}}
    table = {"price": [{"model": model, "input": 1, "output": 1, "input_audio": 5}]}
    of_boto3(pool, prices=PriceList(table)).invoke_model(modelId=model, body=json.dumps(body))
    (found,) = attempts(book, pool)
    assert found.reserved[0] < 3_000


@pytest.mark.parametrize("way", ["whole, as Claude says it", "stream of Claude", "whole, no usage"])
@pytest.mark.usefixtures("libraries")
def test_claude_on_bedrock_by_anthropics_client(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, way: str
) -> None:
    """It goes by httpx2, with Amazon's frames for its streams."""
    from anthropic import AnthropicBedrock

    reply, ends = INVOKED[way]
    server.answers(reply)
    client = AnthropicBedrock(
        aws_access_key="none",
        aws_secret_key="none",  # noqa: S106 - nobody asks for it
        aws_region="us-east-1",
        base_url=server.url,
    )
    asked: Any = {"model": "us." + MODEL, "max_tokens": 1_000, **ASKED_OF_CLAUDE}
    with budgeted(client, pool=pool):
        answer = client.messages.create(**asked, stream="stream" in way)
        assert "stream" not in way or "Hello there" == "".join(
            one.delta.text for one in answer if one.type == "content_block_delta"
        )
    (found,) = attempts(book, pool)
    assert ends == [found.end]
    assert found.used in {BILLED, found.reserved}


def test_a_stubber_answers_uncounted(
    pool: LedgerBudgetManager, server: wire.Server, of_boto3: Callable[..., Any]
) -> None:
    """Botocore's own stand-in answers before anything is sent: nothing is spent."""
    from botocore.stub import Stubber

    client = of_boto3(pool)
    answer = {
        "output": {"message": MESSAGE},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
        "metrics": {"latencyMs": 1},
    }
    with Stubber(client) as stub:
        stub.add_response("converse", answer)
        client.converse(**ASKED)
    assert [] == server.requests
    assert 0 == pool.status().balance.committed.tokens


def read(client: Any) -> list[Any]:
    """Return the events of a stream."""
    return list(client.converse_stream(**ASKED)["stream"])


OVERLOADED = wire.whole({"message": "no"}, status=503)
WAYS: dict[str, tuple[list[Reply], list[str]]] = {
    "whole": ([WHOLE], ["billed"]),
    "503, then whole": ([OVERLOADED, WHOLE], ["released", "billed"]),
    "400": ([wire.whole({"message": "no"}, status=400)], ["released"]),
    "no answer": ([WHOLE.cut(0, End.HEADLESS)], ["estimated"] * 3),
    "stream": ([STREAM], ["billed"]),
    "503, then stream": ([OVERLOADED, STREAM], ["released", "billed"]),
    "stream without its end": ([STREAM.cut(3, End.MARKED)], ["estimated"]),
    "stream cut": ([STREAM.cut(2, End.UNMARKED)], ["estimated"]),
    "stream with an error": (
        [
            Reply(
                parts=(
                    *STREAM.parts[:2],
                    event("modelStreamErrorException", {"message": "no"}, of="exception"),
                ),
                content_type=STREAM.content_type,
            )
        ],
        ["estimated"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_becomes_of_the_attempts(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[..., Any],
    way: str,
) -> None:
    """Each has one end, and what is billed is what was recorded."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    replies, ends = WAYS[way]
    server.answers(*replies)
    client = of_boto3(pool)
    fails = way in {"400", "no answer", "stream cut", "stream with an error"}
    errors = (BotoCoreError, ClientError, HTTPError)
    with pytest.raises(errors) if fails else nullcontext():
        read(client) if "stream" in way else client.converse(**ASKED)
    found = attempts(book, pool)
    assert ends == [one.end for one in found]
    assert {BILLED} >= {one.used for one in found if one.end == "billed"}
    assert len(ends) == len(server.requests)
    assert 1 == len({one.call for one in found})


def test_an_interrupt_ends_the_lease(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Botocore tells it by no event; the next call of the thread has a lease of its own."""
    from botocore.httpsession import URLLib3Session

    server.answers(WHOLE)
    client = of_boto3(pool)
    with monkeypatch.context() as patched:
        patched.setattr(URLLib3Session, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.converse(**ASKED)
    client.converse(**ASKED)
    assert ["estimated", "billed"] == [one.end for one in attempts(book, pool)]


def interrupted(*_given: object) -> None:
    """Stand in for what sends."""
    raise KeyboardInterrupt


def test_a_stream_that_is_left(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, of_boto3: Callable[..., Any]
) -> None:
    """Closed, or thrown away: the estimate is charged."""
    server.answers(STREAM.cut(2, End.NEVER))
    client = of_boto3(pool)
    stream = client.converse_stream(**ASKED)["stream"]
    for _ in stream:
        break
    stream.close()
    for _ in client.converse_stream(**ASKED)["stream"]:
        break
    gc.collect()
    assert ["estimated"] * 2 == [one.end for one in attempts(book, pool)]


def test_refusals(
    new_pool: Callable[..., LedgerBudgetManager],
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[..., Any],
) -> None:
    """The budget's own error, before anything is sent; what cannot be counted is not called."""
    client = of_boto3(new_pool(capacity_cost_micros_usd=1))
    for call in (lambda: client.converse(**ASKED), lambda: read(client)):
        with pytest.raises(ThresholdExceededError) as refused:
            call()
        (note,) = refused.value.__notes__
        assert "tokens of output (inferenceConfig.maxTokens): lower that" in note
    with pytest.raises(ThresholdExceededError) as refused:
        client.converse(**{**ASKED, "inferenceConfig": {}})
    (note,) = refused.value.__notes__
    assert "4,096 tokens were assumed: set inferenceConfig.maxTokens in it" in note
    with pytest.raises(ThresholdExceededError):
        client.invoke_model(modelId=MODEL, body=BODY)
    with pytest.raises(InvalidInputError, match="StartAsyncInvoke is not counted"):
        client.start_async_invoke(
            modelId=MODEL,
            modelInput={},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://bucket"}},
        )
    with pytest.raises(InvalidInputError, match="has a budget already"):
        budgeted(client, pool=pool)
    assert [] == server.requests


@pytest.mark.parametrize(
    "read",
    [
        lambda content: content.read(),
        lambda content: content.readline(),
        lambda content: content.readlines(),
        list,
        lambda content: [*iter(lambda: content.readinto(bytearray(2)), 0)],
    ],
)
def test_content_that_broke_is_an_error_however_it_is_read(read: Callable[[Any], object]) -> None:
    """What came before is given first, to those who ask for no more."""
    content = io.BufferedReader(_Replayed(b'{"half', ConnectionError("cut")))
    assert b'{"h' == content.read(3)
    with pytest.raises(ConnectionError, match="cut"):
        read(content)
    assert b"whole" == io.BufferedReader(_Replayed(b"whole", None)).read()
