"""Prices of the installed genai-prices, with their dates; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from ledger.core.errors import MissingExtraError, UnknownPriceError
from ledger.prices.kinds import OUTPUT, OUTPUT_AUDIO, OUTPUT_IMAGE, PRICE_KINDS
from ledger.prices.rates import Rate, Rates
from ledger.prices.table import MODELS_KEPT

GENAI_PRICES = "genai-prices"

ALIASES = {"azure_ai": "azure", "fireworks_ai": "fireworks"}
"""Names of providers that genai-prices has under other names."""

_KIND_OF = {kind.genai_prices: name for name, kind in PRICE_KINDS.items()}
_DRAWS = "gpt-image-"
"""The beginning of the names of models that make only pictures."""
_SPEAKS = re.compile(r"-tts(?:-|$)")
"""A part of the names of models that make only speech."""
_BEDROCK = re.compile(r"([a-z-]+\.)?(ai21|amazon|anthropic|cohere|deepseek|meta|mistral|qwen)\.")


@dataclass(slots=True)
class _Found:
    """A model that was found.

    Attributes:
        provider: Who serves it, as the library has it.
        entry: The model, likewise.
        priced: Its newest prices, as the library has them and as rates.
    """

    provider: Any
    entry: Any
    priced: tuple[object, Rates | None] = (None, None)


class LibraryPrices:
    """The prices of the installed genai-prices.

    It fetches nothing by itself. If the program has started `genai_prices.UpdatePrices`, those
    prices are used, and the version says so.
    """

    name: ClassVar[str] = GENAI_PRICES

    def __init__(self) -> None:
        """Load the library.

        Raises:
            MissingExtraError: It is not installed.
        """
        try:
            import genai_prices  # noqa: PLC0415 - an optional extra, and half a second to import
            from genai_prices import data_snapshot, types  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtraError(what="genai-prices", extra="prices") from error
        self._snapshot = data_snapshot.get_snapshot
        self._types = types
        self._found: tuple[object, dict[tuple[str, str | None], _Found | None]] = (None, {})
        """The prices that were searched, and the models that were found there."""
        self._installed: str = genai_prices.__version__

    @property
    def version(self) -> str:
        """The library's version, and when its prices were updated if they were."""
        snapshot = self._snapshot()
        if not snapshot.from_auto_update:
            return self._installed
        return f"{self._installed}, updated {snapshot.timestamp:%Y-%m-%dT%H:%M:%S}"

    def rates(
        self, model: str, *, provider: str | None, at: datetime, conditions: Mapping[str, str]
    ) -> Rates | None:
        """Return the prices of a model at a time; None if the library does not have it.

        Args:
            model: Its name, as calls name it. A provider before a slash is understood.
            provider: Who serves it, by any name that the library knows.
            at: When the call is made.
            conditions: What `ledger.prices.table.conditions_of` returns.

        Raises:
            UnknownPriceError: The library has the model, but not under these conditions.
        """
        found = self._find(model, provider)
        if found is None:
            return None
        at_provider, entry = found.provider, found.entry
        context = _context(conditions) if conditions else None
        if context and not self._has(at_provider, entry, context, at):
            said = ", ".join(f"{name} {value!r}" for name, value in conditions.items())
            # The library would silently charge it as an ordinary call.
            raise UnknownPriceError(
                f"genai-prices {self.version} has {entry.id!r} of {at_provider.id}, but no price "
                f"of it for {said}. Add one to a price table of your own "
                '(prices=PriceList("prices.toml"), --prices)'
            )
        prices = entry.get_prices(at, context)
        # The prices depend on the time; with conditions they are a new object each time.
        before, known = found.priced
        if known is not None and before is prices:
            return known
        known_rates = {
            _KIND_OF[key]: self._rate(price)
            for key, price in vars(prices).items()
            if price is not None and key in _KIND_OF
        }
        # Such models make nothing else, and some have that price under the name of text.
        if entry.id.startswith(_DRAWS) and OUTPUT in known_rates:
            known_rates.setdefault(OUTPUT_IMAGE, known_rates[OUTPUT])
        if _SPEAKS.search(entry.id) and OUTPUT in known_rates:
            known_rates.setdefault(OUTPUT_AUDIO, known_rates[OUTPUT])
        rates = Rates(
            source=GENAI_PRICES,
            version=self.version,
            model=entry.id,
            provider=at_provider.id,
            since=self._since(entry, at),
            conditions=dict(conditions),
            rates=known_rates,
        )
        if not context:
            found.priced = prices, rates
        return rates

    def _find(self, model: str, provider: str | None) -> _Found | None:
        snapshot = self._snapshot()
        searched, found = self._found
        if searched is not snapshot or len(found) >= MODELS_KEPT:
            found = {}
            self._found = snapshot, found
        wanted = model, provider
        if wanted not in found:
            searched_for = self._search(snapshot, model, provider)
            found[wanted] = None if searched_for is None else _Found(*searched_for)
        return found[wanted]

    @staticmethod
    def _search(snapshot: Any, model: str, provider: str | None) -> Any:  # noqa: ANN401
        known = {one.id for one in snapshot.providers}
        for name, served_by in _spellings(model, provider, known):
            try:
                return snapshot.find_provider_model(name, None, served_by, None)
            except LookupError:
                continue
        return None

    @staticmethod
    def _has(provider: Any, entry: Any, context: Mapping[str, str], at: datetime) -> bool:  # noqa: ANN401
        # The library drops the conditions of a model that stands in for a provider's own. And it
        # does not multiply two conditions: one variant must have both.
        return any(entry is own for own in provider.models) and any(
            dict(variant.when) == context
            and (variant.constraint is None or variant.constraint.active(at))
            for variant in entry.price_variants or ()
        )

    def _since(self, entry: Any, at: datetime) -> str | None:  # noqa: ANN401
        if not isinstance(entry.prices, list):
            return None
        active = next(
            (
                one.constraint
                for one in reversed(entry.prices)
                if one.constraint is None or one.constraint.active(at)
            ),
            None,
        )
        dated = isinstance(active, self._types.StartDateConstraint)
        return active.start_date.isoformat() if dated and active is not None else None

    def _rate(self, price: Any) -> Rate:  # noqa: ANN401
        if isinstance(price, Decimal):
            return Rate(price)
        return Rate(price.base, tuple((step.start, step.price) for step in price.tiers))


def _context(conditions: Mapping[str, str]) -> dict[str, str]:
    """Return conditions in the library's words: it calls the batch tier a way of processing."""
    return {
        ("processing" if (name, value) == ("service_tier", "batch") else name): value
        for name, value in conditions.items()
    }


def _spellings(
    model: str, provider: str | None, known: set[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield the names under which the library may have a model, the given one first."""
    provider = ALIASES.get(provider, provider) if provider is not None else None
    yield model, provider
    first, slash, rest = model.partition("/")
    first = ALIASES.get(first.lower(), first.lower())
    if slash and first == "models":
        yield rest, provider or "google"
    elif slash and first in known and provider in {None, first}:
        yield rest, first
    if provider is None and model.lower().startswith("ft:"):
        yield model, "openai"
    if provider is None and _BEDROCK.match(model.lower()):
        yield model, "aws"
