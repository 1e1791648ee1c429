"""Admission of a reservation, by its pool and by the pools above that share capacity with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.core import rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import Balance
from ledger.core.errors import ThresholdExceededError
from ledger.core.kinds import EntryKind
from ledger.core.values import RequestBudget, UsageEstimate
from ledger.engine.batch import Batch
from ledger.engine.expiry import expire_spared, spared
from ledger.engine.pool_batch import PoolBatch
from ledger.store.drafts import Draft


def refusal(
    batch: Batch,
    line: Sequence[PoolBatch],
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    *,
    requests: int = 1,
) -> rules.Denial | None:
    """Return the denial of the first pool that denies a reservation, None if all admit it.

    Leases that are due expire first, if that may be enough to admit the reservation.

    Args:
        batch: The transaction.
        line: The pool, and those above that share its capacity, from the bottom up.
        estimate: What is to be reserved.
        request_budget: The request's own limit.
        requests: How many calls it is for.

    Raises:
        PoolClosedError: One of the pools is closed.
        JournalDamagedError: One of them cannot be read.
        MorePoolsError: Leases of other pools must expire first.
        UnsweptError: More leases must expire first than one transaction expires.
    """
    asked = estimate, request_budget
    for one in line:
        head = one.head
        if head.closed:
            one.require_open()
        admit = rules.RELEASED[head.rules_version].admit
        window = None if head.window is None else one.session() or head.window
        bounds = _bounds(one, requests)
        denial = admit(head.policy, head.balance, *asked, window, **bounds)
        if denial is None:
            continue
        if not isinstance(denial, ThresholdExceededError):
            return denial
        # Other pools are searched for due leases only if enough would be left with every hold given
        # back, the most that expiry can free. Due leases of these pools expire in any case, since
        # the denial says what remains.
        free = Balance(head.balance.committed)
        hopeful = admit(head.policy, free, *asked, window, **bounds) is None
        batch.require_swept(one, below=hopeful)
        if hopeful:
            found = spared(batch, one)
            free = rules.swept(head.balance, found.due.held, found.due.charged, ceiling=I64_MAX)
            window = one.session(free) or head.window
            bounds = _bounds(one, requests, found.due.dated)
            if admit(head.policy, free, *asked, window, **bounds) is None:
                expire_spared(batch, found)
                continue
        return denial.of_pool(one.info.name)
    return None


def _bounds(pool: PoolBatch, requests: int, due: Sequence[rules.Charge] = ()) -> dict[str, Any]:
    """Return the limits and credits that bound a reservation, once due leases have expired."""
    bounds: dict[str, Any] = {"requests": requests}
    if pool.head.policy.limits:
        bounds["limits"] = pool.counts.limits(pool.head, pool.at, due)
    if pool.head.policy.prepaid:
        bounds["credits"] = pool.counts.credits(pool.head, pool.at, due=due)
    return bounds


def begin_sessions(
    batch: Batch,
    line: Sequence[PoolBatch],
    estimate: UsageEstimate,
    request_budget: RequestBudget,
    *,
    requests: int = 1,
) -> None:
    """Begin the sessions that an admitted reservation opens, right before it is staged.

    Due leases have expired by then, so that they count in the session before.

    Raises:
        AmountOutOfRangeError: The reservation cannot be granted: a store holds no such total.
        MorePoolsError: Leases of other pools must expire first.
        UnsweptError: More leases must expire first than one transaction expires.
    """
    begun = []
    for one in line:  # most pools have no window, and are not asked
        session = None if one.head.window is None else one.session()
        if session is not None:
            begun.append((one, session))
    if not begun:
        return
    for one, _ in begun:
        batch.require_swept(one, below=any(one.head.balance.reserved))
    for one in line:
        rules.reserve(
            one.head.balance,
            lease_id=one.head.seq + 1,
            estimate=estimate,
            request_budget=request_budget,
            ceiling=I64_MAX,
            requests=requests,
        )
    for one, session in begun:
        batch.post(one, Draft(kind=EntryKind.ROLLOVER, balance=one.head.balance, window=session))
