"""The machine of a store: two ledgers, each with a manager of every pool."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from ledger import (
    I64_MAX,
    AsyncLedger,
    Credit,
    IdempotencyConflictError,
    IdempotencyKey,
    LeasePhase,
    Ledger,
    LedgerError,
    PoolConflictError,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.core.checks import Micros
from ledger.testing import Awaited
from tests.stateful.books import Outcome, outcome
from tests.stateful.choices import NUMBERS, POLICIES, USAGES
from tests.stateful.memory import MINUTE_US, MemoryMachine
from tests.stateful.pool import Pool

KEPT = {None, RequestBudgetExceededError, ThresholdExceededError}
"""Answers that an entry stands for, so that they are given again under the same key."""
NOBODYS = UsageEstimate(total_tokens=77)
"""An estimate that no rule asks for."""


@dataclass(frozen=True)
class Repeatable:
    """A call with a key, what it answered the first time, and the entry that holds the key."""

    pool: Pool
    call: Callable[[int, str | None], object]
    answer: Outcome
    lease: int | None
    key: str
    seq: int


class StoreMachine(MemoryMachine):
    """Two ledgers on one store: the second keeps denials, and its clock may be behind.

    With a runner the second is called through asyncio.
    """

    ceiling = I64_MAX
    url: str
    runner: asyncio.Runner | None = None
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.repeatable: list[Repeatable] = []
        self.behind_us = 0
        self.by_pool: list[dict[Pool, Any]] = [{}, {}]
        self.ledgers: list[Any] = []

    @initialize(policy=POLICIES)
    def open(self, policy: SharedPoolBudgetOptions) -> None:
        """Begin with a pool under some policy."""
        self.open_ledgers()
        self.make_pool(f"pool {next(self.numbers)}", policy)

    def open_ledgers(self) -> None:
        """Open the store twice."""
        self.ledgers = [self.open_ledger(number) for number in range(2)]

    def make_pool(
        self,
        name: str,
        policy: SharedPoolBudgetOptions,
        parent: Pool | None = None,
    ) -> None:
        """Make a pool in the store, and in the model."""
        pool = Pool(self.books, policy, self.now, ceiling=self.ceiling, name=name, parent=parent)
        above = None if parent is None else parent.name
        for ledger, managers in zip(self.ledgers, self.by_pool, strict=True):
            managers[pool] = self.face(ledger.pool(name, policy, parent=above))
        pool.identity = self.by_pool[0][pool].identity

    def open_ledger(self, number: int) -> Any:  # noqa: ANN401 - of either face
        """Open the store as the first or the second ledger does."""
        options: dict[str, Any] = {
            "record_denials": self.keeps_denials(number, None),
            "clock": lambda: self.now_of(number),
            "on_threshold": self.heard[number].append,
        }
        if number and self.runner is not None:
            return Awaited(self.runner.run(AsyncLedger.open(self.url, **options)), self.runner.run)
        return Ledger.open(self.url, **options)

    def face(self, manager: Any) -> Any:  # noqa: ANN401 - of either face
        """Return a manager as it is called here."""
        if isinstance(self.runner, asyncio.Runner) and asyncio.iscoroutinefunction(manager.reserve):
            return Awaited(manager, self.runner.run)
        return manager

    def now_of(self, number: int) -> Micros:
        """Return the time by the clock of a manager."""
        return Micros(self.now - self.behind_us) if number % 2 else self.now

    def manager(self, number: int, pool: Pool) -> Any:  # noqa: ANN401 - of either face
        """Return one of the managers of a pool."""
        return self.by_pool[number % 2][pool]

    def managers(self) -> list[int]:
        """Return the numbers of the managers that each pool has."""
        return [0, 1]

    def keeps_denials(self, number: int, key: str | None) -> bool:
        """Tell whether this manager writes down that it denied a call."""
        return number % 2 == 1 or key is not None

    def expect(
        self, number: int, pool: Pool, decide: Callable[[], object], lease: int | None = None
    ) -> Outcome:
        """Do to the model what a write does; a lease that no store can hold is not looked for."""
        if lease is not None and not 0 < lease <= I64_MAX:
            return outcome(decide)
        return super().expect(number, pool, decide, lease)

    def new_key(self, wanted: bool) -> str | None:  # noqa: FBT001 - as in memory
        """Return a key for a call, if it is to have one."""
        return f"key {next(self.numbers)}" if wanted else None

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
        if key is not None and answer[0] in KEPT:
            seq = pool.outcome_seq()
            self.repeatable.append(Repeatable(pool, call, answer, lease, key, seq))

    # The calls

    @rule(minutes=st.sampled_from([0, 1, 45, 100]))
    def set_a_clock(self, minutes: int) -> None:
        """Let the second ledger's clock be behind the first one's."""
        self.behind_us = minutes * MINUTE_US

    @precondition(lambda self: self.repeatable)
    @rule(number=NUMBERS, which=NUMBERS)
    def repeat(self, number: int, which: int) -> None:
        """Repeat a call under its key: the first answer again, and nothing is written.

        Nothing expires either, and no window begins.
        """
        first = self.repeatable[which % len(self.repeatable)]
        assert first.answer == outcome(lambda: first.call(number, first.key))

    @precondition(lambda self: self.repeatable)
    @rule(number=NUMBERS, which=NUMBERS)
    def use_a_key_again(self, number: int, which: int) -> None:
        """Ask for something else under a key: a conflict, which says with what."""
        first = self.repeatable[which % len(self.repeatable)]
        asked = RequestExtensions(IdempotencyKey(first.key)), NOBODYS, RequestBudget.unlimited()

        answer = outcome(lambda: self.manager(number, first.pool).reserve(*asked))
        conflict = IdempotencyConflictError(first.key, seq=first.seq)
        assert (type(conflict), vars(conflict)) == answer

    @precondition(lambda self: any(pool.spends for pool in self.books.pools))
    @rule(number=NUMBERS, where=NUMBERS, which=NUMBERS, usage=USAGES, keyed=st.booleans())
    def correct(self, number: int, where: int, which: int, usage: Usage, keyed: bool) -> None:  # noqa: FBT001 - as above
        """Correct any record of usage, perhaps again, perhaps by what it says already."""
        pools = [pool for pool in self.books.pools if self.correctable(pool)]
        if not pools:
            return
        pool = pools[where % len(pools)]
        spends = self.correctable(pool)
        seq = spends[which % len(spends)]
        self.ask(
            number,
            pool,
            lambda: pool.correct(seq, usage),
            lambda to, key: self.manager(to, pool).correct(
                seq, usage, "because", idempotency_key=key
            ),
            key=self.new_key(keyed),
        )
        assert pool.spends[seq][1] == self.manager(number + 1, pool).usage_of(seq)

    def correctable(self, pool: Pool) -> list[int]:
        """Return the entries of a pool that can be corrected: what funds a pool cannot."""
        return [seq for seq, (lease, _) in pool.spends.items() if lease in pool.granted]

    @rule(number=NUMBERS, where=NUMBERS, policy=POLICIES, keyed=st.booleans())
    def adjust(
        self,
        number: int,
        where: int,
        policy: SharedPoolBudgetOptions,
        keyed: bool,  # noqa: FBT001 - as above
    ) -> None:
        """Replace the policy, perhaps by one below what is spent."""
        pool = self.chosen(where)
        if pool.funding is not None:
            return  # it can have no more than it was carved out with
        self.ask(
            number,
            pool,
            lambda: pool.adjust(policy),
            lambda to, key: self.ledgers[to % 2].adjust(
                pool.name, policy, reason="because", idempotency_key=key
            ),
            key=self.new_key(keyed),
        )

    def top_up(self, number: int, pool: Pool, credit: Credit, key: str | None) -> None:
        """Give a credit to a pool, through one of the ledgers."""
        ledger = self.ledgers[number % 2]
        ledger.credit(pool.name, credit, reason="paid", idempotency_key=key)

    @rule(number=NUMBERS, where=NUMBERS)
    def expire_due(self, number: int, where: int) -> None:
        """Expire what is due, without another call."""
        pool = self.chosen(where)
        expired = self.books.sweep(pool, self.now_of(number))
        self.told[number % 2] += self.books.crossed
        assert expired == self.ledgers[number % 2].expire_due(pool.name)

    @precondition(lambda self: len(self.grants) > 8)
    @rule(number=st.integers(0, 1), where=NUMBERS, keyed=st.booleans())
    def close_a_pool(self, number: int, where: int, keyed: bool) -> None:  # noqa: FBT001 - as above
        """Close a pool, perhaps again."""
        pool = self.chosen(where)
        self.ask(
            number,
            pool,
            pool.close,
            lambda to, key: self.ledgers[to % 2].close_pool(pool.name, idempotency_key=key),
            key=self.new_key(keyed),
        )

    @rule(number=NUMBERS, options=st.sampled_from(["none", "opening", "current"]))
    def reopen(self, number: int, options: str) -> None:
        """Close one ledger and open it again, with any of the options that are accepted."""
        self.ledgers[number % 2].close()
        self.ledgers[number % 2] = self.open_ledger(number % 2)
        for pool in self.books.pools:
            given = {"none": None, "opening": pool.opening, "current": pool.policy}[options]
            manager = self.ledgers[number % 2].pool(pool.name, given)
            self.by_pool[number % 2][pool] = self.face(manager)

    @rule(number=NUMBERS, where=NUMBERS, policy=POLICIES)
    def open_under_a_policy(self, number: int, where: int, policy: SharedPoolBudgetOptions) -> None:
        """Open a pool with options: a conflict unless they are the opening's or the current."""
        pool = self.chosen(where)
        actual = outcome(lambda: self.ledgers[number % 2].pool(pool.name, policy).name)
        if policy in {pool.opening, pool.policy}:
            assert (None, pool.name) == actual
        else:
            assert PoolConflictError is actual[0]
            assert (pool.opening, pool.policy, policy) == tuple(
                actual[1][name] for name in ("opening", "current", "given")
            )

    @precondition(lambda self: self.grants)
    @rule(number=NUMBERS, which=NUMBERS)
    def find_a_lease(self, number: int, which: int) -> None:
        """Look a lease up by its id alone."""
        pool, lease = self.granted(which)
        actual = outcome(lambda: self.manager(number, pool).lease(lease.token))
        if pool.leases[lease.id].phase is LeasePhase.ENDED:
            assert (UnknownLeaseError, {"lease_id": lease.id}) == actual
        else:
            assert (None, lease) == actual

    @invariant()
    def the_status_is_the_model(self) -> None:
        """Number, policy, both totals, window, and whether it is closed."""
        for pool in self.books.pools:
            status = self.by_pool[0][pool].status()
            assert (
                len(pool.entries),
                pool.policy,
                pool.balance_at(self.now),
                pool.window_at(self.now),
                pool.left(self.now),
                pool.remaining(self.now),
                pool.closed,
                pool.credit_states(self.now),
            ) == (
                *(status.seq, status.policy, status.balance, status.window),
                *(status.own, status.remaining, status.closed),
                [*status.credits],
            )

    def teardown(self) -> None:
        """The journal alone makes the same pools, and every entry of them is good."""
        try:
            for pool in self.books.pools:
                self.check_the_journal(pool)
        finally:
            super().teardown()

    def close(self) -> None:
        """Close the ledgers, which waits until all that was crossed is told."""
        for ledger in self.ledgers:
            with suppress(LedgerError):
                ledger.close()

    def check_the_journal(self, pool: Pool) -> None:
        """Compare entries, open leases, replay and verification with the model."""
        book: Ledger = self.ledgers[0]
        name = pool.name or ""
        entries = list(book.entries(name))
        assert pool.entries == [(entry.kind, entry.flags) for entry in entries]
        assert pool.balance == entries[-1].balance
        left = {
            key: state for key, state in pool.leases.items() if state.phase is not LeasePhase.ENDED
        }
        assert [
            (lease, left[lease].phase, left[lease].held, left[lease].used)
            for lease in pool.granted
            if lease in left
        ] == [(one.lease.id, one.phase, one.held, one.used) for one in book.open_leases(name)]
        replayed = book.replay(name)
        assert pool.book == replayed.book
        assert (pool.balance, pool.policy, pool.window, left, len(entries), pool.closed) == (
            replayed.balance,
            replayed.policy,
            replayed.window,
            replayed.leases,
            replayed.entries,
            replayed.closed,
        )
        (verified,) = book.verify(name)
        assert None is verified.damage
        assert (len(entries), pool.balance) == (verified.entries, verified.balance)
