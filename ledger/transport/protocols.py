"""The protocols of model APIs: the fields of requests, and the readers of answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ledger.prices.answers import Fields
from ledger.transport import said
from ledger.transport.said import Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The protocol of one kind of call.

    Attributes:
        name: Of the protocol.
        operation: What the call does, as OpenTelemetry names it.
        provider: The provider that defined it, as price lists name it; None if there is none.
        paths: How the paths of its requests end.
        inputs: The parts of a request that the model reads.
        limits: Where a request says how much output it wants at most, by preference.
        answers: Where a request says how many answers it wants.
        writes: 1, or 0 if there is no output.
        at_least: The least output that is reserved for an answer if the request has no limit.
        kinds: What the input and the output may be besides text, by the names of price tables.
        searched: The part of a request whose members are searched, if only searches are charged.
        spoken: The part of a request that becomes speech: it may be charged by the character.
        heard: The part of a request that becomes text: it may be charged by its length.
        usage_on_request: Whether a stream leaves its usage out unless `stream_options` ask for it.
        usage: The part of an answer that says what was used.
        tells: An event of a stream that does not match this says nothing of usage or end.
        more_behind: Whether usage may still come after the end of a stream.
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
    at_least: int = 0
    kinds: tuple[str, ...] = ()
    searched: str | None = None
    spoken: str | None = None
    heard: str | None = None
    usage_on_request: bool = False
    usage: str = "usage"
    tells: re.Pattern[bytes]
    event: Callable[[Said, Fields], None]
    whole: Callable[[Said, Fields], None]
    more_behind: bool = False
    head: Callable[[Said, Mapping[str, str]], None] | None = None


FREE = (
    *("/count_tokens", ":countTokens", ":computeTokens", "/input_tokens", "/tokenize"),
    *("/detokenize", "/moderations"),
)
"""The ends of the paths of requests that cost nothing."""

_NO_STREAM = re.compile(rb"(?!)")
"""Nothing matches it."""

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
        event=said.chat_event,
        whole=said.whole("id", "model", "service_tier", "usage"),
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
        event=said.chat_event,
        whole=said.whole("id", "model", "service_tier", "usage"),
    ),
    Protocol(
        name="responses",
        operation="chat",
        provider="openai",
        paths=("/responses",),
        inputs=("input", "instructions", "tools", "text"),
        limits=(("max_output_tokens",),),
        tells=re.compile(rb'"type":\s*"response\.(?:completed|incomplete|failed)"'),
        event=said.response_event,
        whole=said.response,
    ),
    Protocol(
        name="messages",
        operation="chat",
        provider="anthropic",
        paths=("/messages", ":rawPredict", ":streamRawPredict"),
        inputs=("system", "messages", "tools"),
        limits=(("max_tokens",),),
        tells=re.compile(rb'"type":\s*"message_(?:start|delta|stop)"'),
        event=said.message_event,
        whole=said.whole("id", "model", "usage"),
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
        event=said.gemini_event,
        whole=said.gemini_event,
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
        event=said.cohere_event,
        whole=said.cohere,
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
        event=said.cohere_1,
        whole=said.cohere_1,  # a stream is of lines of JSON, unless events are asked for
    ),
    Protocol(
        name="embeddings",
        operation="embeddings",
        provider="openai",
        paths=("/embeddings",),
        inputs=("input",),
        writes=0,
        tells=_NO_STREAM,
        event=said.no_event,
        whole=said.whole("model", "usage"),
    ),
    Protocol(
        name="gemini, embeddings",
        operation="embeddings",
        provider="google",
        paths=(":embedContent", ":batchEmbedContents"),
        inputs=("content", "requests"),
        writes=0,
        kinds=("input_image", "input_audio", "input_video"),
        usage="usageMetadata",
        tells=_NO_STREAM,
        event=said.no_event,
        whole=said.whole("usageMetadata"),
    ),
    Protocol(
        name="cohere, embed",
        operation="embeddings",
        provider="cohere",
        paths=("/v2/embed", "/v1/embed"),
        inputs=("texts", "images", "inputs"),
        writes=0,
        kinds=("input_image",),
        tells=_NO_STREAM,
        event=said.no_event,
        whole=said.cohere_meta,
    ),
    Protocol(
        name="cohere, rerank",
        operation="rerank",
        provider="cohere",
        paths=("/v2/rerank", "/v1/rerank"),
        inputs=("query", "documents"),
        writes=0,
        searched="documents",
        tells=_NO_STREAM,
        event=said.no_event,
        whole=said.cohere_meta,
    ),
    Protocol(
        name="images",
        operation="image_generation",
        provider="openai",
        paths=("/images/generations", "/images/edits"),
        inputs=("prompt", "image", "image[]", "images", "mask"),
        at_least=6_240,  # the largest picture of gpt-image-1
        kinds=("input_image", "output_image"),
        tells=re.compile(rb'"type":\s*"image_(?:generation|edit)\.completed"'),
        event=said.images_event,
        whole=said.images,
    ),
    Protocol(
        name="transcriptions",
        operation="transcription",
        provider="openai",
        paths=("/audio/transcriptions", "/audio/translations"),
        inputs=("file", "prompt"),
        kinds=("input_audio",),
        heard="file",
        tells=re.compile(rb'"type":\s*"transcript\.text\.done"'),
        event=said.transcription_event,
        whole=said.whole("usage", "duration"),
    ),
    Protocol(
        name="speech",
        operation="speech",
        provider="openai",
        paths=("/audio/speech",),
        inputs=("input", "instructions"),
        answers=(),
        kinds=("output_audio",),
        spoken="input",
        tells=re.compile(rb'"type":\s*"speech\.audio\.done"'),
        event=said.speech_event,
        whole=said.whole("usage"),
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
    tells=_NO_STREAM,  # of server-sent events
    event=said.converse_event,
    whole=said.converse_event,
    head=said.amazon_head,
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
    event=said.invoked_event,
    whole=said.invoked,
    head=said.invoked_head,
)
"""Amazon Bedrock's for requests as each model's maker writes them."""

INVOKE_EMBEDDINGS = replace(
    INVOKE,
    operation="embeddings",
    inputs=(*INVOKE.inputs, "images", "inputImage", "singleEmbeddingParams"),
    writes=0,
    kinds=("input_image", "input_audio", "input_video"),
)

ANY = replace(PROTOCOLS[0], name="any", provider=None, paths=(), inputs=("input",), limits=())
"""The protocol of calls that programs count themselves, through no known transport."""
