"""Admission of a reservation, by its pool and by the pools above that share capacity with it."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.checks import I64_MAX
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

    Leases that are due expire first, if that may be enough to admit the reservation.

    Raises:
        PoolClosedError: One of the pools is closed.
        JournalDamagedError: One of them cannot be read.
        MorePoolsError: Leases of other pools must expire first.
        UnsweptError: More leases must expire first than one transaction expires.
    """
    for one in batch.lineage(pool):
        one.require_open()
        head = one.head
        admit = rules.admission(head.rules_version)
        asked = estimate, request_budget, head.window
        limits = one.limits() if head.policy.limits else None
        denial = admit(head.policy, head.balance, *asked, requests=requests, limits=limits)
        if denial is None:
            continue
        if not isinstance(denial, ThresholdExceededError):
            return denial
        # Other pools are searched for due leases only if giving back every hold, which is the most
        # that expiry can do, would be enough. Due leases of the pools at hand expire in any case,
        # since the denial says what remains.
        free = Balance(head.balance.committed)
        hopeful = admit(head.policy, free, *asked, requests=requests, limits=limits) is None
        batch.require_swept(one, below=hopeful)
        if hopeful:
            found = spared(batch, one)
            free = rules.swept(head.balance, found.held, found.charged, ceiling=I64_MAX)
            if admit(head.policy, free, *asked, requests=requests, limits=limits) is None:
                expire_spared(batch, found)
                continue
        return denial.of_pool(one.info.name)
    return None
