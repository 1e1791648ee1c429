"""The options that say which entries a report is about, declared once for all reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from ledger.cli.gathered import gathered
from ledger.errors import InvalidInputError
from ledger.reports import Filter, TimeBasis
from ledger.reports.buckets import zone_named

Zone = Annotated[
    str,
    typer.Option(
        "--zone", help="Time zone of times without one, and of hours, days, weeks and months."
    ),
]


Since = Annotated[str | None, typer.Option(help="From this time on.", show_default=False)]
Until = Annotated[
    str | None, typer.Option(help="Up to, and without, this time.", show_default=False)
]
AsOf = Annotated[
    int | None,
    typer.Option(
        help="Up to this entry of the one pool: the same answer for ever.", show_default=False
    ),
]
Recorded = Annotated[
    bool, typer.Option("--recorded", help="Go by when entries were recorded, not calls made.")
]
Now = Annotated[
    str | None,
    typer.Option(help="The moment of the report; the present one without it.", show_default=False),
]
_DIGITS = 6
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def length_s(name: str, text: str) -> int:
    """Return a length of time such as `90s`, `10m`, `1h` or `7d` in seconds.

    Raises:
        InvalidInputError: The text is no length of time.
    """
    count, unit = text[:-1], text[-1:]
    if unit not in _UNITS_S or not (count.isascii() and count.isdigit()) or len(count) > _DIGITS:
        raise InvalidInputError(name, f"{text!r} is no length of time; write 90s, 10m, 1h or 7d")
    return int(count) * _UNITS_S[unit]


def moment_in(name: str, text: str | None, zone: ZoneInfo) -> datetime | None:
    """Return a date, or a date and a time, in its own time zone or else in `zone`.

    Raises:
        InvalidInputError: The text is no date or time.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(
            name, f"{text!r} is no time; write 2024-02-29 or 2024-02-29T12:00:00+01:00"
        ) from error
    return found.replace(tzinfo=zone) if found.tzinfo is None else found


def chosen(
    zone: Zone = "UTC",
    pool: Annotated[
        list[str] | None,
        typer.Option(help="Only this pool; may be given again. Without it all of them."),
    ] = None,
    descendants: Annotated[
        bool, typer.Option("--descendants", help="Also the pools below those that are named.")
    ] = False,
    since: Since = None,
    until: Until = None,
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only this operation.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only with this tag; may be given again."),
    ] = None,
    as_of: AsOf = None,
    recorded: Recorded = False,
) -> Filter:
    """Return the filter that a command's options make."""
    clock = zone_named(zone)
    return Filter(
        pools=pool or (),
        descendants=descendants,
        since=moment_in("--since", since, clock),
        until=moment_in("--until", until, clock),
        run_id=run,
        tenant=tenant,
        agent=agent,
        operation=operation,
        provider=provider,
        model=model,
        tags=dict(map(_tag, tag or ())),
        as_of=as_of,
        basis=basis_of(recorded=recorded),
    )


def basis_of(*, recorded: bool) -> TimeBasis:
    """Return which time of an entry counts."""
    return TimeBasis.RECORDED if recorded else TimeBasis.OCCURRED


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInputError("--tag", f"{text!r} has no value; write NAME=VALUE")
    return name, value


filtered = gathered("where", chosen)
"""Gives a command the options of a filter; it gets the filter as `where`."""
