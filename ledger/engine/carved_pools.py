"""A carved pool and the lease that funds it: what flows back, and what comes late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.core import rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import EntryKind
from ledger.core.values import Usage, UsageDifference
from ledger.engine.drafts import amounts, carried
from ledger.store.corrections import settlement_of
from ledger.store.rows import Draft, LeaseRow

if TYPE_CHECKING:
    from ledger.engine.pool_batch import PoolBatch


def funder(pool_batch: PoolBatch, draft: Draft) -> PoolBatch | None:
    """Return the pool that an entry of this one concerns, because it is carved out of that.

    That is its closing, and whatever records usage behind it.

    Raises:
        JournalDamagedError: That pool cannot be read.
        MorePoolsError: The transaction has not begun on it.
    """
    parent = pool_batch.pool.parent
    closing = draft.kind is EntryKind.CLOSING
    late = pool_batch.head.closed and draft.usage is not None
    if parent is None or pool_batch.pool.info.carved_lease is None or not (closing or late):
        return None
    return pool_batch.batch.pool_batch(parent.info.pool_id)


def passed_on(pool_batch: PoolBatch, draft: Draft, to: PoolBatch) -> Draft | None:
    """Return the entry on the pool it is carved out of.

    It settles the lease that funded it, or corrects that settlement; None where that settlement
    says so already, because nothing that counts came late, or no more than was counted.
    """
    lease = to.lease(pool_batch.pool.info.carved_lease or 0)
    if draft.kind is EntryKind.CLOSING:
        return _settled(pool_batch, to, lease)
    return _corrected(pool_batch, draft, to, lease)


def _settled(pool_batch: PoolBatch, to: PoolBatch, lease: LeaseRow) -> Draft:
    spent = pool_batch.head.balance.committed
    usage = Usage(total_tokens=spent.tokens, cost_micros_usd=spent.cost_micros_usd)
    effect = rules.settle(
        to.head.balance,
        lease.state,
        usage,
        lease_id=lease.state.lease,
        ceiling=I64_MAX,
        requests=spent.requests,
    )
    return carried(EntryKind.SETTLEMENT, effect, lease)._replace(
        usage=usage, detail=_detail(pool_batch, spent.requests)
    )


def _corrected(pool_batch: PoolBatch, draft: Draft, to: PoolBatch, lease: LeaseRow) -> Draft | None:
    connection, lease_id = to.batch.connection, lease.state.lease
    seq = settlement_of(connection, to.pool, lease_id, staged=to.staged)
    before = to.spending(seq).usage
    after = _moved(draft).added_to(before, ceiling=I64_MAX)
    requests = 1 if draft.kind is EntryKind.SETTLEMENT else 0
    if before == after and not requests:
        return None
    effect = rules.correct(
        to.head.balance,
        lease.state,
        before,
        after,
        seq=seq,
        ceiling=I64_MAX,
        requests=requests,
    )
    detail = {
        "corrects": seq,
        "from": amounts(before),
        "to": amounts(after),
        "reason": f"late {draft.kind} in pool {pool_batch.pool.info.name!r}",
        **_detail(pool_batch, requests),
    }
    return carried(EntryKind.CORRECTION, effect, lease)._replace(
        usage=UsageDifference.between(before, after), detail=detail
    )


def _moved(draft: Draft) -> UsageDifference:
    """Return by how much more is spent: totals alone, as the settlement told no other."""
    usage = draft.usage or Usage.zero()
    return UsageDifference(total_tokens=usage.total_tokens, cost_micros_usd=usage.cost_micros_usd)


def _detail(pool_batch: PoolBatch, requests: int) -> dict[str, dict[str, str | int]]:
    return {"carving": {"pool": pool_batch.pool.info.name, "requests": requests}}
