"""The machine of the in-memory manager: the calls that every manager takes, in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ledger import (
    U64_MAX,
    BudgetLease,
    Credit,
    EntryFlag,
    EntryKind,
    IdempotencyKey,
    LeaseTtl,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdCrossing,
    Unpriced,
    Usage,
    UsageEstimate,
    UsageReport,
    from_micros,
)
from ledger.core.axes import NAMES
from ledger.core.checks import Micros
from ledger.testing.calls import EXTENSIONS
from tests.clocks import MINUTE_US
from tests.stateful.books import Books, Outcome, by_the_rules, outcome
from tests.stateful.choices import (
    BUDGETS,
    CREDITS,
    ESTIMATES,
    MINUTES,
    NUMBERS,
    POLICIES,
    SAYS,
    TIMES,
    UNKNOWN_IDS,
    USAGES,
)
from tests.stateful.pool import Pool


class Grant(NamedTuple):
    """A lease, and the pool that granted it."""

    pool: Pool
    lease: BudgetLease


class MemoryMachine(RuleBasedStateMachine):
    """The in-memory manager, beside the model that every machine keeps.

    Calls are rules of this class, made to a pool through a manager: the one pool and the one
    manager here, more of both in the machines that build on it.
    """

    ceiling = U64_MAX

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.grants: list[Grant] = []
        self.now = Micros(1_774_700_000_000_000)
        """Half a day before the clocks of Berlin are put forward."""
        self.told: list[list[ThresholdCrossing]] = [[], []]
        """What each manager's callback is to be told, by the rules."""
        self.heard: list[list[ThresholdCrossing]] = [[], []]
        """What it was told."""

    @initialize(policy=POLICIES)
    def open(self, policy: SharedPoolBudgetOptions) -> None:
        """Begin with a pool under some policy."""
        Pool(self.books, policy, self.now, ceiling=self.ceiling)
        self.budget = SharedPoolBudgetManager(
            policy, clock=self.clock, on_threshold=self.heard[0].append
        )

    def clock(self) -> int:
        """Return the time, which goes on by a rule alone."""
        return self.now

    def now_of(self, number: int) -> Micros:  # noqa: ARG002 - clocks differ elsewhere
        """Return the time by the clock of a manager."""
        return self.now

    def manager(self, number: int, pool: Pool) -> Any:  # noqa: ANN401, ARG002 - any manager
        """Return one of the managers of a pool."""
        return self.budget

    def managers(self) -> list[int]:
        """Return the numbers of the managers that each pool has."""
        return [0]

    def keeps_denials(self, number: int, key: str | None) -> bool:  # noqa: ARG002 - as below
        """Tell whether this manager writes down that it denied a call."""
        return False

    def chosen(self, number: int) -> Pool:
        """Return one of the pools."""
        return self.books.pools[number % len(self.books.pools)]

    def granted(self, number: int) -> Grant:
        """Return one of the leases, whatever became of it; the higher ones are the newest."""
        return self.grants[-1 - number % len(self.grants)]

    # How a call is held against the rules

    def expect(
        self, number: int, pool: Pool, decide: Callable[[], object], lease: int | None = None
    ) -> Outcome:
        """Do to the model what a write does, and return what the rules answer."""
        now = self.now_of(number)
        expected = outcome(lambda: self.books.write(pool, decide, now, spared=lease))
        self.told[number % len(self.managers())] += self.books.crossed
        return expected

    def ask(
        self,
        number: int,
        pool: Pool,
        decide: Callable[[], object],
        call: Callable[[int, str | None], object],
        *,
        lease: int | None = None,
        key: str | None = None,
    ) -> Outcome:
        """Do a call, and compare its answer with that of the rules.

        Args:
            number: Which manager is called.
            pool: The pool.
            decide: The call, as the model does it.
            call: The call itself, given the manager's number and the key.
            lease: The lease that it is about.
            key: The idempotency key that it has.
        """
        expected = self.expect(number, pool, decide, lease)
        actual = outcome(lambda: call(number, key))
        assert expected == by_the_rules(actual)
        self.remember(pool, call, actual, lease=lease, key=key)
        return actual

    def new_key(self, wanted: bool) -> str | None:  # noqa: ARG002, FBT001 - there are none in memory
        """Return a key for a call, if it is to have one."""
        return None

    def remember(
        self,
        pool: Pool,
        call: Callable[[int, str | None], object],
        answer: Outcome,
        *,
        lease: int | None,
        key: str | None,
    ) -> None:
        """Remember a call that may be repeated."""

    # The calls

    @rule(minutes=MINUTES)
    def wait(self, minutes: int) -> None:
        """Let time pass, perhaps over the end of holds and of windows."""
        self.now = Micros(self.now + minutes * MINUTE_US)

    @rule(minutes=MINUTES)
    def set_back(self, minutes: int) -> None:
        """Put the clock back, perhaps to before the end of holds and of windows."""
        self.now = Micros(self.now - minutes * MINUTE_US)

    @rule(
        number=NUMBERS,
        where=NUMBERS,
        estimate=ESTIMATES,
        budget=BUDGETS,
        ttl=st.none() | TIMES,
        says=SAYS,
        keyed=st.booleans(),
    )
    def reserve(
        self,
        number: int,
        where: int,
        estimate: UsageEstimate,
        budget: RequestBudget,
        ttl: timedelta | None,
        says: Unpriced | None,
        keyed: bool,  # noqa: FBT001 - hypothesis calls by name
    ) -> None:
        """Ask for an estimate, perhaps under a limit of its own, perhaps for a time of its own."""
        pool, key = self.chosen(where), self.new_key(keyed)
        carried: list[object] = [] if ttl is None else [LeaseTtl(ttl)]
        carried += [] if says is None else [says]
        carried += [] if key is None else [IdempotencyKey(key)]
        extensions = RequestExtensions(*carried)
        keeps = self.keeps_denials(number, key)
        error, answer = self.ask(
            number,
            pool,
            lambda: pool.reserve(estimate, budget, ttl, says, keeps_denials=keeps),
            lambda to, _key: self.manager(to, pool).reserve(extensions, estimate, budget),
            key=key,
        )
        if error is None:
            self.grants.append(Grant(pool, answer))

    @rule(number=NUMBERS, where=NUMBERS, tokens=st.lists(st.integers(0, 3), min_size=2, max_size=4))
    def reserve_a_little(self, number: int, where: int, tokens: list[int]) -> None:
        """Ask for so little, a few times, that there are leases to go on with."""
        for amount in tokens:
            estimate = UsageEstimate(total_tokens=amount, cost_micros_usd=amount)
            budget = RequestBudget.unlimited()
            self.reserve(number, where, estimate, budget, None, None, keyed=False)

    @rule(
        number=NUMBERS,
        where=NUMBERS,
        amounts=CREDITS,
        minutes=st.none() | MINUTES | st.just(-1),
        all_axes=st.booleans(),
        keyed=st.booleans(),
    )
    def give_a_credit(
        self,
        number: int,
        where: int,
        amounts: dict[str, Any],
        minutes: int | None,
        all_axes: bool,  # noqa: FBT001 - hypothesis calls by name
        keyed: bool,  # noqa: FBT001 - likewise
    ) -> None:
        """Give a credit, perhaps one that has expired, or on an axis that is not prepaid."""
        pool = self.chosen(where)
        given = {
            name: amount
            for name, amount in amounts.items()
            if all_axes or name not in NAMES or name in pool.policy.prepaid
        }
        if not any(given.get(name) for name in NAMES):
            return
        until = None if minutes is None else from_micros(self.now + minutes * MINUTE_US)
        credit = Credit(**given, expires_at=until)
        self.ask(
            number,
            pool,
            lambda: pool.give(credit),
            lambda to, key: self.top_up(to, pool, credit, key),
            key=self.new_key(keyed),
        )

    def top_up(self, number: int, pool: Pool, credit: Credit, key: str | None) -> None:  # noqa: ARG002 - one pool, no keys
        """Give a credit to a pool, through one of its managers."""
        self.budget.credit(credit)

    @precondition(lambda self: self.grants)
    @rule(
        number=NUMBERS,
        which=NUMBERS,
        usage=USAGES,
        last=st.booleans(),
        model=st.sampled_from(["m", "m" * 300]),
        keyed=st.booleans(),
    )
    def spend(
        self,
        number: int,
        which: int,
        usage: Usage,
        last: bool,  # noqa: FBT001 - hypothesis calls by name
        model: str,
        keyed: bool,  # noqa: FBT001 - likewise
    ) -> None:
        """Observe or settle any lease ever granted: open, expired or ended."""
        flag = EntryFlag.SHORTENED if len(model) > 255 else EntryFlag.NONE
        pool, lease = self.granted(which)
        kind = EntryKind.SETTLEMENT if last else EntryKind.OBSERVATION

        def call(to: int, key: str | None) -> None:
            budget = self.manager(to, pool)
            report = UsageReport(idempotency_key=key, model=model)
            (budget.record_used if last else budget.observe)(lease, usage, report=report)

        self.ask(
            number,
            pool,
            lambda: pool.spend(kind, lease.id, usage, flag),
            call,
            lease=lease.id,
            key=self.new_key(keyed),
        )

    @precondition(lambda self: self.grants)
    @rule(number=NUMBERS, which=NUMBERS, ttl=TIMES, keyed=st.booleans())
    def renew(self, number: int, which: int, ttl: timedelta, keyed: bool) -> None:  # noqa: FBT001 - as above
        """Let any lease hold until another time, sooner or later."""
        pool, lease = self.granted(which)

        def call(to: int, key: str | None) -> object:
            more = {} if key is None else {"idempotency_key": key}
            return self.manager(to, pool).renew(lease, ttl, **more)

        self.ask(
            number,
            pool,
            lambda: pool.renew(lease.id, ttl),
            call,
            lease=lease.id,
            key=self.new_key(keyed),
        )

    @precondition(lambda self: self.grants)
    @rule(number=NUMBERS, which=NUMBERS, keyed=st.booleans())
    def release(self, number: int, which: int, keyed: bool) -> None:  # noqa: FBT001 - as above
        """Release any lease."""
        pool, lease = self.granted(which)

        def call(to: int, key: str | None) -> None:
            more = {} if key is None else {"idempotency_key": key}
            self.manager(to, pool).release(lease, **more)

        def decide() -> None:
            pool.release(lease.id)

        self.ask(number, pool, decide, call, lease=lease.id, key=self.new_key(keyed))

    @precondition(lambda self: self.grants)
    @rule(number=NUMBERS, which=NUMBERS)
    def abandon(self, number: int, which: int) -> None:
        """End any lease as the pool's settlement policy says."""
        pool, lease = self.granted(which)
        self.ask(
            number,
            pool,
            lambda: pool.abandon(lease.id),
            lambda to, _key: self.manager(to, pool).abandon(lease),
            lease=lease.id,
        )

    @precondition(lambda self: self.grants)
    @rule(number=NUMBERS, which=NUMBERS, unknown=UNKNOWN_IDS, usage=USAGES)
    def settle_an_unknown_lease(self, number: int, which: int, unknown: int, usage: Usage) -> None:
        """Settle what was not granted here; the id may be that of another entry."""
        pool, lease = self.granted(which)
        if unknown in pool.granted:
            return
        forged = replace(lease, id=unknown)
        self.ask(
            number,
            pool,
            lambda: pool.spend(EntryKind.SETTLEMENT, unknown, usage),
            lambda to, _key: self.manager(to, pool).record_used(forged, usage),
            lease=unknown,
        )

    @invariant()
    def every_manager_sees_the_same(self) -> None:
        """What remains is what the rules say, whoever is asked."""
        for pool in self.books.pools:
            for number in self.managers():
                expected = pool.remaining(self.now_of(number))
                assert expected == self.manager(number, pool).remaining(EXTENSIONS)

    def close(self) -> None:
        """Wait until all that was crossed is told."""
        self.budget._announcer.close()

    def teardown(self) -> None:
        """Every crossing was told, once, by the manager that crossed."""
        self.close()
        assert self.told == self.heard
