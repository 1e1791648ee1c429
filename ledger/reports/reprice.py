"""The report on repricing: what recorded calls would have cost by other prices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, select

from ledger.core.checks import check_type, from_micros
from ledger.core.errors import InvalidInputError, JournalDamagedError, LeftOut, UnknownPriceError
from ledger.core.kinds import CHARGED, EntryKind
from ledger.core.values import USAGE_FIELDS, Usage
from ledger.ledger import Ledger
from ledger.prices import PriceList
from ledger.prices.kept import kept_in
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.stream import ends, stream, unreadable
from ledger.store.amounts import USAGE
from ledger.store.pools import leave_out
from ledger.store.rows import UNREADABLE, detail_of
from ledger.store.schema import IS_OF_ENTRY, attributions, entries

NO_USAGE = Usage.zero()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """The entries of one model with the same result.

    Attributes:
        provider: The provider, None if the calls named none.
        model: The model.
        entries: How many settlements, observations, and expiries with assumed usage.
        cost_micros_usd: Their recorded cost, corrections included.
        corrected_micros_usd: How much of that corrections added; below 0 if they reduced it.
        repriced_micros_usd: What they would have cost; None if they cannot be priced.
        priced_by: Source and version of the prices; None if they cannot be priced.
        reason: Why they cannot be priced; None if they can.
    """

    provider: str | None
    model: str | None
    entries: int
    cost_micros_usd: int
    corrected_micros_usd: int
    repriced_micros_usd: int | None
    priced_by: str | None
    reason: str | None

    @property
    def difference_micros_usd(self) -> int | None:
        """By how much the other prices are higher."""
        if self.repriced_micros_usd is None:
            return None
        return self.repriced_micros_usd - self.cost_micros_usd


class _Place(NamedTuple):
    provider: str | None
    model: str | None
    priced_by: str | None
    reason: str | None


def reprice(
    book: Ledger,
    prices: PriceList,
    where: Where = EVERYTHING,
    *,
    at: datetime | None = None,
    left_out: LeftOut | None = None,
) -> list[Repriced]:
    """Return what recorded calls would have cost by other prices.

    Each settlement and observation is priced by its own usage: by the kinds of tokens in its
    detail, or else by its tokens. Corrected usage counts as corrected.

    Args:
        book: The store.
        prices: The other prices.
        where: Which entries.
        at: The time whose prices are used; by default the time of each call.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Returns:
        First the entries that can be priced, then those that cannot, each in the order of recorded
        cost.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: `as_of` is an entry that the pool does not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("prices", prices, PriceList)
    scope, last = snapshot(
        book, where, lambda connection, scope: (scope, ends(connection, scope)), left_out=left_out
    )
    found: dict[_Place, Counter[str]] = defaultdict(Counter)
    for pool_id, end in last.items():
        query = _charged(scope).where(entries.c.pool_id == pool_id)
        counted: dict[_Place, Counter[str]] = defaultdict(Counter)
        try:
            for place, sums in _of_pool(book, scope.pools[pool_id], query, end, prices, at):
                counted[place].update(entries=1, **sums)
        except JournalDamagedError as error:
            leave_out([error], None if scope.where.pools else left_out)
            continue
        for place, counts in counted.items():
            found[place].update(counts)
    rows = [
        Repriced(
            provider=place.provider,
            model=place.model,
            entries=counts["entries"],
            cost_micros_usd=counts["recorded"],
            corrected_micros_usd=counts["corrected"],
            repriced_micros_usd=counts["repriced"] if place.reason is None else None,
            priced_by=place.priced_by,
            reason=place.reason,
        )
        for place, counts in found.items()
    ]
    return sorted(rows, key=lambda row: (row.reason is not None, -row.cost_micros_usd))


def _charged(scope: Scope) -> Select[Any]:
    e, a = entries.c, attributions.c
    usage = [e[f"usage_{name}"] for name in USAGE_FIELDS]
    return (
        select(e.seq, e.kind, e.detail, scope.at.label("at"), *usage, a.provider, a.model)
        .select_from(entries.outerjoin(attributions, IS_OF_ENTRY))
        # An expiry that gave the hold back records no usage.
        .where(*scope.conditions, e.kind.in_(CHARGED), e.usage_total_tokens.is_not(None))
    )


def _of_pool(
    book: Ledger,
    pool: str,
    query: Select[Any],
    end: int,
    prices: PriceList,
    at: datetime | None,
) -> Iterator[tuple[_Place, dict[str, int]]]:
    """Yield for each entry the group in which it counts, and its costs by name."""
    corrected: dict[int, Usage] = {}
    restated: set[int] = set()
    # Corrections come later than the corrected entries, and are few.
    only = query.where(entries.c.kind == EntryKind.CORRECTION)
    for row in stream(book, only, after=0, end=end):
        try:
            detail = detail_of(row)
            corrected[detail["corrects"]] = Usage(**detail["to"])
            if "late" in detail:  # usage that replaces the assumed usage
                restated.add(detail["corrects"])
        except UNREADABLE as error:
            raise unreadable(pool, row["seq"], error) from error
    for row in stream(book, query, after=0, end=end):
        if row["kind"] == EntryKind.CORRECTION:
            continue
        try:
            charged = Usage(**USAGE.of(row))
            usage = corrected.get(row["seq"], charged)
            if usage == NO_USAGE:
                continue  # assumed usage, before the real usage was recorded
            place, repriced = _priced(row, detail_of(row), usage, prices, at)
            costs = {"recorded": usage.cost_micros_usd, "repriced": repriced}
            if row["seq"] not in restated:
                costs["corrected"] = usage.cost_micros_usd - charged.cost_micros_usd
            yield place, costs
        except UNREADABLE as error:
            raise unreadable(pool, row["seq"], error) from error


def _priced(
    row: Mapping[str, Any],
    detail: Mapping[str, Any],
    usage: Usage,
    prices: PriceList,
    at: datetime | None,
) -> tuple[_Place, int]:
    provider, model = row["provider"], row["model"]
    moment = from_micros(row["at"]) if at is None else at
    priced_by, reason, cost = None, None, 0
    if model is None:
        reason = "the call named no model"
    elif not usage.total_tokens and not usage.input_tokens and not usage.output_tokens:
        reason = "no tokens are recorded"
    elif not usage.input_tokens and not usage.output_tokens:
        reason = "only a total is recorded, which does not say what was input"
    else:
        try:
            kept = kept_in(detail, usage)
            found = prices.price(
                kept.requests, model=model, provider=provider, at=moment, conditions=kept.conditions
            )
            priced_by, cost = found.rates.named, found.cost_micros_usd
        except UnknownPriceError as error:
            reason = error.reason
        except InvalidInputError as error:
            reason = f"what is recorded cannot be: {error}"
    return _Place(provider, model, priced_by, reason), cost
