"""Calls of the past that are imported into a pool, and the results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from hashlib import blake2b
from typing import NamedTuple

from ledger.core.checks import Micros, check_moment, check_text, check_type, to_micros
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution
from ledger.core.values import Provenance, Usage

COST_PLACES_MAX = 200
"""How many decimal places an exact cost may have."""
_CEILING = Context(prec=COST_PLACES_MAX, rounding=ROUND_CEILING, traps=[InvalidOperation])


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCall:
    """A call that was made in the past and has no entry, to be imported into a pool.

    Attributes:
        usage: What it used.
        occurred_at: When it was made, with a time zone, in the years 1900 to 2999.
        attribution: Whom it was for; its `request_id` is the provider's id of the call.
        idempotency_key: The name by which it is imported once into a pool, 1 to 255 characters; by
            default made from the request id.
        provenance: The source of the figures.
        cost_usd: What it cost in US dollars, exactly, if `usage` has that cost rounded up to a
            micro-USD; at most 200 decimal places. It is kept if the store was opened with
            `exact_costs`.

    Raises:
        InvalidInputError: A value of another type or out of range, or neither a request id nor an
            idempotency key.
    """

    usage: Usage
    occurred_at: datetime
    attribution: Attribution | None = None
    idempotency_key: str | None = None
    provenance: Provenance = Provenance.RECOVERED
    cost_usd: Decimal | None = None

    def __post_init__(self) -> None:
        check_type("usage", self.usage, Usage)
        check_moment("occurred_at", self.occurred_at)
        if self.attribution is not None:
            check_type("attribution", self.attribution, Attribution)
        check_type("provenance", self.provenance, Provenance)
        if self.idempotency_key is not None:
            check_text("idempotency_key", self.idempotency_key)
        elif self.request_id is None:
            raise InvalidInputError(
                "idempotency_key", "must be given where no request id says which call it is"
            )
        if self.cost_usd is not None:
            check_type("cost_usd", self.cost_usd, Decimal)
            self._check_cost(self.cost_usd)

    def _check_cost(self, exactly: Decimal) -> None:
        if exact_cost_in(str(exactly), self.usage.cost_micros_usd) is None:
            raise InvalidInputError(
                "cost_usd",
                f"{exactly} is below 0, or is not {self.usage.cost_micros_usd:,} micro-USD, as the "
                f"usage says, when it is rounded up (at most {COST_PLACES_MAX} decimal places)",
            )

    @property
    def request_id(self) -> str | None:
        """The provider's id of the call."""
        return None if self.attribution is None else self.attribution.request_id

    @property
    def key(self) -> str:
        """The idempotency key of its entry."""
        return self.idempotency_key or import_key(f"{self.request_id}")

    @property
    def at(self) -> Micros:
        """When it was made."""
        return to_micros("occurred_at", self.occurred_at)


def exact_cost_in(text: object, micros: int) -> Decimal | None:
    """Return the cost in US dollars that a text states, None if it does not round up to `micros`.

    A cost below 0 gives None, too: no call costs less than 0, and corrections are in whole
    micro-USD.

    Args:
        text: The exact cost, as an entry or a caller gives it.
        micros: What was charged, in micro-USD.
    """
    try:
        cost = Decimal(text) if isinstance(text, str) else Decimal("NaN")
        places = cost.as_tuple().exponent
        if not isinstance(places, int) or abs(places) > COST_PLACES_MAX:
            return None
        charged = cost.scaleb(6, _CEILING).to_integral_value(context=_CEILING)
    except InvalidOperation:
        return None
    return cost if cost >= 0 and charged == micros else None


def import_key(named: str) -> str:
    """Return the idempotency key of a call with this request id, or of another name."""
    return f"import:{blake2b(named.encode(), digest_size=16).hexdigest()}"


class ImportedCall(NamedTuple):
    """The result of importing one call.

    Attributes:
        entry: The number of its entry.
        is_new: Whether the entry was written now, and not imported before.
        is_changed: Whether it was imported before with another usage; nothing was written.
    """

    entry: int
    is_new: bool
    is_changed: bool
