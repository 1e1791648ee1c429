"""The public values: frozen, slotted dataclasses, checked when they are made.

Amounts are integers: tokens, and cost in millionths of a US dollar (micro-USD). Floats and
booleans are refused, so that no rounding error can enter the books.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from operator import add, attrgetter
from typing import ClassVar, Self
from uuid import UUID

from ledger.core.axes import NAMES, REQUESTS, shown
from ledger.core.checks import (
    U64_MAX,
    check_amount,
)
from ledger.core.errors import InvalidInputError
from ledger.core.tokens import token_of


class _Amounts:
    """Every field of the dataclass is an amount."""

    __slots__ = ()
    _values: ClassVar[attrgetter[tuple[int, ...]]]
    """Returns the amounts in the order of the fields."""

    def __post_init__(self) -> None:
        # Valid amounts cost no call each, since this runs for every call and every stored row.
        if [
            one for one in self._values(self) if one.__class__ is not int or not 0 <= one <= U64_MAX
        ]:
            for part in fields(self):  # type: ignore[arg-type]
                check_amount(part.name, getattr(self, part.name))


class _Counted(_Amounts):
    """Amounts of one call."""

    __slots__ = ()

    @classmethod
    def zero(cls) -> Self:
        """Return nothing at all."""
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEstimate(_Counted):
    """What a call is expected to use at most; 0 .. 2^64-1 each.

    Only `total_tokens` and `cost_micros_usd` count against budgets, and `total_tokens` is taken
    as given: it is not derived from the other two.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros_usd: int = 0


class Counting(StrEnum):
    """How a provider counts the parts of a call: which figures include which others.

    Other providers count like one of these: Azure and xAI's Responses API like OpenAI, Bedrock's
    Converse API like Anthropic, Vertex AI like Gemini.
    """

    OPENAI = "openai"
    """Input includes cached tokens; output includes reasoning."""
    ANTHROPIC = "anthropic"
    """Input excludes tokens written to the cache and read from it; output includes thinking."""
    GEMINI = "gemini"
    """The prompt includes cached tokens; candidates exclude thoughts."""

    def whole(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cached: int,
        reasoning_tokens: int,
    ) -> tuple[int, int]:
        """Return the whole input and the whole output of a call.

        Args:
            input_tokens: The input as the provider counts it.
            output_tokens: The output as the provider counts it.
            cached: The tokens written to the provider's cache, and those read from it.
            reasoning_tokens: Output tokens of reasoning, which are not shown.
        """
        if self is Counting.ANTHROPIC:
            input_tokens += cached
        elif self is Counting.GEMINI:
            output_tokens += reasoning_tokens
        return input_tokens, output_tokens


_COUNTINGS = tuple(Counting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(_Counted):
    """What a call really used; 0 .. 2^64-1 each.

    Cache and reasoning tokens are included in input and output tokens. Only `total_tokens` and
    `cost_micros_usd` count against budgets.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros_usd: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0

    @classmethod
    def of(
        cls,
        counting: Counting | str,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_creation_tokens: int = 0,
        cache_read_tokens: int = 0,
        reasoning_tokens: int = 0,
        cost_micros_usd: int = 0,
    ) -> Self:
        """Return a usage from figures as a provider gives them, with the total that they make.

        Args:
            counting: How the provider counts.
            input_tokens: The figure called input or prompt tokens; with Gemini add the tokens of
                tool-use prompts, which its prompt tokens leave out.
            output_tokens: The figure called output, completion or candidates tokens.
            cache_creation_tokens: Input tokens that were written to the provider's cache.
            cache_read_tokens: Input tokens that were read from it.
            reasoning_tokens: Output tokens that were used for reasoning, thinking or thoughts.
            cost_micros_usd: In millionths of a US dollar; `usd` makes it of dollars.

        Raises:
            InvalidInputError: There is no such way of counting, or an amount is no int.
            AmountOutOfRangeError: An amount, or a sum of them, is outside 0 .. 2^64-1.
        """
        if counting not in _COUNTINGS:
            raise InvalidInputError("counting", f"must be one of {', '.join(Counting)}")
        for name, amount in (
            ("input_tokens", input_tokens),
            ("output_tokens", output_tokens),
            ("cache_creation_tokens", cache_creation_tokens),
            ("cache_read_tokens", cache_read_tokens),
            ("reasoning_tokens", reasoning_tokens),
        ):
            check_amount(name, amount)
        input_tokens, output_tokens = Counting(counting).whole(
            input_tokens,
            output_tokens,
            cached=cache_creation_tokens + cache_read_tokens,
            reasoning_tokens=reasoning_tokens,
        )
        return cls(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cache_creation_tokens=cache_creation_tokens,
            cache_read_tokens=cache_read_tokens,
            reasoning_tokens=reasoning_tokens,
            cost_micros_usd=cost_micros_usd,
        )

    @classmethod
    def from_estimate(cls, estimate: UsageEstimate) -> Usage:
        """Return the usage of a call that used exactly what was estimated."""
        return cls(
            input_tokens=estimate.input_tokens,
            output_tokens=estimate.output_tokens,
            total_tokens=estimate.total_tokens,
            cost_micros_usd=estimate.cost_micros_usd,
        )

    def saturating_add(self, other: Usage, *, ceiling: int = U64_MAX) -> Usage:
        """Return the sum, each field stopping at `ceiling`."""
        more = other._values(other)
        if self is NOTHING_USED and max(more) <= ceiling and other.__class__ is Usage:
            return other  # most leases are settled once: then the sum is `other` itself
        before = self._values(self)
        sums = [min(total, ceiling) for total in map(add, before, more)]
        return Usage(**dict(zip(USAGE_FIELDS, sums, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageDifference:
    """By how much one usage differs from another; -(2^64-1) .. 2^64-1 each."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros_usd: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        for name in USAGE_FIELDS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                kind = type(value).__name__
                raise InvalidInputError(name, f"a difference must be an int, not {kind}")
            if not -U64_MAX <= value <= U64_MAX:
                raise InvalidInputError(name, f"no two amounts differ by {value}")

    @classmethod
    def between(cls, before: Usage, after: Usage) -> UsageDifference:
        """Return what must be added to `before` to get `after`."""
        return cls(**{name: getattr(after, name) - getattr(before, name) for name in USAGE_FIELDS})

    def added_to(self, usage: Usage, *, ceiling: int = U64_MAX) -> Usage:
        """Return the sum, each field stopping at 0 and at `ceiling`."""
        return Usage(
            **{
                name: min(max(getattr(usage, name) + getattr(self, name), 0), ceiling)
                for name in USAGE_FIELDS
            }
        )


ESTIMATE_FIELDS = tuple(part.name for part in fields(UsageEstimate))
USAGE_FIELDS = tuple(part.name for part in fields(Usage))
UsageEstimate._values = attrgetter(*ESTIMATE_FIELDS)  # noqa: SLF001 - its fields are known only now
Usage._values = attrgetter(*USAGE_FIELDS)  # noqa: SLF001 - as above
NOTHING_USED = Usage.zero()
"""The usage of a lease of which nothing has been recorded."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a pool, and whether a stop threshold is reached.

    Attributes:
        tokens: 0 .. 2^64-1, like the other amounts.
        cost_micros_usd: In millionths of a US dollar.
        below_threshold: Whether one axis is at or below its stop threshold.
        requests: How many more calls the pool admits.
        unlimited: The names of the axes that have no limit. The amount of such an axis, 2^64-1 or
            less, has no meaning: ask `is_unlimited` before showing it. Two values are equal by the
            other fields alone.
    """

    tokens: int
    cost_micros_usd: int
    below_threshold: bool
    requests: int = U64_MAX
    unlimited: frozenset[str] = field(default=frozenset({REQUESTS.name}), compare=False, repr=False)

    def is_unlimited(self, axis: str) -> bool:
        """Tell whether an axis has no limit: `tokens`, `cost_micros_usd` or `requests`.

        Raises:
            InvalidInputError: There is no such axis.
        """
        if axis not in NAMES:
            raise InvalidInputError("axis", f"{axis!r} is none of {', '.join(NAMES)}")
        return axis in self.unlimited

    def __repr__(self) -> str:
        return shown(self, self.unlimited)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBudget:
    """The limit of one request; None is unlimited. An amount equal to the limit is allowed."""

    tokens: int | None = None
    cost_micros_usd: int | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "cost_micros_usd"):
            value = getattr(self, name)
            if value is not None:
                check_amount(f"request_budget.{name}", value)

    @classmethod
    def unlimited(cls) -> RequestBudget:
        """Return a budget without limits."""
        return cls()

    @classmethod
    def from_tokens(cls, tokens: int) -> RequestBudget:
        """Return a budget that limits tokens alone."""
        return cls(tokens=tokens)

    @classmethod
    def from_cost_micros_usd(cls, cost_micros_usd: int) -> RequestBudget:
        """Return a budget that limits cost alone."""
        return cls(cost_micros_usd=cost_micros_usd)

    @classmethod
    def with_limits(cls, tokens: int | None, cost_micros_usd: int | None) -> RequestBudget:
        """Return a budget that limits both."""
        return cls(tokens=tokens, cost_micros_usd=cost_micros_usd)

    def allows_usage(self, usage: Usage | UsageEstimate) -> bool:
        """Tell whether `usage` is within the limits."""
        return (self.tokens is None or usage.total_tokens <= self.tokens) and (
            self.cost_micros_usd is None or usage.cost_micros_usd <= self.cost_micros_usd
        )

    def allows_estimate(self, estimate: UsageEstimate) -> bool:
        """Tell whether `estimate` is within the limits."""
        return self.allows_usage(estimate)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLease:
    """What `reserve` grants. Keep it, or only its token, until the call's usage is recorded.

    A store that was restored from a backup grants numbers again. So each call about a lease
    compares its proof, too.

    Attributes:
        id: Above 0; in a SQL store the number of the reservation's entry.
        reserved: What was estimated.
        request_budget: The request's own limit.
        pool: The identity of the granting pool, None for an in-memory manager.
        ttl: How long it holds from when it was granted; None for ever, and in a lease that was
            looked up by its token.
        proof: What tells it apart from another lease of the same number: the hash of the
            reservation's entry; in memory, bytes that the manager made at random.
    """

    id: int
    reserved: UsageEstimate
    request_budget: RequestBudget
    pool: UUID | None = None
    ttl: timedelta | None = field(default=None, compare=False, repr=False)
    proof: bytes | None = field(default=None, repr=False)

    @property
    def token(self) -> str:
        """The number and the beginning of the proof, as text to hand to another process.

        Raises:
            InvalidInputError: The lease was made by hand and has no proof.
        """
        return token_of(self.id, self.proof)


class Provenance(StrEnum):
    """The source of a usage figure."""

    REPORTED = "reported"
    RECOVERED = "recovered"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


GUESSED = (Provenance.ESTIMATED, Provenance.UNKNOWN)
"""The sources of figures that no provider reported."""
