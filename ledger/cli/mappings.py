"""Options that say how a file of lines is read: a bill, a log or a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.cli.common import progress_bar
from ledger.cli.gathered import gathered
from ledger.core.errors import BillingFileError, InvalidInputError, LedgerError
from ledger.files.bill import Bill, fitted_table, read_bill
from ledger.files.mapping import BillMapping, Identical, Repeats
from ledger.files.mapping_files import read_mappings
from ledger.files.ready import READY

_LOOKED_THROUGH_BYTES = 1 << 24
"""How large a file may be for which each ready mapping is tried: 16 MiB."""

MappingName = Annotated[
    str,
    typer.Option(
        "--mapping",
        help=f"What the columns mean: {', '.join(READY)}, or a TOML or JSON file.",
    ),
]
WhatRepeatsMean = Annotated[
    Repeats | None,
    typer.Option(
        "--repeats",
        help="What it means if lines have the same request id: refuse them, add them, or take the "
        "last. By default as the mapping says.",
    ),
]
WhatIdenticalMean = Annotated[
    Identical | None,
    typer.Option(
        "--identical",
        help="What it means if two lines are identical: refuse to apply the bill, add them, or "
        "count them once. By default as the mapping says.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="The time from which a trace counts its seconds, such as 2024-02-29T00:00:00Z.",
        show_default=False,
    ),
]


def mappings(
    *,
    mapping: MappingName = "generic",
    repeats: WhatRepeatsMean = None,
    identical: WhatIdenticalMean = None,
    start: Start = None,
) -> Sequence[BillMapping]:
    """Return the mappings of a name or a file, with what options say otherwise.

    Raises:
        InvalidInputError: There is no such mapping, or an option makes no sense.
    """
    given = {"repeats": repeats, "identical": identical, "start": start}
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return [replace(one, **said) for one in _named(mapping)]


def _named(named: str) -> Sequence[BillMapping]:
    if named in READY:
        return READY[named]
    path = Path(named)
    if path.suffix not in {".toml", ".json"}:
        raise InvalidInputError(
            "--mapping", f"{named!r} is none of {', '.join(READY)}, nor a .toml or .json file"
        )
    return read_mappings(path)


def read(path: Path, chosen: Sequence[BillMapping], *, attributed: bool = False) -> Bill:
    """Read a file, and show a progress bar.

    Raises:
        BillingFileError: It cannot be read. If another ready mapping fits it, the error names that.
    """
    try:
        with progress_bar() as bar:
            task = bar.add_task("Reading", total=None)
            return read_bill(
                path,
                chosen,
                attributed=attributed,
                progress=lambda done, size: bar.update(task, completed=done, total=size),
            )
    except BillingFileError as error:
        others = [] if error.line is not None or _fits(path, chosen) else _that_fit(path)
        if not others:
            raise
        reason = f"{error.reason}. It has the columns of --mapping {' and of '.join(others)}"
        raise BillingFileError(str(path), line=None, reason=reason) from error


def _that_fit(path: Path) -> list[str]:
    """Return the ready mappings that a file fits, unless it takes long to find out."""
    if not path.is_file() or path.stat().st_size > _LOOKED_THROUGH_BYTES:
        return []
    return [name for name, shapes in READY.items() if _fits(path, shapes)]


def _fits(path: Path, chosen: Sequence[BillMapping]) -> bool:
    try:
        with fitted_table(path, chosen) as (_source, _mapping, table):
            return table.has_rows
    except LedgerError:
        return False


reading = gathered("chosen", mappings)
"""Gives a command the options above; it gets the mappings as `chosen`."""
