"""What one request used, by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import combinations
from operator import attrgetter, itemgetter

from ledger.core.checks import I64_MAX, check_amount
from ledger.core.errors import InvalidInputError
from ledger.core.values import Usage
from ledger.prices.kinds import PARTS, PRICE_KINDS, REQUESTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one request used, by kind; 0 .. 2^63-1 each.

    Tokens of a part are included in the whole: everything that begins with `cache` or `input` in
    `input_tokens`, everything that begins with `output` and `reasoning_tokens` in `output_tokens`,
    `cache_write_1h_tokens` in `cache_write_tokens`, and what is cached of a modality both in
    `cache_read_tokens` and in that modality.

    Attributes:
        input_tokens: All input, cached or not.
        cache_read_tokens: Input that was read from a cache.
        cache_write_tokens: Input that was written to a cache.
        cache_write_1h_tokens: The part of it that is kept for an hour.
        input_audio_tokens: Input of sound.
        cache_read_audio_tokens: The part of it that was read from a cache.
        input_image_tokens: Input of pictures.
        cache_read_image_tokens: The part of it that was read from a cache.
        input_video_tokens: Input of video.
        output_tokens: All output, reasoning included.
        reasoning_tokens: Output that only the model sees.
        output_audio_tokens: Output of sound.
        output_image_tokens: Output of pictures.
        output_video_tokens: Output of video.
        characters: Text that is charged by the character, as some speech is: no tokens.
        audio_seconds: Sound that is charged by its length, as some transcriptions are.
        file_searches: How many searches the provider made in files that it stores.
        web_searches: How many searches the provider made in the web, or of a rerank.
        requests: How many requests these are.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    cache_read_audio_tokens: int = 0
    input_image_tokens: int = 0
    cache_read_image_tokens: int = 0
    input_video_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    output_video_tokens: int = 0
    characters: int = 0
    audio_seconds: int = 0
    file_searches: int = 0
    web_searches: int = 0
    requests: int = 1

    def __post_init__(self) -> None:
        values = _values(self)
        # Several of these are made for every call: valid counts cost no function call each.
        if {*map(type, values)} != _INT or min(values) < 0 or max(values) > I64_MAX:
            for name, value in zip(_FIELDS, values, strict=True):
                check_amount(name, value, ceiling=I64_MAX)
        if not any(_parts(values)):  # as in most estimates
            return
        for whole, parts in _FITS:
            if sum(map(values.__getitem__, parts)) > values[whole]:
                said = " + ".join(_FIELDS[part] for part in parts)
                raise InvalidInputError(
                    _FIELDS[whole], f"{values[whole]} does not include {said}, which it must"
                )

    def of(self, kind: str) -> int:
        """Return the count of a kind, by its name in `PRICE_KINDS`."""
        count: int = getattr(self, _FIELD_OF[kind])
        return count

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def plus(self, other: Counts) -> Counts:
        """Return the sum of two requests.

        Raises:
            AmountOutOfRangeError: A sum is above 2^63-1.
        """
        return Counts(
            **{
                part.name: getattr(self, part.name) + getattr(other, part.name)
                for part in fields(self)
            }
        )

    def used(self) -> dict[str, int]:
        """Return the kinds that are not 0, requests left out, by name and in its order."""
        counts = zip(_USED, _used_values(self), strict=True)
        return {name: count for name, count in counts if count}

    def usage(self, cost_micros_usd: int, *, total_tokens: int = 0) -> Usage:
        """Return them as a usage.

        Args:
            cost_micros_usd: What they cost.
            total_tokens: What the provider says they are together, if that is more.
        """
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=max(self.total_tokens, total_tokens),
            cost_micros_usd=cost_micros_usd,
            cache_creation_tokens=self.cache_write_tokens,
            cache_read_tokens=self.cache_read_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )

    @classmethod
    def of_usage(cls, usage: Usage) -> Counts:
        """Return what a recorded usage says of the kinds.

        Raises:
            InvalidInputError: A part of it is more than the whole.
        """
        return cls(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_creation_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )


_FIELDS = tuple(part.name for part in fields(Counts))
_values: Callable[[Counts], tuple[int, ...]] = attrgetter(*_FIELDS)
_FIELD_OF = {name: kind.field for name, kind in PRICE_KINDS.items()}
_USED = tuple(sorted(name for name in _FIELD_OF if name != REQUESTS))
_used_values: Callable[[Counts], tuple[int, ...]] = attrgetter(*(_FIELD_OF[name] for name in _USED))
_INT = {int}

_EXCLUSIVE = (frozenset({"audio", "image", "video"}), frozenset({"read", "write"}))
"""Traits that exclude each other: a token has only one of them."""


def _fits() -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield which parts must fit into which whole, by the positions of the fields.

    Kinds that can overlap must each fit; kinds that cannot must fit together.
    """
    for name, kind in PRICE_KINDS.items():
        parts = [
            other
            for other in PARTS[name]
            if not any(
                PRICE_KINDS[wider].traits < PRICE_KINDS[other].traits for wider in PARTS[name]
            )
        ]
        groups = [[other] for other in parts]
        groups += [
            [other for other in parts if PRICE_KINDS[other].traits & traits]
            for traits in _EXCLUSIVE
        ]
        for group in groups:
            if group:
                places = (_FIELDS.index(PRICE_KINDS[other].field) for other in group)
                yield _FIELDS.index(kind.field), tuple(places)


_FITS = tuple(_fits())
_parts: Callable[[tuple[int, ...]], tuple[int, ...]] = itemgetter(
    *sorted({part for _, parts in _FITS for part in parts})
)


def _overlaps() -> Iterator[tuple[str, str, str]]:
    for (one, first), (two, second) in combinations(PRICE_KINDS.items(), 2):
        both = first.traits | second.traits
        for name, kind in PRICE_KINDS.items():
            if kind.traits == both and name not in {one, two}:
                yield one, two, name


OVERLAPS = tuple(_overlaps())
"""Two kinds that a token can both have, and the kind of such tokens."""
