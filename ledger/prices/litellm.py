"""Prices of litellm's map, the file `model_prices_and_context_window.json`, for comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from ledger.core.checks import check_path
from ledger.core.errors import PriceTableError
from ledger.prices.kinds import INPUT, OUTPUT, PER_MILLION, PRICE_KINDS
from ledger.prices.rates import Rate, Rates

LITELLM = "litellm"

_TIERS = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}
_STEP = re.compile(r"_above_(\d+)k_tokens")
_MODES = frozenset({"chat", "completion", "responses", "embedding"})
_THOUSAND = 1_000


class LitellmMap:
    """A file of litellm's prices: no dates, and US dollars a token.

    Attributes:
        version: The first digits of the file's digest, since the file names none.
    """

    name: ClassVar[str] = LITELLM

    def __init__(self, path: str | Path) -> None:
        """Read the file.

        Raises:
            PriceTableError: It cannot be read, or is something else.
        """
        found = check_path("litellm", path)
        try:
            content = found.read_bytes()
            entries = json.loads(content, parse_float=Decimal)
        except OSError as error:
            raise PriceTableError(str(found), f"cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise PriceTableError(str(found), f"is not JSON: {error}") from error
        if not isinstance(entries, dict) or not any(
            isinstance(one, dict) and "litellm_provider" in one for one in entries.values()
        ):
            raise PriceTableError(str(found), "is no price map of litellm: no litellm_provider")
        self.version = sha256(content).hexdigest()[:12]
        self._entries: dict[str, dict[str, Any]] = {
            name: one for name, one in entries.items() if isinstance(one, dict)
        }

    def models(self) -> Iterator[tuple[str, str | None]]:
        """Yield models that are priced by tokens, with their providers."""
        for name, one in self._entries.items():
            provider = one.get("litellm_provider")
            if one.get("mode") in _MODES and isinstance(provider, str):
                yield name.removeprefix(f"{provider}/"), provider

    def rates(
        self, model: str, *, provider: str | None, at: datetime, conditions: Mapping[str, str]
    ) -> Rates | None:
        """Return the prices of a model, None if the map does not have it under these conditions.

        Args:
            model: Its name there, with or without the provider in front.
            provider: The provider's name there; any that has the model without it.
            at: Ignored, since the map has no dates.
            conditions: The service tier.
        """
        del at
        wanted = dict(conditions)
        tier = wanted.pop("service_tier", None)
        name = next(
            (each for each in (f"{provider}/{model}", model) if each in self._entries), None
        )
        if name is None or wanted or (tier is not None and tier not in _TIERS):
            return None
        entry = self._entries[name]
        if provider is not None and entry.get("litellm_provider") != provider:
            return None
        rates = _rates(entry, "" if tier is None else _TIERS[tier])
        if not {INPUT, OUTPUT} & rates.keys():
            return None
        return Rates(
            source=LITELLM,
            version=self.version,
            model=name,
            provider=entry.get("litellm_provider"),
            conditions=conditions,
            rates=rates,
        )


def _rates(entry: Mapping[str, Any], suffix: str) -> dict[str, Rate]:
    found: dict[str, Rate] = {}
    for kind, row in PRICE_KINDS.items():
        base = _usd(entry.get(f"{row.litellm}{suffix}"))
        if row.litellm is None or base is None:
            continue
        steps = []
        for key, value in entry.items():
            step = _STEP.search(key)
            price = _usd(value)
            if step is None or price is None or key != f"{row.litellm}{step.group()}{suffix}":
                continue
            steps.append((int(step.group(1)) * _THOUSAND, price))
        found[kind] = Rate(base, tuple(sorted(steps)))
    return found


def _usd(a_token: object) -> Decimal | None:
    """Return US dollars per million tokens, exactly."""
    if isinstance(a_token, bool) or not isinstance(a_token, int | Decimal):
        return None
    usd = Decimal(a_token).scaleb(len(str(PER_MILLION)) - 1)
    return usd if usd.is_finite() and usd >= 0 else None
