"""Ready mappings for recorded traffic: the traces of research and load generators.

docs/reconcile.md names the source of each column name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ledger.files.mapping import BillMapping, CostUnit, Identical

_TRACE = BillMapping(
    name="trace",
    request_id="request_id",
    at="at",
    model="model",
    run="run_id",
    provider="provider",
    tenant="tenant",
    agent="agent",
    input_tokens=["input_tokens"],
    output_tokens=["output_tokens"],
    cost=["cost_usd"],
    aliases={
        **dict.fromkeys(("timestamp", "time", "occurred_at", "created_at"), "at"),
        **dict.fromkeys(("contexttokens", "prompt_tokens"), "input_tokens"),
        **dict.fromkeys(("generatedtokens", "completion_tokens"), "output_tokens"),
        "run": "run_id",
        "cost": "cost_usd",
    },
    identical=Identical.ADD,
    optional=["request_id", "model", "run", "provider", "tenant", "agent", "cost"],
)
_TRACE_MICROS = replace(
    _TRACE,
    cost=["cost_micros_usd"],
    cost_unit=CostUnit.MICROS_USD,
    optional=[name for name in _TRACE.optional if name != "cost"],
)
_BURSTGPT = BillMapping(
    name="burstgpt",
    at="Timestamp",
    at_format=["elapsed_seconds"],
    model="Model",
    run="Session ID",
    input_tokens=["Request tokens"],
    output_tokens=["Response tokens"],
    identical=Identical.ADD,
    optional=["run"],
)
_MOONCAKE = BillMapping(
    name="mooncake",
    at="timestamp",
    at_format=["elapsed_milliseconds"],
    input_tokens=["input_length"],
    output_tokens=["output_length"],
    identical=Identical.ADD,
    rows=["rows"],
)
_SPLITWISE = BillMapping(
    name="splitwise",
    at="arrival_timestamp",
    at_format=["elapsed_seconds"],
    # Its request_id counts from 0 in every file, and so does not identify a call.
    input_tokens=["prompt_size"],
    output_tokens=["token_size"],
    identical=Identical.ADD,
)
_VIDUR = BillMapping(
    name="vidur",
    at="arrived_at",
    at_format=["elapsed_seconds"],
    input_tokens=["num_prefill_tokens"],
    output_tokens=["num_decode_tokens"],
    identical=Identical.ADD,
)
_VLLM = BillMapping(
    name="vllm",
    request_id="request_id",
    at="arrival_time",
    at_format=["iso", "elapsed_seconds"],
    model="model",
    input_tokens=["prompt_len"],
    output_tokens=["output_len"],
    aliases={
        **dict.fromkeys(("timestamp", "start_time"), "arrival_time"),
        **dict.fromkeys(("input_len", "prompt_length", "num_prompt_tokens"), "prompt_len"),
        **dict.fromkeys(
            ("expected_output_len", "response_length", "num_generation_tokens"), "output_len"
        ),
    },
    identical=Identical.ADD,
    optional=["request_id", "model"],
)
_SHAPES = (_BURSTGPT, _MOONCAKE, _SPLITWISE, _VIDUR, _VLLM)

TRACES: Mapping[str, Sequence[BillMapping]] = {
    "trace": (*_SHAPES, _TRACE_MICROS, _TRACE),
    **{one.name: (one,) for one in _SHAPES},
}
"""The mappings by name; `trace` stands for any of them that fits."""
