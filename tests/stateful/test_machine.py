"""Any sequence of calls, on every manager, against the rules as oracle."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger import (
    I64_MAX,
    U64_MAX,
    AmountOutOfRangeError,
    Balance,
    BudgetLease,
    EntryKind,
    IdempotencyKey,
    InvalidInputError,
    LeasePhase,
    LeaseState,
    Ledger,
    LedgerError,
    Period,
    PoolConflictError,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UnknownLeaseError,
    Usage,
    UsageDifference,
    UsageEstimate,
    UsageReport,
    Window,
    WindowState,
    rules,
)
from ledger.checks import Micros

SETTINGS = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
EXTENSIONS = RequestExtensions()

# Small amounts make limits be met, those at the end of the range make totals overflow.
AMOUNTS = st.integers(0, 12) | st.sampled_from([0, 1, 40, 100, I64_MAX - 1, I64_MAX])
CAPACITIES = st.integers(0, 100) | st.sampled_from([100, I64_MAX, U64_MAX])
LIMITS = st.none() | AMOUNTS
NUMBERS = st.integers(0, 99)
HOUR = timedelta(hours=1)
WINDOWS = st.none() | st.sampled_from(
    [
        Window(period=HOUR),
        Window(period=HOUR, carry_over=True),
        Window(period=HOUR, carry_over=True, carry_cap_tokens=10, carry_cap_cost_micros_usd=0),
        Window(period=Period.DAY, time_zone="Europe/Berlin", carry_over=True),
    ]
)
MINUTES = st.sampled_from([1, 30, 59, 60, 61, 200, 1_440, 4_000])
POLICIES = st.builds(
    SharedPoolBudgetOptions,
    window=WINDOWS,
    capacity_tokens=CAPACITIES,
    capacity_cost_micros_usd=CAPACITIES,
    stop_threshold_tokens=st.sampled_from([0, 0, 1, 10]),
    stop_threshold_cost_micros_usd=st.sampled_from([0, 0, 1, 10]),
)
ESTIMATES = st.builds(
    UsageEstimate, input_tokens=AMOUNTS, total_tokens=AMOUNTS, cost_micros_usd=AMOUNTS
)
USAGES = st.builds(
    Usage,
    total_tokens=AMOUNTS,
    cost_micros_usd=AMOUNTS,
    reasoning_tokens=st.integers(0, 3),
)
BUDGETS = st.builds(RequestBudget, tokens=LIMITS, cost_micros_usd=LIMITS)
UNKNOWN_IDS = st.sampled_from([0, -1, 1, 3, 7, 10_000, I64_MAX, I64_MAX + 1, U64_MAX])

Outcome = tuple[type | None, Any]


def outcome(call: Callable[[], object]) -> Outcome:
    """Return what a call returned, or its error's class and figures."""
    try:
        return None, call()
    except LedgerError as error:
        return type(error), vars(error)


@dataclass(frozen=True)
class Repeatable:
    """A call with a key, and what it answered the first time."""

    call: Callable[[Any], object]
    answer: Outcome


class MemoryMachine(RuleBasedStateMachine):
    """The in-memory manager, and the model that every machine keeps."""

    ceiling = U64_MAX
    name: str | None = None
    """The pool's; in memory it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = Balance()
        self.leases: dict[int, LeaseState] = {}
        self.granted: list[BudgetLease] = []
        self.now = Micros(1_774_700_000_000_000)
        """Half a day before the clocks of Berlin are put forward."""

    @initialize(policy=POLICIES)
    def open(self, policy: SharedPoolBudgetOptions) -> None:
        """Begin with a pool under some policy."""
        self.policy = self.opening = policy
        self.window = rules.begin_window(policy, self.now, Totals())
        self.open_managers()

    def clock(self) -> int:
        """Return the time, which goes on by a rule alone."""
        return self.now

    @rule(minutes=MINUTES)
    def wait(self, minutes: int) -> None:
        """Let time pass, perhaps over the end of a window, or of several."""
        self.now = Micros(self.now + minutes * 60_000_000)

    def window_now(self) -> WindowState | None:
        """Return the window that it is by now, although nothing may be written in it yet."""
        begun = rules.roll_over(self.policy, self.window, self.balance, self.now)
        return begun or self.window

    def roll_over(self) -> None:
        """Begin the window that it is by now, as every write does."""
        window = self.window_now()
        if window != self.window:
            self.window = window
            self.note(EntryKind.ROLLOVER)

    def open_managers(self) -> None:
        """Make what the calls go to."""
        self.managers: list[Any] = [SharedPoolBudgetManager(self.policy, clock=self.clock)]

    def manager(self, number: int) -> Any:  # noqa: ANN401 - either manager
        """Return one of the managers of the one pool."""
        return self.managers[number % len(self.managers)]

    def next_id(self) -> int:
        """Return the id of the next lease."""
        return len(self.granted) + 1

    def note(self, kind: EntryKind) -> None:
        """Remember that an entry was written."""

    def spent(self, lease: BudgetLease, usage: Usage) -> None:
        """Remember what the newest entry says was used."""

    def keeps_denials(self, number: int) -> bool:  # noqa: ARG002 - as below
        """Tell whether this manager writes denials down."""
        return False

    def decide_reserve(
        self, estimate: UsageEstimate, budget: RequestBudget
    ) -> tuple[Outcome, rules.Effect | None]:
        """Return what the rules answer to a reservation, and what it leaves behind."""
        denial = rules.admit(self.policy, self.balance, estimate, budget, self.window)
        if isinstance(denial, ThresholdExceededError):
            denial = denial if self.name is None else denial.of_pool(self.name)
        if denial is not None:
            return (type(denial), vars(denial)), None
        try:
            effect = rules.reserve(
                self.balance,
                lease_id=self.next_id(),
                estimate=estimate,
                request_budget=budget,
                ceiling=self.ceiling,
            )
        except AmountOutOfRangeError as error:
            return (AmountOutOfRangeError, vars(error)), None
        lease = BudgetLease(
            id=self.next_id(),
            reserved=estimate,
            request_budget=budget,
            pool=getattr(self.managers[0], "identity", None),
        )
        return (None, lease), effect

    def apply(self, effect: rules.Effect, kind: EntryKind) -> None:
        """Move the model on."""
        self.balance = effect.balance
        self.leases[effect.lease.lease] = effect.lease
        self.note(kind)

    def check_reserve(
        self,
        number: int,
        estimate: UsageEstimate,
        budget: RequestBudget,
        extensions: RequestExtensions = EXTENSIONS,
    ) -> Outcome:
        """Reserve, and compare with the rules."""
        self.roll_over()
        expected, effect = self.decide_reserve(estimate, budget)
        actual = outcome(lambda: self.manager(number).reserve(extensions, estimate, budget))
        assert expected == actual
        if effect is not None:
            self.apply(effect, EntryKind.RESERVATION)
            self.granted.append(actual[1])
        elif actual[0] is not AmountOutOfRangeError and (
            self.keeps_denials(number) or extensions.contains(IdempotencyKey)
        ):
            self.note(EntryKind.DENIAL)
        return actual

    def check_settle(
        self, number: int, lease: BudgetLease, usage: Usage, **more: UsageReport
    ) -> Outcome:
        """Settle, and compare with the rules."""
        expected: Outcome
        if 0 < lease.id <= I64_MAX:  # no other can be in a store, and is not looked for
            self.roll_over()
        try:
            effect = rules.settle(
                self.balance,
                self.leases.get(lease.id) if lease in self.granted else None,
                usage,
                lease_id=lease.id,
                ceiling=self.ceiling,
            )
        except UnknownLeaseError as error:
            expected = (UnknownLeaseError, vars(error))
        else:
            excess = rules.over_request_budget(effect.lease.request_budget, usage)
            expected = (None, None) if excess is None else (type(excess), vars(excess))
            self.apply(effect, EntryKind.SETTLEMENT)
            self.spent(lease, usage)
        actual = outcome(lambda: self.manager(number).record_used(lease, usage, **more))
        assert expected == actual
        return actual

    @rule(number=NUMBERS, estimate=ESTIMATES, budget=BUDGETS)
    def reserve(self, number: int, estimate: UsageEstimate, budget: RequestBudget) -> None:
        """Ask for an estimate under a limit of its own."""
        self.check_reserve(number, estimate, budget)

    @rule(number=NUMBERS, estimate=ESTIMATES)
    def reserve_without_limit(self, number: int, estimate: UsageEstimate) -> None:
        """Ask for an estimate that the pool alone may refuse."""
        self.check_reserve(number, estimate, RequestBudget.unlimited())

    @precondition(lambda self: self.granted)
    @rule(number=NUMBERS, chosen=NUMBERS, usage=USAGES)
    def settle(self, number: int, chosen: int, usage: Usage) -> None:
        """Settle any lease ever granted: open ones, and those settled before."""
        self.check_settle(number, self.granted[chosen % len(self.granted)], usage)

    @precondition(lambda self: self.granted)
    @rule(number=NUMBERS, usage=USAGES)
    def settle_the_newest(self, number: int, usage: Usage) -> None:
        """Settle the lease that was granted last, perhaps again."""
        self.check_settle(number, self.granted[-1], usage)

    @precondition(lambda self: self.granted)
    @rule(number=NUMBERS, chosen=NUMBERS)
    def release(self, number: int, chosen: int) -> None:
        """Release any lease ever granted: open ones, and those that have ended."""
        lease = self.granted[chosen % len(self.granted)]
        expected: Outcome = (None, None)
        self.roll_over()
        try:
            effect = rules.end_hold(
                self.balance, self.leases[lease.id], LeasePhase.ENDED, lease_id=lease.id
            )
        except UnknownLeaseError as error:
            expected = (UnknownLeaseError, vars(error))
        else:
            self.apply(effect, EntryKind.RELEASE)
        assert expected == outcome(lambda: self.manager(number).release(lease))

    @precondition(lambda self: self.granted)
    @rule(number=NUMBERS, unknown=UNKNOWN_IDS, usage=USAGES)
    def settle_an_unknown_lease(self, number: int, unknown: int, usage: Usage) -> None:
        """Settle what was not granted; an id that happens to be open is left alone."""
        if unknown not in self.leases:
            self.check_settle(number, replace(self.granted[-1], id=unknown), usage)

    @invariant()
    def every_manager_sees_the_same(self) -> None:
        """What remains is what the rules say, whoever is asked."""
        for manager in self.managers:
            expected = rules.remaining(self.policy, self.balance, self.window_now())
            assert expected == manager.remaining(EXTENSIONS)


class LedgerMachine(MemoryMachine):
    """Two ledgers on one store, each with a manager of the one pool."""

    ceiling = I64_MAX
    url: str
    pools = itertools.count(1)

    def open_managers(self) -> None:
        """Open the store twice; the second one keeps denials."""
        self.name = f"pool {next(self.pools)}"
        self.kinds = [EntryKind.OPENING]
        self.repeatable: list[Repeatable] = []
        self.spends: dict[int, tuple[int, Usage]] = {}
        self.books = [self.open_book(number) for number in range(2)]
        self.managers = [book.pool(self.name, self.opening) for book in self.books]

    def open_book(self, number: int) -> Ledger:
        """Open the store as the first or the second ledger does."""
        return Ledger.open(self.url, record_denials=self.keeps_denials(number), clock=self.clock)

    def keeps_denials(self, number: int) -> bool:
        """Tell whether this manager writes denials down."""
        return number % 2 == 1

    def next_id(self) -> int:
        """Return the number of the next entry, which is the lease's id."""
        return len(self.kinds) + 1

    def note(self, kind: EntryKind) -> None:
        """Remember that an entry was written."""
        self.kinds.append(kind)

    def spent(self, lease: BudgetLease, usage: Usage) -> None:
        """Remember what the newest entry says was used."""
        self.spends[len(self.kinds)] = lease.id, usage

    @precondition(lambda self: self.spends)
    @rule(number=NUMBERS, chosen=NUMBERS, usage=USAGES)
    def correct(self, number: int, chosen: int, usage: Usage) -> None:
        """Correct a settlement, perhaps again, perhaps by what it says already."""
        seq = list(self.spends)[chosen % len(self.spends)]
        lease_id, before = self.spends[seq]
        expected: Outcome
        self.roll_over()
        try:
            effect = rules.correct(
                self.balance, self.leases[lease_id], before, usage, seq=seq, ceiling=self.ceiling
            )
        except InvalidInputError as error:
            expected = (InvalidInputError, vars(error))
        else:
            expected = (None, UsageDifference.between(before, usage))
            self.apply(effect, EntryKind.CORRECTION)
            self.spends[seq] = lease_id, usage
        assert expected == outcome(lambda: self.manager(number).correct(seq, usage, "because"))
        assert usage == self.manager(number + 1).usage_of(seq)

    @rule(number=NUMBERS, estimate=ESTIMATES, budget=BUDGETS)
    def reserve_with_a_key(
        self, number: int, estimate: UsageEstimate, budget: RequestBudget
    ) -> None:
        """Ask once, under a key."""
        extensions = RequestExtensions(IdempotencyKey(f"reserve {len(self.repeatable)}"))
        answer = self.check_reserve(number, estimate, budget, extensions)
        if answer[0] is not AmountOutOfRangeError:
            call = Repeatable(lambda to: to.reserve(extensions, estimate, budget), answer)
            self.repeatable.append(call)

    @precondition(lambda self: self.granted)
    @rule(number=NUMBERS, chosen=NUMBERS, usage=USAGES)
    def settle_with_a_key(self, number: int, chosen: int, usage: Usage) -> None:
        """Settle once, under a key."""
        lease = self.granted[chosen % len(self.granted)]
        report = UsageReport(idempotency_key=f"settle {len(self.repeatable)}", model="m")
        answer = self.check_settle(number, lease, usage, report=report)
        if answer[0] in {None, RequestBudgetExceededError}:
            call = Repeatable(lambda to: to.record_used(lease, usage, report=report), answer)
            self.repeatable.append(call)

    @precondition(lambda self: self.repeatable)
    @rule(number=NUMBERS, chosen=NUMBERS)
    def repeat(self, number: int, chosen: int) -> None:
        """Repeat a call under its key: the first answer again, and nothing is written."""
        repeated = self.repeatable[chosen % len(self.repeatable)]
        self.roll_over()
        assert repeated.answer == outcome(lambda: repeated.call(self.manager(number)))

    @rule(number=NUMBERS, policy=POLICIES)
    def adjust(self, number: int, policy: SharedPoolBudgetOptions) -> None:
        """Replace the policy, perhaps by one below what is spent."""
        self.roll_over()
        self.books[number % 2].adjust(self.name, policy, reason="because")
        begun = rules.adjust_window(self.policy, policy, self.now, self.balance.committed)
        self.window = None if policy.window is None else begun or self.window
        self.policy = policy
        self.note(EntryKind.ADJUSTMENT)

    @rule(number=NUMBERS, options=st.sampled_from(["none", "opening", "current"]))
    def reopen(self, number: int, options: str) -> None:
        """Close one ledger and open it again, with any of the options that are accepted."""
        self.books[number % 2].close()
        self.books[number % 2] = self.open_book(number)
        given = {"none": None, "opening": self.opening, "current": self.policy}[options]
        self.managers[number % 2] = self.books[number % 2].pool(self.name, given)

    @rule(number=NUMBERS, policy=POLICIES)
    def open_under_a_policy(self, number: int, policy: SharedPoolBudgetOptions) -> None:
        """Open the pool with options: a conflict unless they are the opening's or the current."""
        actual = outcome(lambda: self.books[number % 2].pool(self.name, policy).name)
        if policy in {self.opening, self.policy}:
            assert (None, self.name) == actual
        else:
            assert PoolConflictError is actual[0]
            assert (self.opening, self.policy, policy) == tuple(
                actual[1][name] for name in ("opening", "current", "given")
            )

    @precondition(lambda self: self.granted)
    @rule(number=NUMBERS, chosen=NUMBERS)
    def find_a_lease(self, number: int, chosen: int) -> None:
        """Look a lease up by its id alone."""
        lease = self.granted[chosen % len(self.granted)]
        actual = outcome(lambda: self.manager(number).lease(lease.id))
        if self.leases[lease.id].phase is LeasePhase.OPEN:
            assert (None, lease) == actual
        else:
            assert (UnknownLeaseError, {"lease_id": lease.id}) == actual

    @invariant()
    def the_status_is_the_model(self) -> None:
        """Number, policy and both totals."""
        for manager in self.managers[:1]:
            status = manager.status()
            assert (len(self.kinds), self.policy, self.balance, self.window_now()) == (
                status.seq,
                status.policy,
                status.balance,
                status.window,
            )

    def teardown(self) -> None:
        """The journal alone makes the same pool, and every entry of it is good."""
        if not hasattr(self, "books"):
            return
        try:
            self.check_the_journal(self.books[0])
        finally:
            for book in self.books:
                with suppress(LedgerError):
                    book.close()

    def check_the_journal(self, book: Ledger) -> None:
        """Compare entries, open leases, replay and verification with the model."""
        entries = list(book.entries(self.name))
        assert self.kinds == [entry.kind for entry in entries]
        assert self.balance == entries[-1].balance
        remembered = {
            key: state for key, state in self.leases.items() if state.phase is LeasePhase.OPEN
        }
        listed = list(book.open_leases(self.name))
        assert sorted(remembered) == [found.lease.id for found in listed]
        assert [found.lease for found in listed] == [
            lease for lease in self.granted if lease.id in remembered
        ]
        pool = book.replay(self.name)
        assert (self.balance, self.policy, self.window, remembered, len(entries)) == (
            pool.balance,
            pool.policy,
            pool.window,
            pool.leases,
            pool.entries,
        )
        (verified,) = book.verify(self.name)
        assert None is verified.damage
        assert (len(entries), self.balance) == (verified.entries, verified.balance)


def test_memory_follows_the_rules() -> None:
    """Every verdict, figure and balance of the in-memory manager is that of the rules."""
    run_state_machine_as_test(MemoryMachine, settings=settings(SETTINGS, max_examples=100))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_follows_the_rules(kind: str, new_store: Callable[[str], str]) -> None:
    """The same for two ledgers on one store, and the journal proves it afterwards."""
    machine = type("Machine", (LedgerMachine,), {"url": new_store(kind)})
    # Shrinking a failure on a real database takes longer than a test may; replay it by hand.
    run_state_machine_as_test(machine, settings=settings(SETTINGS, phases=[Phase.generate]))
