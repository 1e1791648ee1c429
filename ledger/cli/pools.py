"""`ledger pool`: open, list, show and adjust pools."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.book import Ledger
from ledger.checks import check_text
from ledger.cli.common import (
    NO_LIMITS,
    URL_DEFAULT,
    CapacityTokens,
    CapacityUsd,
    PoolName,
    StopTokens,
    StopUsd,
    Url,
    existing,
    policy,
    show_table,
)
from ledger.records import PoolStatus
from ledger.reports import statement
from ledger.reports.render import columns, limit, statement_table, text, usd

app = typer.Typer(help="Open, list, show and adjust pools.", no_args_is_help=True)


@app.command("open")
def open_pool(
    pool: PoolName,
    url: Url = URL_DEFAULT,
    capacity_tokens: CapacityTokens = None,
    capacity_usd: CapacityUsd = None,
    stop_tokens: StopTokens = None,
    stop_usd: StopUsd = None,
) -> None:
    """Make a pool, and the store if there is none. The same command again changes nothing.

    Example: ledger pool open team --capacity-usd 250 --stop-threshold-usd 10
    """
    check_text("pool", pool)
    options = policy(NO_LIMITS, capacity_tokens, capacity_usd, stop_tokens, stop_usd)
    with Ledger.open(url) as book:
        known = pool in {info.name for info in book.pools()}
        # Without options an existing pool is opened as it is, and a new one has no limits.
        asked = None if known and options == NO_LIMITS else options
        _print([book.pool(pool, asked).status()])


@app.command("list")
def list_pools(url: Url = URL_DEFAULT) -> None:
    """List the pools of the store with what is committed, held and left.

    Example: ledger pool list
    """
    with existing(url) as book:
        _print([book.pool(info.name).status() for info in book.pools()])


@app.command("show")
def show(pool: PoolName, url: Url = URL_DEFAULT) -> None:
    """Print a pool's statement: opening balance, movements by kind, closing balance.

    Example: ledger pool show team
    """
    with existing(url) as book:
        show_table(statement_table(statement(book, pool)), title=f"Statement of pool {pool}")


@app.command("adjust")
def adjust(
    pool: PoolName,
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.", show_default=False)],
    url: Url = URL_DEFAULT,
    capacity_tokens: CapacityTokens = None,
    capacity_usd: CapacityUsd = None,
    stop_tokens: StopTokens = None,
    stop_usd: StopUsd = None,
) -> None:
    """Change a pool's policy by an appended entry; what is not named stays as it is.

    Nothing that was granted is revoked, even if the new capacity is below what is committed.

    Example: ledger pool adjust team --capacity-usd 500 --reason "second quarter"
    """
    with existing(url) as book:
        current = book.pool(pool).status().policy
        options = policy(current, capacity_tokens, capacity_usd, stop_tokens, stop_usd)
        book.adjust(pool, options, reason=reason)
        _print([book.pool(pool).status()])


def _print(found: list[PoolStatus]) -> None:
    table = columns(
        "Pool",
        *(
            f"{figure}\n{unit}"
            for figure in ("Capacity", "Committed", "Held", "Remaining")
            for unit in ("tokens", "USD")
        ),
    )
    for one in found:
        rules, (committed, held), left = one.policy, one.balance, one.remaining
        table.add_row(
            text(one.pool.name),
            limit(rules.capacity_tokens, f"{rules.capacity_tokens:,}"),
            limit(rules.capacity_cost_micros_usd, usd(rules.capacity_cost_micros_usd)),
            f"{committed.tokens:,}",
            usd(committed.cost_micros_usd),
            f"{held.tokens:,}",
            usd(held.cost_micros_usd),
            limit(rules.capacity_tokens, f"{left.tokens:,}"),
            limit(rules.capacity_cost_micros_usd, usd(left.cost_micros_usd)),
        )
    show_table(table)
