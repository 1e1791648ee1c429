"""Ready mappings for logs and traces: of gateways, coding assistants and OpenTelemetry.

docs/reconcile.md names the source of each column name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ledger.files.mapping import BillMapping, Identical, Repeats, TokenCounting

_LITELLM = BillMapping(
    name="litellm",
    request_id="request_id",
    at="startTime",
    model="model",
    input_tokens=["prompt_tokens"],
    output_tokens=["completion_tokens"],
    total_tokens=["total_tokens"],
    cost=["spend"],
)
_LANGFUSE = BillMapping(
    name="langfuse",
    request_id="id",
    within="parentObservationId",
    at="startTime",
    model="model",
    input_tokens=["usageDetails.input"],
    output_tokens=["usageDetails.output"],
    total_tokens=["usageDetails.total"],
    cost=["calculatedTotalCost"],
    only={"type": ["GENERATION"]},
    optional=["within", "total_tokens", "cost"],
)
_HELICONE = BillMapping(
    name="helicone",
    request_id="response_id",
    at="request_created_at",
    model="model",
    input_tokens=["prompt_tokens"],
    output_tokens=["completion_tokens"],
    total_tokens=["total_tokens"],
    cost=["cost"],
    optional=["total_tokens", "cost"],
)
_HELICONE_USD = replace(_HELICONE, cost=["costUSD"], optional=["total_tokens"])
_BEDROCK = BillMapping(
    name="bedrock-logs",
    request_id="requestId",
    at="timestamp",
    model="modelId",
    input_tokens=["input.inputTokenCount"],
    output_tokens=["output.outputTokenCount"],
    cache_creation_tokens=["input.cacheWriteInputTokenCount"],
    cache_read_tokens=["input.cacheReadInputTokenCount"],
    tokens=TokenCounting.CACHE_EXCLUDED,
    only={"schemaType": ["ModelInvocationLog"]},
    optional=["cache_creation_tokens", "cache_read_tokens"],
)
_CCUSAGE = BillMapping(
    name="ccusage",
    at="date",
    model="modelName",
    input_tokens=["inputTokens"],
    output_tokens=["outputTokens"],
    cache_creation_tokens=["cacheCreationTokens"],
    cache_read_tokens=["cacheReadTokens"],
    tokens=TokenCounting.CACHE_EXCLUDED,
    cost=["cost"],
    rows=["daily", "modelBreakdowns"],
)
_CLAUDE_CODE = BillMapping(
    name="claude-code",
    request_id="message.id",
    at="timestamp",
    model="message.model",
    input_tokens=["message.usage.input_tokens"],
    output_tokens=["message.usage.output_tokens"],
    cache_creation_tokens=["message.usage.cache_creation_input_tokens"],
    cache_read_tokens=["message.usage.cache_read_input_tokens"],
    tokens=TokenCounting.CACHE_EXCLUDED,
    only={"type": ["assistant"]},
    repeats=Repeats.LAST,
    identical=Identical.ONCE,
    rows=["rows"],
    optional=["cache_creation_tokens", "cache_read_tokens"],
)
_CODEX_USED = "payload.info.last_token_usage"
_CODEX = BillMapping(
    name="codex",
    at="timestamp",
    input_tokens=[f"{_CODEX_USED}.input_tokens"],
    output_tokens=[f"{_CODEX_USED}.output_tokens"],
    cache_read_tokens=[f"{_CODEX_USED}.cached_input_tokens"],
    reasoning_tokens=[f"{_CODEX_USED}.reasoning_output_tokens"],
    only={"payload.type": ["token_count"]},
    # The last usage is repeated at another time, while the session's sum stays the same.
    identity=[
        "payload.info.total_token_usage.input_tokens",
        "payload.info.total_token_usage.output_tokens",
    ],
    identical=Identical.ONCE,
    begins={"type": ["session_meta"]},  # a file may hold several sessions
    rows=["rows"],
    optional=["cache_read_tokens", "reasoning_tokens"],
)
_GENAI = BillMapping(
    name="otel-genai",
    request_id="attributes.gen_ai.response.id",
    at="startTimeUnixNano",
    model="attributes.gen_ai.response.model",
    input_tokens=["attributes.gen_ai.usage.input_tokens"],
    output_tokens=["attributes.gen_ai.usage.output_tokens"],
    cache_creation_tokens=["attributes.gen_ai.usage.cache_creation.input_tokens"],
    cache_read_tokens=["attributes.gen_ai.usage.cache_read.input_tokens"],
    rows=["resourceSpans", "scopeSpans", "spans"],
    optional=["request_id", "model", "cache_creation_tokens", "cache_read_tokens"],
)
_GENAI_FLAT = replace(_GENAI, at="start_time")
# The names of the conventions before version 1.27, which vLLM still writes.
_GENAI_OLD = replace(
    _GENAI,
    request_id="attributes.gen_ai.request.id",
    input_tokens=["attributes.gen_ai.usage.prompt_tokens"],
    output_tokens=["attributes.gen_ai.usage.completion_tokens"],
)
_GENAI_SHAPES = (_GENAI, _GENAI_FLAT, _GENAI_OLD, replace(_GENAI_OLD, at="start_time"))
# Some tracers say an agent's usage once more in a span of its own: what is named invoke_... or
# execute_... is no call.
_CALLS = {"attributes.gen_ai.operation.name": ["", "[!ei]*", "e[!x]*", "i[!n]*"]}

LOGS: Mapping[str, Sequence[BillMapping]] = {
    "litellm": (_LITELLM,),
    "langfuse": (_LANGFUSE,),
    "helicone": (_HELICONE, _HELICONE_USD),
    "bedrock-logs": (_BEDROCK,),
    "ccusage": (_CCUSAGE,),
    "claude-code": (_CLAUDE_CODE,),
    "codex": (_CODEX,),
    "otel-genai": (*(replace(one, only=_CALLS) for one in _GENAI_SHAPES), *_GENAI_SHAPES),
}
"""The mappings of each name, one for each known shape. The first that fits is used."""
