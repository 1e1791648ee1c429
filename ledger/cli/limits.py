"""The option that sets a pool's limits: how much in any five hours, a day, a minute."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from ledger.cli.filters import length_s
from ledger.core.axes import AXES, COST
from ledger.core.calendar import Period, Window
from ledger.core.errors import InvalidInputError, LedgerError
from ledger.core.limits import Limit, Rolling
from ledger.simulate import parse_count, parse_usd

LimitsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="LIMIT",
        help="One more limit, beside the capacity: '5h rolling: 10 USD', '1m rolling: 60 requests, "
        "100000 tokens', 'day in Europe/Berlin: 20 USD'. NAME=PERIOD: ... names it; 'NAME: off' "
        "removes it. May be given again.",
        show_default=False,
    ),
]

_FORM = "write 5h rolling: 10 USD, 60 requests; or day in Europe/Berlin: 20 USD; or NAME: off"
_UNITS = {axis.shown.lower(): axis for axis in AXES}
_AMOUNT = re.compile(r"\$\s*(?P<usd>[\d.]+)|(?P<count>[\d.]+)\s*(?P<unit>[A-Za-z]+)", re.ASCII)


def changed(limits: Sequence[Limit], given: Sequence[str]) -> tuple[Limit, ...]:
    """Return limits after options have set, replaced or removed some.

    Raises:
        InvalidInputError: An option is no limit, or removes one that does not exist.
    """
    found = {one.name: one for one in limits}
    for option in given:
        head, colon, amounts = option.rpartition(":")
        name, equals, period = head.partition("=")
        name = name.strip()
        if not colon:
            raise InvalidInputError("limit", f"{option!r} has no amounts; {_FORM}")
        if amounts.strip() == "off":
            if found.pop(name, None) is None:
                known = ", ".join(map(repr, found)) or "none"
                raise InvalidInputError("limit", f"there is no {name!r}; there are {known}")
            continue
        try:
            length = _period(period.strip() if equals else name)
            found[name] = Limit(name=name, period=length, **_amounts(amounts))
        except LedgerError as error:
            raise InvalidInputError("limit", f"{option!r}: {error}") from error
    return tuple(found.values())


def _period(text: str) -> Rolling | Window:
    length, _, rest = text.partition(" ")
    if rest.strip() == "rolling":
        return Rolling(timedelta(seconds=length_s("period", length)))
    word, _, zone = rest.strip().partition(" ")
    if length in list(Period) and word in {"", "in"} and (zone != "") == (word == "in"):
        return Window(period=Period(length), time_zone=zone.strip() or "UTC")
    raise InvalidInputError("period", f"{text!r} is none; {_FORM}")


def _amounts(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in text.split(","):
        said = _AMOUNT.fullmatch(part.strip())
        axis = COST if said and said["usd"] else _UNITS.get(said["unit"].lower() if said else "")
        if said is None or axis is None:
            known = ", ".join(axis.shown for axis in AXES)
            raise InvalidInputError("amount", f"{part.strip()!r} is none of {known}; {_FORM}")
        if axis.capacity in found:
            raise InvalidInputError("amount", f"it gives {axis.shown} twice")
        parse = parse_count if axis.scale == 1 else parse_usd
        found[axis.capacity] = parse("amount", said["usd"] or said["count"])
    return found
