"""What an entry of a carved pool comes to in the pool that funds it: a settlement, a correction."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import Balance, PoolInfo, Totals
from ledger.core.kinds import EntryKind
from ledger.core.values import Usage, UsageDifference
from ledger.store.corrections import Spending
from ledger.store.drafts import Draft, about_lease, amounts
from ledger.store.rows import LeaseRow


def settlement(pool: PoolInfo, spent: Totals, lease: LeaseRow, balance: Balance) -> Draft:
    """Return the settlement of the lease that funds a pool, which is closed.

    Args:
        pool: The carved pool.
        spent: What it had committed when it was closed.
        lease: The lease that funds it.
        balance: The balance of the pool that granted the lease.

    Raises:
        UnknownLeaseError: The lease has ended.
    """
    usage = Usage(total_tokens=spent.tokens, cost_micros_usd=spent.cost_micros_usd)
    effect = rules.settle(
        balance,
        lease.state,
        usage,
        lease_id=lease.state.lease,
        ceiling=I64_MAX,
        requests=spent.requests,
    )
    return about_lease(EntryKind.SETTLEMENT, effect, lease)._replace(
        usage=usage, detail=_detail(pool, spent.requests)
    )


def correction(
    pool: PoolInfo, late: Draft, settled: Spending, lease: LeaseRow, balance: Balance
) -> Draft | None:
    """Return the correction that usage leads to which a closed pool records late.

    None where the settlement says so already: nothing that counts came late, or no more than was
    counted.

    Args:
        pool: The carved pool.
        late: The entry that records the usage there.
        settled: The settlement of the lease that funds the pool, as it stands corrected.
        lease: That lease.
        balance: The balance of the pool that granted the lease.
    """
    usage = late.usage or Usage.zero()
    # Totals alone: the settlement told no other amounts.
    moved = UsageDifference(total_tokens=usage.total_tokens, cost_micros_usd=usage.cost_micros_usd)
    before, seq = settled.usage, settled.row["seq"]
    after = moved.added_to(before, ceiling=I64_MAX)
    requests = 1 if late.kind is EntryKind.SETTLEMENT else 0
    if before == after and not requests:
        return None
    effect = rules.correct(
        balance, lease.state, before, after, seq=seq, ceiling=I64_MAX, requests=requests
    )
    detail = {
        "corrects": seq,
        "from": amounts(before),
        "to": amounts(after),
        "reason": f"late {late.kind} in pool {pool.name!r}",
        **_detail(pool, requests),
    }
    return about_lease(EntryKind.CORRECTION, effect, lease)._replace(
        usage=UsageDifference.between(before, after), detail=detail
    )


def _detail(pool: PoolInfo, requests: int) -> dict[str, dict[str, str | int]]:
    return {"carving": {"pool": pool.name, "requests": requests}}
