"""Numbers as files write them, exactly: no float touches an amount."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from ledger.core.checks import I64_MAX, check_amount
from ledger.core.errors import InvalidInputError

Amount = int | Fraction

_SHOWN_MAX = 60  # characters of a given text that an error message shows
_DIGITS_MAX = 120
"""How many digits a number may have; Decimal128 of MongoDB has 34, BigQuery's 76."""

_PLAIN_DIGITS = 19  # of 2^63

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,6}))?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")
"""Matches a number whose sign may stand for thousands or for a fraction, depending on the
country."""
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_UNIT = re.compile(r"([0-9]*)\s*([KMB]?)(?:\s*(?:tokens?))?", re.IGNORECASE)
_MULTIPLES = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}


def shown(text: str) -> str:
    """Return a given text in quotes, cut off after 60 characters, for an error message."""
    return repr(text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}...")


def is_plain(text: str) -> bool:
    """Tell whether a text is a whole number below 2^63 without a sign, as most are."""
    return text.isdigit() and text.isascii() and len(text) < _PLAIN_DIGITS


def plain_numbers(texts: Sequence[str]) -> list[int] | None:
    """Return the numbers of several texts if each of them `is_plain`; else None."""
    whole = "".join(texts)
    if whole.isdigit() and whole.isascii() and min(map(len, texts)) > 0:
        return [*map(int, texts)] if max(map(len, texts)) < _PLAIN_DIGITS else None
    return None


def money(name: str, text: str, micros: int, decimal: str | None) -> Amount:
    """Return an amount of money in micro-USD, exactly; it may be below 0, as a credit is.

    Args:
        name: The column, for errors.
        text: The number.
        micros: How many micro-USD the unit has.
        decimal: The decimal sign, `.` or `,`; None if it must be clear from the number.

    Raises:
        InvalidInputError: It is no number, or may be read in two ways.
        AmountOutOfRangeError: It is above 2^63-1 micro-USD.
    """
    found = _scaled(name, text, micros, decimal, "a decimal number")
    check_amount(name, abs(int(found)), ceiling=I64_MAX)
    return found


def tokens(name: str, text: str, unit: int, decimal: str | None) -> Amount:
    """Return a number of tokens; below 0 in a correction.

    Args:
        name: The column, for errors.
        text: The number.
        unit: How many tokens the unit has. If it is 1, the number must be whole.
        decimal: The decimal sign, `.` or `,`; None if it must be clear from the number.

    Raises:
        InvalidInputError: It is no whole number, or may be read in two ways.
        AmountOutOfRangeError: It is above 2^63-1 tokens.
    """
    if is_plain(text):
        return (
            int(text) * unit if unit == 1 else check_amount(name, int(text) * unit, ceiling=I64_MAX)
        )
    if decimal is None and unit == 1 and _GROUPED.fullmatch(text):
        raise InvalidInputError(
            name,
            f"{shown(text)} is not a whole number, or has a sign between thousands; say which "
            "with decimal",
        )
    found = _scaled(name, text, unit, decimal, "a whole number")
    if unit == 1 and isinstance(found, Fraction):
        raise InvalidInputError(name, f"{shown(text)} is not a whole number")
    check_amount(name, abs(int(found)), ceiling=I64_MAX)
    return found


def counted(text: str, micros: int) -> int:
    """Return a number of units of time in whole microseconds; a fraction of one is dropped.

    Args:
        text: The number, such as `45`, `45.5` or `7.5e-05`.
        micros: How many microseconds the unit has.

    Raises:
        ValueError: It is no number of 0 or more.
    """
    try:
        found = _scaled("time", text, micros, ".", "a number")
    except InvalidInputError as error:
        raise ValueError(text) from error
    if found < 0:
        raise ValueError(text)
    return int(found)


def unit_of(name: str, text: str) -> int:
    """Return how many tokens a unit has: `1K`, `10K`, `1M`, `1000 Tokens`, `Tokens`.

    Raises:
        InvalidInputError: It is no such unit.
    """
    found = _UNIT.fullmatch(text.strip().replace(",", ""))
    if not found or not text.strip() or len(found[1]) > 12:  # noqa: PLR2004 - stays far below 2^63
        raise InvalidInputError(
            name, f"{shown(text)} is no unit of tokens such as 1K, 10K, 1M or Tokens"
        )
    return int(found[1] or 1) * _MULTIPLES[found[2].upper()]


def _scaled(name: str, text: str, factor: int, decimal: str | None, what: str) -> Amount:
    """Return a number times a factor, exactly: an int if it is whole."""
    plain = text
    if "," in text:
        clear = decimal == "," or (decimal is None and not _GROUPED.fullmatch(text))
        if not clear or not _COMMA.fullmatch(text):
            hint = "; say decimal = ',' if the comma is the decimal sign" if decimal is None else ""
            raise InvalidInputError(name, f"{shown(text)} is not {what}{hint}")
        plain = text.replace(",", ".")
    elif decimal == "," and "." in text:
        raise InvalidInputError(name, f"{shown(text)} is not {what} with a decimal comma")
    found = _NUMBER.fullmatch(plain)
    if not found or not (found[2] or found[3]) or len(plain) > _DIGITS_MAX:
        raise InvalidInputError(name, f"{shown(text)} is not {what}")
    sign, whole, part, exponent = found.groups()
    digits = int(f"{sign}{whole}{part or ''}")
    if not digits:
        return 0
    places = len(part or "") - int(exponent or 0)
    if abs(places) > _DIGITS_MAX:
        raise InvalidInputError(name, f"{shown(text)} is too large or too small")
    if places <= 0:
        return int(digits * 10**-places * factor)
    top, bottom = digits * factor, 10**places
    return top // bottom if not top % bottom else Fraction(top, bottom)
