"""Rules of what is due: leases whose holds have ended, and whose expiries are not written yet.

Every answer counts them as the next write will find them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ledger.core.entries import Totals
from ledger.core.policy import SettlementPolicy
from ledger.core.rules.leases import charged
from ledger.core.rules.limits import Charge
from ledger.core.rules.released import dates_expiries


class Due(NamedTuple):
    """What leases that are due come to.

    Attributes:
        held: What they hold together.
        charged: What is committed for them together once they expire.
        dated: The parts of it that count on limits and credits when the holds ended.
    """

    held: Totals = Totals()
    charged: Totals = Totals()
    dated: tuple[Charge, ...] = ()

    def plus(self, other: Due) -> Due:
        """Return both together."""
        held, charged = self.held.plus(other.held), self.charged.plus(other.charged)
        return Due(held, charged, self.dated + other.dated)


def overdue(version: int, settlement: SettlementPolicy, holds: Iterable[Charge]) -> Due:
    """Return what leases of one pool that are due come to.

    Args:
        version: The version of the rules in that pool.
        settlement: Its policy.
        holds: When their holds ended, and what they hold.
    """
    found = [(at, held, charged(settlement, held)) for at, held in holds]
    dated = tuple((at, by) for at, _, by in found) if dates_expiries(version) else ()
    return Due(
        Totals.sum(held for _, held, _ in found), Totals.sum(by for _, _, by in found), dated
    )
