"""Rules of what is due: leases whose holds have ended, and whose expiries are not written yet.

Every answer counts them as the next write will find them.
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
    """What leases that are due come to.

    Attributes:
        held: What they hold together.
        charged: What is committed for them together once they expire.
        dated: The parts of it that count on limits and credits when the holds ended.
        timed: When each hold ended, what it held, and what is committed for it.
    """

    held: Totals = Totals()
    charged: Totals = Totals()
    dated: tuple[Charge, ...] = ()
    timed: tuple[tuple[Micros, Totals, Totals], ...] = ()

    def plus(self, other: Due) -> Due:
        """Return both together."""
        held, charged = self.held.plus(other.held), self.charged.plus(other.charged)
        return Due(held, charged, self.dated + other.dated, self.timed + other.timed)

    def before(self, time: Micros) -> tuple[Totals, Totals]:
        """Return what those come to whose holds ended before a time: held, and charged."""
        early = [(held, charged) for at, held, charged in self.timed if at < time]
        return Totals.sum(held for held, _ in early), Totals.sum(charged for _, charged in early)


def overdue(version: int, settlement: SettlementPolicy, holds: Iterable[Charge]) -> Due:
    """Return what leases of one pool that are due come to.

    Args:
        version: The version of the rules in that pool.
        settlement: Its policy.
        holds: When their holds ended, and what they hold.
    """
    found = [(at, held, charged(settlement, held)) for at, held in holds]
    dated = tuple((at, by) for at, _, by in found) if dates_expiries(version) else ()
    held, spent = Totals.sum(one for _, one, _ in found), Totals.sum(by for _, _, by in found)
    return Due(held, spent, dated, tuple(found))
