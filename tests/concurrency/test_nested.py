"""Processes at a tree of pools: leases that expire, a worker that is killed, books that agree."""

from __future__ import annotations

import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ledger import (
    Balance,
    Entry,
    EntryKind,
    LeasePhase,
    Ledger,
    OpenLeasesError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Totals,
)

if TYPE_CHECKING:
    from tests.concurrency.conftest import Program

PROCESSES = 4
PAIRS = 10
CAPACITY = {"org": 2_000, "east": 900, "west": 900, "run 1": 400, "run 2": 400, "machine": 400}
PARENT = {"east": "org", "west": "org", "run 1": "east", "run 2": "west", "machine": "west"}
CARVED = {"machine"}

Start = Callable[..., "Program"]
Together = Callable[[list["Program"]], None]


def plant(book: Ledger) -> None:
    """Make the tree."""
    for name, tokens in CAPACITY.items():
        options = SharedPoolBudgetOptions(capacity_tokens=tokens)
        book.pool(name, options, parent=PARENT.get(name), carved=name in CARVED)


def originals(book: Ledger, name: str) -> Totals:
    """Return what was spent from a pool directly, by its own entries."""
    spent = Counter(tokens=0, cost=0, requests=0)
    for entry in book.entries(name):
        if entry.origin is None and entry.usage is not None:
            spent["tokens"] += entry.usage.total_tokens
            spent["cost"] += entry.usage.cost_micros_usd
            # A call that was assumed is taken back in front of the entry that says what it was.
            spent["requests"] += entry.kind in {EntryKind.SETTLEMENT, EntryKind.EXPIRY}
            spent["requests"] -= (entry.detail or {}).get("late") in {"settlement", "release"}
    return Totals(spent["tokens"], spent["cost"], spent["requests"])


def plus(left: Totals, right: Totals) -> Totals:
    """Return the sum on each axis."""
    return Totals(*(a + b for a, b in zip(left, right, strict=True)))


def written(book: Ledger, name: str) -> Balance:
    """Return the balance of the newest entry: leases that are due have not expired in it."""
    *_, newest = book.entries(name)
    return newest.balance


def check_conservation(book: Ledger, *, closed: set[str]) -> None:
    """Prove that a pool has committed its own usage and that of the pools it is told of.

    Those are the ones that share with it, and carved ones once they are closed; an open carving is
    reserved.
    """
    expected: defaultdict[str, Totals] = defaultdict(Totals)
    for name in reversed(CAPACITY):  # children first
        expected[name] = plus(expected[name], originals(book, name))
        balance = written(book, name)
        assert expected[name] == balance.committed, name
        held = sum(found.held.tokens for found in book.open_leases(name))
        below = [one for one, parent in PARENT.items() if parent == name]
        for child in below:
            if child not in CARVED:
                held += written(book, child).reserved.tokens
            elif child not in closed:
                held += CAPACITY[child]
        assert held == balance.reserved.tokens, name
        if name in PARENT and (name not in CARVED or name in closed):
            expected[PARENT[name]] = plus(expected[PARENT[name]], expected[name])
    assert [None] * len(CAPACITY) == [found.damage for found in book.verify()]


def is_within(entry: Entry, tokens: int) -> bool:
    """Tell whether a grant left no more held and spent than the pool has."""
    committed, reserved = entry.balance
    return entry.kind != EntryKind.RESERVATION or committed.tokens + reserved.tokens <= tokens


def test_a_tree_never_grants_more_than_it_has_and_its_books_agree(
    store_url: str, start: Start, together: Together
) -> None:
    """Sixteen threads in four processes, one of which is killed; then the carved pool is closed."""
    with Ledger.open(store_url) as book:
        plant(book)
    victim = start("tree", store_url, "victim", 0)
    others = [start("tree", store_url, f"p{n}", PAIRS) for n in range(PROCESSES - 1)]
    together([victim, *others])
    victim.wait_for_lines(24)
    victim.process.send_signal(signal.SIGKILL)
    assert -signal.SIGKILL == victim.wait()
    assert [0] * len(others) == [program.wait() for program in others]

    with Ledger.open(store_url) as book:
        check_told(book, [victim, *others])
        for name, tokens in CAPACITY.items():
            assert [] == [one.seq for one in book.entries(name) if not is_within(one, tokens)]
        check_conservation(book, closed=set())
        machine = book.pool("machine")
        for found in list(book.open_leases("machine")):
            if found.phase is LeasePhase.OPEN:  # those that have expired are charged already
                machine.abandon(found.lease)
        book.close_pool("machine")
        check_conservation(book, closed={"machine"})
        for name in CAPACITY:
            budget = book.pool(name)
            for found in list(book.open_leases(name)):
                if found.phase is LeasePhase.OPEN:
                    budget.abandon(found.lease)
        check_conservation(book, closed={"machine"})
        held = [book.pool(name).status().balance.reserved.tokens for name in CAPACITY]
        assert [0] * len(CAPACITY) == held


def check_told(book: Ledger, programs: list[Program]) -> None:
    """Prove that nothing is lost that a program was told."""
    lines = [line for program in programs for line in program.lines()]
    assert {"held", "spent", "refused"} == {line[0] for line in lines}
    leases = {
        (name, entry.seq)
        for name in CAPACITY
        for entry in book.entries(name, kind=EntryKind.RESERVATION)
    }
    assert (
        set()
        == {(" ".join(line[2:-1]), int(line[-1])) for line in lines if line[0] == "held"} - leases
    )
    told: Counter[str] = Counter()
    for line in lines:
        if line[0] == "spent":
            told[" ".join(line[2:-1])] += int(line[-1])
    assert [] == [name for name, tokens in told.items() if tokens > originals(book, name).tokens]


def test_a_closing_and_settlements_race(store_url: str, start: Start, together: Together) -> None:
    """Processes spend from a carved pool while another one closes it: nothing is lost."""
    with Ledger.open(store_url) as book:
        plant(book)
        programs = [start("tree", store_url, f"p{n}", 3) for n in range(2)]
        together(programs)
        deadline = time.monotonic() + 30
        while True:
            try:
                book.close_pool("machine")
            except OpenLeasesError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
                book.expire_due("machine")
            else:
                break
        codes = [program.wait() for program in programs]
        assert {0, 1} >= set(codes)  # who asked the closed pool for more was refused
        assert book.pool("machine").status().closed
        check_conservation(book, closed={"machine"})
        assert book.pool("org").remaining(RequestExtensions()).tokens <= CAPACITY["org"]
