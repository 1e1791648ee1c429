"""The one place where a verdict or a balance is computed: pure arithmetic on integers.

The in-memory manager, the SQL write path, replay, the verifier and the tests' oracle all call
these functions. There is no I/O, no SQL and no clock here.

`admit` answers "may I?" and changes nothing; `reserve`, `settle` and `end_hold` say what an entry
leaves behind, the same whether it is about to be written or was written years ago; `Replay` folds
a journal through them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ledger.checks import I64_MAX
from ledger.errors import (
    AmountOutOfRangeError,
    RequestBudgetExceededError,
    ThresholdExceededError,
    UnknownLeaseError,
)
from ledger.model import Remaining, RequestBudget, SharedPoolBudgetOptions, Usage, UsageEstimate
from ledger.records import (
    Balance,
    Entry,
    EntryFlag,
    EntryKind,
    LeasePhase,
    LeaseState,
    Totals,
)

Denial = RequestBudgetExceededError | ThresholdExceededError


class Effect(NamedTuple):
    """What an entry leaves behind: the pool's balance, its lease, and what was remarkable."""

    balance: Balance
    lease: LeaseState
    flags: EntryFlag


def remaining(policy: SharedPoolBudgetOptions, balance: Balance) -> Remaining:
    """Return capacity minus (committed + reserved), stopping at 0."""
    committed, reserved = balance
    tokens = max(0, policy.capacity_tokens - committed.tokens - reserved.tokens)
    cost = max(
        0,
        policy.capacity_cost_micros_usd - committed.cost_micros_usd - reserved.cost_micros_usd,
    )
    return Remaining(
        tokens,
        cost,
        tokens <= policy.stop_threshold_tokens or cost <= policy.stop_threshold_cost_micros_usd,
    )


def admit(
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
) -> Denial | None:
    """Return why a reservation is denied, or None where it is admitted.

    The estimate is held against the request's own budget first, then against the pool: it must
    fit into what remains, and may not leave less than the stop threshold, on either axis.
    """
    tokens, cost = estimate.total_tokens, estimate.cost_micros_usd
    if not request_budget.allows_estimate(estimate):
        return _over(request_budget, tokens, cost)
    left = remaining(policy, balance)
    # A threshold is at least 0, so "less than the threshold would remain" covers "does not fit".
    if (
        left.tokens - tokens < policy.stop_threshold_tokens
        or left.cost_micros_usd - cost < policy.stop_threshold_cost_micros_usd
    ):
        return ThresholdExceededError(
            requested_tokens=tokens,
            requested_cost_micros_usd=cost,
            remaining_tokens=left.tokens,
            remaining_cost_micros_usd=left.cost_micros_usd,
        )
    return None


def over_request_budget(
    request_budget: RequestBudget, usage: Usage
) -> RequestBudgetExceededError | None:
    """Return the error a settlement ends in if its usage is over the request's own budget."""
    if request_budget.allows_usage(usage):
        return None
    return _over(request_budget, usage.total_tokens, usage.cost_micros_usd)


def reserve(
    balance: Balance,
    *,
    lease_id: int,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    ceiling: int,
) -> Effect:
    """Return what an admitted reservation leaves behind.

    Raises:
        AmountOutOfRangeError: The reserved total would pass `ceiling`.
    """
    held = Totals(estimate.total_tokens, estimate.cost_micros_usd, 1)
    reserved = _plus(balance.reserved, held)
    for name, value in zip(Totals._fields, reserved, strict=True):
        if value > ceiling:
            raise AmountOutOfRangeError(f"reserved_{name}", value=value, ceiling=ceiling)
    lease = LeaseState(
        lease=lease_id,
        estimate=estimate,
        request_budget=request_budget,
        phase=LeasePhase.OPEN,
        held=held,
        used=Usage.zero(),
    )
    return Effect(Balance(balance.committed, reserved), lease, EntryFlag.NONE)


def settle(
    balance: Balance, lease: LeaseState | None, usage: Usage, *, lease_id: int, ceiling: int
) -> Effect:
    """Return what recording `usage` leaves behind: the hold goes back, the usage is committed.

    Committed totals stop at `ceiling` (flagged saturated): spend is never refused. Usage that
    comes after the hold expired is committed all the same (flagged late).

    Raises:
        UnknownLeaseError: There is no such lease, or it has ended.
    """
    if lease is None or lease.phase is LeasePhase.ENDED:
        raise UnknownLeaseError(lease_id)
    exact = _plus(balance.committed, Totals(usage.total_tokens, usage.cost_micros_usd, 1))
    committed = Totals(*(min(value, ceiling) for value in exact))
    used = lease.used.saturating_add(usage, ceiling=ceiling)
    flags = EntryFlag.NONE
    if (
        used.total_tokens > lease.estimate.total_tokens
        or used.cost_micros_usd > lease.estimate.cost_micros_usd
    ):
        flags |= EntryFlag.OVERRUN
    if lease.phase is LeasePhase.EXPIRED:
        flags |= EntryFlag.LATE
    if committed != exact:
        flags |= EntryFlag.SATURATED
    after = replace(lease, phase=LeasePhase.ENDED, held=Totals(), used=used)
    return Effect(Balance(committed, _minus(balance.reserved, lease.held)), after, flags)


def end_hold(
    balance: Balance, lease: LeaseState | None, phase: LeasePhase, *, lease_id: int
) -> Effect:
    """Return what a release (phase ended) or an expiry (phase expired) leaves behind.

    Raises:
        UnknownLeaseError: There is no such lease, or its hold is gone already.
    """
    if lease is None or lease.phase is not LeasePhase.OPEN:
        raise UnknownLeaseError(lease_id)
    after = replace(lease, phase=phase, held=Totals())
    return Effect(
        Balance(balance.committed, _minus(balance.reserved, lease.held)), after, EntryFlag.NONE
    )


def denial_figures(denial: Denial) -> dict[str, str | int]:
    """Return what an entry keeps of a denial beside the estimate: why, and what remained."""
    if isinstance(denial, RequestBudgetExceededError):
        return {"reason": "request_budget"}
    return {
        "reason": "threshold",
        "remaining_tokens": denial.remaining_tokens,
        "remaining_cost_micros_usd": denial.remaining_cost_micros_usd,
    }


_SHAPED = {"policy": "a policy", "estimate": "an estimate", "usage": "usage", "lease": "a lease"}
_SHAPES = {
    EntryKind.OPENING: {"policy"},
    EntryKind.RESERVATION: {"estimate", "lease"},
    EntryKind.DENIAL: {"estimate"},
    EntryKind.SETTLEMENT: {"estimate", "usage", "lease"},
    EntryKind.RELEASE: {"estimate", "lease"},
    EntryKind.EXPIRY: {"estimate", "lease"},
    EntryKind.ADJUSTMENT: {"policy"},
}
"""Which of these an entry of each kind has; it has no other."""


class Contradiction(Exception):  # noqa: N818 - an answer of the replay, not an error of a caller
    """An entry that the rules cannot have written."""


@dataclass(slots=True)
class Replay:
    """A pool rebuilt from its entries, one at a time; it remembers open leases alone."""

    ceiling: int = I64_MAX
    entries: int = 0
    policy: SharedPoolBudgetOptions = field(default_factory=SharedPoolBudgetOptions)
    policy_seq: int = 0
    balance: Balance = field(default_factory=Balance)
    leases: dict[int, LeaseState] = field(default_factory=dict)

    def apply(self, entry: Entry) -> Effect | None:
        """Decide `entry` anew and move on; return its effect, None if it moved no amount.

        Raises:
            Contradiction: The rules cannot have written this entry at this place.
        """
        try:
            effect = self._effect(entry)
        except (UnknownLeaseError, AmountOutOfRangeError) as error:
            raise Contradiction(f"{entry.kind}: {error}") from error
        self.entries += 1
        if effect is not None:
            self.balance = effect.balance
            if effect.lease.phase is LeasePhase.ENDED:
                del self.leases[effect.lease.lease]
            else:
                self.leases[effect.lease.lease] = effect.lease
        if entry.policy is not None:
            self.policy, self.policy_seq = entry.policy, entry.seq
        return effect

    def _effect(self, entry: Entry) -> Effect | None:
        _check_shape(entry)
        lease_id = -1 if entry.lease is None else entry.lease.lease
        lease = self.leases.get(lease_id)
        match entry.kind:
            case EntryKind.OPENING | EntryKind.ADJUSTMENT:
                if (entry.kind == EntryKind.OPENING) != (self.entries == 0):
                    raise Contradiction("a pool begins with its opening, and has no other")
                return None
            case EntryKind.RESERVATION | EntryKind.DENIAL:
                assert entry.estimate is not None  # noqa: S101 - by its shape
                assert entry.request_budget is not None  # noqa: S101 - likewise
                denial = admit(self.policy, self.balance, entry.estimate, entry.request_budget)
                if (denial is None) != (entry.kind == EntryKind.RESERVATION):
                    raise Contradiction(f"{entry.kind}, but the rules say: {denial or 'admitted'}")
                if denial is not None:
                    if entry.detail.get("denial") != denial_figures(denial):
                        raise Contradiction(f"denial whose figures should be of: {denial}")
                    return None
                return reserve(
                    self.balance,
                    lease_id=entry.seq,
                    estimate=entry.estimate,
                    request_budget=entry.request_budget,
                    ceiling=self.ceiling,
                )
            case EntryKind.SETTLEMENT:
                assert entry.usage is not None  # noqa: S101 - by its shape
                return settle(
                    self.balance, lease, entry.usage, lease_id=lease_id, ceiling=self.ceiling
                )
            case EntryKind.RELEASE:
                return end_hold(self.balance, lease, LeasePhase.ENDED, lease_id=lease_id)
            case EntryKind.EXPIRY:
                return end_hold(self.balance, lease, LeasePhase.EXPIRED, lease_id=lease_id)
            case _:
                raise AssertionError(entry.kind)  # a kind that has a shape has a case


def _check_shape(entry: Entry) -> None:
    shape = _SHAPES.get(EntryKind(entry.kind)) if entry.kind in list(EntryKind) else None
    if shape is None:
        raise Contradiction(f"this version of ledger knows no entry kind {entry.kind!r}")
    for name, words in _SHAPED.items():
        if (getattr(entry, name) is not None) != (name in shape):
            raise Contradiction(f"{entry.kind} {'without' if name in shape else 'with'} {words}")


def replay(entries: Iterable[Entry], *, ceiling: int = I64_MAX) -> Replay:
    """Fold a pool's entries, from the first on, and return the pool they make.

    Raises:
        Contradiction: The rules cannot have written one of them.
    """
    pool = Replay(ceiling=ceiling)
    for entry in entries:
        pool.apply(entry)
    return pool


def _over(request_budget: RequestBudget, tokens: int, cost: int) -> RequestBudgetExceededError:
    return RequestBudgetExceededError(
        requested_tokens=tokens,
        requested_cost_micros_usd=cost,
        budget_tokens=request_budget.tokens,
        budget_cost_micros_usd=request_budget.cost_micros_usd,
    )


def _plus(left: Totals, right: Totals) -> Totals:
    return Totals(
        left.tokens + right.tokens,
        left.cost_micros_usd + right.cost_micros_usd,
        left.requests + right.requests,
    )


def _minus(left: Totals, right: Totals) -> Totals:
    return Totals(
        left.tokens - right.tokens,
        left.cost_micros_usd - right.cost_micros_usd,
        left.requests - right.requests,
    )
