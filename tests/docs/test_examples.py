"""Every example runs, and prints what its docstring says."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    """The folder was found, and each program stands in its table of contents."""
    assert EXAMPLES
    contents = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES + NOTEBOOKS:
        assert f"`{path.name}`" in contents


BROUGHT = {
    "httpx2": ("openai", "anthropic"),
    "pydantic": ("fastapi",),
    "prometheus_client": ("metrics",),
    "opentelemetry": ("opentelemetry-sdk",),
    "ledger.transport": ("prices",),
    "ledger.prices": ("prices",),
    "ledger.telemetry": ("otel",),
    "ledger.reports.page": ("html",),
}
"""What brings a module, where that has another name: a package, or an extra."""


@pytest.mark.parametrize("path", EXAMPLES + NOTEBOOKS, ids=lambda path: path.stem)
def test_an_example_says_what_to_install(path: Path) -> None:
    """In its first lines, and nothing that it imports is left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        title, *code = ("".join(cell["source"]) for cell in cells)
        text = "\n".join(
            one for one, cell in zip(code, cells[1:], strict=True) if cell["cell_type"] == "code"
        )
    else:
        title = "\n".join(text.splitlines()[:4])
    found = re.search(r"^Install: `pip install (.+)`$", title, re.MULTILINE)
    assert found is not None
    installed = set(re.findall(r"[a-z0-9-]+", found[1]))
    for module in imported(text):
        name, known = module.partition(".")[0], set(sys.stdlib_module_names) | {"ledger"}
        wanted = BROUGHT.get(module) or BROUGHT.get(name) or ((name,) if name not in known else ())
        assert not wanted or installed & set(wanted), module


def imported(program: str) -> set[str]:
    """Return the modules that a program imports."""
    nodes = list(ast.walk(ast.parse(program)))
    names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.name != "web_service.py"], ids=lambda path: path.stem
)
def test_an_example_prints_what_it_says(
    path: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    """The block behind `Prints:` is the program's output, to the letter; it leaves no file."""
    assert said_by(path) == run(sys.executable, path, cwd=tmp_path)
    assert [] == list(tmp_path.iterdir())


def said_by(path: Path) -> str:
    """Return what a program says that it prints."""
    says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=True)
    assert says is not None
    _title, found, block = says.partition("\nPrints:\n\n")
    assert found, "the docstring has no block 'Prints:'"
    return textwrap.dedent(block).rstrip() + "\n"


@pytest.mark.clients
def test_the_web_service_prints_what_it_says(fetched: Path, tmp_path: Path) -> None:
    """It needs a web framework, and so it is run apart from the other examples."""
    path = ROOT / "examples" / "web_service.py"
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(fetched)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (said_by(path), "") == (done.stdout, done.stderr)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(path: Path) -> None:
    """Its cells run one after the other, and each prints the output that is kept below it."""
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec("".join(cell["source"]), names)  # noqa: S102 - this project's own notebook
        kept = ["".join(output["text"]) for output in cell["outputs"]]
        assert "".join(kept) == printed.getvalue()
