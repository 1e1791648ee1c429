"""Times in files: ISO 8601, numbers counted from 1970 or from a start, or a format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ledger.core.checks import check_text
from ledger.core.errors import InvalidInputError
from ledger.files.numbers import counted, shown

ISO = "iso"
_UNITS_US = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
_ELAPSED_US = {f"elapsed_{name}": micros for name, micros in _UNITS_US.items()}
"""Units of times that are counted from the beginning of a trace, which `start` gives."""

_SINCE_1970 = {
    10: ("seconds", 0),
    13: ("milliseconds", 0),
    16: ("microseconds", 0),
    19: ("microseconds", 3),
}
"""By number of digits, for the years 2001 to 2286: the unit, and how many digits to drop."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"[0-9]+\.[0-9]*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")
_UTC = re.compile(r" ?(UTC|GMT|Z)$")
_SLASHED = re.compile(r"[0-9]{1,2}[/.][0-9]{1,2}[/.][0-9]{2,4}")
_HOUR = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])")
"""Matches an hour as YYYYMMDDHH. As seconds since 1970 these numbers are times from 2030 on."""
_DAY = re.compile(r"[0-9]{8}")
_WEEK = re.compile(r"[0-9]{4}-?W[0-9]{2}")
"""Matches a whole week, which `fromisoformat` reads as its Monday."""
_SECONDS_DIGITS = 10
_DATE_CHARS = 10  # 2024-02-01
_TIME_FROM = 15  # longer than a day or a number of seconds or milliseconds
_HAS_DAY = re.compile(r"%(d|-d|e|j|x|c|D|F)")


def check_format(name: str, text: str) -> str:
    """Return a format of times: `iso`, `seconds` and the like, or one of Python's `strptime`.

    Raises:
        InvalidInputError: It has no day, so lines would stand for more than a day.
    """
    check_text(name, text)
    counts = (*_UNITS_US, *_ELAPSED_US)
    if text not in {ISO, *counts} and not _HAS_DAY.search(text):
        raise InvalidInputError(
            name,
            f"{shown(text)} is none of {', '.join(counts)} and iso, nor has it a day (%d or %j); "
            "give a line for a month its first day, and its end in a column of its own",
        )
    return text


def full_time(text: str) -> datetime | None:
    """Return the time in a text of ISO 8601 without a zone, as in most traces; otherwise None."""
    if len(text) > _TIME_FROM and text[4] == "-" and text[10] in "T ":
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return None
        if at.tzinfo is None and MINYEAR < at.year < MAXYEAR:
            return at
    return None


def moment(
    name: str, text: str, forms: Sequence[str], zone: ZoneInfo, start: datetime | None = None
) -> datetime:
    """Return the time that a text says.

    Args:
        name: The column, for errors.
        text: The text.
        forms: Its formats as `check_format` has them, of which the first that fits counts; without
            any, ISO 8601, or a number since 1970 whose digits say its unit.
        zone: The time zone of days, and of times that name none.
        start: The time from which elapsed time is counted.

    Raises:
        InvalidInputError: The text has another form, is ambiguous, or is outside the years 1 to
            9999.
    """
    try:
        at = _first(name, text, forms, zone, start)
        at = at.replace(tzinfo=zone) if at.tzinfo is None else at
        if not MINYEAR < at.year < MAXYEAR:
            at.astimezone(zone).astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(name, f"{shown(text)} is outside the years 1 to 9999") from None
    return at


def _first(
    name: str, text: str, forms: Sequence[str], zone: ZoneInfo, start: datetime | None
) -> datetime:
    for form in forms or (ISO,):
        try:
            return _plain(name, text, zone) if form == ISO else _formatted(name, text, form, start)
        except InvalidInputError:  # is a ValueError, too
            raise
        except ValueError:
            continue
    if forms:
        raise InvalidInputError(name, f"{shown(text)} is not of the form {' or '.join(forms)}")
    hint = ""
    if len(text) < _SECONDS_DIGITS and _NUMBER.fullmatch(text):
        hint = "; if it is counted from a beginning, say so with at_format, such as elapsed_seconds"
    if _SLASHED.match(text):
        hint = "; say its form with at_format, such as %m/%d/%Y or %d.%m.%Y"
    raise InvalidInputError(
        name,
        f"{shown(text)} is neither an ISO 8601 day or time, nor seconds or milliseconds since "
        f"1970{hint}",
    )


def _plain(name: str, text: str, zone: ZoneInfo) -> datetime:
    if len(text) > _TIME_FROM and text[4] == "-" and text[-1] != "C":
        return datetime.fromisoformat(text)
    if _HOUR.fullmatch(text):
        raise InvalidInputError(
            name,
            f"{text} may be an hour (YYYYMMDDHH) or seconds since 1970; say which with at_format",
        )
    if _DIGITS.fullmatch(text) and len(text) in _SINCE_1970:
        unit, dropped = _SINCE_1970[len(text)]
        return _after(_EPOCH, int(text[: len(text) - dropped]) * _UNITS_US[unit])
    if _DECIMAL.fullmatch(text):
        if text.index(".") != _SECONDS_DIGITS:
            raise ValueError
        return _after(_EPOCH, counted(text, _UNITS_US["seconds"]))
    if _WEEK.fullmatch(text) or (_DIGITS.fullmatch(text) and not _DAY.fullmatch(text)):
        raise ValueError  # fromisoformat reads the ninth digit as a separator
    if len(text) == _DATE_CHARS or _DAY.fullmatch(text):
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=zone)
    return datetime.fromisoformat(_UTC.sub("+00:00", text))


def _formatted(name: str, text: str, form: str, start: datetime | None) -> datetime:
    if form in _UNITS_US:
        if not _NUMBER.fullmatch(text):
            raise ValueError
        return _after(_EPOCH, counted(text, _UNITS_US[form]))
    if form not in _ELAPSED_US:
        return datetime.strptime(text, form)  # noqa: DTZ007 - the caller adds the mapping's zone
    micros = counted(text, _ELAPSED_US[form])
    if start is None:
        raise InvalidInputError(
            name,
            f"{shown(text)} is counted from the beginning of the trace; say when that was with "
            "start (--start), such as 2024-02-29T00:00:00Z",
        )
    return _after(start, micros)


def _after(begin: datetime, micros: int) -> datetime:
    return begin + timedelta(microseconds=micros)
