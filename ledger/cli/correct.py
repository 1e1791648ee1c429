"""`ledger correct`: say what an entry's usage really was."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from ledger.cli.common import URL_DEFAULT, Acting, PoolName, Url, existing, stdout
from ledger.errors import InvalidInputError
from ledger.reports.render import usd
from ledger.simulate import parse_count, parse_usd

Count = Annotated[str | None, typer.Option(help="Tokens really used.", show_default=False)]
Cost = Annotated[str | None, typer.Option(help="US dollars really charged.", show_default=False)]


def correct(
    pool: PoolName,
    entry: Annotated[
        int,
        typer.Argument(
            help="The number of a settlement, observation, import or expiry.",
            show_default=False,
        ),
    ],
    reason: Annotated[
        str, typer.Option(help="The reason, which the journal keeps.", show_default=False)
    ],
    url: Url = URL_DEFAULT,
    input_tokens: Count = None,
    output_tokens: Count = None,
    total_tokens: Count = None,
    cost_usd: Cost = None,
    cache_creation_tokens: Count = None,
    cache_read_tokens: Count = None,
    reasoning_tokens: Count = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="An idempotency key: the same command again then changes nothing.",
            show_default=False,
        ),
    ] = None,
    actor: Acting = None,
) -> None:
    """Correct the usage of a settlement, observation, import or expiry.

    What no option names stays.

    The difference is appended as an entry of its own, and both stay in the books. With --key the
    whole usage should be named: the same command again must ask for the same.

    Example: ledger correct team 42 --total-tokens 1180 --cost-usd 0.0042 --reason "invoice 17"
    """
    named = named_amounts(
        cost_usd,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=total_tokens,
        cache_creation_tokens=cache_creation_tokens,
        cache_read_tokens=cache_read_tokens,
        reasoning_tokens=reasoning_tokens,
    )
    with existing(url, actor=actor) as book:
        budget = book.pool(pool)
        before = budget.usage_of(entry)
        moved = budget.correct(entry, replace(before, **named), reason, idempotency_key=key)
        after = budget.usage_of(entry)
    stdout().print(
        f"entry {entry}  tokens {after.total_tokens:,} ({moved.total_tokens:+,})  "
        f"USD {usd(after.cost_micros_usd)} ({'+' * (moved.cost_micros_usd >= 0)}"
        f"{usd(moved.cost_micros_usd)})",
        markup=False,
        soft_wrap=True,
    )


def named_amounts(cost_usd: str | None, **counts: str | None) -> dict[str, int]:
    """Return the amounts of a usage that were named on the command line.

    Raises:
        InvalidInputError: None was, or one of them is no amount.
    """
    named = {name: parse_count(name, text) for name, text in counts.items() if text is not None}
    if cost_usd is not None:
        named["cost_micros_usd"] = parse_usd("cost_usd", cost_usd)
    if not named:
        raise InvalidInputError("usage", "name at least one amount, such as --total-tokens")
    return named
