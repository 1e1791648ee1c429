"""Errors about arguments of the library, with the names of the options that stand for them."""

from __future__ import annotations

import sys

import typer.main

from ledger.core.axes import AXES
from ledger.core.errors import AmountOutOfRangeError, InvalidInputError, LedgerError
from ledger.reports.render import usd


def in_options(app: typer.Typer, error: LedgerError) -> str:
    """Return an error's text as the user of a command reads it.

    The library names an argument (`until`, `window.time_zone`, `capacity_cost_micros_usd`), and the
    command its option (`--until`, `--time-zone`, `--capacity-usd`), if it has one.
    """
    text = str(error)
    if not isinstance(error, InvalidInputError):
        return text
    name = error.field.rpartition(".")[2].removeprefix("idempotency_")
    plain = name
    for axis in AXES:
        plain = plain.replace(axis.name, axis.shown.lower())
    spelt = (plain, name.replace("_micros_usd", "_usd"))
    options = (f"--{one.replace('_', '-')}" for one in spelt)
    option = next((one for one in options if one in _options(app)), None)
    if option is None:
        return text
    if isinstance(error, AmountOutOfRangeError) and option.endswith("-usd"):
        # The option takes US dollars, and the library counts micro-USD.
        return f"{option}: {usd(error.value)} USD is outside 0 .. {usd(error.ceiling)} USD"
    return option + text.removeprefix(error.field)


def _options(app: typer.Typer) -> set[str]:
    """Return the options of the command that was called."""
    command = typer.main.get_command(app)
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return {option for parameter in command.params for option in parameter.opts}
