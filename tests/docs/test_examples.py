"""Every example runs, and prints what its docstring says."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    """The folder was found, and each program stands in its table of contents."""
    assert EXAMPLES
    contents = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert f"`{path.name}`" in contents


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(
    path: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    """The block behind `Prints:` is the program's output, to the letter; it leaves no file."""
    says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=True)
    assert says is not None
    _title, found, block = says.partition("\nPrints:\n\n")
    assert found, "the docstring has no block 'Prints:'"
    assert textwrap.dedent(block).rstrip() + "\n" == run(sys.executable, path, cwd=tmp_path)
    assert [] == list(tmp_path.iterdir())
