"""The wheel and the source archive hold what they should, and the wheel works anywhere."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ledger
from tests.package.conftest import PIP, call
from tests.programs import ROOT

Installed = Callable[..., str]

USER = """
from ledger import Ledger, RequestBudget, RequestExtensions, SharedPoolBudgetOptions
from ledger import BudgetLease, Remaining, Usage, UsageEstimate


def spend(url: str) -> Remaining:
    with Ledger.open(url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=10))
        extensions = RequestExtensions()
        lease: BudgetLease = budget.reserve(
            extensions, UsageEstimate(total_tokens=4), RequestBudget.unlimited()
        )
        budget.record_used(lease, Usage(total_tokens=3))
        return budget.remaining(extensions)


left: int = spend("sqlite:///ledger.db").tokens
"""


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> zipfile.Path:
    """Return the root of the wheel."""
    return zipfile.Path(built[1])


@pytest.fixture(scope="session")
def names(built: tuple[Path, Path]) -> set[str]:
    """Return the names of the files in the wheel."""
    with zipfile.ZipFile(built[1]) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize(
    "name",
    [
        "ledger/__init__.py",
        "ledger/py.typed",
        "ledger/cli/__init__.py",
        "ledger/reports/page/page.css",
        "ledger/reports/page/page.html.j2",
        "ledger/reports/page/page.js",
        "ledger/migrations/env.py",
        "ledger/migrations/script.py.mako",
        "ledger/migrations/versions/0001_journal.py",
    ],
)
def test_the_wheel_holds(names: set[str], name: str) -> None:
    """The package, its types and its schema's history are in the wheel."""
    assert name in names


def test_the_wheel_holds_every_module(names: set[str]) -> None:
    """Each module of the checkout, and each revision, is in the wheel."""
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ledger").rglob("*.py")}
    revisions = {f"ledger/{path.relative_to(ROOT)}" for path in (ROOT / "migrations").rglob("*.py")}
    assert set() == (modules | revisions) - names


def test_the_wheel_holds_nothing_else(names: set[str]) -> None:
    """No tests, examples or other top-level names get into somebody's environment."""
    version = f"budget_ledger-{ledger.__version__}.dist-info"
    assert {"ledger", version} == {name.partition("/")[0] for name in names}
    assert set() == {name for name in names if "tests/" in name or name.endswith(".db")}


def test_the_metadata(wheel: zipfile.Path) -> None:
    """Name, version, licence, Python versions, dependencies and scripts are as promised."""
    info = wheel / f"budget_ledger-{ledger.__version__}.dist-info"
    metadata = email.message_from_string((info / "METADATA").read_text(encoding="utf-8"))
    assert ("budget-ledger", ledger.__version__) == (metadata["Name"], metadata["Version"])
    assert (">=3.11", "MIT") == (metadata["Requires-Python"], metadata["License-Expression"])
    needed = {
        line.split(";")[0].strip()
        for line in metadata.get_all("Requires-Dist", [])
        if "extra" not in line
    }
    assert {"alembic", "rich", "sqlalchemy", "typer", "typing-extensions"} == {
        re.split(r"[^\w-]", line)[0] for line in needed
    }
    assert {
        *("postgresql", "parquet", "xlsx", "html", "top", "prices", "tokens", "metrics", "otel"),
        *("anthropic", "langchain", "openai-agents", "pydantic-ai", "peers", "testing", "dev"),
    } == set(metadata.get_all("Provides-Extra", []))
    scripts = (info / "entry_points.txt").read_text(encoding="utf-8")
    for name in ("ledger", "budget-ledger"):
        assert f"\n{name} = ledger.cli:main" in scripts
    assert "MIT License" in (info / "licenses" / "LICENSE").read_text(encoding="utf-8")


def test_the_source_archive(built: tuple[Path, Path]) -> None:
    """Whoever gets the sources gets the tests, the documents, the licence and the history."""
    with tarfile.open(built[0]) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "alembic.ini",
        "pyproject.toml",
        "ledger/py.typed",
        "migrations/versions/0001_journal.py",
        "tests/conftest.py",
        "docs/command-line.md",
        "examples/azure_code_2023.csv",
    }
    assert set() == expected - found
    assert set() == {name for name in found if name.endswith((".db", ".pyc"))}


def test_the_schema_is_made_from_the_wheel(installed: Installed) -> None:
    """The revisions are found where pip has put them."""
    assert "is at 0001" in installed("ledger", "db", "upgrade")
    assert "is as it should be" in installed("ledger", "db", "check")


def test_the_main_job_runs_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    """Simulate, report and verify, with neither the checkout nor a server in sight."""
    (tmp_path / "trace.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-29 10:00:00,10,2\n2024-02-29,20,3\n",
        encoding="utf-8",
    )
    printed = installed("ledger", "simulate", "trace.csv", "--input-price", "3")
    assert "2 rows: 2 admitted, 0 denied; pool trace in sqlite:///ledger.db" in printed
    rows = json.loads(installed("ledger", "report", "runs", "--format", "json"))
    assert (35, 90) == (
        sum(row["total_tokens"] for row in rows),
        sum(row["cost_micros_usd"] for row in rows),
    )
    assert installed("ledger", "verify").startswith("ok       trace: 5 entries")


def test_both_programs_are_installed(installed: Installed) -> None:
    """The second name is there for systems on which the first one is taken."""
    assert "simulate" in installed("budget-ledger", "--help")
    assert (
        installed("ledger", "--help").splitlines()[2:]
        == (installed("budget-ledger", "--help").splitlines()[2:])
    )


def test_it_is_the_installed_package(installed: Installed, environment: Path) -> None:
    """What was tested here is the wheel, and it says which version it is."""
    program = "import ledger; print(ledger.__file__, ledger.__version__)"
    file, version = installed("python", "-W", "error", "-c", program).split()
    assert Path(file).is_relative_to(environment.parent)
    assert ledger.__version__ == version


def test_sqlite_needs_no_driver(installed: Installed, environment: Path, tmp_path: Path) -> None:
    """Nothing of PostgreSQL is installed, nor needed; what is missing for it is named."""
    assert "psycopg" not in call(*PIP, environment / "python", "list", cwd=tmp_path)
    said = installed("ledger", "pool", "list", "--url", "postgresql://me@localhost/books", code=2)
    assert "budget-ledger[postgresql]" in said
    assert "Traceback" not in said


def test_the_requirements_fit_together(environment: Path, tmp_path: Path) -> None:
    """Nothing is missing, and no two versions contradict each other."""
    said = call(*PIP, environment / "python", "check", cwd=tmp_path)
    assert "No broken requirements found." in said


def test_a_users_types_are_checked(environment: Path, tmp_path: Path) -> None:
    """A strict type checker sees the package's types, and finds a wrong one."""
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(USER, encoding="utf-8")
    wrong.write_text(USER.replace("left: int", "left: str"), encoding="utf-8")
    settings = tmp_path / "mypy.ini"  # a call has no types of these, whose analysis takes longest
    settings.write_text("[mypy]\n[mypy-sqlalchemy.*,alembic.*]\nfollow_imports = skip\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"),
            *("--config-file", settings, "--python-executable", environment / "python"),
            *(right, wrong),
        ],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    *found, summary = done.stdout.splitlines()
    assert "Found 1 error in 1 file (checked 2 source files)" == summary, done.stdout + done.stderr
    assert all(line.startswith("wrong.py:") for line in found)
    assert "[assignment]" in done.stdout
