"""`ledger alerts`: what it prints, where it goes on, and what its exit code says to cron."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest

from ledger import Ledger, LedgerUnavailableError, SharedPoolBudgetOptions
from ledger.cli import alerts
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests import programs
from tests.fixtures import Run
from tests.programs import LEDGER

Refused = Callable[..., str]

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, thresholds={"half": 50, "most": 90})


def cross(pool: str) -> None:
    """Reach both thresholds of a pool, and leave them again: four crossings."""
    with Ledger.open("sqlite:///ledger.db") as book:
        budget = book.pool(pool, OPTIONS)
        budget.release(budget.reserve(EXTENSIONS, tokens(95), UNLIMITED))


@pytest.fixture(autouse=True)
def crossed(folder: Path) -> Path:
    """Cross the thresholds of one pool in the folder's store, and return the folder."""
    cross("team")
    return folder


def rows(text: str) -> list[dict[str, Any]]:
    """Return what lines of JSON say."""
    return [json.loads(line) for line in text.splitlines()]


def test_people_read_lines_and_programs_rows(ledger: Run) -> None:
    """Exit code 3 says that something was crossed; the rows have the cursor to go on behind."""
    lines = ledger("alerts", code=3).out.splitlines()
    assert 4 == len(lines)
    assert lines[0].endswith("Z  team  half (50 %) reached, 5 tokens left")
    assert lines[3].endswith("Z  team  most (90 %) left, 100 tokens left")
    found = rows(ledger("alerts", "--format", "jsonl", code=3).out)
    first = found[0]
    assert ("team", "half", 50, "reached") == tuple(
        first[name] for name in ("pool", "threshold", "percent", "direction")
    )
    assert (3, 5, None) == (first["seq"], first["remaining_tokens"], first["remaining_requests"])
    for number, row in enumerate(found):
        ended = ledger(
            *("alerts", "--after", row["cursor"], "--format", "jsonl"), code=3 if number < 3 else 0
        )
        assert found[number + 1 :] == rows(ended.out)


def test_a_cursor_that_cannot_be_kept_is_refused_before_anything_is_told(ledger: Run) -> None:
    """Also while nothing is crossed: a job must not fail only on the day that it is for."""
    assert "no folder" in ledger("alerts", "--cursor", "nowhere/kept", code=2).err


def test_cron_goes_on_where_it_was(ledger: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 where nothing is new; killed between a line and its cursor, it prints the line again."""
    cron = ("alerts", "--cursor", "kept")
    kept: list[str] = []
    keep = alerts._keep

    def interrupted(path: Path, cursor: str, book: Ledger) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(cursor)
        keep(path, cursor, book)

    with monkeypatch.context() as patched:
        patched.setattr(alerts, "_KEPT_EVERY", 1)
        patched.setattr(alerts, "_keep", interrupted)
        assert 2 == len(ledger(*cron, code=130).out.splitlines())
    assert kept == Path("kept").read_text("utf-8").splitlines()
    assert 3 == len(ledger(*cron, code=3).out.splitlines())
    assert "" == ledger(*cron).out
    cross("other")
    assert "" == ledger(*cron, "--pool", "team").out
    assert 4 == len(ledger(*cron, code=3).out.splitlines())


def test_a_cursor_is_written_once_for_many_lines(
    ledger: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has all pools in it, so writing it behind each line would take the longer, the more."""
    kept: list[str] = []
    keep = alerts._keep

    def noted(path: Path, cursor: str, book: Ledger) -> None:
        kept.append(cursor)
        keep(path, cursor, book)

    for pool in ("b", "c"):
        cross(pool)
    monkeypatch.setattr(alerts, "_keep", noted)
    monkeypatch.setattr(alerts, "_KEPT_EVERY", 5)
    assert 12 == len(ledger("alerts", "--cursor", "kept", code=3).out.splitlines())
    assert 3 == len(kept)
    assert kept[-1] == Path("kept").read_text("utf-8").strip()


def test_what_is_no_cursor_is_left_alone(refused: Refused, crossed: Path) -> None:
    """Neither another file nor the store is replaced; options that clash are named."""
    (crossed / "notes").write_text("mine", "utf-8")
    assert "is no cursor" in refused("alerts", "--cursor", "notes")
    assert "mine" == (crossed / "notes").read_text("utf-8")
    assert "holds no cursor" in refused("alerts", "--cursor", "ledger.db")
    assert "Is a directory" in refused("alerts", "--cursor", ".")
    assert "--after" in refused("alerts", "--cursor", "kept", "--after", "{}")
    assert "--after" in refused("alerts", "--after", "{}")
    assert "--every" in refused("alerts", "--follow", "--every", "0s")
    assert "'none'" in refused("alerts", "--pool", "none")


def test_damage_is_told_and_hides_no_other_pool(ledger: Run) -> None:
    """The exit code is 1, whatever else was crossed."""
    cross("other")
    with closing(sqlite3.connect("ledger.db")) as store, store:
        store.execute("DROP TRIGGER entries_no_update")
        store.execute("UPDATE entries SET detail = '{}' WHERE pool_id = 1 AND seq = 3")
    ended = ledger("alerts", code=1)
    assert (3, 4) == (ended.out.count("team"), ended.out.count("other"))
    assert "left out" in ended.err


def test_following_survives_a_store_that_is_away(
    ledger: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once, and goes on when the store is back."""
    answers = [LedgerUnavailableError("away"), LedgerUnavailableError("away"), None, None]
    asked = Ledger.alerts

    def sometimes(self: Ledger, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the method
        if not answers:
            raise KeyboardInterrupt
        error = answers.pop(0)
        if error is not None:
            raise error
        return asked(self, *given, **named)

    monkeypatch.setattr(Ledger, "alerts", sometimes)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    ended = ledger("alerts", "--follow", code=130)
    assert 4 == len(ended.out.splitlines())
    assert 1 == ended.err.count("looking again: away")


def test_a_follower_that_is_killed_is_followed_by_another() -> None:
    """SIGKILL while it prints: the next one prints the rest, and what is crossed meanwhile."""

    def follow() -> programs.Popen:
        words = ("alerts", "--follow", "--every", "1s", "--cursor", "kept", "--format", "jsonl")
        return programs.Popen([LEDGER, *words], stdout=-1, encoding="utf-8")

    def read(out: IO[str], count: int) -> list[str]:
        return [json.loads(out.readline())["key"] for _ in range(count)]

    with follow() as first:
        keys = read(first.stdout, 2)
        first.send_signal(signal.SIGKILL)
        keys += [json.loads(line)["key"] for line in first.stdout]  # what it printed before
    with follow() as second:
        while len(set(keys)) < 4:
            keys += read(second.stdout, 1)
        cross("other")
        while len(set(keys)) < 8:
            keys += read(second.stdout, 1)
        second.send_signal(signal.SIGKILL)
    with Ledger.open("sqlite:///ledger.db") as book:
        assert [one.key for one in book.alerts()] == list(dict.fromkeys(keys))
