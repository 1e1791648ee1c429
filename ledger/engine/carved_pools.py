"""Carved pools: the settlements and corrections that they cause in the pools that fund them."""

from __future__ import annotations

from ledger.core import carving, rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import Balance, PoolInfo, Totals, requests_made
from ledger.core.kinds import EntryKind
from ledger.core.values import Usage, UsageDifference
from ledger.store.corrections import Spending
from ledger.store.drafts import Draft, about_lease, amounts
from ledger.store.heads import LeaseRow


def settlement(pool: PoolInfo, spent: Totals, lease: LeaseRow, balance: Balance) -> Draft:
    """Return the settlement of the lease that funds a carved pool, when that pool is closed.

    Args:
        pool: The carved pool.
        spent: What it had committed when it was closed.
        lease: The lease that funds it.
        balance: The balance of the pool that granted the lease.

    Raises:
        UnknownLeaseError: The lease has ended.
    """
    usage = carving.spent_usage(spent)
    effect = rules.settle(
        balance,
        lease.state,
        usage,
        lease_id=lease.state.lease,
        ceiling=I64_MAX,
        requests=spent.requests,
        funds=True,
    )
    detail = carving.detail(pool.name, spent.requests)
    return about_lease(EntryKind.SETTLEMENT, effect, lease, usage=usage, detail=detail)


def correction(
    pool: PoolInfo, late: Draft, settled: Spending, lease: LeaseRow, balance: Balance
) -> Draft | None:
    """Return the correction of the funding lease's settlement, for usage after the closing.

    None if the settlement stays right, since the late usage changes no total and adds no request.

    Args:
        pool: The carved pool.
        late: The entry that records the usage there.
        settled: The settlement of the lease that funds the pool, with its earlier corrections.
        lease: That lease.
        balance: The balance of the pool that granted the lease.
    """
    moved = carving.late_usage(late.usage or Usage.zero())
    before, seq = settled.usage, settled.row["seq"]
    after = moved.added_to(before, ceiling=I64_MAX)
    requests = requests_made(late.kind, late.detail)
    if before == after and not requests:
        return None
    same = {"seq": seq, "ceiling": I64_MAX, "requests": requests}
    effect = rules.correct(balance, lease.state, before, after, **same, funds=True)
    detail = {
        "corrects": seq,
        "from": amounts(before),
        "to": amounts(after),
        "reason": carving.late_reason(pool.name, late.kind),
        **carving.detail(pool.name, requests),
    }
    usage_moved = UsageDifference.between(before, after)
    return about_lease(EntryKind.CORRECTION, effect, lease, usage=usage_moved, detail=detail)
