"""Reserve: hold an estimate in the pool, or be denied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX, Micros, check_not_ahead, from_micros, to_micros
from ledger.core.entries import Balance, EntryFlag, LeaseState, PoolInfo, make
from ledger.core.errors import LedgerError, RequestBudgetExceededError, ThresholdExceededError
from ledger.core.extensions import (
    Attribution,
    IdempotencyKey,
    LeaseTtl,
    OccurredAt,
    RequestExtensions,
    layers_of,
)
from ledger.core.kinds import EntryKind
from ledger.core.policy import Unpriced, check_ttl
from ledger.core.values import BudgetLease, RequestBudget, UsageEstimate
from ledger.engine.admission import begin_sessions, refusal
from ledger.engine.batch import Batch
from ledger.engine.operations.base import UNKEYED, Operation, keyed
from ledger.engine.pool_batch import PoolBatch
from ledger.store.amounts import BUDGET, ESTIMATE
from ledger.store.drafts import Draft
from ledger.store.rows import Row, detail_of, request_budget_of

# Before Python 3.12, looking up an enum's member is a function call.
_RESERVATION = EntryKind.RESERVATION
_DENIAL = EntryKind.DENIAL
_UNFLAGGED = EntryFlag.NONE


class NotYetError(LedgerError):
    """The pool has not enough left, and the caller waits on. Callers never see this error.

    Attributes:
        retry_in_s: After how many seconds it will have enough if nothing else happens; None for
            never.
        too_large: Whether it would not have enough even with nothing spent and nothing held.
    """

    def __init__(self, denial: ThresholdExceededError, at: Micros) -> None:
        super().__init__(str(denial))
        self.retry_in_s: float | None = None
        self.too_large = denial.too_large
        if denial.retry_at is not None:
            self.retry_in_s = (denial.retry_at - from_micros(at)).total_seconds()


@dataclass(slots=True, kw_only=True)
class Reserve(Operation[BudgetLease]):
    """Hold an estimate in the pool."""

    estimate: UsageEstimate
    request_budget: RequestBudget
    attribution: str | None
    """The content of the caller's attribution, as it was when the call was made."""
    request_id: str | None
    occurred_at: Micros | None
    ttl_us: int | None
    """How long to hold, in microseconds; None for the time of the pool's policy."""
    unpriced: Unpriced | None
    """How the call wants missing figures treated. It is not among the arguments, since a call that
    is refused for missing figures leaves no entry."""
    keep_denial: bool
    """Whether a denial becomes an entry of the journal."""
    waits: bool = False
    """Whether the caller waits if the pool has too little left; then no denial is kept."""
    lease_id = None

    @classmethod
    def of(
        cls,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        keep_denial: bool,
    ) -> Self:
        """Return the operation a call asks for.

        Raises:
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        amounts = (*ESTIMATE.present(estimate), *BUDGET.present(request_budget))
        if max(filter(None, amounts), default=0) > I64_MAX:
            ESTIMATE.check_storable("estimate", estimate)
            BUDGET.check_storable("request_budget", request_budget)
        newest, *older = layers_of(extensions)
        said = (extensions.newest() if older else newest).get
        given, occurred, attribution = said(IdempotencyKey), said(OccurredAt), said(Attribution)
        ttl = said(LeaseTtl)
        return cls(
            **(UNKEYED if given is None else keyed(given.key)),
            estimate=estimate,
            request_budget=request_budget,
            # Kept as text, since the caller may change the tags later.
            attribution=None if attribution is None else hashing.attribution_content(attribution),
            request_id=None if attribution is None else attribution.request_id,
            occurred_at=None if occurred is None else to_micros("occurred_at", occurred.at),
            ttl_us=None if ttl is None else check_ttl("lease_ttl", ttl.ttl),
            unpriced=said(Unpriced),
            keep_denial=keep_denial or given is not None,
        )

    @property
    def attributed(self) -> str | None:
        """The content of the call's attribution."""
        return self.attribution

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the estimate, the request budget, the attribution and the times."""
        return arguments_of(
            ESTIMATE.values(self.estimate),
            (self.request_budget.tokens, self.request_budget.cost_micros_usd),
            self.attribution,
            self.request_id,
            self.occurred_at,
            self.ttl_us,
        )

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return a reservation, or the denial where denials are kept.

        Raises:
            InvalidInputError: The call is dated more than a day ahead of the store's clock.
            UnpricedCallError: It would be granted, but leaves out a figure that one of the pools
                limits.
        """
        if self.occurred_at is not None:
            check_not_ahead("occurred_at", self.occurred_at, batch.now)
        line = batch.lineage(pool)
        denial = refusal(batch, line, self.estimate, self.request_budget)
        if denial is None or self.waits:
            for one in line:
                rules.require_priced(one.head.policy, self.estimate, self.unpriced, one.info.name)
        if denial is None:  # `refusal` may have staged expiries
            begin_sessions(batch, line, self.estimate, self.request_budget)
            return self.granted(pool)
        if self.waits and isinstance(denial, ThresholdExceededError):
            raise NotYetError(denial, pool.at)
        if not self.keep_denial:
            raise denial
        detail = {"denial": _figures(denial, batch, pool)}
        return self._asked(_DENIAL, pool, pool.head.balance, detail=detail)

    def granted(self, pool: PoolBatch) -> Draft:
        """Return the reservation, without asking whether it would be denied.

        Raises:
            AmountOutOfRangeError: The total held would be above 2^63-1.
        """
        head, ttl_us = pool.head, self.ttl_us
        if ttl_us is None and head.policy.lease_ttl is not None:
            ttl_us = check_ttl("lease_ttl", head.policy.lease_ttl)
        balance, lease, flags = rules.reserve(
            head.balance,
            lease_id=head.seq + 1,
            estimate=self.estimate,
            request_budget=self.request_budget,
            ceiling=I64_MAX,
            expires_at=None if ttl_us is None else Micros(pool.at + ttl_us),
        )
        return self._asked(_RESERVATION, pool, balance, flags, lease)

    def _asked(
        self,
        kind: EntryKind,
        pool: PoolBatch,
        balance: Balance,
        flags: EntryFlag = _UNFLAGGED,
        lease: LeaseState | None = None,
        *,
        detail: Mapping[str, Any] | None = None,
    ) -> Draft:
        """Return a reservation or a denial, with what the call asks for."""
        attribution = None if self.attribution is None else pool.intern(self.attribution)
        digest = self.payload_digest() if self.key_given else None
        # fmt: off
        return make(Draft, (  # all of its fields in order
            kind, balance, flags, detail, None, self.estimate, self.request_budget, None, lease,
            attribution, self.request_id, None, self.occurred_at, self.key, digest, None, None,
        ))
        # fmt: on

    def answer(self, row: Row, pool: PoolInfo) -> BudgetLease:
        """Return the lease, or raise the denial."""
        if row["kind"] == _DENIAL:
            raise _denial_from(row, pool)
        ttl = _ttl_of(row)
        asked = self.estimate, self.request_budget
        return _granted(row["seq"], *asked, pool.identity, ttl, row["hash"])


_set_id, _set_reserved, _set_budget, _set_pool, _set_ttl, _set_proof = (
    vars(BudgetLease)[part.name].__set__ for part in fields(BudgetLease)
)


def _granted(
    lease: int,
    reserved: UsageEstimate,
    request_budget: RequestBudget,
    pool: UUID | None,
    ttl: timedelta | None,
    proof: bytes | None,
) -> BudgetLease:
    """Return a lease, in half the time that calling its class takes."""
    made = object.__new__(BudgetLease)
    _set_id(made, lease)
    _set_reserved(made, reserved)
    _set_budget(made, request_budget)
    _set_pool(made, pool)
    _set_ttl(made, ttl)
    _set_proof(made, proof)
    return made


def arguments_of(
    estimate: Sequence[int | None],
    request_budget: Sequence[int | None],
    attribution: str | None,
    request_id: str | None,
    occurred_at: Micros | None,
    ttl_us: int | None,
) -> Sequence[hashing.Value]:
    """Return the arguments of a reservation, as values to be digested."""
    told = (attribution, request_id, occurred_at, ttl_us)
    return ("reserve", *estimate, *request_budget, *told)


def _ttl_of(row: Row) -> timedelta | None:
    expires_at = row["expires_at"]
    return None if expires_at is None else timedelta(microseconds=expires_at - row["recorded_at"])


def _figures(denial: rules.Denial, batch: Batch, pool: PoolBatch) -> dict[str, Any]:
    figures = rules.denial_figures(denial)
    if isinstance(denial, ThresholdExceededError):
        above = next(one for one in batch.lineage(pool) if one.info.name == denial.pool)
        if above is not pool:
            figures["pool"] = above.info.name
            policy = above.head.policy
            session = policy.window is not None and policy.window.session
            timed = session or policy.limits or policy.prepaid
            if timed and above.at != pool.at:
                figures["at"] = above.at  # what counts there depends on the time
    return figures


def _denial_from(row: Row, pool: PoolInfo) -> rules.Denial:
    denial = detail_of(row)["denial"]
    estimate = UsageEstimate(**ESTIMATE.of(row))
    if denial["reason"] == "request_budget":
        budget = request_budget_of(row)
        return RequestBudgetExceededError(
            requested_tokens=estimate.total_tokens,
            requested_cost_micros_usd=estimate.cost_micros_usd,
            budget_tokens=budget.tokens,
            budget_cost_micros_usd=budget.cost_micros_usd,
        )
    found = rules.denial_of(denial, estimate, denial.get("pool", pool.name))
    if row["payload_digest"] is None:  # a second answer needs a key from the caller
        return found
    return found.kept_at(from_micros(row["recorded_at"]))
