"""Limits of a pool beside its own capacity: what it may spend in any five hours, or in a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from ledger.core import calendar
from ledger.core.axes import AXES, CAPACITIES, U64_MAX, shown
from ledger.core.calendar import Window, check_storable_window, window_from_json, window_to_json
from ledger.core.checks import I64_MAX, check_amount, check_text, check_type
from ledger.core.errors import InvalidInputError

LIMITS_MAX = 8
"""How many limits one policy may have."""
LIMIT_NAME_MAX_CHARS = 64

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rolling:
    """A rolling period: usage counts for this length of time after it was recorded.

    Attributes:
        length: 1 second to ten years.
    """

    length: timedelta

    def __post_init__(self) -> None:
        calendar.check_length("rolling.length", self.length)

    def __str__(self) -> str:
        return f"any {self.length}"

    @property
    def length_us(self) -> int:
        """The length in microseconds."""
        return self.length // _MICROSECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much a pool may spend in a period of the limit's own, beside the pool's capacity.

    Attributes:
        name: The name that refusals give; 1 to 64 characters, unique among the pool's limits.
        period: `Rolling`, or a `Window` of the calendar, which carries nothing over.
        capacity_tokens: 0 .. 2^64-1, like all amounts here; `U64_MAX` is no limit on this axis.
        capacity_cost_micros_usd: In millionths of a US dollar.
        capacity_requests: How many calls.
    """

    name: str
    period: Rolling | Window
    capacity_tokens: int = U64_MAX
    capacity_cost_micros_usd: int = U64_MAX
    capacity_requests: int = U64_MAX
    __repr__ = shown

    def __post_init__(self) -> None:
        check_text("limit.name", self.name, max_chars=LIMIT_NAME_MAX_CHARS)
        if not isinstance(self.period, Rolling | Window):
            raise InvalidInputError(
                "limit.period", f"must be Rolling or Window, not {type(self.period).__name__}"
            )
        if isinstance(self.period, Window) and (
            self.period.carry_over or self.period.deduct_overage
        ):
            raise InvalidInputError(
                "limit.period", "a limit carries nothing over; the pool's own window may"
            )
        if isinstance(self.period, Window) and self.period.session:
            raise InvalidInputError("limit.period", "a session is a window of the pool's own")
        for name in CAPACITIES:
            check_amount(f"limit.{name}", getattr(self, name))
        if all(axis.is_unlimited(self) for axis in AXES):
            raise InvalidInputError("limit", f"{self.name!r} limits neither {_AXES}")

    def __str__(self) -> str:
        amounts = [
            f"{amount:,} {axis.unit}" for axis in AXES if (amount := axis.limit(self)) is not None
        ]
        return f"{self.name!r}: {' and '.join(amounts)} in {self.period}"


_AXES = " nor ".join(axis.shown for axis in AXES)


def check_limits(limits: object) -> tuple[Limit, ...]:
    """Return limits as a policy holds them.

    Raises:
        InvalidInputError: They are not a sequence of at most eight limits of different names.
    """
    if not isinstance(limits, Sequence) or len(limits) > LIMITS_MAX:
        raise InvalidInputError("limits", f"must be a sequence of at most {LIMITS_MAX} limits")
    names = set()
    for one in limits:
        check_type("limits", one, Limit)
        if one.name in names:
            raise InvalidInputError("limits", f"two of them have the name {one.name!r}")
        names.add(one.name)
    return tuple(limits)


def check_storable_limit(limit: Limit) -> None:
    """Refuse a limit that a store cannot hold.

    Raises:
        InvalidInputError: Its window's anchor is not of the years 1900 to 2999.
        AmountOutOfRangeError: An amount is above 2^63-1 and not unlimited.
    """
    for axis in AXES:
        if not axis.is_unlimited(limit):
            check_amount(axis.capacity, axis.limit(limit), ceiling=I64_MAX)
    if isinstance(limit.period, Window):
        check_storable_window(limit.period)


def limit_to_json(limit: Limit) -> dict[str, Any]:
    """Return a limit as it is stored: without unlimited capacities, times in microseconds."""
    stored: dict[str, Any] = {"name": limit.name}
    stored |= {name: value for name in CAPACITIES if (value := getattr(limit, name)) != U64_MAX}
    if isinstance(limit.period, Window):
        return stored | {"window": window_to_json(limit.period)}
    return stored | {"rolling": limit.period.length_us}


def limit_from_json(values: Mapping[str, Any]) -> Limit:
    """Return a limit from its stored form.

    Raises:
        InvalidInputError: A value that a limit cannot have.
        TypeError: A field that limits do not have.
    """
    given = dict(values)
    known = {part.name for part in fields(Limit)} - {"period"} | {"window", "rolling"}
    if not given.keys() <= known or len(given.keys() & {"window", "rolling"}) != 1:
        raise TypeError(f"a limit has no such parts: {', '.join(sorted(given))}")
    window = given.pop("window", None)
    if window is not None:
        return Limit(period=window_from_json(window), **given)
    length = check_amount("rolling", given.pop("rolling"), ceiling=I64_MAX)
    return Limit(period=Rolling(length * _MICROSECOND), **given)
