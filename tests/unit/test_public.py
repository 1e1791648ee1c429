"""What `import ledger` offers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ledger
from ledger.core import errors

CONTRACT = {
    "AmountOutOfRangeError",
    "Attribution",
    "BudgetLease",
    "BudgetManager",
    "ContentionError",
    "IdempotencyKey",
    "Ledger",
    "LedgerBudgetManager",
    "LedgerError",
    "LedgerUnavailableError",
    "OccurredAt",
    "OutcomeUnknownError",
    "PoisonedError",
    "PoolConflictError",
    "Remaining",
    "RequestBudget",
    "RequestBudgetExceededError",
    "RequestExtensions",
    "SchemaVersionError",
    "SharedPoolBudgetManager",
    "SharedPoolBudgetOptions",
    "ThresholdExceededError",
    "U64_MAX",
    "UnknownLeaseError",
    "UnknownPoolError",
    "Usage",
    "UsageEstimate",
    "UsageReport",
}


@pytest.mark.parametrize("name", ledger.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    """`__all__` promises nothing that cannot be imported."""
    assert hasattr(ledger, name)


def test_the_contract_is_exported() -> None:
    """Every type and error of the contract is in `__all__`, once."""
    assert set() == CONTRACT - set(ledger.__all__)
    assert len(ledger.__all__) == len(set(ledger.__all__))


def test_everything_public_is_exported() -> None:
    """No class or function stands in the package's namespace without being in `__all__`."""
    public = {
        name
        for name, value in vars(ledger).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set() == public - set(ledger.__all__)


def test_every_error_is_exported() -> None:
    """Whatever callers can catch, they can import."""
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.LedgerError)
    }
    assert set() == public - set(ledger.__all__)


def test_the_version_is_a_text() -> None:
    """The package says which one it is."""
    assert 3 == len(ledger.__version__.split("."))


def test_the_managers_keep_the_protocol() -> None:
    """`BudgetManager` has exactly three methods, and both managers have them."""
    methods = {name for name in vars(ledger.BudgetManager) if not name.startswith("_")}
    assert {"reserve", "record_used", "remaining"} == methods
    memory = ledger.SharedPoolBudgetManager(ledger.SharedPoolBudgetOptions())
    assert isinstance(memory, ledger.BudgetManager)
    for name in methods:
        assert callable(getattr(ledger.LedgerBudgetManager, name))


@pytest.mark.parametrize("place", ["core", "contract.py"])
def test_the_core_is_pure(place: str) -> None:
    """The core's modules name no database library, so that rules stay rules."""
    root = Path(ledger.__file__).parent / place
    files = [root] if root.is_file() else sorted(root.rglob("*.py"))
    assert files
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    for library in ("sqlalchemy", "alembic", "psycopg", "sqlite3", "import time\n"):
        assert library not in source


def test_importing_is_quiet() -> None:
    """The import prints nothing, warns of nothing and loads neither alembic nor a driver."""
    heavy = {"alembic", "psycopg", "typer", "rich"}
    program = f"import sys, ledger; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert ("[]\n", "") == (done.stdout, done.stderr)
