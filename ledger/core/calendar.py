"""The calendar of windows: computes when each window begins and ends from its number.

Windows of a day, a week or a month follow the local time of a time zone, so a day in spring can
have 23 hours. Where local time repeats a time, the first occurrence counts. Where it skips a time,
the moment counts at which that time would have come without the change of the clocks. Windows of a
fixed length ignore time zones and daylight saving. Sessions have no numbers: each is begun by a
call.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from ledger.core.axes import AXES, CARRY_CAPS, shown
from ledger.core.checks import (
    I64_MAX,
    U64_MAX,
    Micros,
    check_amount,
    check_moment,
    check_text,
    check_type,
    from_micros,
    to_micros,
)
from ledger.core.errors import InvalidInputError

WINDOW_MIN = timedelta(seconds=1)
WINDOW_MAX = timedelta(days=3_650)

_MICROSECOND = timedelta(microseconds=1)
_FIRST_AT, NEVER = (to_micros("year", datetime(year, 1, 1, tzinfo=UTC)) for year in (2, 9_980))
"""Between these times every window, the one before it and the one after it can be computed.

A window ends `NEVER` if no window can be computed from its anchor. An earlier version accepted
such anchors, at the edge of `datetime`, and its journals must stay readable.
"""
_OF_SESSIONS = {"period", "time_zone", "session"}
_MONTHS = 12
_DAYS = {"day": 1, "week": 7}


class Period(StrEnum):
    """A window that goes by the calendar of a time zone."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


_FIRST = {
    Period.DAY: date(1970, 1, 1),
    Period.WEEK: date(1970, 1, 5),
    Period.MONTH: date(1970, 1, 1),
}
"""When windows of each kind begin without an anchor: at midnight, on Monday, on the 1st."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How often a pool's capacity is restored, and what happens to unused capacity.

    Attributes:
        period: A day, a week or a month; or a fixed length, of a second to ten years.
        time_zone: The IANA name of the time zone of the calendar; UTC for fixed lengths.
        session: Whether a window begins with the first call after the last window has ended,
            instead of at that end. A session needs a fixed length, has no anchor, and carries
            nothing over.
        anchor: A moment at which some window begins, with a time zone, in the years 1900 to 2999:
            all others are counted from it, at the same time of the day in `time_zone`. In a month
            without that day, the window begins on the month's last day. By default windows begin at
            midnight, on Monday, on the 1st, and fixed lengths are counted from 1970.
        carry_over: Whether what is left of a window is added to the next one.
        carry_cap_tokens: The most that is carried over, in tokens; here and below `U64_MAX` is no
            limit.
        carry_cap_cost_micros_usd: The most that is carried over, in millionths of a US dollar.
        carry_cap_requests: The most calls that are carried over.
        deduct_overage: Whether spend beyond the capacity is deducted from the next windows, until
            all of it is deducted.
    """

    period: Period | timedelta = field(kw_only=False)
    time_zone: str = "UTC"
    session: bool = False
    anchor: datetime | None = None
    carry_over: bool = False
    carry_cap_tokens: int = U64_MAX
    carry_cap_cost_micros_usd: int = U64_MAX
    carry_cap_requests: int = U64_MAX
    deduct_overage: bool = False
    __repr__ = shown

    def __post_init__(self) -> None:
        object.__setattr__(self, "period", _checked_period(self.period))
        _check_zone(self.time_zone)
        if isinstance(self.period, timedelta) and self.time_zone != "UTC":
            raise InvalidInputError(
                "window.time_zone", "a fixed length has none; say with an anchor when it begins"
            )
        check_type("window.session", self.session, bool)
        others = [part for part in fields(self) if part.name not in _OF_SESSIONS]
        if self.session and (
            not isinstance(self.period, timedelta)
            or any(getattr(self, part.name) != part.default for part in others)
        ):
            raise InvalidInputError(
                "window.session", "needs a fixed length, such as 5 hours, and nothing else"
            )
        if self.anchor is not None:
            # One value for one moment, whatever zone it was given in.
            at = from_micros(to_micros("window.anchor", self.anchor))
            object.__setattr__(self, "anchor", at)
        check_type("window.carry_over", self.carry_over, bool)
        check_type("window.deduct_overage", self.deduct_overage, bool)
        for name in CARRY_CAPS:
            check_amount(f"window.{name}", getattr(self, name))
            if getattr(self, name) != U64_MAX and not self.carry_over:
                raise InvalidInputError(f"window.{name}", "without carry_over there is no such cap")

    def __str__(self) -> str:
        text = str(self.period)
        if isinstance(self.period, Period):
            text = f"a {text} in {self.time_zone}"
        if self.session:
            text += ", each from its first call on"
        if self.anchor is not None:
            text += f", beginning as at {self.anchor.isoformat()}"
        if self.carry_over:
            text += ", carrying over what is left"
            caps = [
                f"{getattr(self, axis.carry_cap):,} {axis.unit}"
                for axis in AXES
                if getattr(self, axis.carry_cap) != U64_MAX
            ]
            text += f", at most {' and '.join(caps)}" if caps else ""
        if self.deduct_overage:
            text += ", deducting overage"
        return text

    @property
    def calendar(self) -> tuple[object, ...]:
        """The fields that decide when windows begin: changing one of them begins a new window."""
        return self.period, self.time_zone, self.anchor, self.session

    @property
    def length_us(self) -> int:
        """The length of a session in microseconds."""
        assert isinstance(self.period, timedelta)  # noqa: S101 - sessions have a fixed length
        return self.period // _MICROSECOND


def _checked_period(period: object) -> Period | timedelta:
    if isinstance(period, timedelta):
        check_length("window.period", period)
        return period
    if period not in list(Period):
        known = ", ".join(Period)
        raise InvalidInputError("window.period", f"must be one of {known}, or a timedelta")
    return Period(str(period))


def check_length(name: str, length: object) -> None:
    """Refuse a length that a window cannot have.

    Raises:
        InvalidInputError: It is no timedelta, or not of 1 second to ten years.
    """
    if not isinstance(length, timedelta):
        raise InvalidInputError(name, f"must be a timedelta, not {type(length).__name__}")
    if not WINDOW_MIN <= length <= WINDOW_MAX:
        raise InvalidInputError(name, f"must be of 1 second to {WINDOW_MAX.days} days")


def _check_zone(name: object) -> None:
    check_text("window.time_zone", name)
    zone_named(str(name), field="window.time_zone")


def zone_named(name: str, *, field: str = "time zone") -> ZoneInfo:
    """Return a time zone of the IANA database.

    Raises:
        InvalidInputError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise InvalidInputError(
            field,
            f"no time zone {name!r} is known here; IANA names are like Europe/Berlin. On a system "
            "without time zones, run: pip install tzdata",
        ) from error


def number(window: Window, at: int) -> int:
    """Return the number of the window that a moment is in. The window at the anchor has number 0.

    Raises:
        InvalidInputError: The moment is outside the calendar (a wrong clock, a forged entry), or
            windows cannot be counted from the anchor.
    """
    if not _FIRST_AT <= at <= NEVER:
        raise InvalidInputError("window", f"no calendar has {at} microseconds since 1970")
    if isinstance(window.period, timedelta):
        return (at - _anchor_us(window)) // (window.period // _MICROSECOND)
    try:
        first, _ = _first(window, window.period)
    except OverflowError:
        raise InvalidInputError(
            "window.anchor", f"is no time in {window.time_zone}: {window.anchor}"
        ) from None
    local = from_micros(at).astimezone(ZoneInfo(window.time_zone)).date()
    if window.period is Period.MONTH:
        found = (local.year - first.year) * _MONTHS + local.month - first.month
    else:
        found = (local - first).days // _DAYS[window.period]
    # The time of day, or a change to or from daylight saving, may make the estimate one too high
    # or too low.
    while begins(window, found) > at:
        found -= 1
    while begins(window, found + 1) <= at:
        found += 1
    return found


def begins(window: Window, number: int) -> Micros:
    """Return when window `number` begins, which is when the window before it ends."""
    if isinstance(window.period, timedelta):
        return Micros(_anchor_us(window) + number * (window.period // _MICROSECOND))
    first, clock = _first(window, window.period)
    if window.period is Period.MONTH:
        year, month = divmod(first.year * _MONTHS + first.month - 1 + number, _MONTHS)
        last = calendar.monthrange(year, month + 1)[1]
        day = date(year, month + 1, min(first.day, last))
    else:
        day = first + timedelta(days=_DAYS[window.period] * number)
    local = datetime.combine(day, clock, tzinfo=ZoneInfo(window.time_zone))
    return to_micros("window", local)


def _anchor_us(window: Window) -> int:
    return 0 if window.anchor is None else to_micros("window.anchor", window.anchor)


def _first(window: Window, period: Period) -> tuple[date, time]:
    """Return the day and the time of day at which window 0 begins in its zone."""
    if window.anchor is None:
        return _FIRST[period], time()
    local = window.anchor.astimezone(ZoneInfo(window.time_zone))
    return local.date(), local.time()


def check_anchor(window: Window | None) -> None:
    """Refuse a window whose anchor does not let every later window be computed.

    Raises:
        InvalidInputError: The anchor is not of the years 1900 to 2999.
    """
    if window is not None and window.anchor is not None:
        check_moment("window.anchor", window.anchor)


def check_storable_window(window: Window) -> None:
    """Refuse a window that a store cannot hold.

    Raises:
        InvalidInputError: Its anchor is not of the years 1900 to 2999.
        AmountOutOfRangeError: A cap is above 2^63-1 and not unlimited.
    """
    check_anchor(window)
    for name in CARRY_CAPS:
        if getattr(window, name) != U64_MAX:
            check_amount(f"window.{name}", getattr(window, name), ceiling=I64_MAX)


def window_to_json(window: Window) -> dict[str, Any]:
    """Return a window as it is stored: fields other than the default, times in microseconds."""
    period = window.period
    stored = {
        part.name: value
        for part in fields(window)
        if (value := getattr(window, part.name)) != part.default
    }
    stored["period"] = period // _MICROSECOND if isinstance(period, timedelta) else str(period)
    if window.anchor is not None:
        stored["anchor"] = to_micros("window.anchor", window.anchor)
    return stored


def window_from_json(values: Mapping[str, Any]) -> Window:
    """Return a window from its stored form.

    Raises:
        InvalidInputError: A value that a window cannot have.
        TypeError: A field that windows do not have.
    """
    given = dict(values)
    if isinstance(given.get("period"), int):
        given["period"] *= _MICROSECOND
    if given.get("anchor") is not None:
        given["anchor"] = from_micros(given["anchor"])
    return Window(**given)
