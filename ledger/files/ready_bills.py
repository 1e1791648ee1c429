"""Ready mappings for the bills of providers, resellers and clouds.

docs/reconcile.md names the source of each column name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ledger.files.mapping import (
    COLUMN_FIELDS,
    BillMapping,
    CostUnit,
    Repeats,
    TokenCounting,
)

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
_OPENAI_EMBEDDINGS = BillMapping(
    name="openai-usage",
    at="start_time",
    end="end_time",
    model="model",
    input_tokens=["input_tokens"],
    optional=["end", "model"],
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
_OPENROUTER_CSV = BillMapping(
    name="openrouter",
    request_id="generation_id",
    at="created_at",
    model="model_permaslug",
    input_tokens=["tokens_prompt"],
    output_tokens=["tokens_completion"],
    cache_read_tokens=["tokens_cached"],
    reasoning_tokens=["tokens_reasoning"],
    cost=["cost_total"],
    optional=["cache_read_tokens", "reasoning_tokens"],
)
_OPENROUTER_ACTIVITY = BillMapping(
    name="openrouter",
    at="date",
    model="model",
    input_tokens=["prompt_tokens"],
    output_tokens=["completion_tokens"],
    reasoning_tokens=["reasoning_tokens"],
    cost=["usage"],
    optional=["reasoning_tokens"],
)
_AWS_CUR = BillMapping(
    name="aws-cur",
    at="line_item_usage_start_date",
    end="line_item_usage_end_date",
    currency="line_item_currency_code",
    cost=["line_item_unblended_cost"],
    only={"line_item_product_code": ["AmazonBedrock*"]},
    optional=["end"],
)
_AWS_COST_EXPLORER = BillMapping(
    name="aws-cost-explorer",
    at="TimePeriod.Start",
    end="TimePeriod.End",
    currency="Metrics.UnblendedCost.Unit",
    cost=["Metrics.UnblendedCost.Amount"],
    rows=["ResultsByTime", "Groups"],
)
_AWS_COST_EXPLORER_TOTAL = replace(
    _AWS_COST_EXPLORER,
    currency="Total.UnblendedCost.Unit",
    cost=["Total.UnblendedCost.Amount"],
)
_AZURE = BillMapping(
    name="azure",
    at="Date",
    at_format=["%m/%d/%Y", "iso"],
    currency="BillingCurrency",
    cost=["CostInBillingCurrency"],
)
_AZURE_EA = replace(_AZURE, currency="BillingCurrencyCode")
_AZURE_MCA = replace(_AZURE, at="date", currency="billingCurrency", cost=["costInBillingCurrency"])
_GCP = BillMapping(
    name="gcp-billing",
    at="usage_start_time",
    end="usage_end_time",
    currency="currency",
    cost=["cost", "credits[].amount"],
)
_GCP_CSV = replace(_GCP, cost=["cost"])
_FOCUS_OWN = BillMapping(
    name="focus",
    request_id="x_RequestId",
    at="ChargePeriodStart",
    end="ChargePeriodEnd",
    model="x_ModelName",
    currency="BillingCurrency",
    input_tokens=["x_InputTokens"],
    output_tokens=["x_OutputTokens"],
    total_tokens=["x_TotalTokens"],
    cache_creation_tokens=["x_CacheCreationTokens"],
    cache_read_tokens=["x_CacheReadTokens"],
    reasoning_tokens=["x_ReasoningTokens"],
    cost=["BilledCost"],
    repeats=Repeats.ADD,
)
_FOCUS = BillMapping(
    name="focus",
    at="ChargePeriodStart",
    end="ChargePeriodEnd",
    currency="BillingCurrency",
    cost=["BilledCost"],
)
_COPILOT = BillMapping(name="copilot", at="date", model="model", cost=["net_amount"])
_CURSOR = BillMapping(
    name="cursor",
    at="Date",
    model="Model",
    # Public files disagree on whether the column of cache writes includes the other one.
    output_tokens=["Output Tokens"],
    cache_read_tokens=["Cache Read"],
    total_tokens=["Total Tokens"],
    cost=["Cost"],
    empty=["-", "Included", "Free", "No Charge", "NaN"],
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

BILLS: Mapping[str, Sequence[BillMapping]] = {
    "openai-usage": (_OPENAI_USAGE, _OPENAI_EMBEDDINGS),
    "openai-costs": (_OPENAI_COSTS, _OPENAI_COSTS_CSV),
    "anthropic-usage": (_ANTHROPIC_USAGE, _ANTHROPIC_USAGE_CSV),
    "anthropic-costs": (_ANTHROPIC_COSTS, _ANTHROPIC_COSTS_CSV),
    "openrouter": (_OPENROUTER_CSV, _OPENROUTER_ACTIVITY),
    "aws-cur": (_AWS_CUR,),
    "aws-cost-explorer": (_AWS_COST_EXPLORER, _AWS_COST_EXPLORER_TOTAL),
    "azure": (_AZURE, _AZURE_EA, _AZURE_MCA),
    "gcp-billing": (_GCP, _GCP_CSV),
    "focus": (_FOCUS_OWN, _FOCUS),
    "copilot": (_COPILOT,),
    "cursor": (_CURSOR,),
    "generic": (_GENERIC,),
}
"""The mappings of each name, one for each known shape. The first that fits is used."""
