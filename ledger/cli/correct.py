"""`ledger correct`: say what an entry's usage really was."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.cli.common import URL_DEFAULT, ActorOption, PoolName, Url, existing, stdout
from ledger.cli.usage import usage_of, used
from ledger.reports.render import usd


@used
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
    *,
    url: Url = URL_DEFAULT,
    used: dict[str, int],
    key: Annotated[
        str | None,
        typer.Option(
            help="An idempotency key: the same command again then changes nothing.",
            show_default=False,
        ),
    ] = None,
    actor: ActorOption = None,
) -> None:
    """Correct the usage of a settlement, observation, import or expiry.

    What no option names stays; a total that is not named follows its parts, where it was their sum
    or both are named.

    The difference is appended as an entry of its own, and both stay in the books. With --key the
    whole usage should be named: the same command again must ask for the same.

    A correction keeps the entry's request id. If that is not the bill's, correct the entry to 0,
    and record the call under the bill's id with 'ledger record'.

    Example: ledger correct team 42 --total-tokens 1180 --cost-usd 0.0042 --reason "invoice 17"
    """
    with existing(url, actor=actor) as book:
        budget = book.pool(pool)
        before = budget.usage_of(entry)
        moved = budget.correct(entry, usage_of(used, before), reason, idempotency_key=key)
        after = budget.usage_of(entry)
    stdout().print(
        f"entry {entry}  tokens {after.total_tokens:,} ({moved.total_tokens:+,})  "
        f"USD {usd(after.cost_micros_usd)} ({'+' * (moved.cost_micros_usd >= 0)}"
        f"{usd(moved.cost_micros_usd)})",
        markup=False,
        soft_wrap=True,
    )
