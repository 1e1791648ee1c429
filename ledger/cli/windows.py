"""The options that say how often a pool's capacity comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from ledger.cli.filters import length_s, moment_in
from ledger.core.axes import AXES, CARRY_CAPS
from ledger.core.calendar import Period, Window
from ledger.core.checks import U64_MAX
from ledger.core.errors import InvalidInputError
from ledger.simulate import parse_count, parse_usd

WindowLength = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="How often the capacity is renewed: day, week, month, or a length such as 6h; "
        "'5h session' from the first call on; 'none' for never.",
        show_default=False,
    ),
]
TimeZone = Annotated[
    str | None,
    typer.Option(
        help="The time zone of days, weeks and months: Europe/Berlin.", show_default=False
    ),
]
AnchorOption = Annotated[
    str | None,
    typer.Option(
        help="The time at which one of the windows begins: 2026-01-31.", show_default=False
    ),
]
CarryOver = Annotated[
    bool | None,
    typer.Option(
        "--carry-over/--lapse",
        help="Add what remains of a window to the next one, or let it lapse.",
        show_default=False,
    ),
]
DeductOverage = Annotated[
    bool | None,
    typer.Option(
        "--deduct-overage/--waive",
        help="Deduct spend beyond the capacity from the next windows, or not.",
        show_default=False,
    ),
]
CarryCapTokens = Annotated[
    str | None,
    typer.Option(help="The most tokens that are carried over, or 'unlimited'.", show_default=False),
]
CarryCapUsd = Annotated[
    str | None,
    typer.Option(
        help="The most US dollars that are carried over, or 'unlimited'.", show_default=False
    ),
]
CarryCapRequests = Annotated[
    str | None,
    typer.Option(help="The most calls that are carried over, or 'unlimited'.", show_default=False),
]


def amounts(
    fields: Sequence[str], given: Sequence[str | None], *, limits: bool = True
) -> dict[str, int]:
    """Return the amounts that options give, by the fields of each axis in the order of the axes.

    Args:
        fields: The field of each axis.
        given: The option of each axis, None if it was not given.
        limits: Whether `unlimited` is an amount.

    Raises:
        InvalidInputError: An option is no amount.
    """
    found = {}
    for axis, name, text in zip(AXES, fields, given, strict=True):
        if text is not None:
            parse = parse_count if axis.scale == 1 else parse_usd
            found[name] = U64_MAX if limits and text == "unlimited" else parse(name, text)
    return found


def window(
    base: Window | None,
    length: str | None,
    time_zone: str | None,
    anchor: str | None,
    carry_over: bool | None,
    carry_caps: Sequence[str | None],
    deduct_overage: bool | None,
) -> Window | None:
    """Return `base` with the changes of a command's options.

    Another length keeps the time zone and drops the anchor; a fixed length has no time zone, and a
    session carries nothing over.

    Raises:
        InvalidInputError: An option has no valid value, or changes a window that is not there.
    """
    named = (time_zone, anchor, carry_over, deduct_overage, *carry_caps)
    if length == "none":
        base = None
    elif length is not None:
        length, _, kind = length.partition(" ")
        if kind.strip() not in {"", "session"}:
            raise InvalidInputError(
                "--window",
                f"{kind!r} is no kind of window; write 5h session, or, for what a rolling length "
                "of time may use, --limit '5h rolling: 10 USD'",
            )
        base = _of_length(base, _period(length), session=kind != "")
    if base is None:
        if any(option is not None for option in named):
            raise InvalidInputError(
                "--window", "name a day, a week, a month or a length such as 6h"
            )
        return None
    if time_zone is not None:
        base = replace(base, time_zone=time_zone)
    if anchor is not None:
        base = replace(base, anchor=moment_in("--anchor", anchor, ZoneInfo(base.time_zone)))
    if deduct_overage is not None:
        base = replace(base, deduct_overage=deduct_overage)
    return replace(base, **_carrying(carry_over, carry_caps))


def _carrying(carry_over: bool | None, carry_caps: Sequence[str | None]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if carry_over is not None:
        changes["carry_over"] = carry_over
    if carry_over is False:
        changes |= dict.fromkeys(CARRY_CAPS, U64_MAX)
    return changes | amounts(CARRY_CAPS, carry_caps)


def _period(text: str) -> Period | timedelta:
    if text in list(Period):
        return Period(text)
    try:
        return timedelta(seconds=length_s("--window", text))
    except InvalidInputError as error:
        known = ", ".join(Period)
        raise InvalidInputError(
            "--window",
            f"{text!r} is none; write {known}, none, a length such as 6h or 30d, or '5h session' "
            "for a length from the first call on",
        ) from error


def _of_length(base: Window | None, period: Period | timedelta, *, session: bool) -> Window:
    if base is None or session or base.session:
        return Window(period=period, session=session)
    if base.period == period:
        return base
    zone = "UTC" if isinstance(period, timedelta) else base.time_zone
    return replace(base, period=period, time_zone=zone, anchor=None)
