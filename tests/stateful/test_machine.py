"""Any sequence of calls, on every manager, against the rules as oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ledger.core.rules import track
from ledger.store import journal
from tests.stateful.due import DueMachine
from tests.stateful.memory import MemoryMachine
from tests.stateful.store import StoreMachine
from tests.stateful.tree import TreeMachine

SETTINGS = settings(
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    # Shrinking a failure takes longer than a test may; replay it by hand.
    phases=[Phase.generate],
)


HISTORIES = pytest.mark.parametrize(
    "histories",
    [2, pytest.param(10, marks=pytest.mark.long), pytest.param(25, marks=pytest.mark.sweep)],
    ids=["few", "many", "most"],
)
"""How many histories of 50 calls are tried; the many begin with the few."""


@pytest.mark.parametrize(
    "histories",
    [25, pytest.param(50, marks=pytest.mark.long), pytest.param(100, marks=pytest.mark.sweep)],
    ids=["few", "many", "most"],
)
def test_memory_follows_the_rules(histories: int) -> None:
    """Every verdict, figure and balance of the in-memory manager is that of the rules."""
    run_state_machine_as_test(MemoryMachine, settings=settings(SETTINGS, max_examples=histories))


@HISTORIES
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_follows_the_rules(
    kind: str, histories: int, new_store: Callable[[str], str]
) -> None:
    """Two ledgers on one store answer as the rules do, and the journal proves it afterwards."""
    machine = type("Machine", (StoreMachine,), {"url": new_store(kind)})
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=histories))


@HISTORIES
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_threads_and_tasks_follow_the_rules(
    kind: str, histories: int, new_store: Callable[[str], str]
) -> None:
    """One ledger is called as always, the other through asyncio."""
    with asyncio.Runner() as runner:
        machine = type("Machine", (StoreMachine,), {"url": new_store(kind), "runner": runner})
        run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=histories))


@HISTORIES
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_tree_follows_the_rules(
    kind: str, histories: int, new_store: Callable[[str], str]
) -> None:
    """Pools below pools: held in all of them or in none, and nothing is lost between levels."""
    with asyncio.Runner() as runner:
        machine = type("Machine", (TreeMachine,), {"url": new_store(kind), "runner": runner})
        run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=histories))


@pytest.mark.parametrize(
    "histories",
    [3, pytest.param(40, marks=pytest.mark.long), pytest.param(150, marks=pytest.mark.sweep)],
    ids=["few", "many", "most"],
)
@pytest.mark.parametrize(("kind", "step"), [("sqlite", 2), ("sqlite", 3), ("postgresql", 2)])
def test_a_store_that_expires_a_few_leases_at_a_time_answers_as_memory_does(
    kind: str,
    step: int,
    histories: int,
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More leases are due than a transaction expires, and the clock goes back in between."""
    monkeypatch.setattr(journal, "ENDING_PAGE", step)
    monkeypatch.setattr(track, "_KEPT", 12)  # memory forgets early, and answers as a store does
    machine = type("Machine", (DueMachine,), {"url": new_store(kind)})
    number = histories if kind == "sqlite" else max(1, histories // 5)
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=number))
