"""The times of a bill: ISO 8601, numbers of seconds or milliseconds since 1970, or a format."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ledger.core.checks import check_text
from ledger.errors import InvalidInputError
from ledger.simulate.pricing import shown

SECONDS = "seconds"
MILLISECONDS = "milliseconds"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"[0-9]+")
_SECONDS = re.compile(r"[0-9]{10}")
"""Seconds since 1970, of the years 2001 to 2286."""
_MILLISECONDS = re.compile(r"[0-9]{13}")
"""Milliseconds since 1970, of the same years."""
_HOUR = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])")
"""An hour as YYYYMMDDHH; as seconds since 1970 these numbers are times from 2030 on."""
_DAY = re.compile(r"[0-9]{8}")
_WEEK = re.compile(r"[0-9]{4}-?W[0-9]{2}")
"""A whole week, which `fromisoformat` takes for its Monday."""
_DATE_CHARS = 10  # 2024-02-01
_HAS_DAY = re.compile(r"%(d|-d|e|j|x|c|D|F)")


def check_format(name: str, text: str) -> str:
    """Return a format of times: `seconds`, `milliseconds`, or one of Python's `strptime`.

    Raises:
        InvalidInputError: It names no day, so that lines would be for longer than one.
    """
    check_text(name, text)
    if text not in {SECONDS, MILLISECONDS} and not _HAS_DAY.search(text):
        raise InvalidInputError(
            name,
            f"{shown(text)} is neither seconds nor milliseconds, nor has it a day (%d or %j); give "
            "a line for a month its first day, and its end in a column of its own",
        )
    return text


def moment(name: str, text: str, form: str | None, zone: ZoneInfo) -> datetime:
    """Return the time that a text says.

    Args:
        name: The column, for errors.
        text: The text.
        form: Its format as `check_format` has it; None for ISO 8601, or for seconds or
            milliseconds since 1970 by the number of digits.
        zone: The time zone of days, and of times that name none.

    Raises:
        InvalidInputError: The text has another form, is ambiguous, or is outside the years 1 to
            9999.
    """
    try:
        at = _plain(name, text, zone) if form is None else _formatted(text, form)
    except InvalidInputError:  # which is a ValueError, too
        raise
    except ValueError:
        wanted = "an ISO 8601 day or time, nor seconds or milliseconds since 1970"
        if form is not None:
            wanted = f"of the form {form}"
        raise InvalidInputError(
            name, f"{shown(text)} is {'neither' if form is None else 'not'} {wanted}"
        ) from None
    except OverflowError:
        raise InvalidInputError(name, f"{shown(text)} is outside the years 1 to 9999") from None
    try:
        at = at.replace(tzinfo=zone) if at.tzinfo is None else at
        at.astimezone(zone).astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(name, f"{shown(text)} is outside the years 1 to 9999") from None
    return at


def _plain(name: str, text: str, zone: ZoneInfo) -> datetime:
    if _HOUR.fullmatch(text):
        raise InvalidInputError(
            name,
            f"{text} may be an hour (YYYYMMDDHH) or seconds since 1970; say which with at_format",
        )
    if _SECONDS.fullmatch(text):
        return _EPOCH + timedelta(seconds=int(text))
    if _MILLISECONDS.fullmatch(text):
        return _EPOCH + timedelta(milliseconds=int(text))
    if _WEEK.fullmatch(text) or (_DIGITS.fullmatch(text) and not _DAY.fullmatch(text)):
        raise ValueError  # fromisoformat takes the ninth digit for a separator
    if len(text) == _DATE_CHARS or _DAY.fullmatch(text):
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=zone)
    return datetime.fromisoformat(text)


def _formatted(text: str, form: str) -> datetime:
    if form not in {SECONDS, MILLISECONDS}:
        return datetime.strptime(text, form)  # noqa: DTZ007 - the caller adds the mapping's zone
    if not _DIGITS.fullmatch(text):
        raise ValueError
    return _EPOCH + timedelta(**{form: int(text)})
