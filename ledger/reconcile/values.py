"""What a reconciliation finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple, Self

from ledger.core.values import USAGE_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Amounts of a bill or of the journal, or a difference; None where they are not compared.

    Attributes:
        input_tokens: Tokens, cache tokens among them.
        output_tokens: Tokens, reasoning tokens among them.
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
        """Return several amounts added up, on each of these axes."""
        sums = dict.fromkeys(axes, 0)
        for part in parts:
            for name in axes:
                sums[name] += getattr(part, name)
        return cls(**sums)

    def minus(self, other: Amounts) -> Amounts:
        """Return by how much these are more."""
        return Amounts(
            **{
                name: value - getattr(other, name)
                for name in USAGE_FIELDS
                if (value := getattr(self, name)) is not None
            }
        )


class Status(StrEnum):
    """How a match came out."""

    MATCHED = "matched"
    DIFFERING = "differing"
    BILLED_ONLY = "billed_only"
    RECORDED_ONLY = "recorded_only"


class Outcome(StrEnum):
    """What became of a difference that was to be corrected."""

    APPLIED = "applied"
    ALREADY_APPLIED = "already_applied"
    NOT_APPLIED = "not_applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Lines of the bill and entries of the journal that are about the same.

    Attributes:
        status: How they compare.
        request_id: The provider's request id that both name, None for a match by model and day.
        model: The model.
        day: The day, in the mapping's time zone.
        billed: What the bill says; 0 where no line is about it.
        recorded: What the journal says by now, after all corrections; 0 where no entry is.
        difference: How much more was billed than recorded.
        lines: How many lines of the bill.
        line: The first of them.
        entries: How many entries of the journal, corrections included.
        pool: The pool of the last of them.
        entry: The last of them.
        outcome: What `apply` did about it, None where it was not asked or had nothing to do.
        reason: Why it did not apply it.
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
    outcome: Outcome | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """All matches that came out alike; the parts' differences add up to the whole.

    Attributes:
        status: How they compare.
        matches: How many there are.
        billed: What the bill says of them together.
        recorded: What the journal says.
        difference: How much more was billed.
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
    """A provider's bill, held against the journal.

    Attributes:
        file: The bill.
        sha256: The hash of its bytes.
        mapping: The name of the mapping.
        axes: The amounts that were compared.
        zone: The time zone of days.
        since: From when on.
        until: Up to, and without, when.
        as_of: Up to which entry of the one pool, None for all that there were.
        lines: How many lines were held against the journal.
        empty_lines: How many more name no amount.
        lines_left_out: How many more the filter leaves out.
        tolerance_tokens: By how many tokens both may differ and still match.
        tolerance_cost_micros_usd: Likewise for the cost.
        matches: All matches: those that match, that differ, that are in one of the two alone.
        parts: The matches added up by how they came out.
        billed: What the bill says in all.
        recorded: What the journal says in all.
        difference: How much more was billed: to the last micro-USD what the parts come to.
        rounded_up_micros_usd: How much of `billed` is from rounding: what the lines of a match
            cost together is rounded up once, to a whole micro-USD.
        correctable: The entries behind each request that is in both, in the order of pools and
            of entries.
    """

    file: str
    sha256: str
    mapping: str
    axes: tuple[str, ...]
    zone: str
    since: datetime | None
    until: datetime | None
    as_of: int | None
    lines: int
    empty_lines: int
    lines_left_out: int
    tolerance_tokens: int
    tolerance_cost_micros_usd: int
    matches: Sequence[Match]
    parts: Sequence[Part]
    billed: Amounts
    recorded: Amounts
    difference: Amounts
    rounded_up_micros_usd: Fraction
    correctable: Mapping[str, Sequence[EntryRef]]

    def of(self, status: Status) -> list[Match]:
        """Return the matches that came out so."""
        return [match for match in self.matches if match.status is status]

    @property
    def agrees(self) -> bool:
        """Tell whether bill and journal agree by now, corrections that were applied included."""
        settled = {Outcome.APPLIED, Outcome.ALREADY_APPLIED}
        return all(
            match.status is Status.MATCHED
            or (match.status is Status.DIFFERING and match.outcome in settled)
            for match in self.matches
        )
