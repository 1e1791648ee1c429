"""Checks of input values, and the one text or number that each is stored as."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NewType

from ledger.core import axes
from ledger.core.errors import AmountOutOfRangeError, InvalidInputError

U64_MAX = axes.U64_MAX
"""The largest amount in memory; as a capacity it means unlimited."""

I64_MAX = 2**63 - 1
"""The largest amount a SQL store holds."""

NAME_MAX_CHARS = 255
"""Longest pool name, run id, tag, idempotency key and the like, in characters."""

REASON_MAX_CHARS = 2_000
DETAIL_MAX_CHARS = 65_536
"""JSON writes one character as up to six, and a detail may hold a policy, credits, an actor and a
reason."""

Micros = NewType("Micros", int)
"""Microseconds since 1970-01-01T00:00:00Z."""

AHEAD_MAX_US = 86_400_000_000
"""How far ahead of the clock a call may be dated."""


class JsonObject(Mapping[str, Any]):
    """An object that JSON can hold, kept as its canonical text and parsed when it is read.

    Later changes of the value that it was made from, or of a value that it returns, do not change
    the text.
    """

    __slots__ = ("_content", "text")

    def __init__(self, value: Mapping[str, Any]) -> None:
        """Encode a mapping.

        Raises:
            TypeError, ValueError: JSON cannot hold something in it.
        """
        self.text = canonical_json(dict(value))
        self._content: dict[str, Any] | None = None

    @classmethod
    def written(cls, text: str) -> JsonObject:
        """Return the object of a text that is known to be canonical; it is not checked."""
        made = cls.__new__(cls)
        made.text = text
        made._content = None  # noqa: SLF001 - its own
        return made

    @property
    def content(self) -> dict[str, Any]:
        """The object, as JSON says it."""
        if self._content is None:
            self._content = json.loads(self.text)
        return self._content

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - what JSON holds
        return self.content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __repr__(self) -> str:
        return repr(self.content)


def _content_of(value: object) -> object:
    """Return what JSON can hold of a value, for the encoder."""
    if isinstance(value, JsonObject):
        return value.content
    raise TypeError(f"a {type(value).__name__} is nothing that JSON can hold")


# One encoder for all: json.dumps makes a new one for every call with settings of its own.
_encode_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_content_of
).encode

_USD = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", re.ASCII)
_USD_MAX_CHARS = 40
"""More characters than any amount has (21). The limit keeps exact arithmetic small."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def check_amount(name: str, value: object, *, ceiling: int = U64_MAX) -> int:
    """Return `value` if it is an integer in 0 .. `ceiling`.

    Raises:
        InvalidInputError: It is not an integer (a float, a bool, a string).
        AmountOutOfRangeError: It is negative or above the ceiling.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(name, f"an amount must be an int, not {type(value).__name__}")
    if not 0 <= value <= ceiling:
        raise AmountOutOfRangeError(name, value=value, ceiling=ceiling)
    return value


def usd(amount: str | int | Decimal) -> int:
    """Return an amount of US dollars in millionths of a dollar (micro-USD), exactly.

    More than six decimal places are refused and not rounded: a cost must be rounded up and a
    capacity down, and this function cannot know which it is. Zeros at the end do not count.

    Args:
        amount: Digits with at most one point (`"12.50"`), an int, or a Decimal; 0 or more. A float
            is refused, since 0.1 has no exact float.

    Raises:
        InvalidInputError: It is no such amount, or no whole number of micro-USD.
        AmountOutOfRangeError: It is negative, or above 2^64-1 micro-USD.
    """
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        what = type(amount).__name__
        raise InvalidInputError("usd", f'must be text such as "12.50", not {what}')
    if isinstance(amount, str) and (len(amount) > _USD_MAX_CHARS or not _USD.fullmatch(amount)):
        raise InvalidInputError("usd", f"{amount[:_USD_MAX_CHARS]!r} is no amount such as 12.50")
    if isinstance(amount, Decimal) and (
        not amount.is_finite() or not -_USD_MAX_CHARS < amount.adjusted() < _USD_MAX_CHARS
    ):
        raise InvalidInputError("usd", f"{amount} is no amount such as 12.50")
    micros = Fraction(amount) * 1_000_000
    if micros.denominator != 1:
        raise InvalidInputError(
            "usd", f"{amount} has more than six decimal places; round a cost up, a limit down"
        )
    return check_amount("usd", int(micros))


def check_seconds(name: str, value: object, *, maximum: float = float("inf")) -> None:
    """Refuse what is not a number of seconds in 0 .. `maximum`.

    Raises:
        InvalidInputError: It is not a number, or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(name, f"must be a number of seconds, not {type(value).__name__}")
    if not 0 <= value <= maximum:
        raise InvalidInputError(name, f"must be 0 to {maximum:g} seconds")


def check_text(name: str, value: object, *, max_chars: int = NAME_MAX_CHARS) -> str:
    """Return `value` if it is text of 1 .. `max_chars` characters that every store can hold.

    Raises:
        InvalidInputError: It is not a string, empty, too long, or holds NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidInputError(name, f"must be a str, not {type(value).__name__}")
    if not 1 <= len(value) <= max_chars:
        raise InvalidInputError(name, f"must have 1 to {max_chars} characters, has {len(value)}")
    # Nearly all texts are ASCII; `isascii` is cheaper than to encode them.
    if "\0" in value or not (value.isascii() or _encodes(value)):
        raise InvalidInputError(name, "must not hold NUL or a lone surrogate")
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def canonical_json(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return _encode_json(value)


def to_micros(name: str, moment: object) -> Micros:
    """Return a time-zone-aware datetime as microseconds since 1970, exactly.

    Raises:
        InvalidInputError: It is not a datetime, or has no time zone.
    """
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidInputError(name, "must be a datetime with a time zone")
    try:
        return Micros((moment.astimezone(UTC) - _EPOCH) // _MICROSECOND)
    except OverflowError:
        raise InvalidInputError(name, "must be in the years 1 to 9999 of UTC") from None


class OutOfCalendarError(InvalidInputError):
    """A stored number that is not a valid time: the store was damaged, or a clock was wrong."""


def from_micros(micros: int) -> datetime:
    """Return microseconds since 1970 as a datetime in UTC.

    Raises:
        InvalidInputError: It is not an integer, or outside the years 1 to 9999.
    """
    try:
        return _EPOCH + micros * _MICROSECOND
    except (OverflowError, TypeError):
        raise OutOfCalendarError(
            "time", f"{micros!r} microseconds since 1970 is outside the years 1 to 9999"
        ) from None


EARLIEST = to_micros("year", datetime(1900, 1, 1, tzinfo=UTC))
LATEST = to_micros("year", datetime(3000, 1, 1, tzinfo=UTC))
"""Every time that is written is at or after the first and before the second.

The limits leave room on both sides. The end of a window or a hold is at most ten years later, and
must be a valid datetime in every time zone and every database.
"""

CLOCK_EARLIEST = to_micros("year", datetime(1971, 1, 1, tzinfo=UTC))
"""The earliest time that a clock may give. A clock in seconds or milliseconds gives an earlier one.
"""


def check_moment(name: str, moment: object) -> Micros:
    """Return a datetime that is to be written as microseconds since 1970.

    Raises:
        InvalidInputError: It is not a datetime, has no time zone, or is outside 1900 to 2999.
    """
    at = to_micros(name, moment)
    if not EARLIEST <= at < LATEST:
        raise InvalidInputError(name, "must be in the years 1900 to 2999 of UTC")
    return at


def check_not_ahead(name: str, at: Micros, now: Micros) -> Micros:
    """Return the time at which a call is said to have happened, unless it is too far ahead.

    Raises:
        InvalidInputError: It is more than a day ahead of the clock. One day is allowed, since a
            time without its zone is up to 14 hours wrong, and machines' clocks differ.
    """
    if at - now > AHEAD_MAX_US:
        raise InvalidInputError(
            name,
            f"{from_micros(at).isoformat()} is ahead of the clock, which says "
            f"{from_micros(now).isoformat()}; a call is dated at most a day ahead",
        )
    return at


def check_clock(clock: Callable[[], int]) -> Callable[[], Micros]:
    """Return the clock, wrapped so that it raises if it gives a time that cannot be written.

    It raises `InvalidInputError` for a number of seconds, milliseconds or nanoseconds, a float, or
    a time outside the years 1971 to 2999.

    Raises:
        InvalidInputError: It cannot be called.
    """
    if not callable(clock):
        raise InvalidInputError("clock", f"must be callable, not a {type(clock).__name__}")

    def checked() -> Micros:
        now = clock()
        if isinstance(now, bool) or not isinstance(now, int):
            raise InvalidInputError(
                "clock", f"must answer with an int of microseconds, not {type(now).__name__}"
            )
        if not CLOCK_EARLIEST <= now < LATEST:
            raise InvalidInputError(
                "clock",
                f"must answer in microseconds since 1970, of the years 1971 to 2999, not {now}; "
                "nothing was written",
            )
        return Micros(now)

    return checked


def check_several(name: str, values: object) -> None:
    """Refuse a single text or a number where several names are expected.

    Raises:
        InvalidInputError: It is something else.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        what = type(values).__name__
        raise InvalidInputError(name, f"must be names, not one text or {what}; write [name]")


def check_callable(name: str, value: object) -> None:
    """Refuse a value that is neither a function nor None.

    Raises:
        InvalidInputError: It is something else.
    """
    if value is not None and not callable(value):
        raise InvalidInputError(name, f"must be a function, not {type(value).__name__}")


def check_path(name: str, value: object) -> Path:
    """Return a file's name as a path.

    Raises:
        InvalidInputError: It is neither text nor a path, or has a NUL.
    """
    if not isinstance(value, str | Path):
        raise InvalidInputError(name, f"must be a file's name, not {type(value).__name__}")
    try:
        usable = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise InvalidInputError(name, "must be a file's name, without NUL or a lone surrogate")
    return Path(value)


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse anything but a `kind`.

    Raises:
        InvalidInputError: It is something else.
    """
    if not isinstance(value, kind):
        raise InvalidInputError(name, f"must be a {kind.__name__}, not {type(value).__name__}")
