"""The machine of due leases: more of them than a transaction expires, beside the manager in memory.

Memory expires all that is due with every change, a store a few leases in each transaction. So the
two write the same in another order, and what is compared is what callers see.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger import (
    BudgetLease,
    Credit,
    LeasePhase,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    from_micros,
)
from ledger.core import rules
from ledger.core.axes import NAMES
from ledger.core.checks import Micros
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import MINUTE_US, Clock
from tests.stateful.books import Outcome, outcome
from tests.stateful.choices import CREDITS, MINUTES, NUMBERS, POLICIES, TIMES

FEW = st.integers(0, 12) | st.just(40)
"""Amounts of which no sum is too large for a store."""
CAPACITIES = st.integers(20, 100)
SHORT = st.sampled_from([timedelta(minutes=number) for number in (1, 2, 3, 45)])
ESTIMATES = st.builds(UsageEstimate, total_tokens=FEW, cost_micros_usd=FEW)
BUDGETS = st.just(UNLIMITED) | st.builds(RequestBudget, tokens=FEW, cost_micros_usd=FEW)
USAGES = st.builds(Usage, total_tokens=FEW, cost_micros_usd=FEW)
CROWDED = st.builds(
    replace,
    POLICIES,
    capacity_tokens=CAPACITIES,
    capacity_cost_micros_usd=CAPACITIES,
    capacity_requests=st.sampled_from([20, 60]),
    lease_ttl=SHORT,
)
YEARS = timedelta(days=9 * 365)


class Pair(NamedTuple):
    """A lease in memory, and the one in the store that was granted by the same call."""

    model: BudgetLease
    stored: BudgetLease


class DueMachine(RuleBasedStateMachine):
    """A pool in memory, and the same one in a store that two ledgers write to."""

    url: str
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pairs: list[Pair] = []

    @initialize(policy=CROWDED)
    def open(self, policy: SharedPoolBudgetOptions) -> None:
        """Begin with a pool, and a lease without an amount that outlives all others."""
        self.name = f"due {next(self.numbers)}"
        self.ledgers = [Ledger.open(self.url, clock=self.clock) for _ in range(2)]
        self.stored = [one.pool(self.name, policy) for one in self.ledgers]
        self.model = SharedPoolBudgetManager(policy, clock=self.clock)
        if policy.prepaid:  # else a pool with a stop threshold grants nothing, not even nothing
            first = Credit(name="first", **dict.fromkeys(policy.prepaid, 100))
            self.model.credit(first)
            self.ledgers[0].credit(self.name, first)
        asked = RequestExtensions(LeaseTtl(YEARS)), UsageEstimate.zero(), UNLIMITED
        self.anchor = Pair(*(one.reserve(*asked) for one in (self.model, self.stored[0])))

    def ask(
        self,
        number: int,
        call: Callable[[SharedPoolBudgetManager | LedgerBudgetManager], object],
    ) -> Outcome:
        """Do a call on both, and compare the answers."""
        model = outcome(lambda: call(self.model))
        stored = outcome(lambda: call(self.stored[number % 2]))
        assert shown(model) == shown(stored), (model, stored)
        return model[0], Pair(model[1], stored[1])

    def about(
        self,
        number: int,
        which: int,
        call: Callable[[Any, BudgetLease], object],
        *,
        sweeps: bool = True,
    ) -> Outcome:
        """Do a call about a lease on both, open, due, expired or ended.

        Usage counts alike whether its lease is due or has expired, if there are no windows.
        """
        pair = self.pairs[-1 - which % len(self.pairs)]
        if sweeps and self.expired_in_memory(pair):
            self.sweep(number)
        return self.ask(
            number,
            lambda to: call(to, pair.model if to is self.model else pair.stored),
        )

    def expired_in_memory(self, pair: Pair) -> bool:
        """Tell whether memory has ended a hold that a store may not have come to yet."""
        state = self.model._state._leases.get(pair.model.id)
        return state is not None and state.phase is LeasePhase.EXPIRED

    def sweep(self, number: int) -> None:
        """Let both expire all that is due."""
        for manager, lease in zip((self.model, self.stored[number % 2]), self.anchor, strict=True):
            manager.renew(lease, YEARS)
        self.ledgers[number % 2].expire_due(self.name)

    @rule(minutes=MINUTES)
    def wait(self, minutes: int) -> None:
        """Let time pass, mostly over the end of all holds."""
        self.clock.minutes(minutes)

    @rule(number=NUMBERS, minutes=MINUTES)
    def set_back(self, number: int, minutes: int) -> None:
        """Put the clock back, once neither is behind: what is due no longer stays held."""
        self.sweep(number)
        self.clock.minutes(-minutes)

    @rule(number=NUMBERS, estimate=ESTIMATES, budget=BUDGETS, ttl=st.none() | SHORT | TIMES)
    def reserve(
        self, number: int, estimate: UsageEstimate, budget: RequestBudget, ttl: timedelta | None
    ) -> None:
        """Ask for an estimate: what is due keeps nothing from anybody."""
        extensions = EXTENSIONS if ttl is None else RequestExtensions(LeaseTtl(ttl))
        error, pair = self.ask(number, lambda to: to.reserve(extensions, estimate, budget))
        if error is None:
            self.pairs.append(pair)

    @rule(number=NUMBERS, amounts=st.lists(st.integers(0, 5), min_size=4, max_size=9))
    def reserve_often(self, number: int, amounts: list[int]) -> None:
        """Ask for a little many times, so that many leases are due together."""
        for amount in amounts:
            estimate = UsageEstimate(total_tokens=amount, cost_micros_usd=amount)
            self.reserve(number, estimate, UNLIMITED, None)

    @rule(number=NUMBERS, amounts=CREDITS, minutes=st.none() | MINUTES)
    def give_a_credit(self, number: int, amounts: dict[str, Any], minutes: int | None) -> None:
        """Give a credit: what is due by then is paid by those before it."""
        prepaid = self.model._policy.prepaid
        given = {name: one for name, one in amounts.items() if name not in NAMES or name in prepaid}
        if not any(given.get(name) for name in NAMES):
            return
        until = None if minutes is None else from_micros(self.clock() + minutes * MINUTE_US)
        credit, ledger = Credit(**given, expires_at=until), self.ledgers[number % 2]
        model = outcome(lambda: self.model.credit(credit))
        assert model == outcome(lambda: ledger.credit(self.name, credit))

    @precondition(lambda self: self.pairs)
    @rule(number=NUMBERS, which=NUMBERS, usage=USAGES, last=st.booleans())
    def spend(self, number: int, which: int, usage: Usage, last: bool) -> None:  # noqa: FBT001 - hypothesis calls by name
        """Observe or settle a lease."""
        name = "record_used" if last else "observe"
        self.about(
            number,
            which,
            lambda to, lease: getattr(to, name)(lease, usage),
            sweeps=self.model._policy.window is not None,
        )

    @precondition(lambda self: self.pairs)
    @rule(number=NUMBERS, which=NUMBERS, ttl=SHORT)
    def renew(self, number: int, which: int, ttl: timedelta) -> None:
        """Let a lease hold longer, or for a shorter time."""
        self.about(number, which, lambda to, lease: to.renew(lease, ttl))

    @precondition(lambda self: self.pairs)
    @rule(number=NUMBERS, which=NUMBERS, name=st.sampled_from(["release", "abandon"]))
    def end(self, number: int, which: int, name: str) -> None:
        """End a lease without its usage."""
        self.about(number, which, lambda to, lease: getattr(to, name)(lease))

    @rule(number=NUMBERS)
    def compare_what_remains(self, number: int) -> None:
        """Both have as much left before and after all that is due has expired, in one window."""
        if not self.held_longer():
            for stored in self.stored:
                assert self.model.remaining(EXTENSIONS) == stored.remaining(EXTENSIONS)
        before = [one.remaining(EXTENSIONS) for one in (self.model, *self.stored)]
        self.sweep(number)
        assert before[1:] == [stored.remaining(EXTENSIONS) for stored in self.stored]
        assert before[0] == self.model.remaining(EXTENSIONS)
        assert {} == self.held_longer()
        for stored in self.stored:
            assert self.model.remaining(EXTENSIONS) == stored.remaining(EXTENSIONS)
        status = self.stored[0].status()
        assert self.model._state._balance == status.balance
        assert self.stands().window == status.window

    def stands(self) -> rules.Standing:
        """Return where the pool in memory stands by now."""
        now = Micros(self.clock())
        state = self.model._state
        return state._stands(now, state._due_by(now))

    def held_longer(self) -> dict[int, LeasePhase]:
        """Return the leases that the store still holds and memory does not."""
        phases = {one.lease.id: one.phase for one in self.ledgers[0].open_leases(self.name)}
        return {
            pair.model.id: phases[pair.stored.id]
            for pair in self.pairs
            if self.expired_in_memory(pair) and phases[pair.stored.id] is not LeasePhase.EXPIRED
        }

    @invariant()
    def the_store_holds_more_where_the_clock_was_put_back(self) -> None:
        """The same leases are open, but for those that expired in memory and are due no longer."""
        balance, late = self.stored[1].status().balance, self.held_longer()
        found = {one.lease.id: one for one in self.ledgers[1].open_leases(self.name)}
        pairs = [self.anchor, *self.pairs]
        open_in_memory = {
            pair.stored.id: self.model._state._leases[pair.model.id]
            for pair in pairs
            if pair.model.id in self.model._state._leases
        }
        assert open_in_memory.keys() == found.keys()
        now = from_micros(self.clock())
        committed, reserved = self.stands().balance
        settlement = self.model._policy.settlement
        for pair in pairs:
            if pair.model.id in late:
                held, ends = found[pair.stored.id].held, found[pair.stored.id].expires_at
                if ends is not None and ends <= now:
                    continue
                reserved = reserved.plus(held)
                committed = committed.minus(rules.charged(settlement, held))
            elif pair.stored.id in found:
                state, one = open_in_memory[pair.stored.id], found[pair.stored.id]
                assert (state.phase, state.held, state.used) == (one.phase, one.held, one.used)
        assert (committed, reserved) == balance

    def teardown(self) -> None:
        """The journal proves what was answered."""
        try:
            self.compare_what_remains(0)
            (verified,) = self.ledgers[0].verify(self.name)
            assert None is verified.damage
            assert self.model._state._balance == verified.balance
        finally:
            for ledger in self.ledgers:
                ledger.close()
            self.model._announcer.close()


def shown(answer: Outcome) -> Outcome:
    """Return what both answer alike: no lease, and of an error neither pool nor lease."""
    error, value = answer
    if error is not None:
        return error, {name: one for name, one in value.items() if name not in {"pool", "lease_id"}}
    return None, None if isinstance(value, BudgetLease) else value
