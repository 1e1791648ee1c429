"""The span of a comparison: the days, weeks or months that a bill is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ledger.core.calendar import zone_named
from ledger.files.bill import Bill
from ledger.reports.buckets import Unit
from ledger.reports.filters import Filter

_DAY = timedelta(days=1)


def with_range(bill: Bill, where: Filter, by: Unit) -> Filter:
    """Return the filter with the first and last day of the bill for the times that it lacks.

    Lines that are all dated on the first day of a week or a month stand for the whole of it.
    """
    if bill.first is None or bill.last is None:
        return where
    zone = zone_named(bill.mapping.zone)
    begin = _midnight(bill.first.astimezone(zone))
    last = _midnight(bill.last.astimezone(zone))
    end = moved(last, _DAY)
    if by in _LONGER and all(
        line.at is None or (line.end is None and _begins(line.at.astimezone(zone), by))
        for line in bill.lines
    ):
        while end is not None and not _begins(end, by):
            end = moved(end, _DAY)
    since = begin if where.since is None else where.since
    until = end if where.until is None else where.until
    if until is not None and since > until:
        # The filter's time is outside the bill, so the range is empty and every line is left out.
        since, until = (since, since) if where.until is None else (until, until)
    return replace(where, since=since, until=until)


_LONGER = {Unit.WEEK, Unit.MONTH}


def _begins(at: datetime, by: Unit) -> bool:
    """Tell whether a week or a month begins on the day of a time."""
    return at.weekday() == 0 if by is Unit.WEEK else at.day == 1


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def moved(at: datetime | None, by: timedelta) -> datetime | None:
    """Return a time moved by `by`; None (no limit) if that is outside the calendar."""
    if at is None:
        return None
    try:
        moved = at + by
        moved.astimezone(UTC)
    except OverflowError:
        return None
    return moved
