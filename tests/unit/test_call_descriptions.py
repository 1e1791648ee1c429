"""Each call is described once, in the contract: every manager has its types and its docstring."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ledger
from ledger import (
    AsyncBudgetRouter,
    AsyncLedger,
    AsyncLedgerBudgetManager,
    BudgetRouter,
    Ledger,
    LedgerBudgetManager,
    SharedPoolBudgetManager,
)
from ledger.contract import Budget

THREADS = (LedgerBudgetManager, BudgetRouter, SharedPoolBudgetManager)
TASKS = (AsyncLedgerBudgetManager, AsyncBudgetRouter)
CALLS = (
    *("reserve", "record_used", "observe", "renew", "release", "abandon", "record_lost"),
    "remaining",
)

SETTINGS = """
[mypy]
strict = true
[mypy-ledger.*]
ignore_errors = true
[mypy-sqlalchemy.*,alembic.*,psycopg.*,rich.*]
follow_imports = skip
"""
"""The linters check the library itself; its calls have no types of these packages."""

PROGRAM = """
from ledger import *

async def main(
    pool: LedgerBudgetManager, router: BudgetRouter, memory: SharedPoolBudgetManager,
    task_pool: AsyncLedgerBudgetManager, task_router: AsyncBudgetRouter, id: int, token: str,
    e: UsageEstimate,
) -> None:
    manager: BudgetManager = pool
    manager = router
    manager = memory
    task_manager: AsyncBudgetManager = task_pool
    task_manager = task_router
"""
"""What is revealed is appended to it."""

LEASE = (
    "*, request_budget: RequestBudget | None =, attribution: Attribution | None =, "
    "extensions: RequestExtensions | None =, wait_s: float ="
)
REVEALED = {
    "reserve": "extensions: RequestExtensions, estimate: UsageEstimate, "
    "request_budget: RequestBudget, *, wait_s: float =) -> BudgetLease",
    "record_used": "lease: BudgetLease, usage: Usage, *, report: UsageReport | None =) -> None",
    "observe": "lease: BudgetLease, usage: Usage, *, report: UsageReport | None =) -> None",
    "renew": "lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None =) -> datetime",
    "release": "lease: BudgetLease, *, idempotency_key: str | None =) -> None",
    "abandon": "lease: BudgetLease, *, estimate: UsageEstimate | None =, "
    "report: UsageReport | None =) -> None",
    "record_lost": "lease: BudgetLease | str, usage: Usage, *, estimate: UsageEstimate | None =, "
    "attribution: Attribution | None =, report: UsageReport | None =) -> None",
    "remaining": "extensions: RequestExtensions, *, max_age_s: float =) -> Remaining",
}
"""The parameters of each call by name, and what it returns to a thread."""

EXPRESSIONS = {
    **{
        f"{one}.{call}": f"def ({REVEALED[call]}"
        for call in CALLS
        for one in ("pool", "router", "memory")
    },
    **{
        f"{one}.{call}": "def ({}) -> Coroutine[Any, Any, {}]".format(
            *REVEALED[call].rsplit(") -> ", 1)
        )
        for call in CALLS
        for one in ("task_pool", "task_router")
    },
    "router.lease": f"def (estimate: UsageEstimate, {LEASE}) -> LeaseBlock",
    "memory.lease": f"def (estimate: UsageEstimate, {LEASE}) -> LeaseBlock",
    "task_router.lease": f"def (estimate: UsageEstimate, {LEASE}) -> AsyncLeaseBlock",
    "pool.lease(token)": "BudgetLease",
    "pool.lease(e)": "LeaseBlock",
    "await task_pool.lease(token)": "BudgetLease",
    "task_pool.lease(e)": "AsyncLeaseBlock",
    "await task_pool.status()": "PoolStatus",
    "await task_pool.usage_of(id)": "Usage",
    "await task_pool.correct(id, Usage(), 'wrong', idempotency_key='a')": "UsageDifference",
    "await AsyncLedger.open('sqlite://', create=False)": "AsyncLedger",
    "await AsyncLedger.open().__aenter__()": "AsyncLedger",
    "await (await AsyncLedger.open()).pool('a', carved=True)": "AsyncLedgerBudgetManager",
    "await (await AsyncLedger.open()).expire_due()": "int",
}
"""What a strict type checker makes of each; it leaves out that a function returns None."""


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("manager", THREADS + TASKS)
def test_a_call_has_the_signature_and_the_docstring_of_its_description(
    manager: type, call: str
) -> None:
    """For `help`, `inspect` and every editor; tasks have coroutine functions."""
    described, found = getattr(Budget, call), getattr(manager, call)
    assert inspect.signature(described) == inspect.signature(found)
    assert inspect.getdoc(described) == inspect.getdoc(found)
    assert "Raises:" in (inspect.getdoc(found) or "")
    assert (manager in TASKS) is inspect.iscoroutinefunction(found)


@pytest.mark.parametrize("call", ["correct", "usage_of", "status"])
def test_a_call_of_stores_alone_is_described_once_too(call: str) -> None:
    """What only a store can do is described by its budget for threads."""
    described, found = getattr(LedgerBudgetManager, call), getattr(AsyncLedgerBudgetManager, call)
    assert inspect.signature(described) == inspect.signature(found)
    assert inspect.getdoc(described) == inspect.getdoc(found)
    assert inspect.iscoroutinefunction(found)


@pytest.mark.parametrize("manager", THREADS + TASKS)
def test_lease_has_the_parameters_of_its_description(manager: type) -> None:
    """With the id of a lease in the place of the estimate, where that finds one."""
    described, found = inspect.signature(Budget.lease), inspect.signature(manager.lease)
    assert [*described.parameters.values()][2:] == [*found.parameters.values()][2:]
    assert "settlement policy" in (inspect.getdoc(manager.lease) or "")


@pytest.mark.parametrize(
    "call", ["open", "close", "pool", "router", "close_pool", "expire_due", "adjust"]
)
def test_a_store_for_tasks_has_the_parameters_and_docstrings_of_the_other(call: str) -> None:
    """`AsyncLedger` repeats nothing of `Ledger`, and loses nothing of it."""
    described, found = getattr(Ledger, call), getattr(AsyncLedger, call)
    assert inspect.signature(described).parameters == inspect.signature(found).parameters
    assert inspect.getdoc(described) == inspect.getdoc(found)


def test_a_type_checker_sees_every_call_on_every_manager(tmp_path: Path) -> None:
    """Names of parameters, their types, and answers: nothing is lost on the way to a face."""
    program = tmp_path / "user.py"
    lines = "".join(f"    reveal_type({expression})\n" for expression in EXPRESSIONS)
    program.write_text(PROGRAM + lines, encoding="utf-8")
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS, encoding="utf-8")
    words = ["--config-file", settings, "--cache-dir", tmp_path / "cache", program]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words],
        cwd=Path(ledger.__file__).parents[1],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    plain = [
        re.sub(r"\b(?:\w+\.)+(?=[A-Z]|datetime|timedelta|int|str|float)", "", one)
        for one in revealed
    ]
    expected = [one.removesuffix(" -> None") for one in EXPRESSIONS.values()]
    assert expected == plain, done.stdout
    assert 0 == done.returncode, done.stdout + done.stderr
