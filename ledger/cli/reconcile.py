"""`ledger reconcile`: compare a provider's bill with the journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import (
    URL_DEFAULT,
    ActorOption,
    OutputFormat,
    PrintFormat,
    Url,
    Wide,
    emit,
    existing,
    show,
    stdout,
)
from ledger.cli.exit_codes import ExitCode
from ledger.cli.filters import filtered, tell_below
from ledger.cli.mappings import read, reading
from ledger.files.mapping import BillMapping
from ledger.reconcile import (
    Explained,
    ExplainedRow,
    Match,
    Reconciliation,
    Status,
    apply,
    explain,
)
from ledger.reconcile import reconcile as held_against
from ledger.reconcile.sheets import (
    about,
    explained_sheets,
    matches_sheet,
    next_steps,
    summary_sheet,
)
from ledger.reports.buckets import Unit
from ledger.reports.render import printable
from ledger.simulate import parse_count, parse_usd

_TOP = 20

BillPath = Annotated[
    Path,
    typer.Argument(
        help="The provider's bill, or a log: CSV, JSON, .xlsx or Parquet, also in gzip or zip.",
        show_default=False,
    ),
]
Axes = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this amount, such as cost_micros_usd; may be given again. By default all "
        "amounts in the file."
    ),
]
By = Annotated[Unit, typer.Option(help="Compare lines without a request id by this piece of time.")]
Apply = Annotated[
    bool, typer.Option("--apply", help="Append a correction for each request that differs.")
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Only print what the mapping reads of the file's first rows; nothing is compared, "
        "and no store is opened.",
    ),
]


@reading
@filtered
def reconcile(
    file: BillPath,
    *,
    chosen: Sequence[BillMapping],
    axis: Axes = None,
    tolerance_tokens: Annotated[
        str, typer.Option(help="The largest difference in tokens that still matches.")
    ] = "0",
    tolerance_usd: Annotated[
        str, typer.Option(help="The largest difference in US dollars that still matches.")
    ] = "0",
    by: By = Unit.DAY,
    apply_: Apply = False,
    actor: ActorOption = None,
    explain_: Explain = False,
    top: Annotated[
        int, typer.Option(min=0, help="How many matches of a kind a table shows; JSON has all.")
    ] = _TOP,
    url: Url = URL_DEFAULT,
    output_format: OutputFormat = PrintFormat.TABLE,
    wide: Wide = False,
    where: reports.Filter,
) -> None:
    """Compare a provider's bill with the journal, by request id or by model and day.

    Exit code 0 if they agree (with --apply: afterwards), 1 if they differ, 2 if the file or the
    store cannot be read. Without --apply nothing is written; with it each correction once.

    Example: ledger reconcile usage.csv --mapping openai-usage --provider openai --axis total_tokens
    """
    if explain_:
        explained = explain(file, chosen, rows=top)
        emit(
            explained.rows if output_format is PrintFormat.CSV else [explained],
            ExplainedRow,
            output_format,
            lambda: _print_explained(explained, wide=wide),
        )
        return
    bill = read(file, chosen)
    with existing(url, actor=actor) if apply_ else existing(url) as book:
        tell_below(book, where)
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
        found.matches if output_format is PrintFormat.CSV else [found]
    )
    emit(rows, Match, output_format, lambda: _print(found, top=top, wide=wide))
    if not found.agrees:
        raise typer.Exit(ExitCode.FOUND)


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
    for said in (*next_steps(found), about(found)):
        for line in said.split("\n"):
            stdout().print(printable(line), markup=False, soft_wrap=True)
