"""One small, invented sample of each kind of file, in the shape that its program writes.

docs/reconcile.md says where each shape is known from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

Line = tuple[str | None, str | None, str, Mapping[str, Any]]


class Sample(NamedTuple):
    """A file, the mapping that reads it, and what it says.

    Attributes:
        mapping: The name of the ready mapping.
        name: The file's name.
        content: Its content.
        lines: Of each line its request id, model, day and amounts that are not 0.
    """

    mapping: str
    name: str
    content: str
    lines: list[Line]


def _lines(*values: Any) -> str:  # noqa: ANN401 - whatever JSON is
    return "".join(json.dumps(value) + "\n" for value in values)


def _attribute(name: str, kind: str, value: str) -> dict[str, Any]:
    return {"key": f"gen_ai.{name}", "value": {kind: value}}


_SPAN_USAGE = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2}


def _bucket(*results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": 1772323200,
                "end_time": 1772409600,
                "results": [*results],
            }
        ],
        "has_more": False,
        "next_page": None,
    }


DAY = "2026-03-01"
IN, OUT, ALL, USD = "input_tokens", "output_tokens", "total_tokens", "cost_micros_usd"
WRITTEN, READ, THOUGHT = "cache_creation_tokens", "cache_read_tokens", "reasoning_tokens"

_CALL = {IN: 10, OUT: 2, ALL: 12}

SAMPLES: dict[str, Sample] = {
    "OpenAI usage, API": Sample(
        "openai-usage",
        "usage.json",
        json.dumps(
            _bucket(
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1000,
                    "output_tokens": 500,
                    "input_cached_tokens": 800,
                    "num_model_requests": 5,
                    "model": "gpt-5",
                }
            )
        ),
        [(None, "gpt-5", DAY, {IN: 1000, OUT: 500, ALL: 1500, READ: 800})],
    ),
    "OpenAI usage, CSV": Sample(
        "openai-usage",
        "usage.csv",
        "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,"
        "input_tokens,output_tokens,input_cached_tokens\n"
        "1772323200,1772409600,2026-03-01T00:00:00+00:00,2026-03-02T00:00:00+00:00,proj_1,5,gpt-5,"
        "1000,500,800\n",
        [(None, "gpt-5", DAY, {IN: 1000, OUT: 500, ALL: 1500, READ: 800})],
    ),
    "OpenAI usage of embeddings": Sample(
        "openai-usage",
        "embeddings.json",
        json.dumps(
            _bucket(
                {
                    "object": "organization.usage.embeddings.result",
                    "input_tokens": 16,
                    "num_model_requests": 2,
                    "model": "text-embedding-3-small",
                }
            )
        ),
        [(None, "text-embedding-3-small", DAY, {IN: 16})],
    ),
    "OpenAI usage, empty": Sample("openai-usage", "empty.json", json.dumps(_bucket()), []),
    "OpenAI costs, API": Sample(
        "openai-costs",
        "costs.json",
        json.dumps(
            _bucket(
                {
                    "object": "organization.costs.result",
                    "amount": {
                        "value": "0.0600000000000000000000000000000000000001",
                        "currency": "usd",
                    },
                    "line_item": "gpt-5, input",
                    "project_id": None,
                },
                {
                    "object": "organization.costs.result",
                    "amount": {"value": "0E-6176", "currency": "usd"},
                    "line_item": "images",
                    "project_id": None,
                },
            )
        ),
        [
            (None, "gpt-5", DAY, {USD: 60_000 + Fraction(1, 10**34)}),
            (None, "images", DAY, {}),
        ],
    ),
    "OpenAI costs, CSV": Sample(
        "openai-costs",
        "costs.csv",
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,"
        "project_id,organization_id,organization_name\n"
        "1772323200,1772409600,2026-03-01T00:00:00+00:00,2026-03-02T00:00:00+00:00,"
        '0.8958740000000000,usd,"gpt-5, output",,org-1,Personal\n',
        [(None, "gpt-5", DAY, {USD: 895_874})],
    ),
    "Anthropic usage, API": Sample(
        "anthropic-usage",
        "usage.json",
        json.dumps(
            {
                "data": [
                    {
                        "starting_at": "2026-03-01T00:00:00Z",
                        "ending_at": "2026-03-02T00:00:00Z",
                        "results": [
                            {
                                "uncached_input_tokens": 100,
                                "cache_creation": {
                                    "ephemeral_1h_input_tokens": 20,
                                    "ephemeral_5m_input_tokens": 30,
                                },
                                "cache_read_input_tokens": 200,
                                "output_tokens": 50,
                                "server_tool_use": {"web_search_requests": 1},
                                "model": "claude-sonnet-4-5",
                            }
                        ],
                    }
                ],
                "has_more": False,
                "next_page": None,
            }
        ),
        [
            (
                None,
                "claude-sonnet-4-5",
                DAY,
                {IN: 350, OUT: 50, ALL: 400, WRITTEN: 50, READ: 200},
            )
        ],
    ),
    "Anthropic cost, API": Sample(
        "anthropic-costs",
        "cost.json",
        json.dumps(
            {
                "data": [
                    {
                        "starting_at": "2026-03-01T00:00:00Z",
                        "ending_at": "2026-03-02T00:00:00Z",
                        "results": [
                            {"currency": "USD", "amount": "123.78912", "model": "claude-opus-4-5"}
                        ],
                    }
                ],
                "has_more": False,
            }
        ),
        [(None, "claude-opus-4-5", DAY, {USD: Fraction("1237891.2")})],
    ),
    "OpenRouter, generations": Sample(
        "openrouter",
        "openrouter_activity.csv",
        "generation_id,created_at,cost_total,cost_web_search,cost_cache,byok_usage_inference,"
        "tokens_prompt,tokens_completion,tokens_reasoning,tokens_cached,model_permaslug,"
        "provider_name\n"
        "gen-1772359200-a,2026-03-01 10:00:00.713,0.0123,0,0,0,10389,137,0,9000,"
        "anthropic/claude-sonnet-4.5,Anthropic\n",
        [
            (
                "gen-1772359200-a",
                "anthropic/claude-sonnet-4.5",
                DAY,
                {IN: 10_389, OUT: 137, ALL: 10_526, USD: 12_300, READ: 9_000},
            )
        ],
    ),
    "OpenRouter, activity API": Sample(
        "openrouter",
        "activity.json",
        json.dumps(
            {
                "data": [
                    {
                        "date": "2026-03-01 00:00:00",
                        "model": "openai/gpt-5",
                        "model_permaslug": "openai/gpt-5-2025-08-07",
                        "provider_name": "OpenAI",
                        "usage": 0.015,
                        "byok_usage_inference": 0,
                        "requests": 5,
                        "prompt_tokens": 50,
                        "completion_tokens": 125,
                        "reasoning_tokens": 25,
                    }
                ]
            }
        ),
        [
            (
                None,
                "openai/gpt-5",
                DAY,
                {IN: 50, OUT: 125, ALL: 175, USD: 15_000, THOUGHT: 25},
            )
        ],
    ),
    "LiteLLM spend logs": Sample(
        "litellm",
        "spend.json",
        json.dumps(
            [
                {
                    "request_id": "chatcmpl-1",
                    "call_type": "acompletion",
                    "spend": 7.5e-05,
                    "total_tokens": 30,
                    "prompt_tokens": 20,
                    "completion_tokens": 10,
                    "startTime": "2026-03-01T10:00:00.123000Z",
                    "endTime": "2026-03-01T10:00:02.123000Z",
                    "model": "gpt-5",
                    "cache_hit": "False",
                    "metadata": {"user_api_key_team_id": "t"},
                    "request_tags": ["a"],
                }
            ]
        ),
        [("chatcmpl-1", "gpt-5", DAY, {IN: 20, OUT: 10, ALL: 30, USD: 75})],
    ),
    "Langfuse observations": Sample(
        "langfuse",
        "observations.json",
        json.dumps(
            {
                "data": [
                    {
                        "id": "obs-1",
                        "traceId": "t",
                        "type": "GENERATION",
                        "startTime": "2026-03-01T10:00:00.000Z",
                        "model": "gpt-5",
                        "usage": {"input": 20, "output": 10, "total": 30, "unit": "TOKENS"},
                        "usageDetails": {"input": 20, "output": 10, "total": 30},
                        "calculatedTotalCost": 0.0003,
                    },
                    {"id": "obs-2", "type": "SPAN", "startTime": "2026-03-01T10:00:00.000Z"},
                ],
                "meta": {"page": 1, "limit": 50, "totalItems": 2, "totalPages": 1},
            }
        ),
        [("obs-1", "gpt-5", DAY, {IN: 20, OUT: 10, ALL: 30, USD: 300})],
    ),
    "Helicone requests": Sample(
        "helicone",
        "requests.jsonl",
        _lines(
            {
                "response_id": "r-1",
                "request_id": "q-1",
                "request_created_at": "2026-03-01 10:00:00+00",
                "model": "gpt-5",
                "prompt_tokens": 20,
                "completion_tokens": 10,
                "total_tokens": 30,
                "cost": 0.0003,
            }
        ),
        [("r-1", "gpt-5", DAY, {IN: 20, OUT: 10, ALL: 30, USD: 300})],
    ),
    "AWS CUR 2.0": Sample(
        "aws-cur",
        "cur.csv",
        "line_item_product_code,line_item_usage_type,line_item_usage_start_date,"
        "line_item_usage_end_date,line_item_usage_amount,line_item_unblended_cost,"
        "line_item_currency_code\n"
        "AmazonBedrock,USE1-Claude4.5Sonnet-input-tokens,2026-03-01T10:00:00.000Z,"
        "2026-03-01T11:00:00.000Z,1000000,3.0000000000,USD\n"
        "AmazonEC2,BoxUsage:m5.large,2026-03-01T10:00:00.000Z,2026-03-01T11:00:00.000Z,1,0.096,USD\n",
        [(None, None, DAY, {USD: 3_000_000})],
    ),
    "AWS Cost Explorer": Sample(
        "aws-cost-explorer",
        "ce.json",
        json.dumps(
            {
                "GroupDefinitions": [{"Type": "DIMENSION", "Key": "USAGE_TYPE"}],
                "ResultsByTime": [
                    {
                        "TimePeriod": {"Start": "2026-03-01", "End": "2026-03-02"},
                        "Total": {},
                        "Groups": [
                            {
                                "Keys": ["USE1-Claude4.5Sonnet-input-tokens"],
                                "Metrics": {"UnblendedCost": {"Amount": "1.5", "Unit": "USD"}},
                            }
                        ],
                        "Estimated": False,
                    }
                ],
            }
        ),
        [(None, None, DAY, {USD: 1_500_000})],
    ),
    "Azure cost export": Sample(
        "azure",
        "azure.csv",
        "SubscriptionName,Date,MeterCategory,MeterName,UnitOfMeasure,Quantity,"
        "CostInBillingCurrency,BillingCurrency\n"
        "Prod,03/01/2026,Foundry Models,gpt 5 inp Tokens,10K,1.25,0.0155,USD\n",
        [(None, None, DAY, {USD: 15_500})],
    ),
    "GCP billing": Sample(
        "gcp-billing",
        "gcp.json",
        _lines(
            {
                "service": {"id": "C7E2-9256-1C43", "description": "Vertex AI"},
                "sku": {"id": "1", "description": "Gemini 2.5 Pro Input Tokens"},
                "usage_start_time": "2026-03-01 10:00:00 UTC",
                "usage_end_time": "2026-03-01 11:00:00 UTC",
                "cost": "1.25",
                "currency": "USD",
                "credits": [{"name": "c", "amount": "-0.25", "type": "PROMOTION"}],
                "labels": [{"key": "team", "value": "a"}],
            }
        ),
        [(None, None, DAY, {USD: 1_000_000})],
    ),
    "FOCUS of others": Sample(
        "focus",
        "focus.csv",
        "BilledCost,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,"
        "ChargePeriodStart,ChargePeriodEnd,ConsumedQuantity,ConsumedUnit,ServiceName\n"
        "0.25,USD,2026-03-01T00:00:00Z,2026-04-01T00:00:00Z,Usage,2026-03-01T10:00:00Z,"
        "2026-03-01T11:00:00Z,1000.000000,Tokens,AI\n",
        [(None, None, DAY, {USD: 250_000})],
    ),
    "Copilot": Sample(
        "copilot",
        "copilot.csv",
        "date,username,product,sku,model,quantity,unit_type,applied_cost_per_quantity,gross_amount,"
        "discount_amount,net_amount,exceeds_quota,total_monthly_quota,organization,"
        "cost_center_name\n"
        "2026-03-01,alice,copilot,copilot_premium_request,Claude Sonnet 4,3.6,requests,0.04,0.144,"
        "0.04,0.104,False,300,example,\n",
        [(None, "Claude Sonnet 4", DAY, {USD: 104_000})],
    ),
    "Cursor": Sample(
        "cursor",
        "usage-events-2026-03-02.csv",
        "Date,Kind,Model,Max Mode,Input (w/ Cache Write),Input (w/o Cache Write),Cache Read,"
        "Output Tokens,Total Tokens,Cost\n"
        '"2026-03-01T10:00:00.000Z","On-Demand","claude-4-sonnet","No","1200","1000","5000","300",'
        '"7500","0.12"\n'
        '"2026-03-01T11:00:00.000Z","Included","gpt-5","No","0","10","0","3","13","Included"\n',
        [
            (
                None,
                "claude-4-sonnet",
                DAY,
                {OUT: 300, ALL: 7_500, USD: 120_000, READ: 5_000},
            ),
            (None, "gpt-5", DAY, {OUT: 3, ALL: 13}),
        ],
    ),
    "ccusage": Sample(
        "ccusage",
        "ccusage.json",
        json.dumps(
            {
                "daily": [
                    {
                        "date": "2026-03-01",
                        "inputTokens": 28,
                        "outputTokens": 12,
                        "cacheCreationTokens": 3,
                        "cacheReadTokens": 40,
                        "totalTokens": 83,
                        "totalCost": 0.25,
                        "modelsUsed": ["claude-opus-4-5"],
                        "modelBreakdowns": [
                            {
                                "modelName": "claude-opus-4-5",
                                "inputTokens": 28,
                                "outputTokens": 12,
                                "cacheCreationTokens": 3,
                                "cacheReadTokens": 40,
                                "cost": 0.25,
                            }
                        ],
                    }
                ],
                "totals": {"totalTokens": 83, "totalCost": 0.25},
            }
        ),
        [
            (
                None,
                "claude-opus-4-5",
                DAY,
                {IN: 71, OUT: 12, ALL: 83, USD: 250_000, WRITTEN: 3, READ: 40},
            )
        ],
    ),
    "Claude Code": Sample(
        "claude-code",
        "session.jsonl",
        _lines(
            {"type": "user", "timestamp": "2026-03-01T10:00:00.000Z", "message": {"role": "user"}},
            *(
                {
                    "type": "assistant",
                    "timestamp": f"2026-03-01T10:00:0{second}.000Z",
                    "requestId": "req_1",
                    "message": {
                        "id": "msg_1",
                        "model": "claude-opus-4-5",
                        "content": [{"type": "text", "text": "..."}],
                        "usage": {
                            "input_tokens": 4,
                            "cache_creation_input_tokens": 50,
                            "cache_read_input_tokens": 600,
                            "output_tokens": output,
                        },
                    },
                }
                for second, output in ((1, 1), (2, 70), (3, 70))
            ),
        ),
        [
            (
                "msg_1",
                "claude-opus-4-5",
                DAY,
                {IN: 654, OUT: 70, ALL: 724, WRITTEN: 50, READ: 600},
            )
        ],
    ),
    "Codex": Sample(
        "codex",
        "rollout.jsonl",
        _lines(
            {
                "timestamp": "2026-03-01T10:00:00.000Z",
                "type": "session_meta",
                "payload": {"id": "s"},
            },
            *(
                {
                    "timestamp": f"2026-03-01T10:00:0{second}.000Z",
                    "type": "event_msg",
                    "payload": {
                        "type": "token_count",
                        "info": {
                            "total_token_usage": {
                                "input_tokens": total,
                                "cached_input_tokens": 20,
                                "output_tokens": 20,
                                "reasoning_output_tokens": 5,
                                "total_tokens": total + 20,
                            },
                            "last_token_usage": {
                                "input_tokens": used,
                                "cached_input_tokens": 10,
                                "output_tokens": 10,
                                "reasoning_output_tokens": 5,
                                "total_tokens": used + 10,
                            },
                        },
                    },
                }
                for second, total, used in ((1, 100, 100), (2, 170, 70), (3, 170, 70))
            ),
        ),
        [
            (None, None, DAY, {IN: 100, OUT: 10, ALL: 110, READ: 10, THOUGHT: 5}),
            (None, None, DAY, {IN: 70, OUT: 10, ALL: 80, READ: 10, THOUGHT: 5}),
        ],
    ),
    "OTLP": Sample(
        "otel-genai",
        "traces.json",
        json.dumps(
            {
                "resourceSpans": [
                    {
                        "resource": {
                            "attributes": [{"key": "service.name", "value": {"stringValue": "app"}}]
                        },
                        "scopeSpans": [
                            {
                                "scope": {"name": "gen"},
                                "spans": [
                                    {
                                        "traceId": "5b8efff798038103d269b633813fc60c",
                                        "spanId": "eee19b7ec3c1b174",
                                        "name": "chat gpt-5",
                                        "startTimeUnixNano": "1772359200000000000",
                                        "endTimeUnixNano": "1772359201000000000",
                                        "attributes": [
                                            {
                                                "key": "gen_ai.response.id",
                                                "value": {"stringValue": "chatcmpl-1"},
                                            },
                                            {
                                                "key": "gen_ai.response.model",
                                                "value": {"stringValue": "gpt-5"},
                                            },
                                            {
                                                "key": "gen_ai.usage.input_tokens",
                                                "value": {"intValue": "20"},
                                            },
                                            {
                                                "key": "gen_ai.usage.output_tokens",
                                                "value": {"intValue": "10"},
                                            },
                                        ],
                                    }
                                ],
                            }
                        ],
                    }
                ]
            }
        ),
        [("chatcmpl-1", "gpt-5", DAY, {IN: 20, OUT: 10, ALL: 30})],
    ),
    "flat spans": Sample(
        "otel-genai",
        "spans.jsonl",
        _lines(
            {
                "name": "chat gpt-5",
                "start_time": "2026-03-01T10:00:00.000000Z",
                "end_time": "2026-03-01T10:00:01.000000Z",
                "attributes": {
                    "gen_ai.response.id": "chatcmpl-1",
                    "gen_ai.response.model": "gpt-5",
                    "gen_ai.usage.input_tokens": 20,
                    "gen_ai.usage.output_tokens": 10,
                },
            }
        ),
        [("chatcmpl-1", "gpt-5", DAY, {IN: 20, OUT: 10, ALL: 30})],
    ),
    "Bedrock logs": Sample(
        "bedrock-logs",
        "log.json",
        _lines(
            {
                "schemaType": "ModelInvocationLog",
                "schemaVersion": "1.0",
                "timestamp": "2026-03-01T10:00:00Z",
                "accountId": "123456789012",
                "region": "us-east-1",
                "requestId": "a1b2c3d4",
                "operation": "Converse",
                "modelId": "anthropic.claude-sonnet-4-5-20250929-v1:0",
                "input": {"inputContentType": "application/json", "inputTokenCount": 20},
                "output": {"outputContentType": "application/json", "outputTokenCount": 10},
            }
        ),
        [
            (
                "a1b2c3d4",
                "anthropic.claude-sonnet-4-5-20250929-v1:0",
                DAY,
                {IN: 20, OUT: 10, ALL: 30},
            )
        ],
    ),
    "BurstGPT": Sample(
        "burstgpt",
        "BurstGPT_1.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "45,ChatGPT,10,2,12,Conversation log\n45,ChatGPT,10,2,12,Conversation log\n",
        [(None, "ChatGPT", DAY, _CALL)] * 2,
    ),
    "Mooncake": Sample(
        "mooncake",
        "mooncake_trace.jsonl",
        _lines(
            {"timestamp": 0, "input_length": 10, "output_length": 2, "hash_ids": [0, 1]},
            {"timestamp": 27482, "input_length": 10, "output_length": 2, "hash_ids": [0]},
        ),
        [(None, None, DAY, _CALL)] * 2,
    ),
    "splitwise-sim": Sample(
        "splitwise",
        "trace.csv",
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,"
        "token_size\n0,2,0,7.5e-05,1,10,2\n1,2,0,0.5019,1,10,2\n",
        [(None, None, DAY, _CALL)] * 2,
    ),
    "vidur": Sample(
        "vidur",
        "trace.csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0.041999999999999996,10,2\n",
        [(None, None, DAY, _CALL)],
    ),
    "vLLM requests": Sample(
        "vllm",
        "requests.json",
        json.dumps(
            [
                {
                    "request_id": f"cmpl-{number}",
                    "arrival_time": at,
                    "model": "qwen",
                    "prompt_len": 10,
                    "output_len": 2,
                }
                for number, at in enumerate((1772323200.25, 3.5))
            ]
        ),
        [(f"cmpl-{number}", "qwen", DAY, _CALL) for number in range(2)],
    ),
    "ShareGPT with lengths": Sample(
        "vllm",
        "sharegpt.jsonl",
        _lines({"prompt": "Hi", "prompt_length": 10, "response_length": 2, "arrival_time": 61}),
        [(None, None, DAY, _CALL)],
    ),
    "spans of agents": Sample(
        "otel-genai",
        "spans.jsonl",
        _lines(
            *(
                {
                    "name": operation,
                    "start_time": "2026-03-01T10:00:00.000000Z",
                    "attributes": {"gen_ai.operation.name": operation, **usage}
                    if operation
                    else usage,
                }
                for operation, usage in (
                    ("chat", _SPAN_USAGE),
                    ("execute_tool", {}),
                    ("embeddings", _SPAN_USAGE),
                    ("invoke_agent", {key: 2 * used for key, used in _SPAN_USAGE.items()}),
                    (None, _SPAN_USAGE),
                )
            )
        ),
        [(None, None, DAY, _CALL)] * 3,
    ),
    "vLLM spans": Sample(
        "otel-genai",
        "spans.json",
        json.dumps(
            {
                "resourceSpans": [
                    {
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "startTimeUnixNano": "1772323200000000000",
                                        "attributes": [
                                            _attribute("request.id", "stringValue", "r-1"),
                                            _attribute("response.model", "stringValue", "qwen"),
                                            _attribute("usage.prompt_tokens", "intValue", "10"),
                                            _attribute("usage.completion_tokens", "intValue", "2"),
                                        ],
                                    }
                                ]
                            }
                        ]
                    }
                ]
            }
        ),
        [("r-1", "qwen", DAY, _CALL)],
    ),
    "Azure LLM inference": Sample(
        "trace",
        "azure.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2026-03-01 18:17:03.9799600,10,2\n",
        [(None, None, DAY, _CALL)],
    ),
}
