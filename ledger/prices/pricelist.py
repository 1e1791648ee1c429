"""Price lists: your own table first, then genai-prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ledger.core.checks import I64_MAX, check_amount, check_moment, check_text
from ledger.core.errors import InvalidInputError, UnknownPriceError
from ledger.core.usage_reports import UsageReport
from ledger.core.values import Provenance, Usage, UsageEstimate
from ledger.prices.answers import Answer, read_answer
from ledger.prices.counts import Counts
from ledger.prices.kept import detail_of
from ledger.prices.library import LibraryPrices
from ledger.prices.rates import Price, Rates, most, price
from ledger.prices.table import PriceTable, conditions_of


class PriceSource(Protocol):
    """A source of prices.

    Attributes:
        name: Its name in `Rates.source`.
    """

    name: ClassVar[str]

    @property
    def version(self) -> str:
        """The version of its prices."""

    def rates(
        self, model: str, *, provider: str | None, at: datetime, conditions: Mapping[str, str]
    ) -> Rates | None:
        """Return the prices of a model at a time, None if it does not know the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What to record of a call: `manager.record_used(lease, it.usage, report=it.report)`.

    Attributes:
        usage: What it used, with its cost; a cost of 0 if there is no price.
        report: The model, the request id, and in its detail the prices that were used.
        price: What it cost, and why; None if there is no price.
        unpriced: Why there is no price; None if there is one.
    """

    usage: Usage
    report: UsageReport
    price: Price | None
    unpriced: str | None


class PriceList:
    """Prices from one or more sources: the first one that knows the model decides."""

    def __init__(
        self,
        own: PriceTable | Mapping[str, Any] | str | Path | None = None,
        *,
        library: bool = True,
    ) -> None:
        """Open the sources.

        Args:
            own: Your own table, which is asked first: a file's name, or a mapping.
            library: Whether genai-prices is asked what the table does not have.

        Raises:
            PriceTableError: The table cannot be used.
            MissingExtraError: genai-prices is not installed.
            InvalidInputError: There is no source at all.
        """
        self.sources: list[PriceSource] = []
        if isinstance(own, str | Path):
            own = PriceTable.load(own)
        if own is not None:
            self.sources.append(own if isinstance(own, PriceTable) else PriceTable(own))
        if library:
            self.sources.append(LibraryPrices())
        if not self.sources:
            raise InvalidInputError("own", "give a table, or let genai-prices be asked")

    @property
    def named(self) -> str:
        """The sources and their versions, in the order in which they are asked."""
        return " and ".join(f"{one.name} {one.version}" for one in self.sources)

    def rates(
        self,
        model: str,
        *,
        provider: str | None = None,
        at: datetime | None = None,
        conditions: Mapping[str, str | None] | None = None,
    ) -> Rates:
        """Return the prices of a model.

        Args:
            model: Its name, as calls and answers name it.
            provider: Who serves it: the same model has different prices in different places.
            at: When the call is made, with a time zone; by default now.
            conditions: `service_tier`, `speed` and `inference_geo`, if they are not the ordinary
                ones.

        Raises:
            UnknownPriceError: No source knows the model, or its price under these conditions.
            InvalidInputError: The time has no time zone; the name is no text.
        """
        return self._rates(model, provider, at, conditions_of(conditions or {}))

    def _rates(
        self, model: str, provider: str | None, at: datetime | None, wanted: dict[str, str]
    ) -> Rates:
        """Return the prices of a model under conditions that are not the ordinary ones."""
        check_text("model", model)
        if provider is not None:
            check_text("provider", provider)
        moment = at
        if moment is None:
            moment = datetime.now(UTC)
        else:
            check_moment("at", moment)
        for source in self.sources:
            found = source.rates(model, provider=provider, at=moment, conditions=wanted)
            if found is not None:
                return found
        served = "" if provider is None else f" of {provider}"
        otherwise = "name its provider" if provider is None else "name it as its provider does"
        raise UnknownPriceError(
            f"no price for the model {model!r}{served} at the time of the call: add it to a price "
            f'table of your own (prices=PriceList("prices.toml"), --prices), or {otherwise}'
        )

    def price(
        self,
        used: Counts | Sequence[Counts],
        *,
        model: str,
        provider: str | None = None,
        at: datetime | None = None,
        service_tier: str | None = None,
        conditions: Mapping[str, str | None] | None = None,
    ) -> Price:
        """Return what a call costs, and why; see `rates` for the arguments.

        Args:
            used: Its usage; a list for several requests.
            model: The model.
            provider: Who serves it.
            at: When it is made.
            service_tier: Short for the condition of that name.
            conditions: Whatever else the price depends on.

        Raises:
            UnknownPriceError: There is no price for something that is used.
        """
        given = {**(conditions or {})}
        if service_tier is not None:
            given["service_tier"] = service_tier
        found = self.rates(model, provider=provider, at=at, conditions=given)
        return price(found, [used] if isinstance(used, Counts) else used)

    def estimate(
        self,
        *,
        model: str,
        input_tokens: int,
        max_output_tokens: int,
        provider: str | None = None,
        at: datetime | None = None,
        service_tier: str | None = None,
        kinds: Sequence[str] = (),
    ) -> UsageEstimate:
        """Return what to reserve for a call: all of its input uncached, all of its output used.

        Args:
            model: The model that is asked.
            input_tokens: As `ledger.prices.count_tokens` counts them, or better.
            max_output_tokens: The call's `max_tokens`, or what such calls have used so far
                (`ledger.reports.output_tokens`).
            provider: Who serves it.
            at: When it is made; by default now.
            service_tier: As the call names it.
            kinds: What input and output may be besides text, such as `output_image`. The highest
                price is used.

        Raises:
            UnknownPriceError: There is no price for it. Nothing is reserved yet.
        """
        check_amount("input_tokens", input_tokens, ceiling=I64_MAX)
        check_amount("max_output_tokens", max_output_tokens, ceiling=I64_MAX)
        under = {} if service_tier is None else conditions_of({"service_tier": service_tier})
        found = self._rates(model, provider, at, under)
        return UsageEstimate(
            input_tokens=input_tokens,
            output_tokens=max_output_tokens,
            total_tokens=input_tokens + max_output_tokens,
            cost_micros_usd=most(found, input_tokens, max_output_tokens, kinds),
        )

    def recording(
        self,
        answer: object,
        *,
        model: str | None = None,
        provider: str | None = None,
        at: datetime | None = None,
        service_tier: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Recording:
        """Return what to record of an answer. A missing price does not prevent the recording.

        Args:
            answer: The answer as `read_answer` takes it, an `Answer`, or `Counts`.
            model: The model, if the answer names none, or to use another model's price.
            provider: Who served it.
            at: When the call was made; by default now.
            service_tier: The tier under which it was served, if the answer does not say.
            detail: What else the entry keeps, in addition to its price.

        Raises:
            InvalidInputError: The answer has no usage.
        """
        if isinstance(answer, Counts):
            read = Answer(requests=(answer,), total_tokens=answer.total_tokens)
        else:
            read = answer if isinstance(answer, Answer) else read_answer(answer)
        named = model or read.model
        under: dict[str, str] = {}
        if service_tier is not None or read.conditions:
            given = {"service_tier": service_tier, **read.conditions}
            under = conditions_of({k: str(one) for k, one in given.items() if one is not None})
        found: Price | None = None
        unpriced: str | None = "the answer names no model: give model="
        if named is not None:
            try:
                found = price(self._rates(named, provider, at, under), read.requests)
            except (UnknownPriceError, InvalidInputError) as error:
                unpriced = str(error)  # usage is recorded, even if its price cannot be
        unpriced = unpriced if found is None else None
        return Recording(
            usage=read.counts.usage(
                0 if found is None else found.cost_micros_usd, total_tokens=read.total_tokens
            ),
            report=UsageReport(
                provider=provider,
                model=named,
                request_id=read.request_id,
                provenance=Provenance.REPORTED,
                detail=detail_of(read.requests, under, found, unpriced, detail or {}),
            ),
            price=found,
            unpriced=unpriced,
        )
