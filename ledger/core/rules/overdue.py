"""Rules of due leases: their holds have ended, and their expiries are not written yet.

Every answer counts them as expired, as the next write will.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ledger.core.checks import Micros
from ledger.core.entries import Totals
from ledger.core.policy import SettlementPolicy
from ledger.core.rules.assumed import charged
from ledger.core.rules.limits import Charge
from ledger.core.rules.released import dates_expiries


class Due(NamedTuple):
    """The sums of due leases.

    Attributes:
        held: What they hold, in total.
        charged: What their expiries will commit, in total.
        dated: The parts of `charged` that count on limits and credits at the ends of the holds.
        timed: When each hold ended, what it held, and what its expiry will commit.
    """

    held: Totals = Totals()
    charged: Totals = Totals()
    dated: tuple[Charge, ...] = ()
    timed: tuple[tuple[Micros, Totals, Totals], ...] = ()

    def plus(self, other: Due) -> Due:
        """Return the sums of both."""
        held, charged = self.held.plus(other.held), self.charged.plus(other.charged)
        return Due(held, charged, self.dated + other.dated, self.timed + other.timed)

    def before(self, time: Micros) -> tuple[Totals, Totals]:
        """Return the held and charged sums of the leases whose holds ended before a time."""
        early = [(held, charged) for at, held, charged in self.timed if at < time]
        return Totals.sum(held for held, _ in early), Totals.sum(charged for _, charged in early)


def overdue(version: int, settlement: SettlementPolicy, holds: Iterable[Charge]) -> Due:
    """Return the sums of one pool's due leases.

    Args:
        version: The version of the rules in that pool.
        settlement: Its policy.
        holds: When their holds ended, and what they hold.
    """
    found = [(at, held, charged(settlement, held)) for at, held in holds]
    dated = tuple((at, by) for at, _, by in found) if dates_expiries(version) else ()
    held, spent = Totals.sum(one for _, one, _ in found), Totals.sum(by for _, _, by in found)
    return Due(held, spent, dated, tuple(found))
