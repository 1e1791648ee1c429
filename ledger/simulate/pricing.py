"""Exact prices and costs: decimals as written, and the cost of a row rounded up once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from ledger.core.checks import I64_MAX, check_amount
from ledger.core.errors import InvalidInputError
from ledger.files.numbers import shown

_MICROS = 1_000_000
_DIGITS_MAX = 40  # more than any amount has (19), to keep exact arithmetic small


def parse_decimal(name: str, text: str) -> Decimal:
    """Return a number of 0 or more as it is written, exactly.

    Raises:
        InvalidInputError: It is not written in digits and at most one point.
    """
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text) or len(text) > _DIGITS_MAX:
        raise InvalidInputError(name, f"{shown(text)} is not a decimal number of 0 or more")
    return Decimal(text)


def parse_count(name: str, text: str) -> int:
    """Return a whole number of 0 or more that a store can hold.

    Raises:
        InvalidInputError: It has other characters than digits.
        AmountOutOfRangeError: It is above 2^63-1.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise InvalidInputError(name, f"{shown(text)} is not a whole number of 0 or more")
    return check_amount(name, int(text), ceiling=I64_MAX)


def parse_usd(name: str, text: str) -> int:
    """Return an amount in US dollars as whole micro-USD.

    Raises:
        InvalidInputError: It is not an amount, or has more than six decimal places.
    """
    micros = Fraction(parse_decimal(name, text)) * _MICROS
    if micros.denominator != 1:
        raise InvalidInputError(name, f"{shown(text)} has more than six decimal places")
    return int(micros)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices in US dollars per million tokens, which equals micro-USD per token.

    Attributes:
        input_usd: Of input that is neither read from a cache nor written to one.
        output_usd: Of output.
        cache_read_usd: Of input that is read from a cache; with None it is priced as input.
        cache_write_usd: Of input that is written to a cache; with None it is priced as input.
    """

    input_usd: Decimal = Decimal(0)
    output_usd: Decimal = Decimal(0)
    cache_read_usd: Decimal | None = None
    cache_write_usd: Decimal | None = None

    def cost_micros_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> int:
        """Return the cost of a call, computed exactly and rounded up once.

        Args:
            input_tokens: All input, cached or not.
            output_tokens: All output.
            cache_read_tokens: The part of the input that was read from a cache.
            cache_write_tokens: The part of it that was written to one.
        """
        per_input, per_output, per_read, per_write, unit = _in_integers(self)
        uncached = input_tokens - cache_read_tokens - cache_write_tokens
        cost = uncached * per_input + output_tokens * per_output
        cost += cache_read_tokens * per_read + cache_write_tokens * per_write
        return -(-cost // unit)


@lru_cache
def _in_integers(prices: Prices) -> tuple[int, int, int, int, int]:
    """Return the integer price of a token of each kind, and how many units make a micro-USD.

    The kinds are input, output, cache reads and cache writes. Integers are used, since Decimal
    rounds to 28 digits, and a count times a price can have more.
    """
    cached = prices.cache_read_usd, prices.cache_write_usd
    given = [Fraction(prices.input_usd), Fraction(prices.output_usd)]
    given += [Fraction(prices.input_usd if price is None else price) for price in cached]
    unit = math.lcm(*(price.denominator for price in given))
    per_input, per_output, per_read, per_write = (int(price * unit) for price in given)
    return per_input, per_output, per_read, per_write, unit
