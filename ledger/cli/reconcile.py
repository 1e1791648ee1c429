"""`ledger reconcile`: hold what a provider billed against the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger import reports
from ledger.cli.common import (
    URL_DEFAULT,
    Acting,
    Format,
    OutputFormat,
    Url,
    Wide,
    emit,
    existing,
    show,
    stdout,
)
from ledger.cli.filters import filtered
from ledger.errors import InvalidInputError
from ledger.reconcile import (
    READY,
    BillMapping,
    Explained,
    ExplainedRow,
    Identical,
    Match,
    Reconciliation,
    Repeats,
    Status,
    apply,
    explain,
    read_bill,
    read_mappings,
)
from ledger.reconcile import reconcile as held_against
from ledger.reconcile.sheets import about, explained_sheets, matches_sheet, summary_sheet
from ledger.reports.buckets import Unit
from ledger.reports.render import printable
from ledger.simulate import parse_count, parse_usd

_TOP = 20

By = Annotated[Unit, typer.Option(help="Compare lines without a request id by this piece of time.")]
WhatRepeatsMean = Annotated[
    Repeats | None,
    typer.Option(
        help="What it means if lines have the same request id: refuse them, add them, or take the "
        "last. Without it, what the mapping says."
    ),
]
WhatIdenticalMean = Annotated[
    Identical | None,
    typer.Option(
        help="What it means if two lines are identical: refuse to apply the bill, add them, or "
        "count them once. Without it, what the mapping says."
    ),
]


@filtered
def reconcile(
    file: Annotated[
        Path,
        typer.Argument(
            help="The provider's bill, or a log: CSV, JSON, .xlsx or Parquet, also in gzip or zip.",
            show_default=False,
        ),
    ],
    *,
    mapping: Annotated[
        str,
        typer.Option(
            help=f"What the columns mean: {', '.join(READY)}, or a TOML or JSON file.",
        ),
    ] = "generic",
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this amount, such as cost_micros_usd; may be given again. By default all "
            "amounts in the file."
        ),
    ] = None,
    tolerance_tokens: Annotated[
        str, typer.Option(help="By how many tokens both may differ and still match.")
    ] = "0",
    tolerance_usd: Annotated[
        str, typer.Option(help="By how many US dollars both may differ and still match.")
    ] = "0",
    by: By = Unit.DAY,
    repeats: WhatRepeatsMean = None,
    identical: WhatIdenticalMean = None,
    apply_: Annotated[
        bool,
        typer.Option("--apply", help="Append a correction for each request that differs."),
    ] = False,
    actor: Acting = None,
    explain_: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Only print what the mapping reads of the file's first rows; nothing is compared, "
            "and no store is opened.",
        ),
    ] = False,
    top: Annotated[
        int, typer.Option(min=0, help="How many matches of a kind a table shows; JSON has all.")
    ] = _TOP,
    url: Url = URL_DEFAULT,
    output_format: OutputFormat = Format.TABLE,
    wide: Wide = False,
    where: reports.Filter,
) -> None:
    """Compare a provider's bill with the journal, by request id or by model and day.

    Exit code 0 if they agree (with --apply: afterwards), 1 if they differ, 2 if the file or the
    store cannot be read. Without --apply nothing is written; with it each correction once.

    Example: ledger reconcile usage.csv --mapping openai-usage --provider openai --axis total_tokens
    """
    mappings = _mappings(mapping, repeats=repeats, identical=identical)
    if explain_:
        explained = explain(file, mappings, rows=top)
        emit(
            explained.rows if output_format is Format.CSV else [explained],
            ExplainedRow,
            output_format,
            lambda: _print_explained(explained, wide=wide),
        )
        return
    bill = read_bill(file, mappings)
    with existing(url, actor=actor) as book:
        found = held_against(
            book,
            bill,
            where,
            tolerance_tokens=parse_count("--tolerance-tokens", tolerance_tokens),
            tolerance_cost_micros_usd=parse_usd("--tolerance-usd", tolerance_usd),
            axes=axis or (),
            by=by,
        )
        if apply_:
            found = apply(book, found)
    rows: Sequence[Match | Reconciliation] = (
        found.matches if output_format is Format.CSV else [found]
    )
    emit(rows, Match, output_format, lambda: _print(found, top=top, wide=wide))
    if not found.agrees:
        raise typer.Exit(1)


def _mappings(
    named: str, *, repeats: Repeats | None, identical: Identical | None
) -> Sequence[BillMapping]:
    given = {"repeats": repeats, "identical": identical}
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return [replace(one, **said) for one in _named(named)]


def _named(named: str) -> Sequence[BillMapping]:
    if named in READY:
        return READY[named]
    path = Path(named)
    if path.suffix not in {".toml", ".json"}:
        raise InvalidInputError(
            "--mapping", f"{named!r} is none of {', '.join(READY)}, nor a .toml or .json file"
        )
    return read_mappings(path)


def _print_explained(found: Explained, *, wide: bool) -> None:
    for sheet in explained_sheets(found):
        show(sheet, wide=wide)
    if found.unread:
        said = f"Columns not read: {', '.join(found.unread)}"
        stdout().print(printable(said), markup=False, soft_wrap=True)


def _print(found: Reconciliation, *, top: int, wide: bool) -> None:
    show(summary_sheet(found), wide=wide)
    for status in (*(one for one in Status if one is not Status.MATCHED), Status.MATCHED):
        if found.of(status) and top:
            show(matches_sheet(found, status, top=top), wide=wide)
    stdout().print(printable(about(found)), markup=False, soft_wrap=True)
