"""What is imported at the start: no more than what was asked for needs."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import ledger
from ledger import cli

TELL = "; import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
RUN = (
    "import sys, atexit, json; sys.argv = ['ledger', {word!r}]; "
    "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr)); "
    "from ledger.cli import main; main()"
)
DATABASES = ("sqlalchemy", "alembic", "psycopg", "sqlite3")
INSIDE = (
    *("ledger.store", "ledger.reports", "ledger.exports", "ledger.files"),
    *("ledger.reconcile", "ledger.simulate"),
)


def imported(code: str, names: tuple[str, ...]) -> set[str]:
    """Return which of these packages a program imports."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = json.loads(done.stderr.splitlines()[-1])
    assert "json" in modules
    return {name for name in names for one in modules if f"{one}.".startswith(f"{name}.")}


def test_the_program_that_looks_sees_what_is_imported() -> None:
    """A store needs a database, and is seen to import it."""
    found = imported("from ledger import Ledger" + TELL, (*DATABASES, *INSIDE))
    assert {"sqlalchemy", "ledger.store"} <= found


@pytest.mark.parametrize(
    "code",
    [
        "import ledger",
        "from ledger import SharedPoolBudgetManager, SharedPoolBudgetOptions",
        "from ledger import BudgetManager, Usage, UsageEstimate, ThresholdExceededError",
        "import ledger; ledger.SharedPoolBudgetManager(ledger.SharedPoolBudgetOptions())",
        "import ledger; dir(ledger)",
    ],
)
def test_a_budget_in_memory_imports_no_database(code: str) -> None:
    """It starts as quickly as its own few modules."""
    assert set() == imported(code + TELL, (*DATABASES, *INSIDE))


@pytest.mark.parametrize("word", ["--version", "--help", "-h"])
def test_the_command_line_explains_itself_without_its_commands(word: str) -> None:
    """Neither reports nor exports nor a driver is imported to print a few lines."""
    assert set() == imported(RUN.format(word=word), (*DATABASES, *INSIDE))


def test_one_command_does_not_import_the_others() -> None:
    """Each command has what it needs, and no more."""
    code = "import ledger.cli; ledger.cli._Loaded()['verify']" + TELL
    others = ("ledger.cli.export", "ledger.cli.report", "ledger.exports", "ledger.reconcile")
    assert set() == imported(code, others)
    assert {"ledger.exports"} == imported(code.replace("verify", "export"), ("ledger.exports",))


def test_public_names_are_listed_alike() -> None:
    """For editors and type checkers, for `import *`, and for the import at the first use."""
    tree = ast.parse(Path(ledger.__file__).read_text(encoding="utf-8"))
    (typed,) = (
        node for node in tree.body if ast.unparse(node).startswith("if typing.TYPE_CHECKING:")
    )
    assert isinstance(typed, ast.If)
    places = {
        name.name: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert {name: f"ledger.{module}" for name, module in ledger._MODULES.items()} == places
    assert sorted(places) == sorted(ledger.__all__)


def test_every_public_name_can_be_had() -> None:
    """Each comes from its module, `import *` brings all, and `dir` lists them."""
    found: dict[str, Any] = {}
    exec("from ledger import *", found)  # noqa: S102 - the statement is what is tested
    for name in ledger.__all__:
        assert found[name] is getattr(ledger, name)
    assert set(ledger.__all__) <= set(dir(ledger))


def test_a_name_that_is_not_there_is_refused() -> None:
    """The errors are those of any module: AttributeError, and ImportError where it is imported."""
    with pytest.raises(AttributeError, match="module 'ledger' has no attribute 'Budget'"):
        _ = ledger.Budget
    with pytest.raises(ImportError, match="cannot import name 'Budget'"):
        exec("from ledger import Budget")  # noqa: S102 - as above


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    """Its texts are the first paragraphs of the commands' own."""
    group = typer.main.get_command(cli.app)
    said = {
        name: " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())
        for name, command in group.commands.items()
    }
    assert said == {name: command.help for name, command in cli._COMMANDS.items()}
