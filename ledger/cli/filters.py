"""The options that say which entries a report is about, declared once for all reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from ledger.cli.common import stderr
from ledger.cli.gathered import gathered
from ledger.core.calendar import zone_named
from ledger.core.errors import InvalidInputError
from ledger.ledger import Ledger
from ledger.reports import Filter, PoolState, TimeBasis
from ledger.reports.render import printable
from ledger.reports.stream import is_any_entry

Zone = Annotated[
    str,
    typer.Option(
        "--zone", help="The time zone of hours, days, weeks and months, and of times without one."
    ),
]


Since = Annotated[str | None, typer.Option(help="From this time on.", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Before this time.", show_default=False)]
AsOfOption = Annotated[
    int | None,
    typer.Option(
        help="Up to this entry of one pool; the answer then never changes.", show_default=False
    ),
]
RecordedOption = Annotated[
    bool,
    typer.Option(
        "--recorded", help="Use the time when entries were recorded, not when calls were made."
    ),
]
Now = Annotated[
    str | None,
    typer.Option(help="The time of the report; by default the present.", show_default=False),
]
PoolsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        help="Only this pool; may be given again. By default all pools.",
        show_default=False,
    ),
]
Descendants = Annotated[
    bool, typer.Option("--descendants", help="Also the pools below the named ones.")
]
ParentOf = Annotated[
    str | None, typer.Option("--parent", help="Only pools directly below this one.")
]
Matching = Annotated[
    str | None,
    typer.Option(
        "--match", help="Only pools whose names match this pattern, such as 'customer-*'."
    ),
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
    pool: PoolsOption = None,
    descendants: Descendants = False,
    parent: ParentOf = None,
    match: Matching = None,
    state: Annotated[
        PoolState | None, typer.Option(help="Only pools that are open or closed by now.")
    ] = None,
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
        typer.Option(metavar="NAME=VALUE", help="Only entries with this tag; may be given again."),
    ] = None,
    as_of: AsOfOption = None,
    recorded: RecordedOption = False,
) -> Filter:
    """Return the filter that a command's options make."""
    clock = zone_named(zone)
    return Filter(
        pools=pool or (),
        descendants=descendants,
        parent=parent,
        matching=match,
        state=state,
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


def listed(
    pool: PoolsOption = None,
    descendants: Descendants = False,
    parent: ParentOf = None,
    match: Matching = None,
    state: Annotated[
        PoolState | None,
        typer.Option(help="Pools that are open or closed. By default open; of named pools, all."),
    ] = None,
) -> Filter:
    """Return the filter of a list of pools, which leaves closed pools out unless asked for."""
    if state is None and not pool:
        state = PoolState.OPEN
    return Filter(
        pools=pool or (),
        descendants=descendants,
        parent=parent,
        matching=match,
        state=state,
    )


def basis_of(*, recorded: bool) -> TimeBasis:
    """Return which time of an entry counts."""
    return TimeBasis.RECORDED if recorded else TimeBasis.OCCURRED


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInputError("--tag", f"{text!r} has no value; write NAME=VALUE")
    return name, value


def tell_unmatched(book: Ledger, where: Filter) -> None:
    """Print on standard error which run, model, tag and the like no entry has, if any is asked for.

    An empty table alone would not tell a misspelt name from a run that spent nothing. See also
    `tell_below`.
    """
    tell_below(book, where)
    asked = {"run": where.run_id} | {
        name: getattr(where, name) for name in ("tenant", "agent", "operation", "provider", "model")
    }
    asked |= {"parent": where.parent, "match": where.matching, "state": where.state}
    words = [f"--{name} {value}" for name, value in asked.items() if value is not None]
    words += [f"--tag {name}={value}" for name, value in where.tags.items()]
    if words and not is_any_entry(book, where):
        said = printable(f"No entry matches {' '.join(words)}: the report is empty.")
        stderr().print(said, markup=False, soft_wrap=True)


def tell_below(book: Ledger, where: Filter) -> None:
    """Print on standard error which named pools have pools below them that are not counted.

    The balance of such a pool has what those spent, and so has its statement.
    """
    if not where.pools or where.descendants:
        return
    known = book.pools(left_out=[])
    parents = {one.parent_id for one in known if one.name not in where.pools}
    for one in known:
        if one.name in where.pools and one.pool_id in parents:
            said = f"Pools below {one.name} are not counted (--descendants counts them, too)."
            stderr().print(printable(said), markup=False, soft_wrap=True)


filtered = gathered("where", chosen)
"""Gives a command the options of a filter; it gets the filter as `where`."""
listing = gathered("where", listed)
"""Gives a command that lists pools the options that choose them; it gets `where`."""
