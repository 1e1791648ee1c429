"""Calls that expire, are refunded and are paid by credits, against plain sums call by call.

The model asks none of the library's rules. It keeps of each record when its parts count.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import (
    BudgetLease,
    Credit,
    Ledger,
    Limit,
    Rolling,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    Window,
    from_micros,
)
from ledger.core.checks import Micros
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock
from tests.conformance.test_plain_windows import (
    AMOUNTS,
    CAPACITY,
    MINUTE_US,
    STARTS,
    WINDOWS,
    next_begin,
)
from tests.conftest import STORES

TTL_US = 10 * MINUTE_US
"""How long a lease holds."""
PERIODS: dict[str, Rolling | Window] = {
    "five hours": Rolling(timedelta(hours=5)),
    "an hour": Rolling(timedelta(hours=1)),
    **WINDOWS,
}


class Kind(NamedTuple):
    """What a pool is bounded by."""

    use: str
    """What its period is for: a "window", one that is "carried" over, or a "limit"."""
    gives_back: bool
    """Whether a lease that expires gives back what it held."""
    prepaid: bool


class Part(NamedTuple):
    """An amount that counts: when, and which of the pool's windows it was recorded in."""

    at: int
    window: int
    paid: bool
    """Whether a credit may pay it: none does that is of a list which began later."""
    amount: int


@dataclass
class Record:
    """What one entry records, in parts: the latest comes last."""

    dated: int | None = None
    """When all of it counts, if it was recorded after its hold had ended."""
    parts: list[Part] = field(default_factory=list)
    seq: int = 0

    @property
    def usage(self) -> int:
        """What it records."""
        return sum(part.amount for part in self.parts)

    def take(self, amount: int) -> list[Part]:
        """Take usage back from what counted last, and return that."""
        taken: list[Part] = []
        while amount:
            last = self.parts.pop()
            off = min(amount, last.amount)
            taken.insert(0, last._replace(amount=off))
            amount -= off
            if off < last.amount:
                self.parts.append(last._replace(amount=last.amount - off))
        return taken


@dataclass
class Call:
    """A call: until when it holds how much, and what was recorded of it."""

    ends: int
    held: int
    records: list[Record] = field(default_factory=list)
    assumed: Record | None = None
    """What its expiry was charged, less what was recorded in place of that."""
    ended: bool = False


@dataclass
class Pool:
    """A pool of tokens. Its window is the last one in which something was written."""

    period: Rolling | Window
    kind: Kind
    end: int
    """When its window ends; a session has none at first."""
    window: int = 0
    carried: int = 0
    calls: list[Call] = field(default_factory=list)
    credits: list[tuple[int, Credit]] = field(default_factory=list)
    listed: int = 0
    """When the list of credits began that are valid."""

    @property
    def is_session(self) -> bool:
        """Whether its windows begin with calls."""
        return isinstance(self.period, Window) and self.period.session

    @property
    def parts(self) -> list[Part]:
        """All that was ever recorded."""
        every = (one for call in self.calls for one in (*call.records, call.assumed))
        return [part for one in every if one is not None for part in one.parts]

    def write(self, now: int, spared: Call | None = None) -> None:
        """Let windows end, and what is due expire, each in its time.

        A call's own lease expires only if its hold ended before the present window began.
        """
        if self.kind.use != "limit" and not self.is_session and self.end <= now:
            assert isinstance(self.period, Window)
            begins = [self.end]
            while (later := next_begin(self.period, begins[-1])) <= now:
                begins.append(later)
            self.expire(begins[-1] - 1)
            for _ in begins:
                rest = CAPACITY + self.carried - self.spent(now)
                self.carried = max(0, rest) if self.kind.use == "carried" else 0
                self.window += 1
            self.end = next_begin(self.period, begins[-1])
        self.expire(now, spared)

    def expire(self, now: int, spared: Call | None = None) -> None:
        """Charge what is due, but for one call's lease."""
        for call in self.calls:
            if call.ended or call is spared or call.assumed is not None or call.ends > now:
                continue
            call.assumed = Record(call.ends)
            self.add(call.assumed, 0 if self.kind.gives_back else call.held, now)
            call.held = 0

    def spent(self, now: int) -> int:
        """Return what counts, but for what is held."""
        if self.kind.use != "limit":
            return sum(part.amount for part in self.parts if part.window == self.window)
        if isinstance(self.period, Rolling):
            since = now - round(self.period.length / timedelta(microseconds=1)) + 1
        else:
            since = next_begin(self.period, now - 40 * 24 * 60 * MINUTE_US)
            while (later := next_begin(self.period, since)) <= now:
                since = later
        return sum(part.amount for part in self.parts if part.at >= since)

    def account(self, now: int) -> tuple[dict[int, int], int]:
        """Return what each valid credit has left, and the debt: each amount is paid in turn."""
        given = [(at, 0, number) for number, (at, _) in enumerate(self.credits)]
        used = [(part.at, 1, part.amount) for part in self.parts if part.paid]
        left: dict[int, int] = {}
        debt = 0

        def order(number: int) -> tuple[int, datetime, int]:
            credit = self.credits[number][1]
            return credit.priority, credit.expires_at or datetime.max.replace(tzinfo=UTC), number

        def valid(at: int) -> list[int]:
            ends = {number: order(number)[1] for number in left}
            return sorted((one for one in left if from_micros(Micros(at)) < ends[one]), key=order)

        for at, is_used, value in sorted(given + used):
            if is_used:
                debt += value
            else:
                left[value] = self.credits[value][1].tokens
            for number in valid(at):
                off = min(debt, left[number])
                debt, left[number] = debt - off, left[number] - off
        return {number: left[number] for number in valid(now)}, debt

    def give(self, credit: Credit, now: int) -> None:
        """Add a credit: it begins a new list where no other is valid, and nothing is owed."""
        self.write(now)
        left, debt = self.account(now)
        self.listed = self.listed if left or debt else now
        self.credits.append((now, credit))

    def over(self, now: int) -> int:
        """Return what is left, below 0 for what is overspent."""
        found = copy.deepcopy(self)
        found.write(now)
        between = self.is_session and self.end <= now
        spent = 0 if between else found.spent(now)
        held = sum(call.held for call in found.calls)
        left = CAPACITY + found.carried - spent - held
        if not self.kind.prepaid:
            return left
        credits, debt = found.account(now)
        return min(left, sum(credits.values()) - debt - held)

    def reserve(self, amount: int, now: int) -> Call:
        """Grant a call; the first one begins a session."""
        self.write(now)
        if self.is_session and self.end <= now:
            self.window += 1
            self.end = now + round(self.period.period / timedelta(microseconds=1))  # type: ignore[union-attr, operator] - of sessions
        self.calls.append(Call(now + TTL_US, amount))
        return self.calls[-1]

    def use(self, call: Call, amount: int, now: int, *, last: bool) -> Record:
        """Record usage, in place of what was assumed."""
        self.write(now, spared=call)
        record = Record(call.ends if call.ends <= now else None)
        if call.assumed is not None:
            record.parts += call.assumed.take(min(amount, call.assumed.usage))
        self.add(record, amount - record.usage, now)
        call.records.append(record)
        call.held = max(0, call.held - amount)
        if last:
            self.finish(call, now)
        return record

    def finish(self, call: Call, now: int) -> None:
        """End a call: nothing is held or assumed any more."""
        self.write(now, spared=call)
        call.held, call.assumed, call.ended = 0, None, True

    def add(self, record: Record, amount: int, now: int) -> None:
        """Add usage to a record: it counts now, or when the hold ended if that was before."""
        at = now if record.dated is None else record.dated
        record.parts.append(Part(at, self.window, at >= self.listed, amount))

    def correct(self, record: Record, usage: int, now: int) -> None:
        """Replace the usage of a record."""
        self.write(now)
        if usage > record.usage:
            self.add(record, usage - record.usage, now)
        else:
            record.take(record.usage - usage)


Steps = list[tuple[str, int, int]]
"""What is done, with how much, and to which lease or record, counted from the newest."""
WAITS = [1, 10, 11, 60, 300, 1_439, 1_439, 1_439, 45_000]
WHAT = [
    *("reserve", "reserve", "write", "settle", "correct", "correct", "correct"),
    *("observe", "release", "credit"),
]
STEPS = st.lists(
    st.tuples(st.just("wait"), st.sampled_from(WAITS), st.just(0))
    | st.tuples(
        st.sampled_from(WHAT),
        AMOUNTS,
        st.integers(0, 3),
    ),
    min_size=12,
    max_size=30,
)


class Twins:
    """A manager and the model of its pool, to which the same is done."""

    def __init__(
        self,
        manager: Any,  # noqa: ANN401 - any manager
        give: Callable[[Credit], object],
        plain: Pool,
        clock: Clock,
    ) -> None:
        self.manager = manager
        self.give = give
        self.plain = plain
        self.clock = clock
        self.leases: list[tuple[BudgetLease, Call]] = []
        self.settled: list[Record] = []

    def follow(self, steps: Steps) -> None:
        """Do all steps, and compare what is left after each."""
        for step in steps:
            what, number, which = step
            if what == "wait":
                self.clock.minutes(number)
            elif what == "reserve":
                self.reserve(number)
            elif what == "write":
                self.manager.release(self.manager.reserve(EXTENSIONS, tokens(0), UNLIMITED))
                self.plain.finish(self.plain.reserve(0, self.clock.now), self.clock.now)
            elif what == "credit" and self.plain.kind.prepaid and number:
                self.credit(number, which)
            elif what == "correct" and self.settled and hasattr(self.manager, "correct"):
                self.correct(self.settled[-1 - which % len(self.settled)], number)
            elif what in {"observe", "settle", "release"} and self.leases:
                self.end(what, number, -1 - which % len(self.leases))
            left = self.manager.remaining(EXTENSIONS).tokens
            assert max(0, self.plain.over(self.clock.now)) == left, step

    def reserve(self, amount: int) -> None:
        """Ask for an amount: both say whether it passes."""
        passes = amount == 0 or amount <= self.plain.over(self.clock.now)
        try:
            lease = self.manager.reserve(EXTENSIONS, tokens(amount), UNLIMITED)
        except ThresholdExceededError:
            assert not passes
            self.plain.write(self.clock.now)
        else:
            assert passes
            self.leases.append((lease, self.plain.reserve(amount, self.clock.now)))

    def credit(self, amount: int, which: int) -> None:
        """Give a credit, at a time at which nothing else happens."""
        self.clock.now += 1
        ends = [None, 7, 60 * amount, 1_440][which]
        until = ends and from_micros(Micros(self.clock.now + ends * MINUTE_US))
        credit = Credit(name="some", tokens=2 * amount, expires_at=until, priority=amount % 2)
        self.give(credit)
        self.plain.give(credit, self.clock.now)

    def correct(self, record: Record, usage: int) -> None:
        """Correct an entry of a lease that has ended."""
        if record.usage != usage:
            self.manager.correct(record.seq, Usage(total_tokens=usage), "invoice")
            self.plain.correct(record, usage, self.clock.now)

    def end(self, what: str, amount: int, which: int) -> None:
        """Observe, settle or release a lease."""
        lease, call = self.leases[which]
        if what == "release":
            self.manager.release(lease)
            self.plain.finish(call, self.clock.now)
        else:
            last = what == "settle"
            record_used = self.manager.record_used if last else self.manager.observe
            record_used(lease, Usage(total_tokens=amount))
            record = self.plain.use(call, amount, self.clock.now, last=last)
            if hasattr(self.manager, "status"):
                record.seq = self.manager.status().seq
        if call.ended:
            self.settled += call.records
            del self.leases[which]


def policy_of(period: Rolling | Window, kind: Kind) -> SharedPoolBudgetOptions:
    """Return the policy of a pool."""
    common: dict[str, Any] = {
        "lease_ttl": timedelta(microseconds=TTL_US),
        "settlement": SettlementPolicy.RELEASE if kind.gives_back else SettlementPolicy.ESTIMATED,
        "prepaid": ["tokens"] if kind.prepaid else [],
    }
    if kind.use == "limit":
        limit = Limit(name="it", period=period, capacity_tokens=CAPACITY)
        return SharedPoolBudgetOptions(limits=[limit], **common)
    assert isinstance(period, Window)
    window = replace(period, carry_over=kind.use == "carried")
    return SharedPoolBudgetOptions(capacity_tokens=CAPACITY, window=window, **common)


def kinds(period: Rolling | Window) -> list[Kind]:
    """Return what can be made of a period."""
    if isinstance(period, Rolling):
        uses = ["limit"]
    else:
        uses = ["window"] if period.session else ["window", "carried", "limit"]
    return [Kind(*one) for one in itertools.product(uses, (False, True), (False, True))]


def pool_of(period: Rolling | Window, kind: Kind, now: int) -> Pool:
    """Return the model of a pool that is opened now."""
    begun = isinstance(period, Window) and not period.session
    return Pool(period, kind, next_begin(period, now) if begun else now)  # type: ignore[arg-type] - as it says


POOLS = [(name, kind) for name, period in PERIODS.items() for kind in kinds(period)]
STORIES = [
    # An expiry is charged to one day, and what replaces it is refunded in the next.
    [
        *(("reserve", 10, 0), ("wait", 11, 0), ("write", 0, 0), ("wait", 1_439, 0)),
        *(("reserve", 8, 0), ("settle", 12, 1), ("correct", 0, 0), ("correct", 12, 0)),
        *(("wait", 1_439, 0), ("write", 0, 0), ("correct", 1, 0)),
    ],
    # It is replaced in parts, some of them in its own day.
    [
        *(("reserve", 10, 0), ("wait", 11, 0), ("write", 0, 0), ("observe", 3, 0)),
        *(("wait", 1_439, 0), ("observe", 9, 0), ("settle", 4, 0)),
        *(("correct", 0, 0), ("correct", 0, 1), ("correct", 0, 2)),
    ],
]


@pytest.mark.parametrize("name", PERIODS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.sampled_from(STARTS), steps=STEPS, data=st.data())
def test_memory_counts_calls_as_plain_sums_do(
    name: str, start: datetime, steps: Steps, data: st.DataObject
) -> None:
    """Expired ones, and what comes late in their place; credits that expire."""
    clock = Clock(round(start.timestamp()) * 1_000_000)
    period = PERIODS[name]
    kind = data.draw(st.sampled_from(kinds(period)))
    manager = SharedPoolBudgetManager(policy_of(period, kind), clock=clock)
    Twins(manager, manager.credit, pool_of(period, kind, clock.now), clock).follow(steps)


@pytest.mark.parametrize(
    "histories",
    [pytest.param(10, id="few"), pytest.param(250, marks=pytest.mark.long, id="many")],
)
@pytest.mark.parametrize("store", STORES)
def test_stores_count_calls_as_plain_sums_do(
    store: str, histories: int, new_store: Callable[[str], str]
) -> None:
    """Refunds, too: and their journals are sound."""
    clock, numbers = Clock(), itertools.count()
    with Ledger.open(new_store(store), clock=clock) as book:

        def run(pool: tuple[str, Kind], start: datetime, steps: Steps) -> None:
            (period, kind), name = pool, f"pool {next(numbers)}"
            clock.now = round(start.timestamp()) * 1_000_000
            manager = book.pool(name, policy_of(PERIODS[period], kind))
            plain = pool_of(PERIODS[period], kind, clock.now)
            Twins(manager, lambda credit: book.credit(name, credit), plain, clock).follow(steps)

        for story, (period, kind) in itertools.product(STORIES, POOLS):
            if not kind.prepaid:
                run((period, kind), STARTS[0], story)
        settings(
            max_examples=histories,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(given(pool=st.sampled_from(POOLS), start=st.sampled_from(STARTS), steps=STEPS)(run))()
        assert {None} == {one.damage for one in book.verify()}
