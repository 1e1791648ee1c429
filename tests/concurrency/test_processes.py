"""Eight processes of four threads at one pool."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ledger import Entry, EntryKind, Ledger, SharedPoolBudgetOptions

if TYPE_CHECKING:
    from tests.concurrency.conftest import Program

PROCESSES = 8
THREADS = 4
PAIRS = 8
CAPACITY_TOKENS = 20_000
CAPACITY_MICROS_USD = 50_000
OPTIONS = SharedPoolBudgetOptions(
    capacity_tokens=CAPACITY_TOKENS, capacity_cost_micros_usd=CAPACITY_MICROS_USD
)

Start = Callable[..., "Program"]
Together = Callable[[list["Program"]], None]
Check = Callable[..., list[Entry]]


def open_pool(url: str) -> None:
    """Make the pool the programs will use."""
    with Ledger.open(url) as book:
        book.pool("pool", OPTIONS)


def is_within_capacity(entry: Entry) -> bool:
    """Tell whether the pool held no more than it has when this entry was written."""
    committed, reserved = entry.balance
    return (
        committed.tokens + reserved.tokens <= CAPACITY_TOKENS
        and committed.cost_micros_usd + reserved.cost_micros_usd <= CAPACITY_MICROS_USD
    )


@pytest.mark.parametrize("overruns", [False, True])
def test_a_pool_never_grants_more_than_it_has(
    store_url: str, start: Start, together: Together, check: Check, *, overruns: bool
) -> None:
    """32 threads in 8 processes get no more than the capacity, and lose nothing they were told."""
    open_pool(store_url)
    programs = [
        start("hammer", store_url, f"p{number}", PAIRS, int(overruns))
        for number in range(PROCESSES)
    ]
    together(programs)
    assert [0] * PROCESSES == [program.wait() for program in programs]

    told = [line for program in programs for line in program.told()]
    entries = check(store_url, told)
    assert {"reserved", "settled", "denied"} == {line.what for line in told}
    # A settlement over its estimate may take the pool over its capacity; a grant never does.
    bound = [entry for entry in entries if not overruns or entry.kind == EntryKind.RESERVATION]
    assert [] == [entry.seq for entry in bound if not is_within_capacity(entry)]


def test_a_killed_process_loses_nothing_it_was_told_and_stops_nobody(
    store_url: str, start: Start, together: Together, check: Check
) -> None:
    """SIGKILL in the middle of writing: its answers stand, and the seven others go on."""
    open_pool(store_url)
    victim = start("hammer", store_url, "victim", 0, 0)
    others = [start("hammer", store_url, f"p{n}", PAIRS, 0) for n in range(PROCESSES - 1)]
    together([victim, *others])
    victim.wait_for_lines(2 * THREADS)
    victim.process.send_signal(signal.SIGKILL)
    before = sum(len(program.lines()) for program in others)
    assert -signal.SIGKILL == victim.wait()
    assert [0] * len(others) == [program.wait() for program in others]
    assert before < sum(len(program.lines()) for program in others)

    told = [line for program in (victim, *others) for line in program.told()]
    entries = check(store_url, told, lost=THREADS)
    assert [] == [entry.seq for entry in entries if not is_within_capacity(entry)]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_first_opening_by_everybody_makes_one_schema_and_one_pool(
    kind: str, new_store: Callable[..., str], start: Start, together: Together, check: Check
) -> None:
    """Eight processes find an empty store at once: all open the same pool of the same store."""
    url = new_store(kind, empty=True)
    programs = [start("open", url, f"p{number}") for number in range(PROCESSES)]
    together(programs)
    assert [0] * PROCESSES == [program.wait() for program in programs]

    opened = {line[1] for program in programs for line in program.lines() if line[0] == "opened"}
    with Ledger.open(url, create=False) as book:
        assert opened == {str(pool.identity) for pool in book.pools()}
    assert 1 == len(opened)
    entries = check(url, [line for program in programs for line in program.told()])
    assert 1 + 2 * PROCESSES == len(entries)


@pytest.mark.parametrize("threads", [0, 2], ids=["idle", "writing"])
def test_a_ledger_is_shared_across_fork(
    store_url: str, start: Start, check: Check, threads: int
) -> None:
    """Children use the inherited ledger, as the parent goes on doing, whatever its threads did."""
    program = start("fork", store_url, threads, 3, 5)
    program.wait_until_ready()
    program.go()
    assert 0 == program.wait()
    assert ["children", "0", "0", "0"] == program.lines()[-1]
    told = program.told()
    assert {"parent", "child"} == {line.request.partition("-")[0] for line in told}
    check(store_url, told)


def test_children_keep_what_they_write_after_the_parent_closed(
    store_url: str, start: Start, check: Check
) -> None:
    """A child forked while threads read loses no write when the parent closes the ledger."""
    program = start("fork-leave", store_url, 8)
    program.wait_until_ready()
    program.go()
    assert 0 == program.wait()
    assert ["children", *["0"] * 8] == program.lines()[-1]
    check(store_url, program.told())


def test_a_parent_that_dies_writing_leaves_no_lock_with_its_children(
    store_url: str, start: Start
) -> None:
    """The lock dies with its holder, even if a child forked before still lives."""
    program = start("fork-killed", store_url)
    program.wait_until_ready()
    program.go()
    program.wait_for_lines(3)
    program.process.kill()
    program.wait()
    with Ledger.open(store_url, timeout_s=3) as book:
        book.adjust("pool", OPTIONS)
