"""Pages and pictures from the command line, and completion in a shell."""

from __future__ import annotations

import csv
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures import Run


@pytest.fixture
def books(
    ledger: Run,
    traffic: Callable[..., Path],
    filled_once: Callable[[Callable[[], object]], Path],
) -> Path:
    """Run 20 calls through a pool, and return the folder."""
    words = ("--capacity-usd", "1", "--input-price", "3")
    return filled_once(lambda: ledger("simulate", traffic(20), *words))


def test_a_page_is_one_file(ledger: Run, books: Path) -> None:
    """It has the figures, loads nothing, and is said to be written."""
    rows = csv.DictReader(ledger("report", "runs", "--format", "csv").out.splitlines())
    micros = sum(int(row["cost_micros_usd"]) for row in rows)
    ended = ledger("report", "page", "--html", "books.html", "--zone", "Europe/Berlin")
    assert ("wrote books.html\n", "") == (ended.out, ended.err)
    text = (books / "books.html").read_text(encoding="utf-8")
    assert micros
    assert f"<dd>0.{micros:06d}" in text
    assert "day (Europe/Berlin)" in text
    assert not re.search(r"""(?:src|href)=["'](?!#|data:,)""", text.partition("<script type")[0])
    assert "default-src &#39;none&#39;" in text


def test_a_page_is_about_what_was_asked(ledger: Run, books: Path) -> None:
    """A filter is named on the page; without verification it says so."""
    words = ("--pool", "trace", "--since", "2030-01-01", "--no-verify")
    ledger("report", "page", "--html", "books.html", *words)
    text = (books / "books.html").read_text(encoding="utf-8")
    assert "Only pools: trace; since: 2030-01-01T00:00:00+00:00" in text
    assert "The journal was not verified" in text


@pytest.mark.parametrize("words", [(), ("--pool", "trace")])
def test_a_page_says_whether_indexes_were_checked(
    ledger: Run, books: Path, words: tuple[str, ...]
) -> None:
    """Those of the whole store, with it; not with the pools that are named."""
    ledger("report", "page", "--html", "books.html", *words)
    text = (books / "books.html").read_text(encoding="utf-8")
    assert bool(words) == ("Not the store&#39;s indexes" in text)
    assert bool(words) != ("The store&#39;s indexes, too" in text)


def test_damage_is_on_the_page_and_in_the_exit_code(ledger: Run, books: Path) -> None:
    """A changed row is seen by readers and by scripts."""
    with closing(sqlite3.connect(books / "ledger.db")) as thief:
        thief.execute("DROP TRIGGER entries_no_update")
        thief.execute("UPDATE entries SET usage_total_tokens = 9 WHERE seq = 3")
        thief.commit()
    ledger("report", "page", "--html", "books.html", code=1)
    text = (books / "books.html").read_text(encoding="utf-8")
    assert "DAMAGED at entry 3: its hash does not match" in text
    assert '<div class="bad"><dt>Verification</dt><dd>DAMAGED' in text


@pytest.mark.parametrize(
    "words",
    [
        ("runs",),
        ("runs", "--tree"),
        ("spend", "--by", "day,model"),
        ("statement", "trace"),
        ("estimates",),
        ("leases",),
        ("denials",),
        ("denials", "--by", "run"),
        ("forecast", "trace"),
    ],
)
def test_every_report_can_be_a_page(ledger: Run, books: Path, words: tuple[str, ...]) -> None:
    """--html writes the same table that is printed, figure by figure."""
    printed = ledger("report", *words).out
    assert "wrote page.html\n" == ledger("report", *words, "--html", "page.html").out
    text = (books / "page.html").read_text(encoding="utf-8")
    cells = {cell.strip() for cell in re.findall(r"<t[hd][^>]*>(?:<span>)?([^<]+)", text)}
    figures = set(re.findall(r"(?<=  )[\d,]+\.\d{6}(?=  |\n)", printed))
    assert set() == figures - cells
    assert text.startswith("<!doctype html>")


@pytest.mark.parametrize("name", ["burn-down", "spend", "runs", "estimates"])
def test_a_chart_is_a_file(ledger: Run, books: Path, name: str) -> None:
    """Each picture is written without a browser."""
    ended = ledger("report", "chart", name, "--pool", "trace", "--out", "chart.svg")
    assert "wrote chart.svg\n" == ended.out
    assert (books / "chart.svg").read_text(encoding="utf-8").startswith("<svg")


def test_what_cannot_be_drawn(refused: Callable[..., str], books: Path) -> None:
    """One line says what is wrong, and nothing is written."""
    drawn = ("report", "chart", "burn-down")
    assert "one pool" in refused(*drawn, "--out", "x.svg")
    assert "must end in .png or .svg" in refused(*drawn, "--pool", "trace", "--out", "x.gif")
    part = refused(*drawn, "--pool", "trace", "--run", "1", "--out", "x.svg")
    assert "that of a whole pool" in part
    axis = ("--axis", "tokens")
    assert "no limit in tokens" in refused(*drawn, "--pool", "trace", *axis, "--out", "x.svg")
    where = ("--html", "nowhere/x.html", "--no-verify")
    assert "nowhere/x.html: No such file or directory" in refused("report", "page", *where)
    assert [] == [path for path in books.iterdir() if path.name.startswith("x.")]


def test_without_the_extra_it_is_named(
    refused: Callable[..., str], books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page needs an extra, and printing does not."""
    assert books
    monkeypatch.setitem(sys.modules, "jinja2", None)
    said = refused("report", "denials", "--html", "page.html")
    assert "budget-ledger[html]" in said


def test_spend_by_time_has_a_sparkline(ledger: Run, books: Path) -> None:
    """Below a table by time stands how it went, a bar for each time; JSON has none."""
    assert books
    shown = ledger("report", "spend", "--by", "hour,model").out
    assert "USD by hour" not in shown  # one hour is no trend
    trace = books / "two.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens,cost_micros_usd\n"
        "2024-02-01 10:00:00,1,1,700\n2024-02-02 10:00:00,1,1,100\n",
        encoding="utf-8",
    )
    ledger("simulate", trace)
    shown = ledger("report", "spend", "--by", "day", "--pool", "two").out
    assert "USD by day, 2024-02-01 to 2024-02-02 (those with entries): █▂" in shown
    plain = ledger("report", "spend", "--by", "day", "--pool", "two", "--format", "json").out
    assert "█" not in plain


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_in_a_shell(program: Run, shell: str) -> None:
    """The installed program shows a script for the shell, which asks it what can be typed."""
    script = program("--show-completion", shell).out
    assert "_LEDGER_COMPLETE" in script
    asked = {"_LEDGER_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        offered = program(**asked, COMP_WORDS="ledger report sp", COMP_CWORD="2").out
    else:
        typed = {
            "_TYPER_COMPLETE_ARGS": "ledger report sp",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        offered = program(**asked, **typed).out
    assert "spend" in offered
    assert "statement" not in offered
