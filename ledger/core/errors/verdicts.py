"""Errors that are verdicts, of the budget or about a lease."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from operator import ge

from ledger.core.axes import AXES, COST, REQUESTS, TOKENS, U64_MAX, Axis
from ledger.core.errors.root import LedgerError


def _amount(axis: Axis, value: int | None) -> str:
    return f"{'unlimited' if value is None else f'{value:,}'} {axis.unit}"


def _amounts(of_axes: Mapping[str, int]) -> str:
    return " and ".join(_amount(axis, of_axes[axis.name]) for axis in AXES if axis.name in of_axes)


class BudgetError(LedgerError):
    """A verdict of the budget, or about a lease."""


class RequestBudgetExceededError(BudgetError):
    """One request is over its own limit.

    From ``reserve`` nothing was reserved. From ``record_used`` the usage *is* recorded and the
    lease is closed: real spend is never refused.

    Attributes:
        requested_tokens: What was asked for, or really used.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        budget_tokens: The request's own limit, None for unlimited.
        budget_cost_micros_usd: The same in millionths of a US dollar.
    """

    def __init__(
        self,
        *,
        requested_tokens: int,
        requested_cost_micros_usd: int,
        budget_tokens: int | None,
        budget_cost_micros_usd: int | None,
    ) -> None:
        super().__init__(
            f"over the request's own budget: {requested_tokens:,} tokens and "
            f"{requested_cost_micros_usd:,} micro-USD against a limit of "
            f"{_amount(TOKENS, budget_tokens)} and {_amount(COST, budget_cost_micros_usd)}"
        )
        self.requested_tokens = requested_tokens
        self.requested_cost_micros_usd = requested_cost_micros_usd
        self.budget_tokens = budget_tokens
        self.budget_cost_micros_usd = budget_cost_micros_usd


class ThresholdExceededError(BudgetError):
    """The pool has not enough left, or would fall below its stop threshold.

    Attributes:
        requested_tokens: What was asked for.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        remaining_tokens: What remained before this request; like the next two, a number of no
            meaning where the capacity has no limit.
        remaining_cost_micros_usd: The same in millionths of a US dollar.
        remaining_requests: How many more calls the pool would have admitted.
        unlimited: The names of the axes without a limit: `tokens`, `cost_micros_usd`, `requests`.
            Without it, those on which 2^64-1 remained.
        pool: The name of the pool that refused: the one that was asked, or one above it. None in
            memory, where pools have no names.
        kept_since: When the refusal was given first, where it is kept under the caller's
            idempotency key, also in that first answer: what remained is of that moment. None
            where no denial is kept.
        limit: The name of the limit that refused, of those that did the one that frees up last;
            None for the pool's own capacity. What remained is what remained of it.
        retry_at: When the pool would grant this request if nothing else happened, and every open
            lease went on holding what it does; None if it would never. By the pool's clock, with a
            time zone.
        held_by_leases: Where `retry_at` is None, whether open leases hold what is missing: the
            request may pass once they have ended, and used less than they hold; when is not known.
            If False, no time helps: the policy, the credits or the request must change.
        too_large: Whether the capacity, or the limit, that refused is too small for this request
            with nothing spent and nothing held, too: it never fits, and `retry_at` is None.
        overspent: By axis, how much more is committed and held than the capacity, or the limit,
            that refused: until that is made up it grants nothing that uses anything, however
            little. None if it is not overspent.
        top_up: Where the credits of a prepaid pool refused: by axis, the least credit that would
            have admitted the request. What remained is what remained of them. None elsewhere.
        expired: The name of the credit that expired last with something left, if credits refused.
        expired_at: When it expired.
    """

    def __init__(  # noqa: PLR0913 - one for each figure
        self,
        *,
        requested_tokens: int,
        requested_cost_micros_usd: int,
        remaining_tokens: int,
        remaining_cost_micros_usd: int,
        remaining_requests: int = U64_MAX,
        unlimited: frozenset[str] | None = None,
        pool: str | None = None,
        kept_since: datetime | None = None,
        limit: str | None = None,
        retry_at: datetime | None = None,
        held_by_leases: bool = False,
        too_large: bool = False,
        overspent: Mapping[str, int] | None = None,
        top_up: Mapping[str, int] | None = None,
        expired: str | None = None,
        expired_at: datetime | None = None,
    ) -> None:
        if unlimited is None:
            left = remaining_tokens, remaining_cost_micros_usd, remaining_requests
            unlimited = frozenset(
                axis.name for axis, amount in zip(AXES, left, strict=True) if amount == U64_MAX
            )
        self.requested_tokens = requested_tokens
        self.requested_cost_micros_usd = requested_cost_micros_usd
        self.remaining_tokens = remaining_tokens
        self.remaining_cost_micros_usd = remaining_cost_micros_usd
        self.remaining_requests = remaining_requests
        self.unlimited = unlimited
        self.pool = pool
        self.kept_since = kept_since
        self.limit = limit
        self.retry_at = retry_at
        self.held_by_leases = held_by_leases
        self.too_large = too_large
        self.overspent = overspent
        self.top_up = top_up
        self.expired = expired
        self.expired_at = expired_at
        super().__init__(self._text())

    def _text(self) -> str:
        left = {axis: getattr(self, f"remaining_{axis.name}") for axis in AXES}
        shown = " and ".join(
            _amount(axis, None if axis.name in self.unlimited else amount)
            for axis, amount in left.items()
            if axis.name not in self.unlimited
            or not (axis.only_if_limited or self.limit is not None)
        )
        who = "the pool" if self.pool is None else f"pool {self.pool!r}"
        if self.limit is not None:
            who += f", by its limit {self.limit!r},"
        if self.top_up is not None:
            who += ", by its credits,"
        asked = (self.requested_tokens, self.requested_cost_micros_usd, 1)
        call = "" if REQUESTS.name in self.unlimited else " and 1 request"
        why = ""
        if self.overspent is not None:
            why = f". It is overspent by {_amounts(self.overspent)}, so it grants nothing"
        elif all(map(ge, left.values(), asked)):  # enough remains: the threshold refuses
            why = (
                ". It would fall below its stop threshold, or is strict and at it, where it grants "
                "nothing"
            )
        return (
            f"{who} cannot grant {self.requested_tokens:,} tokens and "
            f"{self.requested_cost_micros_usd:,} micro-USD{call}: {shown} remain{why}"
            f"{self._when()}. {self._what_to_do()}"
        )

    def _when(self) -> str:
        """Return when the request may be granted, and what expired before."""
        when = "" if self.retry_at is None else f". Try again at {self.retry_at.isoformat()}"
        if self.held_by_leases:
            when = ". Open leases hold what is missing: try again once they have ended"
        if self.too_large:
            when = ". It would not fit either if nothing was spent or held"
        if self.expired is not None and self.expired_at is not None:
            when += (
                f". Credit {self.expired!r} expired at {self.expired_at.isoformat()} with a rest"
            )
        return when

    def _what_to_do(self) -> str:
        ways = [] if self.overspent is not None else ["ask for less"]
        if self.held_by_leases:
            ways.append("settle or release open leases")
        if self.top_up is not None:
            ways.append(f"give a credit of {_amounts(self.top_up)}")
        else:
            raised = "capacity" if self.limit is None else "limit"
            ways.append(f"raise the {raised} with adjust()")
        *others, last = ways
        do = f"{', '.join(others)}, or {last}" if others else last
        do = do[0].upper() + do[1:]
        if self.kept_since is None:
            return do
        return (
            f"{do}. This is the answer of {self.kept_since:%Y-%m-%d %H:%M:%S} UTC, which its "
            "idempotency key keeps: ask again with another key"
        )

    def of_pool(self, name: str) -> ThresholdExceededError:
        """Return the same refusal with the name of the pool that refused."""
        return self._but(pool=name)

    def by_leases(self) -> ThresholdExceededError:
        """Return the same refusal, which open leases may take back when they end."""
        return self._but(held_by_leases=True)

    def kept_at(self, moment: datetime) -> ThresholdExceededError:
        """Return the same refusal as the one that an idempotency key has kept since a moment."""
        return self._but(kept_since=moment)

    def _but(
        self,
        *,
        pool: str | None = None,
        kept_since: datetime | None = None,
        held_by_leases: bool = False,
    ) -> ThresholdExceededError:
        return ThresholdExceededError(
            requested_tokens=self.requested_tokens,
            requested_cost_micros_usd=self.requested_cost_micros_usd,
            remaining_tokens=self.remaining_tokens,
            remaining_cost_micros_usd=self.remaining_cost_micros_usd,
            remaining_requests=self.remaining_requests,
            unlimited=self.unlimited,
            pool=pool or self.pool,
            kept_since=kept_since or self.kept_since,
            limit=self.limit,
            retry_at=self.retry_at,
            held_by_leases=held_by_leases or self.held_by_leases,
            too_large=self.too_large,
            overspent=self.overspent,
            top_up=self.top_up,
            expired=self.expired,
            expired_at=self.expired_at,
        )


class UnpricedCallError(BudgetError):
    """The call plainly uses something on an axis that the pool limits, and its estimate says 0.

    Nothing was reserved. An amount of 0 would count as free, and the pool would be spent unseen.

    Attributes:
        missing: The amounts to give: `total_tokens`, `cost_micros_usd`, or both.
        input_tokens: What the estimate says, like the next three.
        output_tokens: Output tokens.
        total_tokens: All tokens.
        cost_micros_usd: In millionths of a US dollar.
        pool: The pool that limits it: the one that was asked, or one above it. None in memory.
    """

    def __init__(
        self,
        *,
        missing: tuple[str, ...],
        input_tokens: int,
        output_tokens: int,
        total_tokens: int,
        cost_micros_usd: int,
        pool: str | None = None,
    ) -> None:
        tokens = total_tokens or input_tokens + output_tokens
        limited = " and ".join(axis.name for axis in AXES if axis.amount in missing)
        who = "the pool" if pool is None else f"pool {pool!r}"
        give = [f"{name} as it is estimated" for name in missing if name != TOKENS.amount]
        if TOKENS.amount in missing:
            give.insert(0, f"{TOKENS.amount}={tokens:,}, or what the provider counts as the total")
        super().__init__(
            f"the call uses {tokens:,} tokens and leaves {' and '.join(missing)} at 0, while {who} "
            f"limits {limited}: give {'; '.join(give)}. If the call is free there, say so with "
            "unpriced='flag' in the policy, or Unpriced.FLAG in the call's extensions; nothing was "
            "reserved"
        )
        self.missing = missing
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.total_tokens = total_tokens
        self.cost_micros_usd = cost_micros_usd
        self.pool = pool


class UnknownPriceError(UnpricedCallError):
    """No price is known for a call, or for something that it uses; nothing was reserved.

    The figures of `UnpricedCallError` are 0: the message says what is not known.

    Attributes:
        reason: What is not known, and what to give.
    """

    def __init__(self, reason: str) -> None:
        BudgetError.__init__(self, reason)
        self.reason = reason
        self.missing = (COST.amount or "",)
        self.input_tokens = self.output_tokens = self.total_tokens = self.cost_micros_usd = 0
        self.pool = None


_NO_LEASE = {
    "elsewhere": "another pool or store granted it. Call the pool that did, or a router",
    "ended": "it was settled or released already",
    "expired": (
        "its hold has expired, so it can be settled or released, but not renewed or abandoned"
    ),
    "unknown": "it was never granted here, was made by hand, or has ended",
}


class UnknownLeaseError(BudgetError):
    """No lease of this id with which this pool can do what was asked.

    Attributes:
        lease_id: The id that was asked for.
        cause: Why: `elsewhere` (another pool or store granted it), `ended` (it was settled or
            released), `expired` (its hold has ended, so it can be settled or released, but not
            renewed or abandoned), `lost` (see `LostLeaseError`), or `unknown` (never granted here;
            in memory also ended).
    """

    def __init__(self, lease_id: int, cause: str = "unknown") -> None:
        super().__init__(f"no open lease {lease_id} in this pool: {_NO_LEASE[cause]}")
        self.lease_id = lease_id
        self.cause = cause


class LostLeaseError(UnknownLeaseError):
    """The lease is real, but its reservation is not in this store: the store went back.

    It was restored from a backup, or a standby took over that lacked the newest entries. The number
    may have been granted again, to another call. In memory: another manager granted it. Nothing was
    written. What the call used is real: `record_lost` books it, exactly once.

    Attributes:
        lease_id: The lease's number.
        cause: `lost`.
        pool: The name of the pool that was asked, None in memory.
    """

    def __init__(self, lease_id: int, *, pool: str | None = None) -> None:
        if pool is None:
            what = f"this in-memory manager did not grant lease {lease_id}; another one did"
        else:
            what = (
                f"lease {lease_id} of pool {pool!r} is lost: its reservation is not in this store, "
                "which was restored from a backup or lost its newest entries in a failover. Entry "
                f"{lease_id}, if there is one, is another call's"
            )
        BudgetError.__init__(
            self,
            f"{what}. Nothing was written. If the call was made, book what it used with "
            "record_lost(lease, usage, attribution=...)"
            f"{'' if pool is None else ', or ledger record --lease'}",
        )
        self.lease_id = lease_id
        self.cause = "lost"
        self.pool = pool


class PoolClosedError(BudgetError):
    """The pool, or one above it, is closed: it takes settlements and releases, and nothing new.

    Attributes:
        pool: The pool that is closed.
    """

    def __init__(self, pool: str) -> None:
        super().__init__(
            f"pool {pool!r} is closed: its open leases can be settled or released, but it grants "
            "no new ones. Use another pool"
        )
        self.pool = pool


class PoisonedError(BudgetError):
    """An exception broke into a state change of the in-memory manager; its figures are void."""

    def __init__(self) -> None:
        super().__init__(
            "an exception interrupted a state change of this in-memory manager, so its figures "
            "cannot be trusted. Make a new manager"
        )
