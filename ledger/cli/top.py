"""`ledger top`: pools, open leases and spend as they are now."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import URL_DEFAULT, Url, Wide, existing, show, stdout, tell_left_out
from ledger.cli.filters import length_s, listing
from ledger.core.errors import InvalidInputError, MissingExtraError
from ledger.reports.render import moment, open_leases_sheet, pools_sheet

_TIMEOUT_S = 2.0
"""How long one read may wait, in seconds. After that the view shows the error, and reads again."""


@listing
def top(
    *,
    where: reports.Filter,
    every: Annotated[str, typer.Option(help="How often to read the store: 1s, 10s, 1m.")] = "1s",
    once: Annotated[
        bool, typer.Option("--once", help="Print once and end; a pipe does the same.")
    ] = False,
    url: Url = URL_DEFAULT,
    wide: Wide = False,
) -> None:
    """Follow pools, open leases and spend live. Keys: q quit, p pause, s sort, tab and arrows.

    It reads snapshots, so no writer waits or retries because of it.

    Example: ledger top --every 2s
    """
    seconds = length_s("--every", every)
    if seconds == 0:
        raise InvalidInputError("--every", "must be 1s or more")
    with existing(url, timeout_s=_TIMEOUT_S) as book:
        found = reports.glance(book, where)
        if once or not stdout().is_terminal:
            stdout().print(f"At {moment(found.at)}", soft_wrap=True)
            show(pools_sheet(found.pools, found.unpriced), wide=wide)
            show(open_leases_sheet(found.leases), wide=wide)
            tell_left_out(found.left_out)
            return
        try:
            from ledger.cli.live import LiveView  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(what="textual", extra="top") from error
        LiveView(book, where, every_s=seconds, first=found).run()
