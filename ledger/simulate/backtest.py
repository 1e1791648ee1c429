"""How a trace is run: the operations for each row, and which traces are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from ledger.core.checks import (
    AHEAD_MAX_US,
    I64_MAX,
    check_amount,
    check_moment,
    check_not_ahead,
    to_micros,
)
from ledger.core.errors import (
    BillingFileError,
    InvalidInputError,
    UnpricedCallError,
)
from ledger.core.extensions import Attribution
from ledger.core.hashing import attribution_content
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules import require_priced
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS, Usage, UsageEstimate
from ledger.engine.replaying import AT_ONCE_MAX
from ledger.files.bill import Bill
from ledger.files.lines import BillLine
from ledger.files.mapping import COST_FIELD
from ledger.simulate.pricing import Prices
from ledger.simulate.resuming import Outline
from ledger.simulate.runs import RunRule

WORKERS_MAX = AT_ONCE_MAX

_AXES = ("input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """How a trace is run.

    Attributes:
        trace: The recorded calls: a file that `read_bill` has read, with the time, the input and
            the output of each.
        runs: How rows are grouped into runs.
        prices: The prices of tokens: for estimates, and for the usage of rows without a cost.
        estimate_output_tokens: The estimated output tokens of every call. With None, each call is
            estimated at its recorded usage.
        workers: How many calls are made at the same time, 1 to 128. A call is settled when this
            many are reserved; with 1, before the next is reserved.

    Raises:
        BillingFileError: A row lacks its time, or has amounts that no store can hold; or there are
            no rows.
        InvalidInputError: Another argument is not valid; or calls are to be estimated, and only the
            trace's own costs say what they cost.
    """

    trace: Bill
    runs: RunRule
    prices: Prices = field(default_factory=Prices)
    estimate_output_tokens: int | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if self.estimate_output_tokens is not None:
            check_amount("estimate_output_tokens", self.estimate_output_tokens, ceiling=I64_MAX)
            if self.costs_are_recorded:
                raise InvalidInputError(
                    "prices",
                    "the trace says what each call cost in the end, which no estimate may know: "
                    "give the prices of tokens (--input-price, --output-price)",
                )
        if not 1 <= self.workers <= WORKERS_MAX:
            raise InvalidInputError("workers", f"must be 1 to {WORKERS_MAX}")
        lacking = [axis for axis in _AXES if axis not in self.trace.axes]
        if lacking or self.trace.mapping.at is None:
            said = ", ".join(lacking) or "time"
            raise self._bad(None, f"mapping {self.trace.mapping.name!r} reads no {said} of calls")
        if not self.trace.lines:
            raise self._bad(None, "the trace has no rows")
        self._check_rows()

    def estimate(self, row: BillLine) -> UsageEstimate:
        """Return the estimate of a row."""
        return UsageEstimate(**dict(zip(ESTIMATE_FIELDS, self._figures(row)[0], strict=True)))

    def usage(self, row: BillLine) -> Usage:
        """Return the usage of a row; its own cost wins over one computed from prices."""
        return Usage(**dict(zip(USAGE_FIELDS, self._figures(row)[1], strict=True)))

    def outline(self, row: BillLine, position: int, key: str) -> Outline:
        """Return the operations for a row.

        Args:
            row: The row.
            position: The number of rows before it.
            key: The idempotency key of its reservation.
        """
        estimate, usage = self._figures(row)
        attribution = attribution_content(self._attribution(row, position))
        occurred_at = to_micros("occurred_at", row.at)
        return Outline(key, estimate, usage, attribution, row.request_id, occurred_at)

    def _attribution(self, row: BillLine, position: int) -> Attribution:
        run_id = self.runs.run_id(row, position)
        return _attribution(run_id, row.model, row.provider, row.tenant, row.agent)

    def _figures(self, row: BillLine) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the amounts of a row's estimate and of its usage."""
        said = dict(zip(self.trace.axes, map(math.ceil, row.amounts), strict=True))
        tokens_in, output = (said[axis] for axis in _AXES)
        cached = {
            "cache_read_tokens": said.get("cache_read_tokens", 0),
            "cache_write_tokens": said.get("cache_creation_tokens", 0),
        }
        if not row.has_cost:
            said[COST_FIELD] = self.prices.cost_micros_usd(tokens_in, output, **cached)
        cost = said.get(COST_FIELD, 0)
        usage = tuple(said.get(name, 0) for name in USAGE_FIELDS)
        if self.estimate_output_tokens is not None:
            output = self.estimate_output_tokens
        if self.estimate_output_tokens is not None or (row.has_cost and self._has_prices):
            cost = self.prices.cost_micros_usd(tokens_in, output, **cached)
        return (tokens_in, output, tokens_in + output, cost), usage

    @property
    def costs_are_recorded(self) -> bool:
        """Whether the trace's costs are used: it has costs, and no prices are given."""
        return COST_FIELD in self.trace.axes and not self._has_prices

    @property
    def has_costs(self) -> bool:
        """Whether anything says what calls cost."""
        return COST_FIELD in self.trace.axes or self._has_prices

    @property
    def _has_prices(self) -> bool:
        return self.prices != Prices()

    @property
    def _cache_prices(self) -> dict[str, Decimal | None]:
        """The prices of cached input, by the axes of it that the trace has."""
        prices = {
            "cache_read_tokens": self.prices.cache_read_usd,
            "cache_creation_tokens": self.prices.cache_write_usd,
        }
        return {axis: usd for axis, usd in prices.items() if axis in self.trace.axes}

    @property
    def _prices_cache(self) -> bool:
        return any(usd is not None for usd in self._cache_prices.values())

    @property
    def priced_as_input(self) -> dict[str, int]:
        """How many cached tokens without a price of their own the trace has, by axis."""
        if not self._has_prices:
            return {}
        places = {
            axis: self.trace.axes.index(axis)
            for axis, usd in self._cache_prices.items()
            if usd is None and self.trace.most[self.trace.axes.index(axis)]
        }
        return {
            axis: sum(math.ceil(row.amounts[place]) for row in self.trace.lines)
            for axis, place in places.items()
        }

    def check_priced(self, options: SharedPoolBudgetOptions) -> None:
        """Refuse a trace whose calls have no cost if the pool limits cost.

        Raises:
            InvalidInputError: A row has no cost, neither in the trace nor by prices.
        """
        prices = self.prices
        if prices.input_usd and prices.output_usd and 0 not in self._cache_prices.values():
            return  # every row that uses a token has a cost
        if self.costs_are_recorded and self.trace.least[self.trace.axes.index(COST_FIELD)] > 0:
            return
        if _refusal(options, UsageEstimate(total_tokens=1)) is None:
            return
        for row in self.trace.lines:
            error = _refusal(options, self.estimate(row))
            if error is not None:
                raise InvalidInputError(
                    "prices",
                    f"the pool limits what calls cost, and {self.trace.file}, line {row.line}, has "
                    "no cost: give the prices of tokens (--input-price, --output-price), limit "
                    "tokens alone, or let such calls through (--unpriced flag)",
                ) from error

    def check_not_ahead(self, now: datetime) -> None:
        """Refuse a trace with a call that is dated more than a day ahead of the store's clock.

        Raises:
            BillingFileError: A row is dated so.
        """
        clock, last = to_micros("now", now), self.trace.last
        if last is None or to_micros("time", last) - clock <= AHEAD_MAX_US:
            return
        for row in self.trace.lines:  # the last time may be a line's end
            assert row.at is not None  # noqa: S101 - rows without a time are refused
            try:
                check_not_ahead("time", to_micros("time", row.at), clock)
            except InvalidInputError as error:
                raise self._bad(row.line, str(error)) from error

    def _check_rows(self) -> None:
        """Refuse rows that no pool can hold; the extremes tell first whether there may be any."""
        trace = self.trace
        if (
            self._prices_cache
            or trace.undated
            or min(trace.least) < 0
            or not _is_time(trace.first, trace.last)
        ):
            for row in trace.lines:
                self._check_row(row)
        # Costs grow with tokens, so if a row with the most of everything fits, all rows do. This
        # does not hold if cached input has a price of its own, since more cached input means less
        # other input.
        largest = trace.lines[0]._replace(amounts=tuple(trace.most))
        if not self._prices_cache and all(
            self._fits(largest._replace(has_cost=has_cost)) for has_cost in (True, False)
        ):
            return
        for row in trace.lines:
            if not self._fits(row):
                raise self._bad(row.line, "the amounts are above 2^63-1")

    def _check_row(self, row: BillLine) -> None:
        if row.at is None:
            raise self._bad(row.line, "the time is missing")
        try:
            check_moment("time", row.at)
        except InvalidInputError as error:
            reason = f"time: {row.at} is outside the years 1900 to 2999"
            raise self._bad(row.line, reason) from error
        if min(row.amounts) < 0:
            raise self._bad(row.line, "an amount is below 0")
        said = dict(zip(self.trace.axes, map(math.ceil, row.amounts), strict=True))
        cached = sum(said[axis] for axis in self._cache_prices)
        if self._prices_cache and cached > said["input_tokens"]:
            reason = f"{cached} tokens of a cache are more than the input, {said['input_tokens']}"
            raise self._bad(row.line, reason)

    def _fits(self, row: BillLine) -> bool:
        return all(
            max(amounts.total_tokens, amounts.cost_micros_usd) <= I64_MAX
            for amounts in (self.estimate(row), self.usage(row))
        )

    def _bad(self, line: int | None, reason: str) -> BillingFileError:
        return BillingFileError(self.trace.file, line=line, reason=reason)


@lru_cache(maxsize=256)
def _attribution(
    run_id: str | None,
    model: str | None,
    provider: str | None,
    tenant: str | None,
    agent: str | None,
) -> Attribution:
    """Return an attribution without the request id, which most calls of a trace share."""
    return Attribution(run_id=run_id, model=model, provider=provider, tenant=tenant, agent=agent)


def _refusal(options: SharedPoolBudgetOptions, estimate: UsageEstimate) -> UnpricedCallError | None:
    """Return why a pool refuses an estimate without a cost, None if it does not."""
    try:
        require_priced(options, estimate, None, None)
    except UnpricedCallError as error:
        return error
    return None


def _is_time(*moments: datetime | None) -> bool:
    """Tell whether each is a time that a journal can hold."""
    try:
        for moment in moments:
            check_moment("time", moment)
    except InvalidInputError:
        return False
    return True
