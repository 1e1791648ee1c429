"""Names are text: they break no line, drive no terminal, and are computed by no spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs
from tests.fixtures import Run
from tests.programs import LEDGER

NAMES = (
    "=1+1",
    "+a",
    "-b",
    "@c",
    "\td",
    "\rcut\rhere",
    "\ncut\nhere",
    "'quoted",
    "\uff1dwide",
    'say "x", y',
    "2024",
    "line\u2028and\u2029paragraph",
    "next\x85line",
    "\x1b]0;title\x07\x1b[2J",
    "\x9b2J\x7f",
    "\u202eback\u2066wards",
    "</script><script>alert(1)</script>",
    "[bold]markup[/bold]",
)
DRIVES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\u2066]")
"""Whatever moves a cursor, ends a line or turns it round; but the end of a line itself."""


@pytest.fixture(autouse=True)
def books(ledger: Run, folder: Path, filled_once: Callable[[Callable[[], object]], Path]) -> Path:
    """Make a pool of each name, with a call whose run, model and tag value have that name too."""
    return filled_once(lambda: write(ledger, folder))


def write(ledger: Run, folder: Path) -> None:
    """Write these books."""
    rows = [("TIMESTAMP", "ContextTokens", "GeneratedTokens", "run", "model")]
    rows += [
        ("2024-02-29 10:00:00", "10", "1", name, name) for name in NAMES if name == name.strip()
    ]
    with (folder / "trace.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    ledger("simulate", "trace.csv", "--capacity-usd", "1", "--unpriced", "flag")
    for name in NAMES:
        ledger("pool", "open", "--capacity-usd=1", "--", name)


def unguarded(cell: str) -> str:
    """Return a text as it is stored: one apostrophe is taken off the front."""
    return cell.removeprefix("'")


def test_csv_of_pools_is_read_back_exactly(ledger: Run) -> None:
    """Every reader of RFC 4180 gets each name whole, and no cell is a formula."""
    text = ledger("pool", "list", "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert ["trace", *NAMES] == [unguarded(row["pool"]) for row in rows]
    for row in rows:
        assert not row["pool"].startswith(tuple("=+-@\t\r\n\uff1d"))
    assert '"2024",1,' in text  # a name is quoted, a figure is not
    assert "\r\n" not in text.replace("\rcut\rhere", "")


@pytest.mark.parametrize(
    ("words", "column"),
    [
        (("report", "runs"), "run_id"),
        (("report", "spend", "--by", "model"), "model"),
        (("report", "spend", "--by", "model,tag:=x"), "model"),
        (("report", "estimates", "--by", "model"), "model"),
        (("report", "statement", "trace"), "run_id"),
    ],
)
def test_csv_of_reports_is_that_of_exports(
    ledger: Run, words: tuple[str, ...], column: str
) -> None:
    """Reports guard and quote as exports do: the same cell for the same name."""
    text = ledger(*words, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    exported = ledger("export", "-", "--format", "csv").out
    known = {row["run_id"] for row in csv.DictReader(io.StringIO(exported, newline=""))}
    found = {row[column] for row in rows} - {""}
    assert found
    assert found <= known
    assert "'=1+1" in found
    assert not any(name.startswith("=") for name in rows[0])


def test_json_is_cut_by_no_reader(ledger: Run) -> None:
    """Who splits lines as Unicode does gets the same lines, and none of them drives a terminal."""
    text = ledger("export", "-", "--format", "jsonl").out
    rows = [json.loads(line) for line in text.splitlines()]
    assert set(NAMES) <= {row["pool"] for row in rows}
    listed = ledger("pool", "list", "--format", "json").out
    assert ["trace", *NAMES] == [row["pool"] for row in json.loads(listed)]
    assert not re.search("[\x7f-\x9f\u2028\u2029\x1b]", text + listed)


def test_tables_hold_their_lines(ledger: Run) -> None:
    """A table has a line for each pool, whatever it is called."""
    for words in (("pool", "list"), ("report", "runs"), ("verify",), ("top", "--once")):
        text = ledger(*words).out
        assert not DRIVES.search(text)
        assert len(text.split("\n")) == len(text.splitlines()) + 1
    assert "[bold]markup[/bold]" in ledger("pool", "list").out


def test_a_page_holds_names_as_text(ledger: Run, books: Path) -> None:
    """Also in its title, notes and the data of its pictures."""
    for name in NAMES:
        ledger("report", "forecast", "--html", "page.html", "--force", "--", name)
        page = (books / "page.html").read_text(encoding="utf-8")
        own = page.partition("<script type")[0] + page.rpartition("</figure>")[2]
        assert not DRIVES.search(own.replace("\t", ""))
        assert "<script>alert" not in page
        break
    ledger("report", "page", "--html", "page.html", "--no-verify")
    page = (books / "page.html").read_text(encoding="utf-8")
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data
    for one in data:
        json.loads(one)
        assert not re.search("[\u2028\u2029\x1b<]", one)
    assert "<script>alert" not in page


def test_csv_on_a_terminal_does_not_drive_it() -> None:
    """A pipe gets names as they are, a person sees them spelled out."""
    ours, theirs = pty.openpty()
    process = programs.Popen([LEDGER, "pool", "list", "--format", "csv"], stdout=theirs)
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 4_096):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    assert 0 == process.wait(60)
    os.close(ours)
    shown = b"".join(parts).decode().replace("\r\n", "\n")
    assert r"\x1b[2J" in shown
    assert not DRIVES.search(shown)


def test_errors_show_names_as_text(ledger: Run) -> None:
    """A name that is asked for is printed as it is in tables."""
    for name in ("\x1b[2Jx", "a\u2028b", "\x9bx"):
        said = ledger("remaining", name, code=2).err
        assert 1 == len(said.splitlines())
        assert not DRIVES.search(said)
