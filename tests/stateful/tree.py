"""The machine of a tree: pools that share with those above, and pools carved out of one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from ledger import EntryFlag, EntryKind, LeasePhase, SharedPoolBudgetOptions, Totals
from tests.stateful.books import outcome
from tests.stateful.choices import NUMBERS, POLICIES
from tests.stateful.pool import Pool
from tests.stateful.store import StoreMachine

CARVED = st.builds(
    replace,
    POLICIES,
    capacity_tokens=st.sampled_from([0, 20, 50]),
    capacity_cost_micros_usd=st.sampled_from([0, 20, 50]),
    capacity_requests=st.sampled_from([0, 2, 5]),
    window=st.none(),
)
"""Policies with a limit on every axis, whose capacity does not come back."""


class TreeMachine(StoreMachine):
    """An organisation, a team below it, a run below that, and boxes carved out of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = 0

    @initialize(policies=st.tuples(POLICIES, POLICIES, POLICIES))
    def open(self, policies: tuple[SharedPoolBudgetOptions, ...]) -> None:
        """Begin with three pools, each under some policy."""
        self.open_ledgers()
        number, above = next(self.numbers), None
        for name, policy in zip(("org", "team", "run"), policies, strict=True):
            self.make_pool(f"{name} {number}", policy, above)
            above = self.books.pools[-1]

    @precondition(lambda self: self.boxes < 2)
    @rule(number=NUMBERS, policy=CARVED)
    def carve(self, number: int, policy: SharedPoolBudgetOptions) -> None:
        """Set a pool's capacity aside in the organisation, if that has as much left."""
        parent, name = self.books.pools[0], f"box {next(self.numbers)}"

        def child() -> Pool:
            return Pool(
                self.books,
                policy,
                self.books.now,
                ceiling=self.ceiling,
                name=name,
                parent=parent,
                carved=True,
            )

        def decide() -> str:
            parent.carve(child, policy)
            return name

        now, ledger = self.now_of(number), self.ledgers[number % 2]
        expected = outcome(lambda: self.books.write(parent, decide, now, whole=True))
        actual = outcome(lambda: ledger.pool(name, policy, parent=parent.name, carved=True).name)
        assert expected == actual
        if expected[0] is None:
            self.told[number % 2] += self.books.crossed
            self.boxes += 1
            pool = self.books.pools[-1]
            for one, managers in zip(self.ledgers, self.by_pool, strict=True):
                managers[pool] = self.face(one.pool(name))
            pool.identity = self.by_pool[0][pool].identity

    @invariant()
    def nothing_is_lost_between_levels(self) -> None:
        """What a pool has committed is its own, that of who shares, and of boxes given back."""
        if any(
            EntryFlag.SATURATED in flags for pool in self.books.pools for _, flags in pool.entries
        ):
            return  # totals that stopped add up no longer
        for pool in self.books.pools:
            below = [one for one in self.books.pools if one.parent is pool]
            shared = [one for one in below if one.funding is None]
            given_back = [one for one in below if one.funding is not None and one.closed]
            expected = direct(pool)
            for one in shared + given_back:
                expected = expected.plus(one.balance.committed)
            # At the end, the journal of each pool is found to have this balance.
            assert expected == pool.balance.committed


def direct(pool: Pool) -> Totals:
    """Return what the leases that a pool granted itself have used."""
    total = Totals()
    for seq, (lease, usage) in pool.spends.items():
        if lease in pool.granted:
            kind = pool.entries[seq - 1][0]
            assumed = kind is EntryKind.EXPIRY and pool.leases[lease].phase is LeasePhase.EXPIRED
            calls = int(kind is EntryKind.SETTLEMENT or assumed)
            total = total.plus(Totals(usage.total_tokens, usage.cost_micros_usd, calls))
    return total
