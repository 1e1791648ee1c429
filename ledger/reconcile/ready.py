"""Ready mappings for the exports of OpenAI and Anthropic, and a generic one.

docs/reconcile.md names the source of each column name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ledger.reconcile.mapping import COLUMN_FIELDS, BillMapping, CostUnit, TokenCounting

_OPENAI_USAGE = BillMapping(
    name="openai-usage",
    at="start_time",
    end="end_time",
    model="model",
    input_tokens=["input_tokens"],
    output_tokens=["output_tokens"],
    cache_read_tokens=["input_cached_tokens"],
    optional=["end", "model", "cache_read_tokens"],
)
_OPENAI_COSTS = BillMapping(
    name="openai-costs",
    at="start_time",
    end="end_time",
    model="line_item",
    model_until=", ",
    currency="amount.currency",
    cost=["amount.value"],
    optional=["end", "model"],
)
_OPENAI_COSTS_CSV = replace(_OPENAI_COSTS, currency="amount_currency", cost=["amount_value"])
_ANTHROPIC_USAGE = BillMapping(
    name="anthropic-usage",
    at="starting_at",
    end="ending_at",
    model="model",
    input_tokens=["uncached_input_tokens"],
    output_tokens=["output_tokens"],
    cache_creation_tokens=[
        "cache_creation.ephemeral_5m_input_tokens",
        "cache_creation.ephemeral_1h_input_tokens",
    ],
    cache_read_tokens=["cache_read_input_tokens"],
    tokens=TokenCounting.CACHE_EXCLUDED,
    optional=["end", "model"],
)
_ANTHROPIC_USAGE_CSV = BillMapping(
    name="anthropic-usage",
    at="usage_date_utc",
    model="model_version",
    input_tokens=["usage_input_tokens_no_cache"],
    output_tokens=["usage_output_tokens"],
    cache_creation_tokens=[
        "usage_input_tokens_cache_write_5m",
        "usage_input_tokens_cache_write_1h",
    ],
    cache_read_tokens=["usage_input_tokens_cache_read"],
    tokens=TokenCounting.CACHE_EXCLUDED,
)
_ANTHROPIC_COSTS = BillMapping(
    name="anthropic-costs",
    at="starting_at",
    end="ending_at",
    model="model",
    currency="currency",
    cost=["amount"],
    cost_unit=CostUnit.CENTS,
    optional=["end", "model"],
)
_ANTHROPIC_COSTS_CSV = BillMapping(
    name="anthropic-costs", at="usage_date_utc", model="model", cost=["cost_usd"]
)
_GENERIC = BillMapping(
    name="generic",
    request_id="request_id",
    at="at",
    end="end",
    model="model",
    currency="currency",
    input_tokens=["input_tokens"],
    output_tokens=["output_tokens"],
    total_tokens=["total_tokens"],
    cache_creation_tokens=["cache_creation_tokens"],
    cache_read_tokens=["cache_read_tokens"],
    reasoning_tokens=["reasoning_tokens"],
    cost=["cost_usd"],
    optional=COLUMN_FIELDS,
)

READY: Mapping[str, Sequence[BillMapping]] = {
    "openai-usage": (_OPENAI_USAGE,),
    "openai-costs": (_OPENAI_COSTS, _OPENAI_COSTS_CSV),
    "anthropic-usage": (_ANTHROPIC_USAGE, _ANTHROPIC_USAGE_CSV),
    "anthropic-costs": (_ANTHROPIC_COSTS, _ANTHROPIC_COSTS_CSV),
    "generic": (_GENERIC,),
}
"""Mappings by name: one for the provider's API, and one for the CSV export if it differs."""
