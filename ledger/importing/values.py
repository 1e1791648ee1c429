"""The result of importing a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from ledger.reconcile.values import Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of importing the calls of a file.

    Attributes:
        file: The file's name, without its folder.
        sha256: The hash of its bytes, in hexadecimal digits.
        mapping: The mapping's name.
        pool: The pool.
        axes: The amounts that the file has, and the cost if calls were priced.
        is_dry_run: Whether nothing was written: `new` and `corrected` then count what would be.
        lines: The lines with an amount.
        calls: The calls that they tell of: lines of one call are added up.
        new: Calls that were imported now.
        known: Calls that were imported before, with the same usage.
        corrected: Calls that were imported before with another usage, and were corrected now.
        priced: How many of these were corrected for their price alone: they were imported without
            one, and the file says the same of them.
        kept: Calls of which the journal says something else: they were corrected since the file,
            or another that says the same of them, was imported. They were left as they are.
        recorded: Calls that are in the books under the same request id, other than by an import of
            a file into this pool; they were left out.
        settled: How many of these had a lease that expired without a record, and that was settled
            now: what the file says takes the place of what was assumed.
        unnamed: Calls without a request id. It is not known whether they are in the books.
        recorded_then: If there are such calls, how many calls the pool recorded itself in the time
            from the first to the last of them.
        assumed: How many calls of the file's time are charged what was assumed of them, in any
            pool, or are due to be: their leases ended without a record of what they used, and no
            correction says it. The file may have them under other request ids, and they are then
            charged twice.
        unpriced: Calls that are imported, now or before, and of which the journal says nothing on
            an axis that the pool limits, or one above that shares its capacity: tokens without a
            cost, say. Nothing of that is charged.
        attributed_before: Calls of those that were imported before, of which the attribution of
            this import says something that the journal does not: it had no effect on them.
        prices: The price list and its version, None without one.
        without_price: If prices were given: the models that they have no price for, or what else
            is missing, with how many calls of the file each is of. They cost nothing here.
        empty: Lines without any amount.
        not_selected: Lines that the mapping leaves out.
        unread_columns: The columns that the mapping does not name.
        unread_lists: As `Bill.unread_lists`.
        first: When the first call was made, None without any.
        last: When the last one was.
        told: What the file says of the calls that are imported, now or before; of those that say
            no cost, what they cost by the prices that were given.
        left_out: What it says of the calls that were left out, as recorded.
        journal: What the journal says of the imported calls, after all corrections; the same as
            `told` in a dry run.
        rounded_up_micros_usd: By how much rounding up each call's cost to whole millionths of a US
            dollar made `told` and `left_out` more than the sum of the file.
    """

    file: str
    sha256: str
    mapping: str
    pool: str
    axes: tuple[str, ...]
    is_dry_run: bool
    lines: int
    calls: int
    new: int
    known: int
    corrected: int
    priced: int
    kept: int
    recorded: int
    settled: int
    unnamed: int
    recorded_then: int
    assumed: Mapping[str, int]
    unpriced: int
    attributed_before: int
    prices: str | None
    without_price: Mapping[str, int]
    empty: int
    not_selected: int
    unread_columns: Sequence[str]
    unread_lists: Mapping[str, int]
    first: datetime | None
    last: datetime | None
    told: Amounts
    left_out: Amounts
    journal: Amounts
    rounded_up_micros_usd: Fraction

    @property
    def difference(self) -> Amounts:
        """What the file says minus what the journal says."""
        return self.told.minus(self.journal)

    @property
    def agrees(self) -> bool:
        """Whether the journal says of the imported calls what the file says."""
        return self.told == self.journal
