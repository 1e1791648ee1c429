"""Options that say what a call used, and for whom it was made."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from ledger.cli.gathered import gathered
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution
from ledger.core.values import Usage
from ledger.simulate import parse_count, parse_usd

_BOTH = 2


def _count(what: str) -> Any:  # noqa: ANN401 - an option
    return typer.Option(help=what, show_default=False)


Cost = Annotated[str | None, typer.Option(help="What it cost, in US dollars.", show_default=False)]
Run = Annotated[str | None, typer.Option(help="The run it was for.", show_default=False)]
Tenant = Annotated[str | None, typer.Option(help="The tenant it was for.", show_default=False)]
Agent = Annotated[str | None, typer.Option(help="The agent that made it.", show_default=False)]
Provider = Annotated[str | None, typer.Option(help="The provider.", show_default=False)]


def _used(
    *,
    input_tokens: Annotated[str | None, _count("Input tokens used, cached or not.")] = None,
    output_tokens: Annotated[str | None, _count("Output tokens used, reasoning included.")] = None,
    total_tokens: Annotated[
        str | None,
        _count("Input and output tokens together; by default the sum of the two."),
    ] = None,
    cost_usd: Cost = None,
    cache_creation_tokens: Annotated[
        str | None, _count("Of the input: tokens written to a cache.")
    ] = None,
    cache_read_tokens: Annotated[
        str | None, _count("Of the input: tokens read from a cache.")
    ] = None,
    reasoning_tokens: Annotated[str | None, _count("Of the output: tokens of reasoning.")] = None,
) -> dict[str, int]:
    """Return the amounts of a usage that were named on the command line.

    Raises:
        InvalidInputError: None was, or one of them is no amount.
    """
    counts = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": total_tokens,
        "cache_creation_tokens": cache_creation_tokens,
        "cache_read_tokens": cache_read_tokens,
        "reasoning_tokens": reasoning_tokens,
    }
    named = {name: parse_count(name, text) for name, text in counts.items() if text is not None}
    if cost_usd is not None:
        named["cost_micros_usd"] = parse_usd("cost_usd", cost_usd)
    if not named:
        raise InvalidInputError("usage", "name at least one amount, such as --total-tokens")
    return named


def usage_of(named: dict[str, int], before: Usage | None = None) -> Usage:
    """Return a usage of the amounts that are named; what is not named stays as it was before.

    A total that is not named follows its parts: it is their sum, if it was so before or if both
    are named. A total that was recorded alone is not known to be that of one part.

    Raises:
        AmountOutOfRangeError: An amount, or the sum of them, is above 2^64-1.
    """
    before = Usage() if before is None else before
    after = replace(before, **named)
    parts = named.keys() & {"input_tokens", "output_tokens"}
    was_sum = before.total_tokens == before.input_tokens + before.output_tokens
    if "total_tokens" in named or not parts or not (was_sum or len(parts) == _BOTH):
        return after
    return replace(after, total_tokens=after.input_tokens + after.output_tokens)


def _for_whom(
    *, run: Run = None, tenant: Tenant = None, agent: Agent = None, provider: Provider = None
) -> Attribution:
    return Attribution(run_id=run, tenant=tenant, agent=agent, provider=provider)


used = gathered("used", _used)
"""Gives a command the options of a usage; it gets the amounts that are named as `used`."""
for_whom = gathered("whom", _for_whom)
"""Gives a command the options of an attribution; it gets that as `whom`."""
