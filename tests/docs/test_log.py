"""The operator's log: every line that the library can write is on the page, and none is secret."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ledger
from ledger import Ledger, SharedPoolBudgetOptions
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

ROOT = Path(ledger.__file__).parent
PAGE = ROOT.parent / "docs" / "operations.md"
LEVELS = {"exception": "ERROR"}


def written() -> Iterator[tuple[str, str, str]]:
    """Yield the logger, level and text of each line that a module can log."""
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(("ledger", *path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "_log"
            ):
                (text, *_) = node.args
                assert isinstance(text, ast.Constant), f"{path}: a text that is put together"
                level = LEVELS.get(node.func.attr, node.func.attr.upper())
                yield module, level, str(text.value)


def documented() -> set[tuple[str, str, str]]:
    """Return what the page's table lists."""
    row = re.compile(r"^\| `(ledger\.[\w.]+)` \| ([A-Z]+) \| `([^`]+)` \|", re.MULTILINE)
    return set(row.findall(PAGE.read_text(encoding="utf-8")))


def test_every_line_of_the_log_is_documented() -> None:
    """The page lists each line with its logger and level, and no other."""
    found = set(written())
    assert found
    assert found == documented()


def test_closing_logs_figures_and_no_password(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A ledger that is closed says how much it wrote."""
    with caplog.at_level(logging.DEBUG, "ledger"), Ledger.open(store_url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        budget.release(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))
    (line,) = (one.getMessage() for one in caplog.records if one.msg.startswith("closed"))
    assert re.fullmatch(r"closed \S+: 3 transactions, 0 repeated", line)
