"""`ledger prices` and `ledger reprice`: where sources differ, and what calls would have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import (
    URL_DEFAULT,
    OutputFormat,
    PrintFormat,
    Url,
    Wide,
    emit,
    existing,
    show,
    stdout,
    tell_left_out,
)
from ledger.cli.exit_codes import ExitCode
from ledger.cli.filters import Zone, filtered, moment_in
from ledger.cli.output import Output, printed
from ledger.core.calendar import zone_named
from ledger.core.errors import InvalidInputError, LeftOut
from ledger.prices import PriceList, PriceTable
from ledger.prices.comparison import Comparison, compare
from ledger.prices.library import LibraryPrices
from ledger.prices.litellm import LitellmMap
from ledger.prices.pricelist import PriceSource
from ledger.prices.rates import text_of
from ledger.prices.table import conditions_of
from ledger.reports.render import (
    counted,
    disagreements_sheet,
    repriced_sheet,
    unrepriced_sheet,
)
from ledger.reports.render.text_formats import Figure

app = typer.Typer(help="Sources of prices.", no_args_is_help=True)

OwnPrices = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        envvar="LEDGER_PRICES",
        help="A price table of your own (TOML); it comes before genai-prices.",
        show_default=False,
    ),
]
NoLibrary = Annotated[
    bool, typer.Option("--no-library", help="Only the table of your own, without genai-prices.")
]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="The time of the prices; by default the present, of recorded calls their own time.",
        show_default=False,
    ),
]
Tier = Annotated[
    str | None,
    typer.Option("--service-tier", help="flex, priority, batch or the like.", show_default=False),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentPrice:
    """What `ledger prices diff` prints for programs; prices are exact decimals."""

    model: str
    provider: str | None
    kind: str
    above_input_tokens: int
    first: str
    first_usd: str | None
    second: str
    second_usd: str | None
    second_model: str


@app.command("diff")
def diff(
    *,
    own: OwnPrices = None,
    litellm: Annotated[
        Path | None,
        typer.Option(
            help="litellm's price map, a JSON file, to be compared too.", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be given again.")
    ] = None,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Also where one of them has no price for a kind.")
    ] = False,
    service_tier: Tier = None,
    at: At = None,
    zone: Zone = "UTC",
    wide: Wide = False,
    output_format: OutputFormat = PrintFormat.TABLE,
) -> None:
    """Print where two sources of prices disagree: your table, genai-prices, litellm's map.

    Exit code 1 if they do. Example: ledger prices diff --prices prices.toml
    """
    when = moment_in("--at", at, zone_named(zone)) or datetime.now(UTC)
    under = conditions_of({"service_tier": service_tier})
    models = [(*pair, _models(pair[0], under, model or ())) for pair in _pairs(own, litellm)]
    known = {name for _first, _second, named in models for name, *_ in named}
    for name in model or ():
        if name not in known:
            sources = " or ".join(str(path) for path in (own, litellm) if path is not None)
            raise InvalidInputError("--model", f"{name!r} is not named in full in {sources}")
    found = [compare(first, second, named, at=when, gaps=gaps) for first, second, named in models]
    rows = [row for one in found for row in one.disagreements]

    def people() -> None:
        for one in found:
            show(disagreements_sheet(one.disagreements), wide=wide)
            stdout().print(_said(one), markup=False, soft_wrap=True)

    emit(
        [
            DifferentPrice(
                model=row.model,
                provider=row.provider,
                kind=row.kind,
                above_input_tokens=row.above_input_tokens,
                first=row.first,
                first_usd=None if row.first_usd is None else Figure(text_of(row.first_usd)),
                second=row.second,
                second_usd=None if row.second_usd is None else Figure(text_of(row.second_usd)),
                second_model=row.second_model,
            )
            for row in rows
        ],
        DifferentPrice,
        output_format,
        people,
    )
    if rows:
        raise typer.Exit(ExitCode.FOUND)


def _said(found: Comparison) -> str:
    missing = len(found.missing)
    return (
        f"{counted(found.compared, 'model')} compared; the second source does not have "
        f"{counted(missing, 'model')} of the first, or not of every provider and tier."
    )


def _pairs(own: Path | None, litellm: Path | None) -> list[tuple[PriceSource, PriceSource]]:
    table = None if own is None else PriceTable.load(own)
    other = None if litellm is None else LitellmMap(litellm)
    if table is None and other is None:
        raise InvalidInputError("--prices", "give a table of your own, or --litellm, or both")
    library = LibraryPrices()
    pairs: list[tuple[PriceSource, PriceSource]] = []
    if table is not None:
        pairs.append((table, library))
        if other is not None:
            pairs.append((table, other))
    if other is not None:
        pairs.append((other, library))
    return pairs


def _models(
    source: PriceSource, under: Mapping[str, str], only: Sequence[str]
) -> list[tuple[str, str | None, Mapping[str, str]]]:
    if isinstance(source, PriceTable):
        found: list[tuple[str, str | None, Mapping[str, str]]] = [
            (name, provider, given)
            for name, provider, given in source.models()
            if not under or given == under
        ]
    else:
        assert isinstance(source, LitellmMap)  # noqa: S101 - the library is never the first
        found = [(name, provider, under) for name, provider in source.models()]
    return [one for one in found if not only or one[0] in only]


@printed
@filtered
def reprice(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Must be given: no entry changes its price.")
    ] = False,
    own: OwnPrices = None,
    no_library: NoLibrary = False,
    at: At = None,
    zone: Zone = "UTC",
    url: Url = URL_DEFAULT,
    output: Output,
    where: reports.Filter,
) -> None:
    """Print what recorded calls would have cost by other prices, and which cannot be priced.

    Example: ledger reprice --dry-run --prices new.toml --since 2026-10-01 --until 2026-11-01
    """
    if not dry_run:
        raise InvalidInputError(
            "--dry-run",
            "must be given, since entries keep the price that they were written with. To change "
            "what one call cost, see 'ledger correct'",
        )
    prices = PriceList(own, library=not no_library)
    when = moment_in("--at", at, zone_named(zone))
    lost: LeftOut = []
    with existing(url) as book:
        rows = reports.reprice(book, prices, where, at=when, left_out=lost)
        failed = [row for row in rows if row.reason is not None]
        output.give(
            rows,
            reports.Repriced,
            lambda: [repriced_sheet(rows), *([unrepriced_sheet(rows)] if failed else [])],
            book=book,
        )
    tell_left_out(lost)
