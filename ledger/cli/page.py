"""`ledger report page` and `ledger report chart`: the store as a page, and pictures of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import URL_DEFAULT, Url, existing, progress_bar, tell_left_out
from ledger.cli.exit_codes import ExitCode
from ledger.cli.filters import Now, Zone, filtered, moment_in
from ledger.cli.output import Force, said_written, target
from ledger.core.axes import AXES
from ledger.core.calendar import zone_named
from ledger.core.errors import InvalidInputError, LeftOut
from ledger.ledger import Ledger
from ledger.reports.charts import (
    Picture,
    burn_down_pictures,
    estimates_picture,
    runs_picture,
    spend_picture,
)
from ledger.reports.page import whole_page, write_page


class Chart(StrEnum):
    """What can be drawn."""

    BURN_DOWN = "burn-down"
    SPEND = "spend"
    RUNS = "runs"
    ESTIMATES = "estimates"


class PictureAxis(StrEnum):
    """What a burn-down counts."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


_AXES = {PictureAxis(axis.shown.lower()): axis.name for axis in AXES}


@filtered
def page(
    *,
    html: Annotated[
        Path, typer.Option("--html", help="The file that the page goes into.", show_default=False)
    ],
    no_verify: Annotated[
        bool,
        typer.Option(
            "--no-verify", help="Do not verify every entry, which takes long for large stores."
        ),
    ] = False,
    now: Now = None,
    zone: Zone = "UTC",
    force: Force = False,
    url: Url = URL_DEFAULT,
    where: reports.Filter,
) -> None:
    """Write the books as one page: pools, spend, runs, estimates, leases, verification.

    The page is one file that needs no network. The exit code is 1 if damage was found.

    Example: ledger report page --html ledger.html
    """
    at = moment_in("--now", now, zone_named(zone))
    with existing(url) as book, progress_bar() as bar:
        task = bar.add_task("Verifying", total=None if no_verify else book.size())
        found = reports.overview(
            book,
            where,
            zone=zone,
            now=at,
            verify=not no_verify,
            progress=lambda count: bar.advance(task, count),
        )
    write_page(whole_page(found), target(html), force=force, keep=book.files)
    said_written(html)
    tell_left_out(found.left_out)
    if not all(one.ok for one in found.verified or []):
        raise typer.Exit(ExitCode.FOUND)


@filtered
def chart(
    *,
    name: Annotated[Chart, typer.Argument(help="What to draw.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option("--out", help="The file: its name ends in .svg or .png.", show_default=False),
    ],
    axis: Annotated[
        PictureAxis | None,
        typer.Option(help="What a burn-down counts; by default the first axis with a limit."),
    ] = None,
    zone: Zone = "UTC",
    force: Force = False,
    url: Url = URL_DEFAULT,
    where: reports.Filter,
) -> None:
    """Draw the burn-down of one pool, spend per day by model, the costliest runs, or estimates.

    Example: ledger report chart burn-down --pool team --out team.svg
    """
    lost: LeftOut = []
    with existing(url) as book:
        picture = _drawn(book, where, name, axis, zone, lost)
    picture.save(out, force=force, keep=book.files)
    said_written(out)
    tell_left_out(lost)


def _drawn(
    book: Ledger,
    where: reports.Filter,
    name: Chart,
    axis: PictureAxis | None,
    zone: str,
    lost: LeftOut,
) -> Picture:
    match name:
        case Chart.BURN_DOWN:
            return _burn_down(book, where, axis)
        case Chart.SPEND:
            return spend_picture(
                reports.spend(book, where, by=["day", "model"], zone=zone, left_out=lost)
            )
        case Chart.RUNS:
            return runs_picture(reports.runs(book, where, left_out=lost))
        case Chart.ESTIMATES:
            return estimates_picture(reports.estimates(book, where, by=["model"], left_out=lost))


def _burn_down(book: Ledger, where: reports.Filter, axis: PictureAxis | None) -> Picture:
    if len(where.pools) != 1 or where.descendants:
        raise InvalidInputError("--pool", "a burn-down is that of one pool; name it alone")
    whole = reports.Filter(pools=where.pools, as_of=where.as_of, basis=where.basis)
    if where != whole:
        raise InvalidInputError(
            "burn-down", "is that of a whole pool; it takes --pool, --as-of and --recorded alone"
        )
    (pool,) = where.pools
    found = reports.burn_down(book, pool, as_of=where.as_of, basis=where.basis)
    pictures = burn_down_pictures(found)
    if axis is None:
        return next(iter(pictures.values()))
    if _AXES[axis] not in pictures:
        raise InvalidInputError("--axis", f"the pool has no limit in {axis.value}")
    return pictures[_AXES[axis]]
