"""`ledger price`: what one call costs, and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger import reports
from ledger.cli.common import (
    URL_DEFAULT,
    OutputFormat,
    PrintFormat,
    Url,
    emit,
    existing,
    show,
    stdout,
)
from ledger.cli.filters import Zone, moment_in
from ledger.cli.prices import At, NoLibrary, OwnPrices, Tier
from ledger.cli.usage import Provider
from ledger.core.calendar import zone_named
from ledger.core.errors import InvalidInputError
from ledger.prices import Counts, Price, PriceList, count_tokens
from ledger.prices.kinds import PRICE_KINDS, REQUESTS
from ledger.prices.rates import Line, text_of
from ledger.reports.render import price_sheet, priced_by, printable
from ledger.reports.render.text_formats import Figure
from ledger.simulate import parse_count

_MORE = tuple(name for name in PRICE_KINDS if name not in {"input", "output", REQUESTS})
Of = Annotated[
    list[str] | None,
    typer.Option(
        "--of",
        metavar="KIND=COUNT",
        help="How many of the tokens are of one kind, or what is counted besides tokens; may be "
        f"given again: {', '.join(_MORE)}.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedLine:
    """One kind of a call's price, for programs; amounts in US dollars are exact decimals."""

    kind: str
    count: int
    usd: str
    per: int
    cost_usd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCall:
    """What `ledger price` prints for programs."""

    model: str
    source: str
    version: str
    priced_as: str
    provider: str | None
    since: str | None
    conditions: Mapping[str, str]
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_usd: str
    cost_micros_usd: int
    lines: Sequence[PricedLine]


def price(
    model: Annotated[str, typer.Argument(help="The model's name.", show_default=False)],
    *,
    input_: Annotated[
        str | None,
        typer.Option("--input", help="Input tokens, cached or not.", show_default=False),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(help="Count the tokens of this text instead; - for standard input."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Output tokens, reasoning included.", show_default=False),
    ] = None,
    output_percentile: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="In place of --output: what this percentage of the model's calls had at most.",
            show_default=False,
        ),
    ] = None,
    operation: Annotated[
        str | None, typer.Option(help="Only calls of this operation, for --output-percentile.")
    ] = None,
    of: Of = None,
    provider: Provider = None,
    service_tier: Tier = None,
    at: At = None,
    zone: Zone = "UTC",
    own: OwnPrices = None,
    no_library: NoLibrary = False,
    url: Url = URL_DEFAULT,
    output_format: OutputFormat = PrintFormat.TABLE,
) -> None:
    """Print what a call costs, and why.

    Example: ledger price claude-sonnet-4-5 --input 7100 --of cache_read=5000 --output 50
    """
    counts = Counts(
        **{
            "input_tokens": _input(model, input_, input_file),
            "output_tokens": _output(model, output, output_percentile, operation, url),
            **dict(map(_kind, of or ())),
        }
    )
    found = PriceList(own, library=not no_library).price(
        counts,
        model=model,
        provider=provider,
        at=moment_in("--at", at, zone_named(zone)),
        service_tier=service_tier,
    )

    if not of and all(one is None for one in (input_, input_file, output, output_percentile)):
        raise InvalidInputError(
            "price", "no tokens are given: say how many with --input, --output or --of"
        )

    def people() -> None:
        show(price_sheet(found, model))
        stdout().print(printable(priced_by(found)), markup=False, soft_wrap=True)

    lines = [_line(line) for line in found.lines]
    rows: Sequence[Any] = (
        lines if output_format is PrintFormat.CSV else [_call(model, found, lines)]
    )
    emit(rows, PricedLine, output_format, people)


def _line(line: Line) -> PricedLine:
    return PricedLine(
        kind=line.kind,
        count=line.count,
        usd=Figure(text_of(line.usd)),
        per=line.per,
        cost_usd=Figure(text_of(line.cost_usd)),
    )


def _call(model: str, found: Price, lines: Sequence[PricedLine]) -> PricedCall:
    (counts,) = found.requests
    return PricedCall(
        model=model,
        source=found.rates.source,
        version=found.rates.version,
        priced_as=found.rates.model,
        provider=found.rates.provider,
        since=found.rates.since,
        conditions=found.rates.conditions,
        input_tokens=counts.input_tokens,
        output_tokens=counts.output_tokens,
        total_tokens=counts.total_tokens,
        cost_usd=text_of(found.cost_usd),
        cost_micros_usd=found.cost_micros_usd,
        lines=lines,
    )


def _input(model: str, given: str | None, file: Path | None) -> int:
    if given is not None and file is not None:
        raise InvalidInputError("--input", "is given, and --input-file too: give one of them")
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError("--input-file", f"is no UTF-8 text: {error}") from error
        except OSError as error:
            said = f"{file} cannot be read: {error.strerror}"
            raise InvalidInputError("--input-file", said) from error
        return count_tokens(text, model=model)
    return 0 if given is None else parse_count("--input", given)


def _output(
    model: str, given: str | None, percent: int | None, operation: str | None, url: str
) -> int:
    if percent is None:
        return 0 if given is None else parse_count("--output", given)
    if given is not None:
        raise InvalidInputError("--output", "is given, and --output-percentile too: give one")
    with existing(url) as book:
        found = reports.output_history(
            book, reports.Filter(model=model, operation=operation), percent=percent
        )
    if found.output_tokens is None:
        raise InvalidInputError(
            "--output-percentile", f"no settled call of {model!r} is in {book.url}: give --output"
        )
    return found.output_tokens


def _kind(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not equals or name not in _MORE:
        raise InvalidInputError("--of", f"{text!r} is no KIND=COUNT; kinds: {', '.join(_MORE)}")
    return PRICE_KINDS[name].field, parse_count("--of", count)
