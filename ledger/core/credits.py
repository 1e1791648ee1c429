"""Credits: prepaid amounts, given by a top-up, that a pool may spend until they expire."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from ledger.core.axes import AXES, NAMES
from ledger.core.checks import I64_MAX, check_amount, check_moment, check_text, to_micros
from ledger.core.errors import InvalidInputError

CREDIT_NAME_MAX_CHARS = 64
PRIORITY_MAX = 100
PRIORITY_DEFAULT = 50
CREDITS_MAX = 32
"""How many credits a pool lists at most. A refund can be given back to a listed credit only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """A prepaid amount, to be added to a pool by `Ledger.credit`.

    Attributes:
        name: What reports and refusals call it; 1 to 64 characters. Several may have one name.
        tokens: 0 .. 2^63-1, like the next two; it has at least one amount above 0.
        cost_micros_usd: In millionths of a US dollar.
        requests: How many calls.
        expires_at: When it expires: nothing more is paid from it then, and what is left of it is
            lost. In the years 1900 to 2999, with a time zone; None is never.
        priority: 0 to 100. A credit with a lower number is used first. Of the same priority, the
            one that expires sooner is used first, then the one that was given first.
    """

    name: str
    tokens: int = 0
    cost_micros_usd: int = 0
    requests: int = 0
    expires_at: datetime | None = None
    priority: int = PRIORITY_DEFAULT

    def __post_init__(self) -> None:
        check_text("credit.name", self.name, max_chars=CREDIT_NAME_MAX_CHARS)
        for name in NAMES:
            check_amount(f"credit.{name}", getattr(self, name), ceiling=I64_MAX)
        if not any(getattr(self, name) for name in NAMES):
            raise InvalidInputError("credit", f"{self.name!r} gives nothing: all amounts are 0")
        if self.expires_at is not None:
            check_moment("credit.expires_at", self.expires_at)
        check_amount("credit.priority", self.priority, ceiling=PRIORITY_MAX)

    def __str__(self) -> str:
        amounts = " and ".join(
            f"{amount:,} {axis.unit}" for axis in AXES if (amount := getattr(self, axis.name))
        )
        until = "" if self.expires_at is None else f", until {self.expires_at.isoformat()}"
        return f"{self.name!r}: {amounts}{until}"


def order_of_use(credit: Credit, seq: int) -> tuple[int, bool, int, int]:
    """Return the place of a credit in the order of use: the smallest is used first.

    The order is by priority, then by expiry, then by the entry that gave it.

    Args:
        credit: The credit.
        seq: The number of the entry that gave it.
    """
    expires_at = credit.expires_at
    at = 0 if expires_at is None else to_micros("expires_at", expires_at)
    return credit.priority, expires_at is None, at, seq


def check_prepaid(prepaid: object) -> tuple[str, ...]:
    """Return the axes on which a policy spends only credits, in the order of `AXES`.

    Raises:
        InvalidInputError: They are not names of axes.
    """
    if (
        isinstance(prepaid, str)
        or not isinstance(prepaid, Collection)
        or not all(one in NAMES for one in prepaid)
    ):
        raise InvalidInputError("prepaid", f"must be a collection of {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in prepaid)
