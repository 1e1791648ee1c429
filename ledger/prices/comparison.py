"""The comparison of two sources of prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from ledger.core.errors import UnknownPriceError
from ledger.prices.kinds import PRICE_KINDS
from ledger.prices.pricelist import PriceSource
from ledger.prices.rates import Rate, Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Two prices of one kind that differ.

    Attributes:
        model: The model, as the first source names it.
        provider: Its provider there.
        kind: See `ledger.prices.kinds`.
        above_input_tokens: For requests with more input than this, up to the next step of either.
        first: The first source, with its version.
        first_usd: Its price, per million tokens or per thousand times; None if it has none.
        second: The second source, with its version.
        second_usd: Its price.
        second_model: The model's name there.
    """

    model: str
    provider: str | None
    kind: str
    above_input_tokens: int
    first: str
    first_usd: Decimal | None
    second: str
    second_usd: Decimal | None
    second_model: str

    @property
    def ratio(self) -> Fraction | None:
        """The second price, divided by the first."""
        if not self.first_usd or self.second_usd is None:
            return None
        return Fraction(self.second_usd) / Fraction(self.first_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two sources say of the models of the first.

    Attributes:
        compared: How many models both have, for any providers and tiers.
        missing: The models that the second does not have, or not of every provider and tier.
        disagreements: Where their prices differ, by model.
    """

    compared: int
    missing: tuple[str, ...]
    disagreements: tuple[Disagreement, ...]


def compare(
    first: PriceSource,
    second: PriceSource,
    models: Iterable[tuple[str, str | None, Mapping[str, str]]],
    *,
    at: datetime,
    gaps: bool = False,
) -> Comparison:
    """Compare what two sources say of some models.

    Args:
        first: A source.
        second: The other one.
        models: Names, providers and conditions, as the first source knows them.
        at: When calls are made.
        gaps: Whether it is a disagreement if one of them has no price for a kind.
    """
    compared: set[str] = set()
    missing: dict[str, None] = {}
    rows: list[Disagreement] = []
    for model, provider, conditions in models:
        one = _rates(first, model, provider, at, conditions)
        if one is None:
            continue
        two = _rates(second, model, provider, at, conditions)
        if two is None:
            missing[model] = None
            continue
        compared.add(model)
        rows += _differences(model, provider, one, two, gaps=gaps)
    return Comparison(compared=len(compared), missing=tuple(missing), disagreements=tuple(rows))


def _rates(
    source: PriceSource,
    model: str,
    provider: str | None,
    at: datetime,
    conditions: Mapping[str, str],
) -> Rates | None:
    try:
        return source.rates(model, provider=provider, at=at, conditions=conditions)
    except UnknownPriceError:
        return None


def _differences(
    model: str, provider: str | None, one: Rates, two: Rates, *, gaps: bool
) -> Iterable[Disagreement]:
    for kind in PRICE_KINDS:
        first, second = one.rates.get(kind), two.rates.get(kind)
        if first is None and second is None:
            continue
        if (first is None or second is None) and not gaps:
            continue
        last = None
        for above in sorted({0, *_steps(first), *_steps(second)}):
            pair = (_at(first, above), _at(second, above))
            if pair != last and pair[0] != pair[1]:
                yield Disagreement(
                    model=model,
                    provider=provider,
                    kind=kind,
                    above_input_tokens=above,
                    first=one.named,
                    first_usd=pair[0],
                    second=two.named,
                    second_usd=pair[1],
                    second_model=two.model,
                )
            last = pair


def _steps(rate: Rate | None) -> list[int]:
    return [] if rate is None else [above for above, _ in rate.steps]


def _at(rate: Rate | None, above: int) -> Decimal | None:
    return None if rate is None else rate.at(above + 1)
