"""Buckets of time: the hours, days, weeks and months of a time zone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from ledger.core.checks import from_micros

_SECOND_US = 1_000_000
_GRAINS_S = (86_400, 3_600, 900, 60, 1)
"""Lengths of the pieces of time that the database groups by, in seconds.

A piece of one second always fits, since clocks are changed at whole seconds.
"""


class Unit(StrEnum):
    """How long a bucket is."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def grains_us(units: Sequence[Unit], zone: ZoneInfo, around: Iterable[datetime]) -> list[int]:
    """Return the lengths of pieces of time that may make up whole buckets, the longest first.

    Args:
        units: The lengths of the buckets.
        zone: The time zone of the buckets.
        around: Times at which the zone's UTC offset is taken to choose lengths. The offset may
            differ at other times, so the caller checks each piece with `fits`.
    """
    offsets_s = [_local(at, zone).utcoffset() // timedelta(seconds=1) for at in around]  # type: ignore[operator]
    longest_s = 3_600 if Unit.HOUR in units else 86_400
    return [
        grain_s * _SECOND_US
        for grain_s in _GRAINS_S
        if grain_s == 1
        or (grain_s <= longest_s and all(offset_s % grain_s == 0 for offset_s in offsets_s))
    ]


def fits(grain_at: int, grain_us: int, units: Sequence[Unit], zone: ZoneInfo) -> bool:
    """Tell whether a piece of time lies in one bucket of each unit and has one UTC offset."""
    first, last = (_local(from_micros(at), zone) for at in (grain_at, grain_at + grain_us - 1))
    return first.utcoffset() == last.utcoffset() and all(
        _label(unit, first) == _label(unit, last) for unit in units
    )


def bucket(unit: Unit, at: int, zone: ZoneInfo) -> str:
    """Return the bucket of a time (microseconds since 1970) as ISO 8601 writes its beginning.

    A week begins on Monday and is named by that day. An hour carries its UTC offset. The hour that
    occurs twice when summer time ends is therefore two buckets.
    """
    return _label(unit, _local(from_micros(at), zone))


def place(unit: Unit, label: str) -> str | datetime:
    """Return a key that sorts the buckets of one unit by time.

    Sorted as text, an hour would come after the next one in the night in which it occurs twice.
    """
    return datetime.fromisoformat(label) if unit is Unit.HOUR else label


def _local(at: datetime, zone: ZoneInfo) -> datetime:
    try:
        return at.astimezone(zone)
    except OverflowError:  # the local time is outside the years 1 to 9999
        return at.astimezone(UTC)


def _label(unit: Unit, local: datetime) -> str:
    match unit:
        case Unit.HOUR:
            return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes")
        case Unit.DAY:
            return local.date().isoformat()
        case Unit.WEEK:
            # By number, since the calendar's first week may begin before the calendar does.
            ordinal = max(1, local.toordinal() - local.weekday())
            return datetime.fromordinal(ordinal).date().isoformat()
        case Unit.MONTH:
            return local.date().isoformat()[:7]
