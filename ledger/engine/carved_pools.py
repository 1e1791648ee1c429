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
    from ledger.engine.pool_batch import Desk


def funder(desk: Desk, draft: Draft) -> Desk | None:
    """Return the pool that an entry of this one concerns, because it is carved out of that.

    That is its closing, and whatever records usage behind it.

    Raises:
        JournalDamagedError: That pool cannot be read.
        MorePoolsError: The transaction has not begun on it.
    """
    parent = desk.pool.parent
    closing = draft.kind is EntryKind.CLOSING
    late = desk.head.closed and draft.usage is not None
    if parent is None or desk.pool.info.carved_lease is None or not (closing or late):
        return None
    return desk.table.desk(parent.info.pool_id)


def passed_on(desk: Desk, draft: Draft, to: Desk) -> Draft | None:
    """Return the entry on the pool it is carved out of.

    It settles the lease that funded it, or corrects that settlement; None where that settlement
    says so already, because nothing that counts came late, or no more than was counted.
    """
    lease = to.lease(desk.pool.info.carved_lease or 0)
    if draft.kind is EntryKind.CLOSING:
        return _settled(desk, to, lease)
    return _corrected(desk, draft, to, lease)


def _settled(desk: Desk, to: Desk, lease: LeaseRow) -> Draft:
    spent = desk.head.balance.committed
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
        usage=usage, detail=_detail(desk, spent.requests)
    )


def _corrected(desk: Desk, draft: Draft, to: Desk, lease: LeaseRow) -> Draft | None:
    connection, lease_id = to.table.connection, lease.state.lease
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
        "reason": f"late {draft.kind} in pool {desk.pool.info.name!r}",
        **_detail(desk, requests),
    }
    return carried(EntryKind.CORRECTION, effect, lease)._replace(
        usage=UsageDifference.between(before, after), detail=detail
    )


def _moved(draft: Draft) -> UsageDifference:
    """Return by how much more is spent: totals alone, as the settlement told no other."""
    usage = draft.usage or Usage.zero()
    return UsageDifference(total_tokens=usage.total_tokens, cost_micros_usd=usage.cost_micros_usd)


def _detail(desk: Desk, requests: int) -> dict[str, dict[str, str | int]]:
    return {"carving": {"pool": desk.pool.info.name, "requests": requests}}
