"""What a request costs: exactly as genai-prices computes it, rounded up once, each token once."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from genai_prices import Usage as LibraryUsage
from genai_prices import calc_price, data_snapshot
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from ledger import InvalidInputError, UnknownPriceError
from ledger.prices import Counts, PriceList, Rate, Rates
from ledger.prices.kinds import PRICE_KINDS
from ledger.prices.rates import PRICE_DIGITS, price

AT = datetime(2026, 11, 1, tzinfo=UTC)
SNAPSHOT = data_snapshot.get_snapshot()
MODELS = [(one.id, provider.id) for provider in SNAPSHOT.providers for one in provider.models]
KEYS = {
    "characters": "input_characters",
    "file_searches": "storage_searches",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "cache_read_audio_tokens": "cache_audio_read_tokens",
    "cache_read_image_tokens": "cache_image_read_tokens",
}
"""The library's names of counts, where they differ."""

counts = st.integers(min_value=0, max_value=300_000)
rare = st.just(0) | st.just(0) | st.integers(min_value=1, max_value=20)


@st.composite
def requests(draw: st.DrawFn) -> Counts:
    """Return counts that fit into each other."""
    read, written, fresh, text, thought = (draw(counts) for _ in range(5))
    hour, audio = draw(rare), draw(rare)
    return Counts(
        input_tokens=fresh + read + written + hour,
        cache_read_tokens=read,
        cache_write_tokens=written + hour,
        cache_write_1h_tokens=hour,
        input_audio_tokens=min(fresh, draw(rare)),
        output_tokens=text + audio + thought,
        output_audio_tokens=audio,
        reasoning_tokens=thought,
        file_searches=draw(rare),
        web_searches=draw(rare),
    )


def theirs(used: Counts, model: str, provider: str) -> Decimal:
    """Return what the library itself says."""
    reported = {
        KEYS.get(part.name, part.name): getattr(used, part.name)
        for part in fields(used)
        if part.name != "requests"
    }
    return calc_price(
        LibraryUsage(**reported), model, provider_id=provider, genai_request_timestamp=AT
    ).total_price


@settings(deadline=None, max_examples=400)
@given(used=requests(), which=st.sampled_from(MODELS))
def test_every_model_costs_what_the_library_says(
    library: PriceList, used: Counts, which: tuple[str, str]
) -> None:
    """For any model and any counts, the cost is the library's own to the last digit, or unknown."""
    model, provider = which
    try:
        found = library.price(used, model=model, provider=provider, at=AT)
    except UnknownPriceError:
        reject()  # the library would charge nothing, or the price of text
    exact = theirs(used, model, provider)
    assert exact == found.cost_usd
    assert math.ceil(Fraction(exact) * 1_000_000) == found.cost_micros_usd
    assert sum(line.cost_usd for line in found.lines) == exact


def test_characters_cost_what_the_library_says(library: PriceList) -> None:
    """Of the models of speech that are charged by them; no token is."""
    for model in ("tts-1", "tts-1-hd"):
        used = Counts(characters=1_234)
        found = library.price(used, model=model, provider="openai", at=AT)
        assert theirs(used, model, "openai") == found.cost_usd > 0
        assert 0 == used.total_tokens


@pytest.mark.parametrize(
    "input_tokens",
    [
        *(0, 200_000, 200_001),
        *(pytest.param(n, marks=pytest.mark.long) for n in (1, 272_000, 272_001, 1_000_000)),
    ],
)
def test_plain_calls_to_all_models_agree(library: PriceList, input_tokens: int) -> None:
    """Each model with prices for input and output agrees, below and above every step."""
    agreed = 0
    for model, provider in MODELS:
        used = Counts(input_tokens=input_tokens, output_tokens=7)
        try:
            found = library.price(used, model=model, provider=provider, at=AT)
        except UnknownPriceError:
            continue
        assert theirs(used, model, provider) == found.cost_usd, (model, provider)
        agreed += 1
    assert agreed > 1_900


def _tiers() -> Iterator[tuple[str, str, dict[str, str], str]]:
    for provider in SNAPSHOT.providers:
        for model in provider.models:
            for variant in model.price_variants or ():
                when = dict(variant.when)
                if when == {"processing": "batch"}:
                    yield model.id, provider.id, when, "batch"
                elif when.keys() == {"service_tier"} and when["service_tier"] != "default":
                    yield model.id, provider.id, when, when["service_tier"]


def test_tiers_that_the_library_knows(library: PriceList) -> None:
    """Batch, flex and priority cost what the library says for its own words for them."""
    agreed = 0
    used = {"input_tokens": 10_000, "output_tokens": 100}
    for model, provider, context, tier in _tiers():
        try:
            found = library.price(
                Counts(**used), model=model, provider=provider, service_tier=tier, at=AT
            )
        except UnknownPriceError:
            continue  # models that are priced by the hour, and prices that begin later
        exact = calc_price(
            LibraryUsage(**used),
            model,
            provider_id=provider,
            genai_request_timestamp=AT,
            price_context=context,
        ).total_price
        assert exact == found.cost_usd, (model, provider, tier)
        agreed += 1
    assert agreed > 150


def rates(**usd: float | str | Decimal | tuple[str, str]) -> Rates:
    """Return rates of a model of the house; a pair is a base and one step above 1,000."""
    return Rates(
        source="own",
        version="1",
        model="house-1",
        rates={
            name: Rate(Decimal(value[0]), ((1_000, Decimal(value[1])),))
            if isinstance(value, tuple)
            else Rate(Decimal(value))
            for name, value in usd.items()
        },
    )


@given(counts, counts)
@settings(max_examples=12, deadline=None)
def test_an_estimate_is_the_dearer_of_two_prices(
    library: PriceList, input_tokens: int, output_tokens: int
) -> None:
    """Of every model: all input uncached, or all of it written to a cache, as `price` has them."""
    plain = Counts(input_tokens=input_tokens, output_tokens=output_tokens)
    written = replace(plain, cache_write_tokens=input_tokens)
    for model, provider in MODELS:
        given: dict[str, Any] = {"model": model, "provider": provider, "at": AT}
        asked = {"input_tokens": input_tokens, "max_output_tokens": output_tokens}
        try:
            found = library.price(plain, **given)
        except UnknownPriceError as error:
            with pytest.raises(UnknownPriceError, match=re.escape(str(error))):
                library.estimate(**given, **asked)
            continue
        dearest = found.cost_micros_usd
        if "cache_write" in found.rates.rates:
            dearest = max(dearest, library.price(written, **given).cost_micros_usd)
        assert dearest == library.estimate(**given, **asked).cost_micros_usd


def test_one_token_costs_a_whole_micro() -> None:
    """0.15 USD a million is 0.15 micro-USD a token: rounded up, and once a call, not a line."""
    cheap = rates(input="0.15", cache_read="0.15", output="0.15")
    one = price(cheap, [Counts(input_tokens=1)])
    assert (Decimal("1.5E-7"), 1) == (one.cost_usd, one.cost_micros_usd)
    four = price(cheap, [Counts(input_tokens=3, cache_read_tokens=1, output_tokens=1)])
    assert (Decimal("6.0E-7"), 1, 3) == (four.cost_usd, four.cost_micros_usd, len(four.lines))
    assert 0 == price(cheap, [Counts()]).cost_micros_usd


def test_a_step_holds_for_all_tokens_of_its_request_alone() -> None:
    """Above the step everything costs more, cached tokens count towards it, other requests not."""
    stepped = rates(input=("2", "4"), cache_read=("0.2", "0.4"), output="8")
    at = Counts(input_tokens=1_000, cache_read_tokens=900)
    above = Counts(input_tokens=1_001, cache_read_tokens=901)
    assert Decimal("0.00038") == price(stepped, [at]).cost_usd
    assert Decimal("0.0007604") == price(stepped, [above]).cost_usd
    assert Decimal("0.0011404") == price(stepped, [at, above]).cost_usd


def test_the_programs_own_decimal_context_rounds_nothing() -> None:
    """A program that computes with six digits, or traps inexact results, gets the same price."""
    used = Counts(input_tokens=1_234_567, output_tokens=7_654_321)
    with decimal.localcontext() as context:
        context.prec = 6
        context.rounding = decimal.ROUND_DOWN
        found = PriceList().price(used, model="gpt-4o")
    assert ("79.6296275", 79_629_628) == (str(found.cost_usd), found.cost_micros_usd)


def test_the_largest_counts_and_longest_prices_are_exact() -> None:
    """2^63-1 tokens at a price of 30 digits on either side of the point."""
    longest = Decimal("9" * 30 + "." + "9" * 30)
    used = Counts(input_tokens=2**63 - 1)
    found = price(rates(input=longest), [used])
    exact = Fraction(longest) * (2**63 - 1)
    assert exact / 1_000_000 == Fraction(found.cost_usd)
    assert math.ceil(exact) == found.cost_micros_usd


@pytest.mark.parametrize(
    ("usd", "used", "said"),
    [
        ({"input": 1, "output": 1}, {"input_tokens": 9, "input_audio_tokens": 1}, "input audio"),
        ({"input": 1, "output": 1}, {"output_tokens": 9, "output_audio_tokens": 1}, "output audio"),
        ({"input": 1, "output": 1}, {"output_tokens": 9, "output_image_tokens": 1}, "output image"),
        ({"input": 1}, {"output_tokens": 1}, "output"),
        ({"output": 1}, {"input_tokens": 1}, "input"),
        ({"input": 1, "output": 1}, {"web_searches": 1}, "web searches"),
        (
            {"input": 1, "cache_write": 2},
            {"input_tokens": 1, "cache_write_tokens": 1, "cache_write_1h_tokens": 1},
            "cache write 1h",
        ),
        (
            {"input": 1, "cache_read": 1, "input_audio": 5},
            {
                "input_tokens": 9,
                "cache_read_tokens": 2,
                "input_audio_tokens": 2,
                "cache_read_audio_tokens": 1,
            },
            "cache_read_audio",
        ),
        (
            {"input": 1, "cache_read": 1, "input_audio": 5, "cache_read_audio": 5},
            {"input_tokens": 9, "cache_read_tokens": 5, "input_audio_tokens": 5},
            "of two kinds",
        ),
    ],
)
def test_what_has_no_price_is_not_charged_as_something_else(
    usd: dict[str, int], used: dict[str, int], said: str
) -> None:
    """Sound is not text, an hour's cache is not five minutes', and nothing is free by default."""
    with pytest.raises(UnknownPriceError, match=said):
        price(rates(**usd), [Counts(**used)])


def test_parts_without_a_price_cost_what_the_whole_costs() -> None:
    """What is cached, reasoned or seen costs what input and output cost, without a price."""
    plain = rates(input=1, output=2)
    used = Counts(
        input_tokens=100,
        cache_read_tokens=50,
        cache_write_tokens=20,
        input_image_tokens=10,
        output_tokens=10,
        reasoning_tokens=5,
    )
    assert 120 == price(plain, [used]).cost_micros_usd


@given(
    hour=st.decimals(min_value=0, max_value=10**6, places=PRICE_DIGITS),
    seconds=st.lists(st.integers(min_value=1, max_value=10**9), min_size=1, max_size=4),
    searches=counts,
)
def test_seconds_are_charged_to_the_last_digit_though_an_hour_divides_into_none(
    hour: Decimal, seconds: list[int], searches: int
) -> None:
    """Whatever an hour costs, what is charged is the exact cost rounded up, and once."""
    used = [Counts(audio_seconds=one) for one in seconds]
    used[0] = replace(used[0], web_searches=searches)
    found = price(rates(audio_seconds=hour, web_searches=hour), used)
    exact = Fraction(hour) * sum(seconds) / 3_600 + Fraction(hour) * searches / 1_000
    assert math.ceil(exact * 1_000_000) == found.cost_micros_usd
    assert 0 <= exact - Fraction(found.cost_usd) < Fraction(1, 10**30)
    assert Fraction(found.cost_usd) == sum(Fraction(line.cost_usd) for line in found.lines)


def test_tokens_beside_seconds_cost_nothing_where_seconds_alone_have_a_price() -> None:
    """Where input has a price, too, both are charged; tokens without seconds have no price."""
    used = Counts(input_tokens=10, output_tokens=5, audio_seconds=36)
    assert 10_000 == price(rates(audio_seconds=1), [used]).cost_micros_usd
    both = rates(audio_seconds=1, input=2, output=4)
    assert 10_040 == price(both, [used]).cost_micros_usd
    with pytest.raises(UnknownPriceError, match="input"):
        price(rates(audio_seconds=1), [Counts(input_tokens=10)])
    with pytest.raises(UnknownPriceError, match="audio seconds"):
        price(rates(input=1, output=1), [used])


def test_a_search_in_files_without_a_price_leaves_all_else_charged() -> None:
    """Few sources have that price; where one does, it is for a thousand."""
    used = Counts(input_tokens=10, file_searches=3)
    assert 10 == price(rates(input=1), [used]).cost_micros_usd
    priced = price(rates(input=1, file_searches=Decimal("2.5")), [used])
    assert 7_510 == priced.cost_micros_usd


def test_every_kind_is_a_count_and_has_a_unit_of_the_library() -> None:
    """The table of kinds, the fields of counts and the library's units name the same things."""
    from genai_prices.data_units import unit_data  # noqa: PLC0415 - of the library's internals

    assert {part.name for part in fields(Counts)} == {kind.field for kind in PRICE_KINDS.values()}
    by_price = {unit["price_key"]: unit for unit in unit_data.values()}
    for kind in PRICE_KINDS.values():
        assert by_price[kind.genai_prices]["per"] == kind.per
    with pytest.raises(InvalidInputError):
        Counts(input_tokens=1.0)  # type: ignore[arg-type]
