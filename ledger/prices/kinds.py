"""The kinds of things that a call is charged for: one row each; no other module lists them."""

from __future__ import annotations

from typing import NamedTuple

PER_MILLION = 1_000_000
"""Prices of tokens, and of characters, are per million."""

PER_THOUSAND = 1_000
"""Prices of searches and requests are per thousand."""

PER_HOUR = 3_600
"""Prices of seconds are for an hour."""


class PriceKind(NamedTuple):
    """One kind.

    Attributes:
        traits: What it counts. A kind is part of every other kind that has fewer of its traits.
        field: Its field in `Counts`.
        genai_prices: The key of its price in genai-prices.
        litellm: The key of its price in litellm's map; None if that has none.
        apart: Whether it must have a price of its own, since the price of the kind that it is part
            of is lower.
        per: The number of units that the price is for.
        beside: Whether a call without a price for it is charged for all else: few sources have one.
    """

    traits: frozenset[str]
    field: str
    genai_prices: str
    litellm: str | None = None
    apart: bool = False
    per: int = PER_MILLION
    beside: bool = False


def _traits(text: str) -> frozenset[str]:
    return frozenset(text.split())


INPUT, OUTPUT = "input", "output"
CACHE_WRITE, REQUESTS = "cache_write", "requests"
OUTPUT_AUDIO, OUTPUT_IMAGE = "output_audio", "output_image"
CHARACTERS, AUDIO_SECONDS = "characters", "audio_seconds"

PRICE_KINDS = {
    INPUT: PriceKind(_traits("input"), "input_tokens", "input_mtok", "input_cost_per_token"),
    "cache_read": PriceKind(
        _traits("input read"),
        "cache_read_tokens",
        "cache_read_mtok",
        "cache_read_input_token_cost",
    ),
    CACHE_WRITE: PriceKind(
        _traits("input write"),
        "cache_write_tokens",
        "cache_write_mtok",
        "cache_creation_input_token_cost",
    ),
    "cache_write_1h": PriceKind(
        _traits("input write hour"),
        "cache_write_1h_tokens",
        "cache_write_1h_mtok",
        "cache_creation_input_token_cost_above_1hr",
        apart=True,
    ),
    "input_audio": PriceKind(
        _traits("input audio"),
        "input_audio_tokens",
        "input_audio_mtok",
        "input_cost_per_audio_token",
        apart=True,
    ),
    "cache_read_audio": PriceKind(
        _traits("input audio read"),
        "cache_read_audio_tokens",
        "cache_audio_read_mtok",
        "cache_read_input_audio_token_cost",
    ),
    "input_image": PriceKind(
        _traits("input image"),
        "input_image_tokens",
        "input_image_mtok",
        "input_cost_per_image_token",
    ),
    "cache_read_image": PriceKind(
        _traits("input image read"), "cache_read_image_tokens", "cache_image_read_mtok"
    ),
    "input_video": PriceKind(_traits("input video"), "input_video_tokens", "input_video_mtok"),
    OUTPUT: PriceKind(_traits("output"), "output_tokens", "output_mtok", "output_cost_per_token"),
    "reasoning": PriceKind(
        _traits("output reasoning"),
        "reasoning_tokens",
        "output_reasoning_mtok",
        "output_cost_per_reasoning_token",
    ),
    OUTPUT_AUDIO: PriceKind(
        _traits("output audio"),
        "output_audio_tokens",
        "output_audio_mtok",
        "output_cost_per_audio_token",
        apart=True,
    ),
    OUTPUT_IMAGE: PriceKind(
        _traits("output image"),
        "output_image_tokens",
        "output_image_mtok",
        "output_cost_per_image_token",
        apart=True,
    ),
    "output_video": PriceKind(
        _traits("output video"), "output_video_tokens", "output_video_mtok", apart=True
    ),
    CHARACTERS: PriceKind(
        _traits("characters"),
        "characters",
        "input_mchars",
        "input_cost_per_character",
        apart=True,
    ),
    AUDIO_SECONDS: PriceKind(
        _traits("seconds"), AUDIO_SECONDS, "audio_hours", apart=True, per=PER_HOUR
    ),
    "file_searches": PriceKind(
        _traits("files"),
        "file_searches",
        "storage_searches_kcount",
        apart=True,
        per=PER_THOUSAND,
        beside=True,
    ),
    "web_searches": PriceKind(
        _traits("search"), "web_searches", "web_searches_kcount", apart=True, per=PER_THOUSAND
    ),
    REQUESTS: PriceKind(_traits("request"), "requests", "requests_kcount", per=PER_THOUSAND),
}


def parts_of(name: str) -> list[str]:
    """Return the kinds that are part of this one, however far down."""
    whole = PRICE_KINDS[name].traits
    return [other for other, kind in PRICE_KINDS.items() if whole < kind.traits]


PARTS = {name: parts_of(name) for name in PRICE_KINDS}
"""By kind: the kinds that are part of it."""

DEEPEST_FIRST = sorted(PRICE_KINDS, key=lambda name: -len(PRICE_KINDS[name].traits))
