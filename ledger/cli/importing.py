"""`ledger import` and `ledger record`: calls of the past, from a file or one by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.common import (
    URL_DEFAULT,
    ActorOption,
    OutputFormat,
    PoolName,
    PrintFormat,
    Url,
    Wide,
    emit,
    existing,
    progress_bar,
    show,
    stdout,
)
from ledger.cli.exit_codes import ExitCode
from ledger.cli.filters import moment_in
from ledger.cli.mappings import read, reading
from ledger.cli.prices import NoLibrary
from ledger.cli.usage import for_whom, usage_of, used
from ledger.core.calendar import zone_named
from ledger.core.entries import Entry
from ledger.core.errors import IdempotencyConflictError, InvalidInputError
from ledger.core.extensions import Attribution
from ledger.core.kinds import CORRECTABLE
from ledger.core.past_calls import PastCall
from ledger.core.usage_reports import UsageReport
from ledger.core.values import USAGE_FIELDS, Provenance, Usage
from ledger.files.mapping import BillMapping
from ledger.importing import Calls, Changed, Imported, import_calls, record_call
from ledger.importing.books import find_lease
from ledger.importing.sheets import about, summary_sheet
from ledger.ledger import Ledger
from ledger.prices import PriceList
from ledger.reports.render import printable, usd

From = Annotated[Provenance, typer.Option(help="Where the figures are from.")]
PastFile = Annotated[
    Path,
    typer.Argument(
        help="A log, a trace or a provider's export: CSV, JSON, .xlsx or Parquet, also in gzip "
        "or zip.",
        show_default=False,
    ),
]
WhatChangesMean = Annotated[
    Changed,
    typer.Option(
        help="What to do if a line without a request id has other amounts than in a file that was "
        "imported before: refuse the file, or correct what was imported."
    ),
]
Account = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="The account of the file, which tells its lines without a request id from those of "
        "other files. By default the mapping's name.",
        show_default=False,
    ),
]
LIBRARY = "genai-prices"
PriceLines = Annotated[
    str | None,
    typer.Option(
        "--prices",
        help="Price lines without a cost by your own price table (TOML), which comes before "
        f"genai-prices; {LIBRARY!r} uses only genai-prices.",
        show_default=False,
    ),
]


@reading
@for_whom
def import_(
    pool: PoolName,
    file: PastFile,
    *,
    chosen: Sequence[BillMapping],
    changed: WhatChangesMean = Changed.REFUSE,
    source: Account = None,
    whom: Attribution,
    provenance: From = Provenance.RECOVERED,
    prices: PriceLines = None,
    no_library: NoLibrary = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done; nothing is written.")
    ] = False,
    exact_costs: Annotated[
        bool,
        typer.Option(
            "--exact-costs",
            help="Keep the exact cost of a call if the file states it finer than in micro-USD.",
        ),
    ] = False,
    actor: ActorOption = None,
    url: Url = URL_DEFAULT,
    output_format: OutputFormat = PrintFormat.TABLE,
    wide: Wide = False,
) -> None:
    """Import history into a pool: each call once, at its own time, with the totals proved.

    The pool must exist: open it first (ledger pool open team). The same file may be imported again,
    also once it has grown. Exit code 0 if the journal then says of these calls what the file says,
    1 if not, 2 if the file or a line of it cannot be imported: then nothing is.

    Example: ledger import team session.jsonl --mapping claude-code
    """
    calls = Calls(
        bill=read(file, chosen, attributed=True),
        attribution=None if whom == Attribution() else whom,
        source=source,
        provenance=provenance,
        prices=_price_list(prices, library=not no_library),
    )
    with (
        existing(url) if dry_run else existing(url, actor=actor, exact_costs=exact_costs) as book,
        progress_bar() as bar,
    ):
        task = bar.add_task("Importing", total=len(calls.bill.lines))
        found = import_calls(
            book,
            pool,
            calls,
            changed=changed,
            dry_run=dry_run,
            progress=lambda done: bar.advance(task, done),
        )
    emit([found], Imported, output_format, lambda: _print(found, wide=wide))
    if not found.agrees:
        raise typer.Exit(ExitCode.FOUND)


def _price_list(named: str | None, *, library: bool) -> PriceList | None:
    if named is None:
        return None
    return PriceList(None if named == LIBRARY else named, library=library)


def _print(found: Imported, *, wide: bool) -> None:
    show(summary_sheet(found), wide=wide)
    stdout().print(printable(about(found)), markup=False, soft_wrap=True)


@used
@for_whom
def record(
    pool: PoolName,
    reason: Annotated[
        str, typer.Option(help="The reason, which the journal keeps.", show_default=False)
    ],
    *,
    url: Url = URL_DEFAULT,
    request_id: Annotated[
        str | None, typer.Option(help="The provider's id of the call.", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="When the call was made, such as 2024-02-29T12:00:00Z; without it, now.",
            show_default=False,
        ),
    ] = None,
    lease: Annotated[
        str | None,
        typer.Option(
            help="The token of its lease, if the program still has it and the store lost it. The "
            "program may record the call, too: it counts once.",
            show_default=False,
        ),
    ] = None,
    used: dict[str, int],
    model: Annotated[str | None, typer.Option(help="The model.", show_default=False)] = None,
    whom: Attribution,
    key: Annotated[
        str | None,
        typer.Option(
            help="An idempotency key; by default made from the request id.",
            show_default=False,
        ),
    ] = None,
    actor: ActorOption = None,
) -> None:
    """Record one call that was billed and is not in the books, as after a restored backup.

    It counts at its own time, and once: also if the file that tells of it is imported later. A call
    whose request id is in the books is refused.

    Example: ledger record team --request-id req_9 --cost-usd 0.02 --reason "lost with the disk"
    """
    usage = usage_of(used)
    attribution = replace(whom, model=model, request_id=request_id)
    when = moment_in("at", at, zone_named("UTC"))
    with existing(url, actor=actor) as book:
        if lease is not None:
            why = reason if actor is None else f"{reason}, by {actor}"
            report = UsageReport(
                provenance=Provenance.RECOVERED, occurred_at=when, detail={"reason": why}
            )
            said = _record_lost(book, pool, lease, usage, attribution, report)
        else:
            call = PastCall(
                usage=usage,
                occurred_at=book.now() if when is None else when,
                attribution=attribution,
                idempotency_key=key,
            )
            imported = record_call(book, pool, call, reason)
            said = f"entry {imported.entry}  {'recorded' if imported.is_new else 'was there'}"
    stdout().print(
        printable(f"{said}  tokens {usage.total_tokens:,}  USD {usd(usage.cost_micros_usd)}"),
        markup=False,
        soft_wrap=True,
    )


def _record_lost(
    book: Ledger,
    pool: str,
    lease: str,
    usage: Usage,
    attribution: Attribution,
    report: UsageReport,
) -> str:
    """Record a call of a lease that the store lost, and return what is said of it.

    Raises:
        InvalidInputError: It is in the books with other figures, or in another pool; or the lease
            is not lost.
    """
    granted, there = find_lease(book, lease)
    if granted is not None:
        raise InvalidInputError(
            "lease",
            f"{lease} is not lost: entry {granted.seq} of pool {granted.pool!r} reserved it; "
            "'ledger leases settle' records what it used",
        )
    if there is None:
        # The program itself may record it meanwhile, with other figures or another reason.
        with suppress(IdempotencyConflictError):
            book.pool(pool).record_lost(lease, usage, attribution=attribution, report=report)
            return f"lease {lease}  recorded"
        _, there = find_lease(book, lease)
    if there is not None:
        if there.pool != pool:
            raise InvalidInputError(
                "lease",
                f"its call is in the books already, in another pool: entry {there.seq} of pool "
                f"{there.pool!r}",
            )
        end = next(book.entries(pool, after=there.seq - 1))
        _check_same(end, _usage_upto(book, pool, end), usage, pool)
    return f"lease {lease}  was there"


def _usage_upto(book: Ledger, pool: str, end: Entry) -> Usage:
    """Return what the entry that ends a lost lease says, with what was booked ahead of it."""
    begun = end.seq if end.lease is None else end.lease.lease
    found = Usage()
    for entry in takewhile(lambda one: one.seq <= end.seq, book.entries(pool, after=begun)):
        if entry.kind in CORRECTABLE and isinstance(entry.usage, Usage):
            found = found.saturating_add(entry.usage)
    return found


def _check_same(there: Entry, known: Usage, usage: Usage, pool: str) -> None:
    said = ", ".join(
        f"{name} {getattr(known, name):,} (not {getattr(usage, name):,})"
        for name in USAGE_FIELDS
        if getattr(known, name) != getattr(usage, name)
    )
    if said:
        raise InvalidInputError(
            "lease",
            f"its call is in the books already, with other figures: entry {there.seq} of pool "
            f"{pool!r} says {said}; correct that entry if it is wrong (ledger correct)",
        )
