"""Times at the edge of the calendar, and damaged pools, through the command line."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger import Ledger, SharedPoolBudgetOptions

Run = Any  # the fixture's type is in conftest.py
EDGES = ["0001-01-01", "9999-12-31", "1899-12-31T23:59:59Z", "3000-01-02"]


@pytest.mark.parametrize("anchor", EDGES)
def test_an_anchor_is_refused_before_anything_is_made(
    ledger: Run, tmp_path: Path, anchor: str
) -> None:
    """No store is made for it, and none is changed."""
    url = f"sqlite:///{tmp_path}/new.db"
    window = ("--window", "day", "--time-zone", "Asia/Tokyo", "--anchor", anchor)
    ended = ledger("pool", "open", "team", *window, "--url", url, code=2)
    assert "--anchor" in ended.err
    assert not list(tmp_path.glob("new.db*"))
    with Ledger.open(url) as book:
        book.pool("team", SharedPoolBudgetOptions(capacity_tokens=9))
    ended = ledger("pool", "adjust", "team", *window, "--reason", "edge", "--url", url, code=2)
    assert "--anchor" in ended.err
    assert 1 == ledger("verify", "--url", url).out.count("1 entry")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("moment", ["0001-01-01", "9999-12-31T23:59:59.999999"])
def test_reports_take_any_date_or_refuse_it_in_one_line(
    ledger: Run, tmp_path: Path, moment: str, zone: str
) -> None:
    """From the beginning of the calendar, up to its end, and seen from there."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger.open(url) as book:
        book.pool("team", SharedPoolBudgetOptions(capacity_tokens=9))
    for command in (
        ("report", "spend", "--by", "hour,week", "--since", moment),
        ("report", "runs", "--until", moment),
        ("report", "statement", "team", "--since", moment),
        ("report", "leases", "--now", moment),
        ("report", "forecast", "team", "--now", moment),
    ):
        ended = ledger(*command, "--zone", zone, "--url", url, code=None)
        assert ended.code in {0, 2}, ended.err
        assert 1 >= ended.err.count("\n"), ended.err


def test_a_damaged_pool_is_named_and_left_out(ledger: Run, tmp_path: Path) -> None:
    """Every command about the whole store answers for the others, and ends with 1."""
    path = tmp_path / "ledger.db"
    url = f"sqlite:///{path}"
    with Ledger.open(url) as book:
        for name in ("before", "hurt", "after"):
            book.pool(name, SharedPoolBudgetOptions(capacity_tokens=9))
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DROP TRIGGER entries_no_update")
        raw.execute("UPDATE entries SET detail = 'no JSON' WHERE pool_id = 2")
    for command in (("pool", "list"), ("expire",), ("top", "--once")):
        ended = ledger(*command, "--url", url, code=1)
        assert "left out: pool 'hurt', entry 1: " in ended.err
        if command != ("expire",):
            assert "before" in ended.out
            assert "after" in ended.out
    ended = ledger("verify", "--url", url, code=1)
    assert 2 == ended.out.count("ok  ")
    assert "DAMAGED  hurt: entry 1: " in ended.out
    for command in (("report", "runs"), ("report", "spend"), ("report", "leases")):
        assert "Error" not in ledger(*command, "--url", url, code=None).err
    assert "pool 'hurt'" in ledger("remaining", "hurt", "--url", url, code=2).err
