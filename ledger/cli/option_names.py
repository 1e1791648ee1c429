"""Errors about arguments of the library, with the names of the options that stand for them."""

from __future__ import annotations

import sys

import typer.main

from ledger.core.axes import AXES
from ledger.core.errors import InvalidInputError, LedgerError


def in_options(app: typer.Typer, error: LedgerError) -> str:
    """Return an error's text as the user of a command reads it.

    The library names an argument (`until`, `window.time_zone`, `capacity_cost_micros_usd`), and the
    command its option (`--until`, `--time-zone`, `--capacity-usd`), if it has one.
    """
    text = str(error)
    if not isinstance(error, InvalidInputError):
        return text
    name = error.field.rpartition(".")[2]
    for axis in AXES:
        name = name.replace(axis.name, axis.shown.lower())
    name = name.removeprefix("idempotency_")
    option = f"--{name.replace('_', '-')}"
    return option + text.removeprefix(error.field) if option in _options(app) else text


def _options(app: typer.Typer) -> set[str]:
    """Return the options of the command that was called."""
    command = typer.main.get_command(app)
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return {option for parameter in command.params for option in parameter.opts}
