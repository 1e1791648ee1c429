"""`ledger simulate`: back-test a budget against recorded traffic."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import (
    NO_LIMITS,
    URL_DEFAULT,
    Url,
    progress_bar,
    show,
    stderr,
    stdout,
)
from ledger.cli.gathered import gathered
from ledger.cli.mappings import (
    MappingName,
    Start,
    WhatIdenticalMean,
    WhatRepeatsMean,
    mappings,
    read,
)
from ledger.cli.policies import (
    CapacityRequests,
    CapacityTokens,
    CapacityUsd,
    StopRequests,
    StopTokens,
    StopUsd,
    UnpricedCalls,
    policy,
)
from ledger.core.checks import check_text
from ledger.core.policy import check_storable_policy
from ledger.ledger import Ledger
from ledger.reports.render import (
    counted,
    denials_sheet,
    printable,
    runs_sheet,
    statement_sheet,
)
from ledger.simulate import (
    Backtest,
    Prices,
    Result,
    RunRule,
    parse_count,
    parse_decimal,
    run,
)
from ledger.simulate.backtest import WORKERS_MAX

_SHOWN = 10
"""How many denials are printed; the journal keeps them all."""

_CACHED = {
    "cache_read_tokens": ("read from", "--cache-read-price"),
    "cache_creation_tokens": ("written to", "--cache-write-price"),
}
"""What each kind of cached input is called, and the option that says its price."""


TracePath = Annotated[
    Path,
    typer.Argument(
        help="Recorded calls: CSV, JSON, .xlsx or Parquet, also in gzip or zip.",
        show_default=False,
    ),
]


def _chosen(
    trace: TracePath,
    mapping: MappingName = "trace",
    repeats: WhatRepeatsMean = None,
    identical: WhatIdenticalMean = None,
    start: Start = None,
    input_price: Annotated[str, typer.Option(help="US dollars per million input tokens.")] = "0",
    output_price: Annotated[str, typer.Option(help="US dollars per million output tokens.")] = "0",
    cache_read_price: Annotated[
        str | None,
        typer.Option(
            help="US dollars per million input tokens that are read from a cache; without it they "
            "are priced as input.",
            show_default=False,
        ),
    ] = None,
    cache_write_price: Annotated[
        str | None,
        typer.Option(
            help="US dollars per million input tokens that are written to a cache; without it they "
            "are priced as input.",
            show_default=False,
        ),
    ] = None,
    estimate_output: Annotated[
        str,
        typer.Option(
            help="Estimated output tokens of each call: a fixed maximum, or 'actual' for those "
            "that the trace recorded."
        ),
    ] = "actual",
    runs: Annotated[
        str | None,
        typer.Option(
            help="How rows are grouped into runs: 'column', a time such as 10m or 1h, or a number "
            "of rows. By default the trace's run column, or else 10m.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=WORKERS_MAX, help="How many calls are made at the same time.")
    ] = 1,
) -> Backtest:
    """Return the back-test that a command's options make."""
    chosen = mappings(mapping=mapping, repeats=repeats, identical=identical, start=start)
    recorded = read(trace, chosen, attributed=True)
    default = "10m" if recorded.mapping.run is None else "column"
    actual = estimate_output == "actual"
    return Backtest(
        trace=recorded,
        runs=RunRule.parse(default if runs is None else runs),
        prices=Prices(
            input_usd=parse_decimal("--input-price", input_price),
            output_usd=parse_decimal("--output-price", output_price),
            cache_read_usd=_decimal("--cache-read-price", cache_read_price),
            cache_write_usd=_decimal("--cache-write-price", cache_write_price),
        ),
        estimate_output_tokens=(
            None if actual else parse_count("--estimate-output", estimate_output)
        ),
        workers=workers,
    )


def _decimal(option: str, text: str | None) -> Decimal | None:
    return None if text is None else parse_decimal(option, text)


@gathered("backtest", _chosen)
def simulate(
    *,
    trace: TracePath,
    url: Url = URL_DEFAULT,
    pool: Annotated[
        str | None, typer.Option(help="The pool that pays; by default named like the file.")
    ] = None,
    capacity_tokens: CapacityTokens = None,
    capacity_usd: CapacityUsd = None,
    stop_tokens: StopTokens = None,
    stop_usd: StopUsd = None,
    capacity_requests: CapacityRequests = None,
    stop_requests: StopRequests = None,
    unpriced: UnpricedCalls = None,
    backtest: Backtest,
    again: Annotated[
        bool, typer.Option("--again", help="Count a trace again that was run before.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue a run that was interrupted, or a log that has grown."
        ),
    ] = False,
) -> None:
    """Back-test a budget: reserve and settle each row of recorded traffic in a durable pool.

    The trace needs columns for the time, the input and the output tokens (such as TIMESTAMP,
    ContextTokens and GeneratedTokens, or those of BurstGPT, Mooncake, splitwise, vidur and vLLM).
    It may have run, model, provider, tenant, agent, request_id, and cost (in US dollars) or
    cost_micros_usd. Any mapping of reconcile that has them is taken, too.

    Example: ledger simulate trace.csv --capacity-usd 50 --input-price 3 --output-price 15
    """
    name = trace.stem if pool is None else pool
    check_text("--pool", name)
    options = policy(
        NO_LIMITS,
        (capacity_tokens, capacity_usd, capacity_requests),
        (stop_tokens, stop_usd, stop_requests),
        unpriced=unpriced,
    )
    check_storable_policy(options)
    backtest.check_priced(options)
    with Ledger.open(url, record_denials=True) as book:
        with progress_bar() as bar:
            task = bar.add_task("Simulating", total=len(backtest.trace.lines))
            result = run(
                book,
                name,
                options,
                backtest,
                again=again,
                resume=resume,
                progress=lambda _outcome: bar.advance(task),
            )
        ignored = [*backtest.trace.unread_columns, *backtest.trace.unread_lists]
        if ignored:
            said = printable(f"Columns not used: {', '.join(ignored)}")
            stdout().print(said, markup=False, soft_wrap=True)
        if not backtest.has_costs:
            said = (
                "Every cost is 0: the trace says none, and no prices of tokens are given "
                "(--input-price, --output-price)."
            )
            stdout().print(said, markup=False, soft_wrap=True)
        _tell_priced_as_input(backtest)
        _print(book, name, result)


def _tell_priced_as_input(backtest: Backtest) -> None:
    """Print on standard error how many cached tokens were priced as input, for want of a price."""
    for axis, tokens in backtest.priced_as_input.items():
        what, option = _CACHED[axis]
        said = f"{tokens:,} tokens {what} a cache were priced as input: give their price ({option})"
        stderr().print(said, markup=False, soft_wrap=True)


def _print(book: Ledger, pool: str, result: Result) -> None:
    show(runs_sheet(reports.runs(book, pool)))
    show(statement_sheet(reports.statement(book, pool)))
    if result.denied:
        found = reports.denials(book, pool, keys=result.denied_keys)
        shown = list(itertools.islice(found, _SHOWN))
        more = f", of which the first {len(shown)}" if result.denied > len(shown) else ""
        show(denials_sheet(shown, title=f"Denied: {result.denied:,}{more}"))
    said = (
        f"{counted(result.admitted + result.denied, 'row')}: {result.admitted:,} admitted, "
        f"{result.denied:,} denied; pool {pool} in {book.url}"
    )
    stdout().print(printable(said), markup=False, soft_wrap=True)
