"""Where two sources of prices disagree: a table of one's own, genai-prices, litellm's map."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ledger import PriceTableError
from ledger.prices import PriceTable
from ledger.prices.comparison import compare
from ledger.prices.library import LibraryPrices
from ledger.prices.litellm import LitellmMap

MAP: dict[str, Any] = {
    "sample_spec": {"mode": "one of: chat", "litellm_provider": "one of"},
    "gpt-4o": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 2.5e-06,
        "input_cost_per_token_batches": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "output_cost_per_token_batches": 5e-06,
        "cache_read_input_token_cost": 1.25e-06,
    },
    "claude-sonnet-4-5": {
        "litellm_provider": "anthropic",
        "mode": "chat",
        "input_cost_per_token": 3e-06,
        "cache_creation_input_token_cost": 3.75e-06,
        "cache_creation_input_token_cost_above_1hr": 6e-06,
        "output_cost_per_token": 1.5e-05,
    },
    "gemini/gemini-2.5-pro": {
        "litellm_provider": "gemini",
        "mode": "chat",
        "input_cost_per_token": 1.25e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token": 9e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    },
    "dall-e-3": {"litellm_provider": "openai", "mode": "image_generation"},
    "unpriced": {"litellm_provider": "openai", "mode": "chat"},
    "nobodys": {"litellm_provider": "nobody", "mode": "chat", "input_cost_per_token": 1e-06},
}


@pytest.fixture
def litellm(tmp_path: Path) -> LitellmMap:
    """Return a map in litellm's form."""
    path = tmp_path / "map.json"
    path.write_text(json.dumps(MAP), encoding="utf-8")
    return LitellmMap(path)


def test_litellms_map_is_read_exactly(litellm: LitellmMap, noon: datetime) -> None:
    """US dollars a token become US dollars a million, digit by digit; steps are in the names."""
    found = litellm.rates("gemini-2.5-pro", provider="gemini", at=noon, conditions={})
    assert found is not None
    assert Decimal("1.25") == found.rates["input"].base
    assert ((200_000, Decimal("2.5")),) == found.rates["input"].steps
    batch = litellm.rates(
        "gpt-4o", provider="openai", at=noon, conditions={"service_tier": "batch"}
    )
    assert batch is not None
    assert {"input": Decimal("1.25"), "output": 5} == {
        kind: rate.base for kind, rate in batch.rates.items()
    }
    for model, provider, under in (
        ("gpt-4o", "azure", {}),
        ("gpt-4o", "openai", {"service_tier": "scale"}),
        ("gpt-4o", "openai", {"speed": "fast"}),
        ("unpriced", "openai", {}),
        ("gpt-5", None, {}),
    ):
        assert litellm.rates(model, provider=provider, at=noon, conditions=under) is None


def test_where_litellm_and_genai_prices_disagree(litellm: LitellmMap, noon: datetime) -> None:
    """Above 200,000 tokens one doubles the price of a model and the other does not."""
    models = [(name, provider, {}) for name, provider in litellm.models()]
    found = compare(litellm, LibraryPrices(), models, at=noon)
    assert (3, ("nobodys",)) == (found.compared, found.missing)
    assert [
        ("claude-sonnet-4-5", "input", 200_000, Decimal(3), Decimal(6), Fraction(2)),
        ("claude-sonnet-4-5", "cache_write", 200_000, Decimal("3.75"), Decimal("7.5"), 2),
        ("claude-sonnet-4-5", "cache_write_1h", 200_000, Decimal(6), Decimal(12), 2),
        ("claude-sonnet-4-5", "output", 200_000, Decimal(15), Decimal("22.5"), Fraction(3, 2)),
        ("gemini-2.5-pro", "output", 0, Decimal(9), Decimal(10), Fraction(10, 9)),
    ] == [
        (row.model, row.kind, row.above_input_tokens, row.first_usd, row.second_usd, row.ratio)
        for row in found.disagreements
    ]
    gaps = compare(litellm, LibraryPrices(), models, at=noon, gaps=True).disagreements
    assert ("gpt-4o", "cache_read", None) not in [
        (row.model, row.kind, row.first_usd) for row in gaps
    ]
    assert ("claude-sonnet-4-5", "cache_read", None) in [
        (row.model, row.kind, row.first_usd) for row in gaps
    ]


def test_a_table_of_ones_own_against_the_library(noon: datetime) -> None:
    """Each model that is named in full, under its own conditions; patterns are not compared."""
    table = PriceTable(
        {
            "price": [
                {"model": "gpt-5", "input": "1.25", "output": 11},
                {"model": "gpt-5", "service_tier": "flex", "input": "0.625", "output": 5},
                {"model": "gpt-5", "service_tier": "scale", "input": 9},
                {"model": "house-*", "input": 1},
                {"model": "free", "provider": "house", "input": 0},
            ]
        }
    )
    # Flex has a price in the library from a later day on.
    assert 1 == compare(table, LibraryPrices(), table.models(), at=noon).compared
    later = datetime(2026, 11, 1, tzinfo=UTC)
    found = compare(table, LibraryPrices(), table.models(), at=later)
    assert (1, ("gpt-5", "free")) == (found.compared, found.missing)
    assert [("output", Decimal(11), Decimal(10))] == [
        (row.kind, row.first_usd, row.second_usd) for row in found.disagreements
    ]


def test_a_difference_is_said_once(noon: datetime) -> None:
    """Not again at a step of one of them that changes neither price."""
    entry = {"model": "gpt-5", "input": 9, "above": [{"input_tokens": 5, "input": 9}]}
    table = PriceTable({"price": [entry]})
    (row,) = compare(table, LibraryPrices(), table.models(), at=noon).disagreements
    assert 0 == row.above_input_tokens


def test_a_price_of_nothing_has_no_ratio(noon: datetime) -> None:
    """0 against 1.25 USD differs, and is no multiple."""
    table = PriceTable({"price": [{"model": "gpt-5", "input": 0}]})
    (row,) = compare(table, LibraryPrices(), table.models(), at=noon).disagreements
    assert row.ratio is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": {"b": 1}}', "{", "\udcff"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    """A file that is no map, or not there."""
    path = tmp_path / "map.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(PriceTableError, match=r"map\.json"):
        LitellmMap(path)
    with pytest.raises(PriceTableError, match="cannot be read"):
        LitellmMap(tmp_path / "none.json")
