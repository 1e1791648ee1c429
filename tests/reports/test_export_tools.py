"""Exports in the programs that people have: double entry, and the lines of docs/exports.md."""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from unicodedata import category

import pytest

from ledger import (
    Attribution,
    InvalidInputError,
    Ledger,
    PastCall,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    exports,
    reports,
)

MANUAL = Path(__file__).parents[2] / "docs" / "exports.md"
SECTION = MANUAL.read_text(encoding="utf-8").partition("## Reading them")[2].partition("\n## ")[0]
LINES = re.findall(r"^\| ([^|]+) \| `(.+)` \|$", SECTION, re.MULTILINE)
ACCOUNTING = [exports.Format.BEANCOUNT, exports.Format.HLEDGER]
LARGE = 2**53 + 1
NAMES = (
    "2024",
    "\u00e9quipe | x; [2024/1/99]",
    '"=1+1" date:no',
    "\u529e\u516c\u5ba4",
    "Bu\u0308ro",
)
"""Of pools, providers and models: what a reader may take for something else."""


@pytest.fixture
def charged(book: Ledger) -> Ledger:
    """Return books whose names and amounts many readers get wrong."""
    for pool in NAMES:
        budget = book.pool(pool, SharedPoolBudgetOptions())
        for number, name in enumerate((*NAMES, "007", "NA")):
            who = Attribution(provider=name, model=name, run_id=name, request_id="1e5")
            lease = budget.reserve(
                RequestExtensions(who), UsageEstimate(), RequestBudget.unlimited()
            )
            budget.record_used(lease, Usage(total_tokens=5, cost_micros_usd=LARGE * number))
    return book


def cost(book: Ledger) -> int:
    """Return what all charges of some books come to."""
    return reports.spend(book).total.cost_micros_usd


@pytest.mark.parametrize("format", ACCOUNTING)
def test_double_entry(
    history: Callable[[int], Ledger],
    tmp_path: Path,
    format: exports.Format,  # noqa: A002 - what it is called everywhere
) -> None:
    """One transaction a charge, each of two postings that cancel; pools end with their sums."""
    book = history(6)
    path = tmp_path / "books"
    done = exports.write(book, reports.Filter(), path, format=format)
    text = path.read_text(encoding="utf-8")
    postings = re.findall(r"^  (\w+:LLM:\S+)  (-?[0-9.]+) USD$", text, re.MULTILINE)
    assert 2 * done.rows == len(postings)
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for (_expense, spent), (_payable, owed) in zip(postings[::2], postings[1::2], strict=True):
        assert 0 == Decimal(spent) + Decimal(owed)
    for account, amount in postings:
        sums[account] += Decimal(amount)
    expenses = {name: amount for name, amount in sums.items() if name.startswith("Expenses")}
    assert cost(book) == 10**6 * sum(expenses.values())
    closing = r"(Expenses:\S+)  (?:0 USD = )?(-?[0-9.]+) (?:~ 0 )?USD$"
    ends = re.findall(rf"^(?:  |\S+ balance ){closing}", text, re.MULTILINE)[-len(expenses) :]
    assert expenses == {name: Decimal(amount) for name, amount in ends}
    # An older one of its kind is replaced, and it is not held against the journal.
    assert done.rows == exports.write(book, reports.Filter(), path, format=format).rows
    with pytest.raises(InvalidInputError, match=f"checked by {format} itself"):
        exports.verify(book, path, format=format)


def test_accounts_have_the_letters_of_their_pools(charged: Ledger, tmp_path: Path) -> None:
    """In all scripts; where a script has no capitals, behind one."""
    for name in ACCOUNTING:
        exports.write(charged, reports.Filter(), tmp_path / "books", format=name)
        text = (tmp_path / "books").read_text(encoding="utf-8")
        found = {one.rpartition("-")[0] for one in re.findall(r"Expenses:LLM:(\S+)", text)}
        offices = {"X-\u529e\u516c\u5ba4", "B\u00fcro"}
        assert {"2024", "\u00c9quipe-x-2024-1-99", "1-1-date-no", *offices} == found


def test_every_part_of_an_account_is_one_that_both_programs_accept(
    book: Ledger, tmp_path: Path
) -> None:
    """It begins with one capital or digit, and goes on in letters and digits, without marks."""
    letters = "a\u00df\u0149\u01c5\u01f0\u0390\u03b0\u0587\u1e96\u1f52\ufb01\u00aa\u0663"
    for letter in letters:
        pool = book.pool(f"{letter}eam", SharedPoolBudgetOptions())
        lease = pool.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
        pool.record_used(lease, Usage(cost_micros_usd=1))
    for name in ACCOUNTING:
        exports.write(book, reports.Filter(), tmp_path / "books", format=name)
        text = (tmp_path / "books").read_text(encoding="utf-8")
        accounts = set(re.findall(r"Expenses:LLM:(\S+)", text))
        assert len(letters) == len(accounts)
        for first, *rest in accounts:
            assert category(first) in {"Lu", "Nd"}
            assert all(one == "-" or category(one)[0] == "L" or one.isdecimal() for one in rest)


NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
PARTS = {
    "before": reports.Filter(until=NOON),
    "after": reports.Filter(pools=["team"], since=NOON),
}


@pytest.fixture
def parts(book: Ledger, tmp_path: Path) -> Path:
    """Return a folder with exports of what was spent in two parts of a day, and of all of it."""
    calls = [
        PastCall(
            usage=Usage(total_tokens=5, cost_micros_usd=500_000 * (hour + 1)),
            occurred_at=NOON.replace(hour=hour),
            idempotency_key=str(hour),
        )
        for hour in (9, 11, 12, 20)
    ]
    book.pool("team", SharedPoolBudgetOptions()).import_calls(calls, "of two parts")
    for name, where in {**PARTS, "all": reports.Filter(pools=["team"])}.items():
        for ending in ACCOUNTING:
            assert exports.write(book, where, tmp_path / f"{name}.{ending}").rows in {2, 4}
    return tmp_path


def test_a_file_of_some_charges_asserts_no_balance(parts: Path) -> None:
    """It says in a comment what they come to; one of all of a pool's charges asserts it."""
    for name, comes_to in (("before", "11.000000"), ("after", "17.000000")):
        for ending in ACCOUNTING:
            text = (parts / f"{name}.{ending}").read_text(encoding="utf-8")
            assert re.search(
                rf"^; Expenses:LLM:Team\S+ comes to {comes_to} USD", text, re.MULTILINE
            )
            assert not re.search(r" = |^\S+ (balance|open) ", text, re.MULTILINE)
    assert "  0 USD = 28.000000 USD" in (parts / "all.hledger").read_text(encoding="utf-8")
    assert "  28.000000 ~ 0 USD" in (parts / "all.beancount").read_text(encoding="utf-8")


@pytest.mark.tools
@pytest.mark.parametrize("names", [["before", "after"], ["after", "before"], ["after"], ["all"]])
def test_files_of_two_periods_stand_in_one_journal(
    parts: Path, tools: str, names: list[str]
) -> None:
    """Both programs take them, in any order; and one of them by itself."""
    for ending, line in (
        ("hledger", "hledger -f {} check --strict"),
        ("beancount", "bean-check {}"),
    ):
        quote, begin = ("", "")
        if ending == "beancount":
            quote, begin = '"', 'plugin "beancount.plugins.auto_accounts"\n'
        includes = [f"include {quote}{name}.{ending}{quote}\n" for name in names]
        (parts / f"main.{ending}").write_text("".join((begin, *includes)), encoding="utf-8")
        for file in (f"main.{ending}", *(f"{name}.{ending}" for name in names)):
            done = run(line.format(file), parts, tools)
            assert 0 == done.returncode, done.stderr


def run(line: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the manual in a folder: of a shell, or else an expression of Python."""
    if "(" in line.partition(" ")[0]:
        words = ["python", "-c", f"import duckdb, openpyxl, pandas, polars; print({line})"]
    else:
        words = ["sh", "-ec", line]
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PATH": path},
        check=False,
    )


@pytest.mark.tools
@pytest.mark.parametrize(("tool", "line"), LINES, ids=[tool for tool, _line in LINES])
def test_a_line_of_the_manual(
    charged: Ledger, tmp_path: Path, tools: str, tool: str, line: str
) -> None:
    """It finds every micro-USD; the programs of accountants find one that is missing."""
    for name in ("csv", "jsonl", "parquet", "xlsx"):
        exports.write(charged, reports.Filter(), tmp_path / f"team.{name}")
    for name in ACCOUNTING:
        exports.write(charged, reports.Filter(), tmp_path / f"team.{name}", format=name)
    done = run(line, tmp_path, tools)
    assert 0 == done.returncode, done.stderr
    if tool.lower() not in ACCOUNTING:
        assert str(cost(charged)) in done.stdout
        return
    file = tmp_path / f"team.{tool.lower()}"
    text = file.read_text(encoding="utf-8")
    begin, last, end = re.split(r"([0-9])(?=(?: ~ 0)? USD\n\Z)", text, maxsplit=1)
    file.write_text(f"{begin}{(int(last) + 1) % 10}{end}", encoding="utf-8")
    assert 0 != run(line, tmp_path, tools).returncode
