"""Admission of a reservation, by its pool and by the pools above that share capacity with it."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.entries import Balance
from ledger.core.values import RequestBudget, UsageEstimate
from ledger.engine.batch import Batch
from ledger.engine.expiry import expire_spared, spared
from ledger.engine.pool_batch import PoolBatch
from ledger.errors import ThresholdExceededError


def refusal(
    batch: Batch,
    pool: PoolBatch,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    *,
    requests: int = 1,
) -> rules.Denial | None:
    """Return the denial of the first pool that denies a reservation, None where all admit it.

    Leases that are due expire first, if what they hold would be enough to admit the reservation.

    Raises:
        PoolClosedError: One of the pools is closed.
        JournalDamagedError: One of them cannot be read.
        MorePoolsError: Leases of other pools must expire first.
        UnsweptError: More leases must expire first than one transaction expires.
    """
    for one in batch.lineage(pool):
        denial = _denial_of(batch, one, estimate, request_budget, requests)
        if denial is not None:
            return denial
    return None


def _denial_of(
    batch: Batch,
    pool: PoolBatch,
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    requests: int,
) -> rules.Denial | None:
    """Return the denial of one pool, None if it admits, also by letting due leases expire."""
    pool.require_open()
    policy, window = pool.head.policy, pool.head.window
    admit = rules.admission(pool.head.rules_version)

    def ask(balance: Balance) -> rules.Denial | None:
        return admit(policy, balance, estimate, request_budget, window, requests=requests)

    denial = ask(pool.head.balance)
    if not isinstance(denial, ThresholdExceededError):
        return denial
    committed, reserved = pool.head.balance
    # Other pools are searched for due leases only if giving back every hold would be enough. Due
    # leases of the pools at hand expire in any case, since the denial says what remains.
    hopeful = ask(Balance(committed)) is None
    batch.require_swept(pool, below=hopeful)
    if hopeful:
        found = spared(batch, pool)
        if ask(Balance(committed, reserved.minus(found.held))) is None:
            expire_spared(batch, found)
            return None
    return denial.of_pool(pool.info.name)
