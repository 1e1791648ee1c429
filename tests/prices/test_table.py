"""A price table of one's own: dated, by kind, tier, size and provider; refused where unclear."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ledger import InvalidInputError, PriceTableError, UnknownPriceError
from ledger.prices import Counts, PriceList, PriceTable
from tests.prices.conftest import OWN

USED = Counts(input_tokens=100, output_tokens=10)


def micros(table: PriceTable, model: str, at: datetime, **more: str) -> int:
    """Return what the same call costs."""
    prices = PriceList(table, library=False)
    return prices.price(
        USED,
        model=model,
        at=at,
        provider=more.get("provider"),
        service_tier=more.get("service_tier"),
    ).cost_micros_usd


def test_the_entry_that_says_most_about_a_call_decides(own: PriceTable, noon: datetime) -> None:
    """Full names before patterns, the provider's own before any, case is of no matter."""
    assert 280 == micros(own, "house-1", noon)
    assert 280 == micros(own, "House-1", noon, provider="elsewhere")
    assert 550 == micros(own, "house-1", noon, provider="Azure")
    assert 11_000 == micros(own, "house-2", noon)
    with pytest.raises(UnknownPriceError, match="no price for the model 'flat-1'"):
        micros(own, "flat-1", noon)


def test_a_full_name_and_then_the_longest_pattern_decides(noon: datetime) -> None:
    """In whatever order they stand, whatever names a provider, and however late the others are."""
    entries: list[dict[str, object]] = [
        {"model": "gpt-4o-mini", "input": 3, "output": 0},
        {"model": "gpt-4o*", "input": 2, "output": 0},
        {"model": "gpt*", "provider": "openai", "since": "2026-01-02", "input": 1, "output": 0},
        {"model": "gpt-4o-mini*", "since": "2026-01-03", "input": 4, "output": 0},
    ]
    models = ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-4o", "gpt-5")
    for given in (entries, entries[::-1]):
        table = PriceTable({"price": given})
        assert [300, 400, 200, 100] == [
            micros(table, one, noon, provider="openai") for one in models
        ]


def test_a_pattern_takes_over_models_that_the_library_knows(noon: datetime) -> None:
    """It is the price of all whose names begin so, and of no other."""
    prices = PriceList(PriceTable({"price": [{"model": "gpt-4o*", "input": 0, "output": 0}]}))
    found = [prices.price(USED, model=one, at=noon) for one in ("gpt-4o-mini", "gpt-4.1")]
    assert [("own", True), ("genai-prices", False)] == [
        (one.rates.source, one.cost_micros_usd == 0) for one in found
    ]


def test_a_price_ends_where_a_second_entry_of_the_same_name_begins() -> None:
    """A broader pattern ends nothing, however late it begins."""
    contract = {"model": "claude-sonnet-4-5*", "input": 2, "output": 0}
    after = {"since": "2027-01-01", "input": 3, "output": 0}
    old, new = datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    for model, costs in (("claude-sonnet-4-5*", (200, 300)), ("claude*", (200, 200))):
        table = PriceTable({"price": [contract, {"model": model, **after}]})
        assert costs == tuple(micros(table, "claude-sonnet-4-5-x", at) for at in (old, new))


def test_a_call_without_a_provider_is_not_charged_as_any(noon: datetime) -> None:
    """Where every entry names a provider, the call must name its own, of one as of two."""
    one = {"model": "m", "provider": "here", "input": 1}
    two = {"model": "m", "provider": "there", "input": 2}
    for prices, named in (([one], "here"), ([one, two], "here, there")):
        with pytest.raises(UnknownPriceError, match=f"of {named} alone: name the call's provider"):
            micros(PriceTable({"price": prices}), "m", noon)
    assert 100 == micros(PriceTable({"price": [{**one, "output": 0}]}), "m", noon, provider="here")


def test_prices_hold_from_their_day_on(own: PriceTable) -> None:
    """A day begins at midnight of UTC, wherever the call says it is made."""
    before = datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)
    after = before + timedelta(seconds=1)
    assert (280, 390) == (micros(own, "house-1", before), micros(own, "house-1", after))
    east = after.astimezone(timezone(timedelta(hours=14)))
    west = before.astimezone(timezone(timedelta(hours=-12)))
    assert (390, 280) == (micros(own, "house-1", east), micros(own, "house-1", west))


def test_a_model_that_is_dated_only_later_is_asked_of_the_next_source() -> None:
    """Before its first day a table does not have the model: genai-prices has."""
    table = PriceTable({"price": [{"model": "gpt-4o", "since": "2026-06-01", "input": 0}]})
    used = Counts(input_tokens=1_000_000)
    prices = PriceList(table)
    early = prices.price(used, model="gpt-4o", at=datetime(2026, 5, 1, tzinfo=UTC))
    late = prices.price(used, model="gpt-4o", at=datetime(2026, 7, 1, tzinfo=UTC))
    assert ("genai-prices", 2_500_000) == (early.rates.source, early.cost_micros_usd)
    assert ("own", 0, "2026-06-01") == (late.rates.source, late.cost_micros_usd, late.rates.since)


def test_a_tier_that_the_table_does_not_have_is_not_charged_as_another(
    own: PriceTable, noon: datetime
) -> None:
    """Batch has its own price, ordinary names of ordinary calls theirs, flex none."""
    assert 140 == micros(own, "house-1", noon, service_tier="batch")
    assert {280} == {
        micros(own, "house-1", noon, service_tier=name) for name in ("default", "Standard", "auto")
    }
    with pytest.raises(UnknownPriceError, match="service_tier 'flex'"):
        micros(own, "house-1", noon, service_tier="flex")
    with pytest.raises(UnknownPriceError, match="speed 'fast'"):
        PriceList(own).price(USED, model="house-1", at=noon, conditions={"speed": "fast"})


def test_steps_by_the_size_of_the_input(own: PriceTable, noon: datetime) -> None:
    """Above 200,000 input tokens, cached ones included, each token has the price of the step."""
    prices = PriceList(own, library=False)
    at, above = (
        prices.price(
            Counts(input_tokens=count, cache_read_tokens=100_000, output_tokens=1),
            model="house-1",
            at=noon,
        )
        for count in (200_000, 200_001)
    )
    assert 100_000 * Decimal("0.2") + 200_000 + 8 == at.cost_micros_usd
    assert 100_000 * Decimal("0.4") + 400_004 + 8 == above.cost_micros_usd


def test_a_file_is_read_exactly(tmp_path: Path, noon: datetime) -> None:
    """TOML's numbers are decimals as they are written; a version may be a date."""
    path = tmp_path / "prices.toml"
    path.write_text(
        """
        version = 2026-03-01
        currency = "USD"
        [[price]]
        model = "house-1"
        since = 2026-01-31
        input = 0.1
        output = 3e-1
        web_searches = 10
        above = [{ input_tokens = 200_000, input = 0.2 }]
        """,
        encoding="utf-8",
    )
    table = PriceTable.load(path)
    assert "2026-03-01" == table.version
    found = PriceList(path, library=False).price(
        Counts(input_tokens=3, output_tokens=1, web_searches=1), model="house-1", at=noon
    )
    assert Decimal("0.0100006") == found.cost_usd
    assert "2026-01-31" == found.rates.since


def test_without_a_version_the_content_is_the_version() -> None:
    """The same prices are the same version, and one digit more is another."""
    one, same, other = (
        PriceTable({"price": [{"model": "m", "input": usd}]}).version for usd in ("1", "1", "1.01")
    )
    assert one == same != other
    assert 12 == len(one)


GOOD = {"model": "m", "input": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no list of prices"),
        ({"price": {"model": "m"}}, "no list of prices"),
        ({"price": "text"}, "no list of prices"),
        ({"price": [GOOD], "currency": "EUR"}, "convert them"),
        ({"price": [{**GOOD, "currency": "EUR"}]}, "in 'EUR', and budgets in US dollars"),
        ({"price": [GOOD], "prices": []}, "'prices' is none of"),
        ({"price": [{**GOOD, "inputs": 1}]}, "'inputs' is none of"),
        ({"price": ["m"]}, "no table of its own|not a table of its own"),
        ({"price": [{"input": 1}]}, "names no model"),
        ({"price": [{"model": "", "input": 1}]}, "1 to 255 characters"),
        ({"price": [{"model": 5, "input": 1}]}, "must be a str"),
        ({"price": [{"model": "m"}]}, "has no price"),
        ({"price": [{**GOOD, "input": 0.1}]}, "not float"),
        ({"price": [{**GOOD, "input": True}]}, "not bool"),
        ({"price": [{**GOOD, "input": "one"}]}, "no number"),
        ({"price": [{**GOOD, "input": -1}]}, "0 or more"),
        ({"price": [{**GOOD, "input": "NaN"}]}, "0 or more"),
        ({"price": [{**GOOD, "input": "1e40"}]}, "at most 30 digits"),
        ({"price": [{**GOOD, "input": "1e-40"}]}, "at most 30 digits"),
        ({"price": [{**GOOD, "since": "soon"}]}, "write a day"),
        ({"price": [{**GOOD, "since": 2026}]}, "write a day"),
        ({"price": [{**GOOD, "since": datetime(2026, 1, 1, 5, tzinfo=UTC)}]}, "write a day"),
        ({"price": [{**GOOD, "above": {"input_tokens": 5}}]}, "must be a list"),
        ({"price": [{**GOOD, "above": [{"input": 5}]}]}, "has input_tokens and prices"),
        ({"price": [{**GOOD, "above": [{"input_tokens": 5}]}]}, "has input_tokens and prices"),
        ({"price": [{**GOOD, "above": [{"input_tokens": -5, "input": 1}]}]}, "outside"),
        ({"price": [{**GOOD, "above": [{"input_tokens": 5, "output": 1}]}]}, "no price below"),
        (
            {
                "price": [
                    {
                        **GOOD,
                        "above": [
                            {"input_tokens": 5, "input": 1},
                            {"input_tokens": 5, "input": 2},
                        ],
                    }
                ]
            },
            "must ascend",
        ),
        ({"price": [GOOD, {**GOOD, "model": "M"}]}, "the same day as price 1"),
    ],
)
def test_what_is_unclear_is_refused(content: dict[str, Any], said: str) -> None:
    """The error says which entry, what is wrong with it, and what to write."""
    with pytest.raises(PriceTableError, match=said) as caught:
        PriceTable(content)
    assert caught.value.reason in str(caught.value)


@pytest.mark.parametrize("content", [b"price = [", b"\xff", None])
def test_files_that_are_no_table(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, or is no TOML, is an error that names it."""
    path = tmp_path / "prices.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PriceTableError, match=r"prices\.toml"):
        PriceTable.load(path)


def test_arguments_of_other_types() -> None:
    """A list of no sources, a table that is none, and a time without a zone are refused."""
    with pytest.raises(InvalidInputError):
        PriceList(library=False)
    with pytest.raises(InvalidInputError):
        PriceTable([])  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="time zone"):
        PriceList(OWN).rates("house-1", at=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(InvalidInputError):
        PriceList(OWN).rates("")
