"""The status of a pool, and when it changes without a write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ledger.core import rules
from ledger.core.checks import Micros, to_micros
from ledger.core.entries import Balance, PoolId, Totals, WindowState
from ledger.core.policy import SettlementPolicy, SharedPoolBudgetOptions
from ledger.core.status import CreditStatus, LimitStatus, PoolStatus
from ledger.core.values import Remaining
from ledger.store import queries
from ledger.store.bounds import Bounds
from ledger.store.journal import PoolJournal
from ledger.store.standing import Present, left
from ledger.store.statements import ReadEach


def status_of(
    pool: PoolJournal, found: Sequence[Present], holds: Mapping[PoolId, Micros]
) -> PoolStatus:
    """Return a pool's status, from what `present` and `hold_ends` returned of it."""
    head = found[0].head
    states = [states_of(*one) for one in found]
    ends = [end for one, each in zip(found, states, strict=True) for end in ends_of(*one, each)]
    ends += [holds[one.info.pool_id] for one in pool.lineage if one.info.pool_id in holds]
    return PoolStatus(
        pool=pool.info,
        seq=head.seq,
        policy=head.policy,
        balance=head.balance,
        spent=rules.spent_in(head.window, head.balance),
        own=left(found[:1]),
        remaining=left(found),
        until=min(ends, default=None),
        closed=head.closed,
        parent=None if pool.parent is None else pool.parent.info.name,
        window=head.window,
        **states[0]._asdict(),
    )


class Stands(Protocol):
    """A pool at one of its entries."""

    @property
    def policy(self) -> SharedPoolBudgetOptions:
        """The policy in force."""

    @property
    def balance(self) -> Balance:
        """Its balance."""

    @property
    def window(self) -> WindowState | None:
        """Its window, None without windows."""


class States(NamedTuple):
    """How far each limit and credit of a pool is used, and what is left of all credits."""

    limits: tuple[LimitStatus, ...]
    prepaid: Remaining | None
    debt: Totals
    credits: tuple[CreditStatus, ...]


def states_of(stands: Stands, bounds: Bounds) -> States:
    """Return how far each limit and credit of a pool is used."""
    limits, credits = bounds
    return States(
        () if limits is None else tuple(limits.states(stands.balance)),
        None if credits is None else rules.prepaid(stands.policy, stands.balance, credits),
        Totals() if credits is None else credits.debt(stands.balance),
        () if credits is None else tuple(credits.states(stands.balance)),
    )


def ends_of(stands: Stands, bounds: Bounds, states: States) -> Iterator[Micros]:
    """Yield the later times at which what is left of a pool changes without a write.

    Ends of holds are not among these times; see `hold_ends`.
    """
    if stands.window is not None and stands.window.begun:
        yield stands.window.end
    if bounds.limits is not None:
        yield from bounds.limits.ends(stands.balance)
    for one in states.credits:
        if one.credit.expires_at is not None and any(one.left):
            yield to_micros("expires_at", one.credit.expires_at)


def hold_ends(
    read: ReadEach, found: Iterable[tuple[PoolJournal, Present]], now: Micros | None
) -> dict[PoolId, Micros]:
    """Return when the first hold ends of each pool whose policy then gives some of it back.

    A pool whose policy charges what was held is not asked, since the end of a hold changes nothing
    there.

    Args:
        read: Runs queries, in one message.
        found: The pools, as `present` or `present_of_each` returned them.
        now: The time; None for the store's clock.
    """
    asked = [
        pool
        for pool, (head, _) in found
        if any(head.balance.reserved) and head.policy.settlement is not SettlementPolicy.ESTIMATED
    ]
    rows = (
        read([(queries.NEXT_END, {"pool_id": pool.info.pool_id, "now": now}) for pool in asked])
        if asked
        else []
    )
    return {
        pool.info.pool_id: Micros(one[0]["expires_at"])
        for pool, one in zip(asked, rows, strict=True)
        if one
    }
