"""The values of a reconciliation: amounts, matches, and the whole result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple, Self

from ledger.core.values import USAGE_FIELDS
from ledger.files.mapping import Identical
from ledger.reports.buckets import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Amounts of a bill or of the journal, or a difference; None for an axis that is not compared.

    Attributes:
        input_tokens: Tokens, including cache tokens.
        output_tokens: Tokens, including reasoning tokens.
        total_tokens: Tokens.
        cost_micros_usd: Millionths of a US dollar.
        cache_creation_tokens: Tokens.
        cache_read_tokens: Tokens.
        reasoning_tokens: Tokens.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost_micros_usd: int | None = None
    cache_creation_tokens: int | None = None
    cache_read_tokens: int | None = None
    reasoning_tokens: int | None = None

    @classmethod
    def sum_of(cls, axes: Sequence[str], parts: Iterable[Amounts]) -> Self:
        """Return the sums of several amounts, on each of these axes."""
        sums = dict.fromkeys(axes, 0)
        for part in parts:
            for name in axes:
                sums[name] += getattr(part, name)
        return cls(**sums)

    def minus(self, other: Amounts) -> Amounts:
        """Return these amounts minus the others, on the axes that these have."""
        return Amounts(
            **{
                name: value - getattr(other, name)
                for name in USAGE_FIELDS
                if (value := getattr(self, name)) is not None
            }
        )


class Status(StrEnum):
    """How the two sides of a match compare."""

    MATCHED = "matched"
    DIFFERING = "differing"
    OPEN = "open"
    BILLED_ONLY = "billed_only"
    RECORDED_ONLY = "recorded_only"


class Outcome(StrEnum):
    """What `apply` did about a difference."""

    APPLIED = "applied"
    ALREADY_APPLIED = "already_applied"
    NOT_APPLIED = "not_applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The bill's lines and the journal's entries for one request, or for one model and day.

    Attributes:
        status: How they compare.
        request_id: The provider's request id, None for a match by model and day.
        model: The model.
        day: The day, week or month that is compared, in the mapping's time zone, as ISO 8601
            writes its beginning.
        billed: The sums of the bill's lines; 0 if there are none.
        recorded: The sums of the journal's entries, after all corrections; 0 if there are none.
        difference: What was billed minus what was recorded.
        lines: How many lines of the bill there are.
        line: The first of the lines.
        entries: How many entries of the journal there are, corrections included.
        pool: The pool of the last entry.
        entry: The last entry.
        lease: The lease that it is about.
        guessed: Whether some of the recorded usage was assumed, since the lease expired or ended
            without a record.
        held_tokens: If the call is billed and not recorded yet, since its lease has not ended: what
            the lease holds; 0 if it has expired.
        held_cost_micros_usd: The same in millionths of a US dollar.
        outcome: What `apply` did about the difference; None if it was not called, or had nothing
            to do.
        reason: Why `apply` did not correct the difference.
    """

    status: Status
    request_id: str | None = None
    model: str | None = None
    day: str | None = None
    billed: Amounts
    recorded: Amounts
    difference: Amounts
    lines: int = 0
    line: int | None = None
    entries: int = 0
    pool: str | None = None
    entry: int | None = None
    lease: int | None = None
    guessed: bool = False
    held_tokens: int | None = None
    held_cost_micros_usd: int | None = None
    outcome: Outcome | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """All matches of one status. The differences of the parts add up to the whole difference.

    Attributes:
        status: How they compare.
        matches: How many there are.
        billed: The sums of the bill in these matches.
        recorded: The sums of the journal in these matches.
        difference: What was billed minus what was recorded.
    """

    status: Status
    matches: int
    billed: Amounts
    recorded: Amounts
    difference: Amounts


class EntryRef(NamedTuple):
    """An entry that can be corrected.

    Attributes:
        pool: The pool's name.
        seq: The entry.
        lease: Its lease.
    """

    pool: str
    seq: int
    lease: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """A provider's bill, compared with the journal.

    Attributes:
        file: The name of the bill's file.
        sha256: The hash of its bytes.
        mapping: The name of the mapping.
        axes: The amounts that were compared.
        by: The piece of time that lines without a request id are compared by.
        zone: The time zone of days.
        since: The beginning of the time range.
        until: The end of the time range, which is not part of it.
        as_of: The last entry of the one pool that was compared, None for all entries.
        lines: How many lines were compared with the journal.
        empty_lines: How many more lines have no amount.
        not_selected_lines: How many more lines the mapping leaves out; see `Bill.not_selected`.
        lines_left_out: How many more lines the filter leaves out.
        replaced_lines: How many more lines a later line of their request replaced.
        identical_lines: The numbers of lines that repeat an earlier line in every cell.
        identical: What the mapping says that identical lines mean.
        unread_columns: The columns of the file that the mapping does not name.
        unread_lists: How many values each list in the file has that the mapping does not name.
        unpriced: How many of the entries that were compared are flagged unpriced for an amount
            that is compared, and were not corrected since: the journal has too little of it.
        tolerance_tokens: The largest difference in tokens, on each axis, that still matches.
        tolerance_cost_micros_usd: The largest difference in cost that still matches.
        matches: All matches of every status.
        parts: The sums of the matches, by status.
        billed: The sums of the bill.
        recorded: The sums of the journal.
        difference: What was billed minus what was recorded: exactly the sum of the parts.
        rounded_up_micros_usd: How much of `billed` comes from rounding: the cost of a match is
            rounded up once, to a whole micro-USD.
        explained_micros_usd: How much more the journal has in matches that count as such because
            each entry's cost was rounded up: less than a micro-USD an entry.
        correctable: The correctable entries of each request that both sides have, by request id,
            in the order of pools and of entries.
    """

    file: str
    sha256: str
    mapping: str
    axes: tuple[str, ...]
    by: Unit
    zone: str
    since: datetime | None
    until: datetime | None
    as_of: int | None
    lines: int
    empty_lines: int
    not_selected_lines: int
    lines_left_out: int
    replaced_lines: int
    identical_lines: Sequence[int]
    identical: Identical
    unread_columns: Sequence[str]
    unread_lists: Mapping[str, int]
    unpriced: int
    tolerance_tokens: int
    tolerance_cost_micros_usd: int
    matches: Sequence[Match]
    parts: Sequence[Part]
    billed: Amounts
    recorded: Amounts
    difference: Amounts
    rounded_up_micros_usd: Fraction
    explained_micros_usd: int
    correctable: Mapping[str, Sequence[EntryRef]]

    def of(self, status: Status) -> list[Match]:
        """Return the matches of this status."""
        return [match for match in self.matches if match.status is status]

    @property
    def agrees(self) -> bool:
        """Tell whether bill and journal agree, with the corrections that `apply` has made."""
        settled = {Outcome.APPLIED, Outcome.ALREADY_APPLIED}
        return all(
            match.status is Status.MATCHED
            or (match.status is Status.DIFFERING and match.outcome in settled)
            for match in self.matches
        )
