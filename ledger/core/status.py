"""What callers are told of a pool: its status, its open leases, the thresholds that it crossed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ledger.core.checks import Micros
from ledger.core.credits import Credit
from ledger.core.entries import Balance, Direction, PoolInfo, Seq, Totals, WindowState
from ledger.core.extensions import Attribution
from ledger.core.kinds import LeasePhase
from ledger.core.limits import Limit
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import BudgetLease, Remaining, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """A limit of a pool's policy at one time.

    Attributes:
        limit: The limit.
        since: The beginning of the time that counts on it.
        until: The end of that time, when its whole capacity is restored; None for a rolling limit,
            whose capacity is restored gradually.
        counted: What counts on it: what was committed since then, and what open leases hold.
        remaining: What is left of the limit.
    """

    limit: Limit
    since: datetime
    until: Micros | None
    counted: Totals
    remaining: Remaining


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditStatus:
    """A credit of a pool at one time.

    Attributes:
        seq: The number of the entry that gave it.
        credit: Its amounts, expiry and priority.
        granted_at: When it was given.
        used: What was spent of it.
        left: What can still be spent of it, held amounts included; 0 once it has expired.
        lost: What was left of it when it expired.
    """

    seq: Seq
    credit: Credit
    granted_at: datetime
    used: Totals
    left: Totals
    lost: Totals


_NOTHING_LEFT = Remaining(0, 0, below_threshold=True, requests=0, unlimited=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """A pool at present, as the next write would find it.

    Due leases count as expired, and a window that has ended as rolled over.

    Attributes:
        pool: The pool.
        seq: Its newest entry.
        policy: The policy in force.
        balance: What was committed since the opening, and what open leases hold.
        spent: What was committed in its present window; without windows, since the opening.
        own: What is left of its own capacity, limits and credits: the least of them on each axis.
        remaining: The answer of `remaining`: on each axis the least that the pool, or one above
            that shares its capacity, has left.
        until: When `remaining` changes first if nothing is written: a window of these pools ends,
            less counts on a limit, a credit expires with an amount left, or a hold ends in a pool
            whose settlement policy gives some of it back. None if none of these will happen. Holds
            of pools below are left out.
        closed: Whether it takes no new reservations.
        parent: The name of the pool above it.
        window: The present window, None without windows.
        limits: How far each limit of its policy is used.
        prepaid: What is left of all its credits minus what is held; None if it is not prepaid.
        debt: What was spent that no credit has paid; the next credit pays it first.
        credits: The credits that it lists, in the order in which they were given.
    """

    pool: PoolInfo
    seq: Seq
    policy: SharedPoolBudgetOptions
    balance: Balance
    spent: Totals
    own: Remaining
    remaining: Remaining
    until: Micros | None = None
    closed: bool = False
    parent: str | None = None
    window: WindowState | None = None
    limits: Sequence[LimitStatus] = ()
    prepaid: Remaining | None = None
    debt: Totals = field(default_factory=Totals)
    credits: Sequence[CreditStatus] = ()

    @property
    def reservable(self) -> Remaining:
        """What can still be reserved here: what remains, and nothing once the pool is closed."""
        return _NOTHING_LEFT if self.closed else self.remaining


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """How far a standby has replayed its primary's transactions.

    Attributes:
        at: The time by the standby's clock when it was asked.
        replayed_until: When the primary committed the newest transaction that the standby has, by
            the primary's clock; None if the standby has replayed none since it started.
    """

    at: datetime
    replayed_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdCrossing:
    """A named threshold of a pool's policy that was crossed.

    Attributes:
        pool: The pool's name, None for an in-memory manager.
        threshold: The threshold's name.
        percent: How much of a capacity it stands for, 1 to 100.
        direction: Which way.
        seq: The entry that reports it, None in memory.
        remaining: What is left after it.
        recorded_at: When.
    """

    pool: str | None
    threshold: str
    percent: int
    direction: Direction
    seq: Seq | None
    remaining: Remaining
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLease:
    """A lease that has not ended, with what it holds and since when."""

    lease: BudgetLease
    phase: LeasePhase
    held: Totals
    used: Usage
    attribution: Attribution | None
    reserved_at: datetime
    expires_at: datetime | None
