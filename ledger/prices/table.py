"""Your own price table: a TOML file, or the same as a mapping."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from ledger.core.checks import I64_MAX, check_amount, check_path, check_text, check_type
from ledger.core.errors import InvalidInputError, PriceTableError, UnknownPriceError
from ledger.prices.kinds import PRICE_KINDS
from ledger.prices.rates import PRICE_DIGITS, Rate, Rates

OWN = "own"
CURRENCY = "USD"
STANDARD = frozenset({"standard", "default", "auto", "on_demand", "global", "not_available"})
"""The values of a condition that stand for the ordinary price."""

CONDITIONS = ("service_tier", "speed", "inference_geo")
"""The conditions on which a price may depend, besides model, time and size."""

MODELS_KEPT = 1_000
"""How many names of models a source remembers, since answers may have any names."""

_TOP = frozenset({"version", "currency", "price"})
_STEPS = "above"
_NAMES = ("model", "provider", *CONDITIONS)
_KEYS = frozenset({*_NAMES, "since", "currency", _STEPS, *PRICE_KINDS})


def conditions_of(given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the conditions that are not a provider's ordinary ones, in lower case.

    Raises:
        InvalidInputError: One is no text.
    """
    for name, value in given.items():
        if value is not None:
            check_type(name, value, str)
    said = {name: value.lower() for name, value in given.items() if value is not None}
    return {name: value for name, value in said.items() if value not in STANDARD}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One entry of a table; `model` may end in `*`."""

    model: str
    provider: str | None
    conditions: Mapping[str, str]
    since: date | None
    rates: Mapping[str, Rate]

    def names(self, model: str, provider: str | None) -> bool:
        own = self.model.lower()
        fits = model.lower().startswith(own[:-1]) if own.endswith("*") else model.lower() == own
        wanted = None if self.provider is None else self.provider.lower()
        return fits and (wanted is None or provider is None or provider.lower() == wanted)

    @property
    def rank(self) -> tuple[bool, int, bool, date]:
        """Narrower names come first, then entries with a provider, then later ones."""
        exact = not self.model.endswith("*")
        since = date.min if self.since is None else self.since
        return exact, len(self.model), self.provider is not None, since


class PriceTable:
    """Your own prices, in US dollars.

    Attributes:
        version: The version that the table states, or else the first digits of its content's
            digest.
    """

    name: ClassVar[str] = OWN

    def __init__(self, content: Mapping[str, Any], *, name: str = "prices") -> None:
        """Check a table that was read from TOML, or made in Python with decimals or text.

        Args:
            content: `version` and `currency`, both optional, and a list `price` of entries.
            name: The name that errors give it.

        Raises:
            PriceTableError: Something in it is missing or not understood, in another currency,
                there twice, or a float.
        """
        self._name = name
        check_type(name, content, Mapping)
        prices = content.get("price")
        if not isinstance(prices, Sequence) or isinstance(prices, str):
            raise PriceTableError(name, "has no list of prices: write [[price]] above each")
        self._refuse_unknown(name, content, _TOP)
        self._check_currency(name, content)
        self._entries = [self._entry(number, one) for number, one in enumerate(prices, 1)]
        self._refuse_doubles()
        self._found: dict[tuple[str, str | None], list[_Entry]] = {}
        self.version = self._version(content)

    @classmethod
    def load(cls, path: str | Path) -> PriceTable:
        """Read a table from a TOML file.

        Raises:
            PriceTableError: It cannot be read, or something in it is not understood.
        """
        found = check_path("prices", path)
        try:
            content = tomllib.loads(found.read_text(encoding="utf-8"), parse_float=Decimal)
        except OSError as error:
            raise PriceTableError(str(found), f"cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PriceTableError(str(found), f"is not TOML: {error}") from error
        return cls(content, name=str(found))

    def models(self) -> list[tuple[str, str | None, dict[str, str]]]:
        """Return the models that are named in full, with provider and conditions."""
        found = {
            (one.model, one.provider, tuple(sorted(one.conditions.items()))): dict(one.conditions)
            for one in self._entries
            if not one.model.endswith("*")
        }
        return [(model, provider, given) for (model, provider, _), given in found.items()]

    def rates(
        self, model: str, *, provider: str | None, at: datetime, conditions: Mapping[str, str]
    ) -> Rates | None:
        """Return the prices of a model at a time; None if the table does not have it then.

        Args:
            model: Its name, as calls name it.
            provider: Who serves it. An entry that names another provider does not count.
            at: When the call is made.
            conditions: What `conditions_of` returns.

        Raises:
            UnknownPriceError: The table has the model, but not under these conditions; or only of
                named providers, and the call names none.
        """
        day = at.astimezone(UTC).date()
        named = [
            one for one in self._named(model, provider) if one.since is None or one.since <= day
        ]
        if not named:
            return None
        if provider is None:
            named = self._wherever(named, model)
        under = [one for one in named if one.conditions == conditions]
        if not under:
            said = ", ".join(f"{name} {value!r}" for name, value in conditions.items())
            raise UnknownPriceError(
                f"{self._name} has {model!r}, but no price of it for {said or 'ordinary calls'}. "
                "Add an entry to it"
            )
        best = max(under, key=lambda one: one.rank)
        return Rates(
            source=OWN,
            version=self.version,
            model=best.model,
            provider=best.provider,
            since=None if best.since is None else best.since.isoformat(),
            conditions=best.conditions,
            rates=best.rates,
        )

    def _named(self, model: str, provider: str | None) -> list[_Entry]:
        """Return the entries of a model, which are searched once."""
        if len(self._found) >= MODELS_KEPT:
            self._found = {}
        wanted = model, provider
        if wanted not in (found := self._found):
            found[wanted] = [one for one in self._entries if one.names(model, provider)]
        return found[wanted]

    def _wherever(self, named: list[_Entry], model: str) -> list[_Entry]:
        """Return the entries for a call that names no provider: those that also name none."""
        general = [one for one in named if one.provider is None]
        if not general:
            providers = ", ".join(sorted({f"{one.provider}" for one in named}))
            raise UnknownPriceError(
                f"{self._name} has {model!r} of {providers} alone: name the call's provider, or "
                "add an entry without one"
            )
        return general

    def _entry(self, number: int, given: object) -> _Entry:
        where = f"{self._name}, price {number}"
        if not isinstance(given, Mapping):
            raise PriceTableError(where, "is not a table of its own: write [[price]] above it")
        self._refuse_unknown(where, given, _KEYS)
        self._check_currency(where, given)
        try:
            names = {
                name: check_text(name, given[name])
                for name in _NAMES
                if given.get(name) is not None
            }
        except InvalidInputError as error:
            raise PriceTableError(where, str(error)) from error
        if "model" not in names:
            raise PriceTableError(where, 'names no model: write model = "..."')
        if not PRICE_KINDS.keys() & given.keys():
            raise PriceTableError(where, f"has no price: write one of {', '.join(PRICE_KINDS)}")
        return _Entry(
            model=names["model"],
            provider=names.get("provider"),
            conditions=conditions_of({name: names.get(name) for name in CONDITIONS}),
            since=_day(where, given.get("since")),
            rates=_rates(where, given),
        )

    def _refuse_unknown(self, where: str, given: Mapping[str, Any], known: frozenset[str]) -> None:
        for name in given:
            if name not in known:
                raise PriceTableError(where, f"{name!r} is none of {', '.join(sorted(known))}")

    def _check_currency(self, where: str, given: Mapping[str, Any]) -> None:
        currency = given.get("currency", CURRENCY)
        if currency != CURRENCY:
            raise PriceTableError(
                where,
                f"prices are in {currency!r}, and budgets in US dollars: convert them, and write "
                'currency = "USD"',
            )

    def _refuse_doubles(self) -> None:
        seen: dict[tuple[object, ...], int] = {}
        for number, one in enumerate(self._entries, 1):
            place = (
                one.model.lower(),
                (one.provider or "").lower(),
                one.since,
                *sorted(one.conditions.items()),
            )
            first = seen.setdefault(place, number)
            if first != number:
                raise PriceTableError(
                    f"{self._name}, price {number}",
                    f"is for the same calls and the same day as price {first}: keep one of them",
                )

    def _version(self, content: Mapping[str, Any]) -> str:
        given = content.get("version")
        if given is None:
            return sha256(repr(self._entries).encode()).hexdigest()[:12]
        try:
            return check_text("version", str(given) if isinstance(given, date) else given)
        except InvalidInputError as error:
            raise PriceTableError(self._name, str(error)) from error


def _rates(where: str, given: Mapping[str, Any]) -> dict[str, Rate]:
    bases = {name: _usd(where, name, given[name]) for name in PRICE_KINDS if name in given}
    steps: dict[str, list[tuple[int, Decimal]]] = {name: [] for name in bases}
    wanted = given.get(_STEPS, [])
    if isinstance(wanted, Mapping) or not isinstance(wanted, Sequence):
        raise PriceTableError(where, "above must be a list of { input_tokens = 200000, ... }")
    last = -1
    for step in wanted:
        if not isinstance(step, Mapping) or "input_tokens" not in step or len(step) == 1:
            raise PriceTableError(where, "each step of above has input_tokens and prices")
        above = _count(where, step["input_tokens"])
        if above <= last:
            raise PriceTableError(where, "the steps of above must ascend")
        last = above
        for name in step.keys() - {"input_tokens"}:
            if name not in bases:
                raise PriceTableError(
                    where, f"above has {name!r}, which has no price below the step"
                )
            steps[name].append((above, _usd(where, name, step[name])))
    return {name: Rate(base, tuple(steps[name])) for name, base in bases.items()}


def _usd(where: str, name: str, given: object) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, int | str | Decimal):
        raise PriceTableError(
            where,
            f"{name} must be a number that is exact: text, an int or a Decimal, not "
            f"{type(given).__name__}",
        )
    try:
        price = Decimal(given)
    except (InvalidOperation, ValueError):
        raise PriceTableError(where, f"{name} is {given!r}, which is no number") from None
    if not price.is_finite() or price < 0 or not _short(price):
        raise PriceTableError(
            where,
            f"{name} is {given}: a price is 0 or more, with at most {PRICE_DIGITS} digits before "
            "and after the point",
        )
    return price


def _short(price: Decimal) -> bool:
    exponent = price.as_tuple().exponent
    return (
        isinstance(exponent, int) and exponent >= -PRICE_DIGITS and price.adjusted() < PRICE_DIGITS
    )


def _count(where: str, given: object) -> int:
    try:
        return check_amount("input_tokens", given, ceiling=I64_MAX)
    except InvalidInputError as error:
        raise PriceTableError(where, str(error)) from error


def _day(where: str, given: object) -> date | None:
    """Return the UTC day from which a price holds."""
    found = given
    if isinstance(given, str):
        try:
            found = date.fromisoformat(given)
        except ValueError:
            found = None
    if isinstance(found, datetime):
        midnight = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
        if midnight.time() == (datetime.min.time()):
            found = midnight.date()
    if given is None or (isinstance(found, date) and not isinstance(found, datetime)):
        return found  # type: ignore[return-value]
    raise PriceTableError(where, f"since is {given!r}: write a day of UTC, since = 2026-01-31")
