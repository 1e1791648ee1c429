"""`ledger pool`: open, list, show, adjust and top up pools."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Annotated

import typer

from ledger.cli.common import (
    NO_LIMITS,
    URL_DEFAULT,
    ActorOption,
    OutputFormat,
    PoolName,
    PrintFormat,
    Url,
    emit,
    existing,
    show,
    stderr,
    stdout,
    tell_left_out,
)
from ledger.cli.filters import Zone, listing, moment_in
from ledger.cli.policies import Changes, changing
from ledger.core.calendar import zone_named
from ledger.core.checks import check_text
from ledger.core.credits import PRIORITY_DEFAULT, Credit
from ledger.core.errors import LeftOut, UnknownPoolError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.status import PoolStatus
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.reports import Filter, Movement, standing, statement, unpriced
from ledger.reports.render import (
    PoolRow,
    pools_sheet,
    printable,
    silent_thresholds,
    statement_notes,
    statement_sheet,
)
from ledger.simulate import parse_count, parse_usd

app = typer.Typer(help="Open, list, show, adjust and top up pools.", no_args_is_help=True)

Parent = Annotated[
    str | None,
    typer.Option(help="The pool above it: what this pool holds and spends counts there, too."),
]
Carved = Annotated[
    bool,
    typer.Option("--carved", help="Set the whole capacity aside in the parent, in advance."),
]
Reason = Annotated[
    str, typer.Option(help="The reason, which the journal keeps.", show_default=False)
]


@app.command("open")
@changing
def open_pool(
    *,
    pool: PoolName,
    url: Url = URL_DEFAULT,
    changed: Changes,
    parent: Parent = None,
    carved: Carved = False,
    actor: ActorOption = None,
) -> None:
    """Make a pool, and the store if there is none. If the pool exists, nothing changes.

    Example: ledger pool open team --capacity-usd 250 --stop-threshold-usd 10 --parent org
    """
    check_text("pool", pool)
    options = changed(NO_LIMITS)
    with Ledger.open(url, actor=actor) as book:
        known = pool in {info.name for info in book.pools(left_out=[])}
        # Without options an existing pool is opened as it is, and a new one has no limits.
        asked = None if known and options == NO_LIMITS else options
        _print_one(book, book.pool(pool, asked, parent=parent, carved=carved))


@app.command("close")
def close_pool(
    pool: PoolName,
    reason: Reason,
    url: Url = URL_DEFAULT,
    actor: ActorOption = None,
) -> None:
    """Close a pool for good: open leases can be settled or released, new ones are refused.

    What a carved pool has not spent goes back to its parent. It must have no open leases.

    Example: ledger pool close worker-1 --reason "the job is done"
    """
    with existing(url, actor=actor) as book:
        book.close_pool(pool, reason=reason)
        _print_one(book, book.pool(pool))


@app.command("list")
@listing
def list_pools(
    *, where: Filter, url: Url = URL_DEFAULT, output_format: OutputFormat = PrintFormat.TABLE
) -> None:
    """List the pools of the store with what is committed, held and left.

    A damaged pool is named on standard error and left out; the exit code is then 1.

    Example: ledger pool list --match "customer-*" --state all
    """
    lost: LeftOut = []
    with existing(url) as book:
        found = standing(book, where, left_out=lost)
        records = unpriced(book, where, left_out=[])
    _print(found, records, output_format)
    tell_left_out(lost)


@app.command("show")
def show_pool(
    pool: PoolName, url: Url = URL_DEFAULT, output_format: OutputFormat = PrintFormat.TABLE
) -> None:
    """Print a pool's statement: opening balance, movements by kind, closing balance.

    JSON holds all of it, CSV the movements.

    Example: ledger pool show team
    """
    with existing(url) as book:
        found, now = statement(book, pool), book.now()
    rows = found.movements if output_format is PrintFormat.CSV else [found]

    def people() -> None:
        show(statement_sheet(found))
        for line in statement_notes(found, now):
            stdout().print(line, markup=False, soft_wrap=True)

    emit(rows, Movement, output_format, people)


@app.command("adjust")
@changing
def adjust(
    *,
    pool: PoolName,
    reason: Reason,
    url: Url = URL_DEFAULT,
    changed: Changes,
    actor: ActorOption = None,
) -> None:
    """Change a pool's policy by an appended entry. What no option names stays as it is.

    No lease is revoked, even if the new capacity is below what is committed.

    Example: ledger pool adjust team --capacity-usd 500 --reason "second quarter"
    """
    with existing(url, actor=actor) as book:
        before = book.pool(pool).status().policy
        options = changed(before)
        book.adjust(pool, options, reason=reason)
        _print_one(book, book.pool(pool))
    _say_changed(before, options)


@app.command("credit")
def credit(
    pool: PoolName,
    name: Annotated[
        str, typer.Argument(help="Its name in reports and refusals.", show_default=False)
    ],
    tokens: Annotated[
        str | None, typer.Option(help="How many tokens it gives.", show_default=False)
    ] = None,
    usd: Annotated[
        str | None, typer.Option(help="How many US dollars it gives.", show_default=False)
    ] = None,
    requests: Annotated[
        str | None, typer.Option(help="How many calls it gives.", show_default=False)
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(
            help="When it expires: 2026-02-01, or with a time and zone. "
            "By default it never expires.",
            show_default=False,
        ),
    ] = None,
    zone: Zone = "UTC",
    priority: Annotated[
        int,
        typer.Option(help="0 to 100: a lower one is used first, then what expires sooner."),
    ] = PRIORITY_DEFAULT,
    reason: Annotated[
        str | None,
        typer.Option(help="The reason, which the journal keeps.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="An idempotency key: the same command again then gives nothing more.",
            show_default=False,
        ),
    ] = None,
    url: Url = URL_DEFAULT,
    actor: ActorOption = None,
) -> None:
    """Give a prepaid pool a credit, by an appended entry.

    The pool spends no more than its credits on the axes that --prepaid of 'pool open' names.

    Example: ledger pool credit team july --usd 50 --expires-at 2026-08-01 --key invoice-17
    """
    given = Credit(
        name=name,
        tokens=0 if tokens is None else parse_count("tokens", tokens),
        cost_micros_usd=0 if usd is None else parse_usd("usd", usd),
        requests=0 if requests is None else parse_count("requests", requests),
        expires_at=moment_in("expires_at", expires_at, zone_named(zone)),
        priority=priority,
    )
    with existing(url, actor=actor) as book:
        book.credit(pool, given, reason=reason, idempotency_key=key)
        _print_one(book, book.pool(pool))


@app.command("ensure")
@changing
def ensure(
    *,
    pool: PoolName,
    reason: Reason,
    url: Url = URL_DEFAULT,
    changed: Changes,
    parent: Parent = None,
    carved: Carved = False,
    actor: ActorOption = None,
) -> None:
    """Bring a pool to a policy; make it, and the store, if there is none. Again, it does nothing.

    What no option names gets its default, as in a new pool.

    Example: ledger pool ensure team --capacity-usd 500 --reason "deployment 41"
    """
    check_text("pool", pool)
    options = changed(NO_LIMITS)
    with Ledger.open(url, actor=actor) as book:
        before = _policy_of(book, pool)
        budget = book.ensure(pool, options, reason=reason, parent=parent, carved=carved)
        _print_one(book, budget)
    _say_changed(before, options)


def _say_changed(before: SharedPoolBudgetOptions | None, options: SharedPoolBudgetOptions) -> None:
    """Say what a pool's policy was and is, and which limits are new beside others of their time."""
    if before is None or before == options:
        return
    was = {one.name: one for one in before.limits}
    said = [
        f"was: {before}",
        f"is:  {options}",
        *(
            f"limit {new.name!r} is new. {old.name!r}, of the same time, stays as it was "
            f"(--limit {quote(f'{old.name}: off')} takes it away)"
            for new in options.limits
            for old in options.limits
            if new.name not in was and was.get(old.name) == old and old.period == new.period
        ),
    ]
    for line in said:
        stderr().print(printable(line), markup=False, soft_wrap=True)


def _policy_of(book: Ledger, pool: str) -> SharedPoolBudgetOptions | None:
    try:
        return book.pool(pool).status().policy
    except UnknownPoolError:
        return None


def _print_one(book: Ledger, budget: LedgerBudgetManager) -> None:
    status = budget.status()
    _print([status], unpriced(book, status.pool.name))
    for line in silent_thresholds(status.policy):
        stderr().print(printable(line), markup=False, soft_wrap=True)


def _print(
    found: list[PoolStatus],
    records: Mapping[str, int],
    output_format: PrintFormat = PrintFormat.TABLE,
) -> None:
    emit(
        [PoolRow.of(one, records.get(one.pool.name, 0)) for one in found],
        PoolRow,
        output_format,
        lambda: show(pools_sheet(found, records)),
    )
