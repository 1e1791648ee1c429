"""`ledger export`, `ledger verify-export`: the books for other programs, and back again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ledger import exports, reports
from ledger.cli.common import URL_DEFAULT, Url, existing, stderr, stdout
from ledger.cli.exit_codes import ExitCode
from ledger.cli.filters import filtered, tell_below
from ledger.cli.output import Force, target
from ledger.core.errors import InvalidInputError
from ledger.reports.render import counted, not_yet_charged, printable, usd

ExportFormat = Annotated[
    exports.Format | None,
    typer.Option(
        "--format", help="The format; by default as the file's ending says.", show_default=False
    ),
]
UpTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="POOL=ENTRY", help="Up to this entry of a pool; may be given again for other pools."
    ),
]


@filtered
def export(
    *,
    file: Annotated[
        str, typer.Argument(help="The file to write, or - for standard output.", show_default=False)
    ],
    output_format: ExportFormat = None,
    focus_version: Annotated[
        exports.FocusVersion, typer.Option(help="The version of FOCUS, with --format focus.")
    ] = exports.FocusVersion.V1_2,
    up_to: UpTo = None,
    force: Force = False,
    url: Url = URL_DEFAULT,
    where: reports.Filter,
) -> None:
    """Export entries as CSV, JSON Lines, Parquet or XLSX; charges for FOCUS, beancount, hledger.

    The file appears only when it is complete. With the --up-to options that are printed, the same
    file can be made again, byte for byte.

    Example: ledger export charges.csv --format focus --pool team --since 2024-02-01
    """
    with existing(url) as book:
        found = exports.write(
            book,
            where,
            target(file),
            format=output_format,
            focus_version=focus_version,
            up_to=_ends(up_to),
            force=force,
        )
        if not found.rows:
            tell_below(book, where)
        waiting = [] if up_to else not_yet_charged(reports.due(book, where, left_out=[]))
    ends = "".join(f" --up-to {shlex.quote(f'{name}={seq}')}" for name, seq in found.up_to.items())
    # Of one call, its reservation is a row too, and so is what other pools repeat of it.
    unpriced = (
        f", {counted(found.unpriced, 'row')} of them flagged unpriced" if found.unpriced else ""
    )
    said = f"{counted(found.rows, 'row')}{unpriced};{ends or ' no pool'}"
    for line in (said, *waiting):
        stderr().print(printable(line), markup=False, soft_wrap=True)


@filtered
def verify_export(
    *,
    file: Annotated[Path, typer.Argument(help="The file.", show_default=False)],
    output_format: ExportFormat = None,
    up_to: UpTo = None,
    url: Url = URL_DEFAULT,
    where: reports.Filter,
) -> None:
    """Compare an export with the journal, cell by cell. The exit code is 1 if they differ.

    Give the options that the export was made with. Entries that came later are counted. The
    journal itself is checked by 'ledger verify'.

    Example: ledger verify-export charges.csv --pool team --since 2024-02-01
    """
    with existing(url) as book:
        found = exports.verify(book, file, where, format=output_format, up_to=_ends(up_to))
    for line in _lines(found):
        stdout().print(printable(line), markup=False, soft_wrap=True)
    if not found.ok:
        raise typer.Exit(ExitCode.FOUND)


def _lines(found: exports.Checked) -> Sequence[str]:
    lines = [
        f"ok       {one.pool}: {counted(one.rows, 'row')}, the last of entry {one.last_seq}"
        + (
            f"; {counted(one.later, 'later one', 'later ones')} not in the file"
            * bool(one.later and found.ok)
        )
        for one in found.pools
        if one.rows or (one.later and found.ok)
    ]
    if found.redacted:
        lines.append(
            f"ok       {counted(found.redacted, 'row')} with an attribution that was erased since"
        )
    if found.difference is not None:
        where = f"row {found.difference.row:,}, entry {found.difference.seq}"
        return [*lines, f"DIFFERS  {found.difference.pool}: {where}: {found.difference.reason}"]
    total = f"{found.total_tokens:,} tokens, USD {usd(found.cost_micros_usd)}"
    return [*lines, f"ok       {found.table}: {counted(found.rows, 'row')}, {total}"]


def _ends(given: Sequence[str] | None) -> Mapping[str, int]:
    return dict(map(_end, given or ()))


def _end(text: str) -> tuple[str, int]:
    pool, _, seq = text.rpartition("=")
    if not (pool and seq.isascii() and seq.isdigit()):
        raise InvalidInputError("--up-to", f"{text!r} names no entry; write POOL=ENTRY")
    return pool, int(seq)
