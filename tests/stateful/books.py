"""The books as the rules alone make them: what one write does to the pools it is about.

What is due expires first, then a window that has ended rolls over, then the call is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ledger import BudgetLease, LedgerError, LostLeaseError, ThresholdCrossing, UnknownLeaseError
from ledger.core import rules
from ledger.core.checks import Micros

if TYPE_CHECKING:
    from tests.stateful.pool import Pool

T = TypeVar("T")

Outcome = tuple[type | None, Any]


def outcome(call: Callable[[], object]) -> Outcome:
    """Return what a call returned, or its error's class and figures.

    Since when a key has kept a denial is not among them, as the rules know of no key; nor is why a
    lease is unknown, as a manager in memory forgets those that have ended.
    """
    try:
        return None, call()
    except LedgerError as error:
        unknown = {"kept_since", "cause"}
        return type(error), {k: v for k, v in vars(error).items() if k not in unknown}


def by_the_rules(found: Outcome) -> Outcome:
    """Return an outcome without what no rule decides: a lease's proof, and why it is unknown."""
    error, answer = found
    if isinstance(answer, BudgetLease):
        assert answer.token.startswith(f"{answer.id}-")
        return error, replace(answer, proof=None)
    if error is LostLeaseError:
        return UnknownLeaseError, {"lease_id": answer["lease_id"]}
    return found


class MorePools(Exception):  # noqa: N818 - no failure: the write begins again, on more pools
    """A write concerns pools that it has not begun on."""

    def __init__(self, pools: Collection[Pool]) -> None:
        super().__init__()
        self.pools = pools


class Books:
    """The pools of one store, and what one write does to them."""

    def __init__(self) -> None:
        self.pools: list[Pool] = []
        """Oldest first, which is the order in which a write does them."""
        self.now = Micros(0)
        """The time of the write that is being done."""
        self.crossed: list[ThresholdCrossing] = []
        """What the newest write has to tell."""
        self._on: list[Pool] = []

    def write(
        self,
        pool: Pool,
        decide: Callable[[], T],
        now: Micros,
        *,
        spared: int | None = None,
        whole: bool = False,
        again: Iterable[Pool] = (),
    ) -> T:
        """Expire what is due, roll over, and then do what was asked, all of it at one time.

        Args:
            pool: Whose call it is.
            decide: What was asked.
            now: The time.
            spared: The lease of that pool that the call is about, which it does not expire.
            whole: Whether nothing at all is done where the rules refuse.
            again: Pools that the call turned out to concern as well.
        """
        on = {*pool.lineage, *again}
        self.begin([one for one in self.pools if one in on], now)
        saved = [(one, one.saved()) for one in self.pools]
        try:
            for one in self._on:
                one.expire(spared=spared if one is pool else None)
            self.roll_over()
            return decide()
        except MorePools as more:
            on |= {*more.pools}
        except LedgerError:
            if whole:
                put_back(saved)
            raise
        finally:
            self.finish()
        put_back(saved)
        return self.write(pool, decide, now, spared=spared, whole=whole, again=on)

    def sweep(self, pool: Pool, now: Micros) -> int:
        """Expire what is due and roll over, and return how many leases of the pool were due."""
        due = [lease for lease in pool.granted if rules.due(pool.leases[lease], now)]
        self.write(pool, lambda: None, now)
        return len(due)

    def roll_over(self) -> None:
        """Begin the windows of the current time, once what is due below them has expired."""
        for one in self._on:
            stands = one.policy, one.window, one.balance_at(self.now), self.now
            if rules.roll_over(*stands) is not None:
                self.sweep_below(one)
        for one in self._on:
            one.roll_over()

    def begin(self, pools: list[Pool], now: Micros) -> None:
        """Begin a write on these pools."""
        self.now, self._on, self.crossed = now, pools, []

    def finish(self) -> None:
        """Gather what the write crossed, pool by pool."""
        for one in self._on:
            self.crossed += one.crossed
            one.crossed = []

    def require(self, pools: Collection[Pool]) -> None:
        """Begin again if the write has not begun on these pools."""
        if not {*pools} <= {*self._on}:
            raise MorePools(pools)

    def sweep_below(self, above: Pool) -> None:
        """Let leases in pools below expire before this one refuses, or begins a window."""
        self.require(
            {
                one
                for one in self.pools
                if above in one.lineage[1:]
                and any(rules.due(one.leases[lease], self.now) for lease in one.granted)
            }
        )


def put_back(saved: Iterable[tuple[Pool, dict[str, Any]]]) -> None:
    """Let pools be as they were before a write."""
    for pool, state in saved:
        vars(pool).update(state)
