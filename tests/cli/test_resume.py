"""A trace is counted once: a second run is refused, an interrupted one goes on where it was."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ledger import EntryKind, Ledger, LedgerBudgetManager
from tests import programs

Run = Callable[..., Any]

ROWS = 500


def count(url: str, pool: str = "trace") -> int:
    """Return how many entries a pool has, 0 while there is none."""
    try:
        with Ledger.open(url, create=False) as book:
            return book.pool(pool).status().seq
    except Exception:  # noqa: BLE001 - the program has not made it yet
        return 0


STOPPED = """
import os, sys
import ledger.cli.simulate as simulate
from ledger.cli import main
number, run = int(sys.argv.pop(1)), simulate.run
def stopped(*given, progress, **more):
    seen = []
    def told(outcome):
        progress(outcome)
        seen.append(outcome)
        if len(seen) == 150:
            os.kill(os.getpid(), number)
    return run(*given, progress=told, **more)
simulate.run = stopped
sys.argv[0] = "ledger"
main()
"""
"""The program, which sends itself a signal when it has told of 150 rows."""


def interrupt(url: str, path: Path, number: signal.Signals, *words: object) -> int:
    """Run a trace up to a signal in the middle of it, and return how it ended."""
    process = programs.Popen(
        [
            sys.executable,
            "-c",
            STOPPED,
            *map(str, (int(number), "simulate", path, "--url", url, *words)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ.copy(),
    )
    _out, err = process.communicate(timeout=60)
    assert b"Traceback" not in err
    return process.returncode


def check_once(url: str, path: Path, ledger: Run) -> None:
    """Check that every row of a trace is in the books exactly once, and that they verify."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads(ledger("report", "runs", "--url", url, "--format", "json").out)
    assert len(rows) == sum(row["requests"] for row in found)
    for name, column in (("input_tokens", "ContextTokens"), ("output_tokens", "GeneratedTokens")):
        assert sum(int(row[column]) for row in rows) == sum(row[name] for row in found)
    assert 0 == sum(row["open_leases"] for row in found)
    with Ledger.open(url, create=False) as book:
        settled = [entry.request_id for entry in book.entries("trace", kind=EntryKind.SETTLEMENT)]
    assert sorted(row["request_id"] for row in rows) == sorted(map(str, settled))
    ledger("verify", "--url", url)


@pytest.mark.parametrize(
    ("kind", "number", "workers"),
    [
        ("sqlite", signal.SIGKILL, 4),
        ("sqlite", signal.SIGINT, 1),
        ("sqlite", signal.SIGINT, 4),
        ("postgresql", signal.SIGKILL, 4),
    ],
)
def test_an_interrupted_run_goes_on(
    ledger: Run,
    refused: Run,
    traffic: Callable[..., Path],
    new_store: Callable[..., str],
    kind: str,
    number: signal.Signals,
    workers: int,
) -> None:
    """Killed in the middle, a trace is refused as run, and `--resume` counts each row once."""
    url, path = new_store(kind), traffic(ROWS)
    assert 0 != interrupt(url, path, number, "--workers", workers)
    assert 100 <= count(url) < 1 + 2 * ROWS
    assert "already run" in refused("simulate", path, "--url", url)
    ended = ledger("simulate", path, "--url", url, "--workers", workers, "--resume")
    assert f"{ROWS:,} rows: {ROWS:,} admitted, 0 denied;" in ended.out
    assert 1 + 2 * ROWS == count(url)
    check_once(url, path, ledger)


def test_resuming_gives_denials_again_and_keeps_them_once(
    ledger: Run, traffic: Callable[..., Path], new_store: Callable[..., str]
) -> None:
    """With denials too, the books of an interrupted and resumed run are those of one run."""
    path, books = traffic(ROWS), {}
    command = ("--capacity-tokens", 40_000, "--estimate-output", 900)
    for name in ("whole", "resumed"):
        url = new_store("sqlite")
        if name == "resumed":
            assert -signal.SIGKILL == interrupt(url, path, signal.SIGKILL, *command)
        resume = ("--resume",) if name == "resumed" else ()
        ledger("simulate", path, "--url", url, *command, *resume)
        with Ledger.open(url, create=False) as book:
            books[name] = [
                (entry.kind, entry.request_id, entry.occurred_at, entry.balance)
                for entry in book.entries("trace")
            ]
    assert books["whole"] == books["resumed"]
    assert {"denial", "settlement"} < {kind for kind, *_others in books["whole"]}


def test_resuming_a_whole_run_changes_nothing(ledger: Run, traffic: Callable[..., Path]) -> None:
    """When every row is in the books already, `--resume` writes nothing and prints the same."""
    path = traffic(20)
    first = ledger("simulate", path)
    again = ledger("simulate", path, "--resume")
    assert first.out == again.out
    assert 41 == count("sqlite:///ledger.db")


def test_rows_that_are_in_the_books_are_not_asked_for_again(
    ledger: Run, traffic: Callable[..., Path], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are looked up 128 at a time, denials too; those beside a row that is new are asked for.

    A resumed run of a whole trace takes a sixteenth of the time so.
    """
    path, command = traffic(300), ("--url", store_url, "--capacity-tokens", 40_000)
    first = ledger("simulate", path, *command)
    asked = []

    def counted(budget: LedgerBudgetManager, calls: Sequence[Any], *, at_once: int) -> Any:  # noqa: ANN401 - leases
        asked.append(len(calls))
        return reserve_and_settle(budget, calls, at_once=at_once)

    reserve_and_settle = LedgerBudgetManager.reserve_and_settle
    monkeypatch.setattr(LedgerBudgetManager, "reserve_and_settle", counted)
    assert first.out == ledger("simulate", path, *command, "--resume").out
    assert " 0 denied" not in first.out
    assert [] == asked
    ledger("simulate", traffic(310), *command, "--resume")
    assert [310 - 2 * 128] == asked


def test_a_last_row_that_was_only_reserved_is_settled(
    ledger: Run, traffic: Callable[..., Path], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is done when it is settled: one that an interruption left open is not told as done."""
    path = traffic(5)

    def interrupted(budget: LedgerBudgetManager, calls: Sequence[Any], *, at_once: int) -> Any:  # noqa: ANN401 - leases
        *others, last = calls
        reserve_and_settle(budget, others, at_once=at_once)
        budget._writer.run(budget._journal, last.reserve)
        raise KeyboardInterrupt

    reserve_and_settle = LedgerBudgetManager.reserve_and_settle
    with monkeypatch.context() as patch:
        patch.setattr(LedgerBudgetManager, "reserve_and_settle", interrupted)
        ledger("simulate", path, "--url", store_url, code=130)
    assert 10 == count(store_url)
    ended = ledger("simulate", path, "--url", store_url, "--resume")
    assert "5 rows: 5 admitted, 0 denied;" in ended.out
    check_once(store_url, path, ledger)


@pytest.mark.parametrize(
    ("row", "figures", "words"),
    [
        (1, "107,14", (900,)),
        (4, "129,22", (900,)),
        (0, "100,10", (901,)),
        (0, "100,10", (900, "--runs", 2)),
    ],
    ids=["what a row used", "what a denied row was to take", "the estimate", "the runs"],
)
def test_what_differs_from_the_books_is_not_done(
    ledger: Run,
    refused: Run,
    traffic: Callable[..., Path],
    store_url: str,
    row: int,
    figures: str,
    words: Sequence[object],
) -> None:
    """A finished trace of which one thing is another now is refused, and nothing is written."""
    path = traffic(5)
    command = ("--url", store_url, "--capacity-tokens", 1_500, "--estimate-output")
    first = ledger("simulate", path, *command, 900)
    assert "5 rows: 4 admitted, 1 denied;" in first.out
    before = f",{100 + 7 * row},{10 + 3 * row},"
    path.write_text(path.read_text().replace(before, f",{figures},"))
    said = refused("simulate", path, "--resume", *command, *words)
    assert "was begun with other prices or estimates" in said
    assert 10 == count(store_url)


def test_each_pool_has_rows_of_its_own(
    ledger: Run, traffic: Callable[..., Path], store_url: str
) -> None:
    """Of two pools that ran the same trace, one of which denied a part, each says what it did."""
    path, url = traffic(5), ("--url", store_url)
    other = (*url, "--pool", "other", "--capacity-tokens", 300)
    free = ledger("simulate", path, *url)
    scarce = ledger("simulate", path, *other, "--again")
    assert "5 rows: 2 admitted, 3 denied;" in scarce.out
    assert free.out == ledger("simulate", path, *url, "--resume").out
    assert scarce.out == ledger("simulate", path, *other, "--resume").out


@pytest.mark.parametrize("pool", ["trace", "other"])
def test_a_second_run_is_refused(
    ledger: Run, refused: Run, traffic: Callable[..., Path], store_url: str, pool: str
) -> None:
    """In the same pool and in another of the same store; the first is left as it was."""
    path = traffic(5)
    ledger("simulate", path, "--url", store_url)
    said = refused("simulate", path, "--url", store_url, "--pool", pool)
    assert f"{path.name} was already run into this store, in pool 'trace'" in said
    assert 11 == count(store_url)


def test_a_refused_run_makes_no_pool(
    ledger: Run, refused: Run, traffic: Callable[..., Path]
) -> None:
    """The pool that was to pay for it the second time is not there afterwards."""
    path = traffic(5)
    ledger("simulate", path)
    refused("simulate", path, "--pool", "other")
    assert 0 == count("sqlite:///ledger.db", "other")


def test_a_refusal_names_both_ways_on(
    ledger: Run, refused: Run, traffic: Callable[..., Path]
) -> None:
    """Who was interrupted must not be led to count the trace twice."""
    path = traffic(5)
    ledger("simulate", path)
    said = refused("simulate", path)
    assert "--again" in said
    assert "--resume" in said


@pytest.mark.parametrize("ids", [True, False])
def test_a_trace_is_known_by_what_it_holds(
    ledger: Run, refused: Run, trace: Callable[..., Path], *, ids: bool
) -> None:
    """A copy under another name is the same trace; other calls under the same name are not."""
    header = "at,input_tokens,output_tokens" + ",request_id" * ids
    path = trace("2024-02-29,1,1" + ",a" * ids, header=header)
    ledger("simulate", path, "--pool", "p")
    assert "already run" in refused("simulate", path.rename("copy.csv"), "--pool", "p")
    ledger("simulate", trace("2024-02-29,1,2" + ",b" * ids, header=header), "--pool", "p")
    assert 1 + 2 * 2 == count("sqlite:///ledger.db", "p")


def test_a_log_that_has_grown_is_continued(
    ledger: Run, refused: Run, traffic: Callable[..., Path]
) -> None:
    """Calls are known by their request ids: what was logged since is run, the rest once."""
    ledger("simulate", traffic(5))
    grown = traffic(8)
    assert "--resume" in refused("simulate", grown)
    ledger("simulate", grown, "--resume")
    assert 1 + 2 * 8 == count("sqlite:///ledger.db")
    check_once("sqlite:///ledger.db", grown, ledger)
    # The same where the log's beginning was cut off since.
    kept = grown.read_text().splitlines()
    grown.write_text("\n".join([kept[0], *kept[4:], kept[-1].replace("trace.csv-7", "last")]))
    ledger("simulate", grown, "--resume")
    assert 1 + 2 * 9 == count("sqlite:///ledger.db")


def test_another_store_is_another_matter(ledger: Run, traffic: Callable[..., Path]) -> None:
    """What one store holds does not keep a trace out of another."""
    path = traffic(5)
    for url in ("sqlite:///one.db", "sqlite:///two.db"):
        ledger("simulate", path, "--url", url)
        assert 11 == count(url)


def test_again_counts_once_more(ledger: Run, traffic: Callable[..., Path]) -> None:
    """`--again` charges every row once more, each time under keys of its own."""
    path = traffic(5)
    ledger("simulate", path)
    for times in (2, 3):
        ledger("simulate", path, "--again")
        with Ledger.open(create=False) as book:
            entries = list(book.entries("trace"))
        assert 1 + times * 10 == len(entries)
        keys = {entry.idempotency_key for entry in entries}
        assert len(entries) == len(keys)
    found = json.loads(ledger("report", "runs", "--format", "json").out)
    assert 15 == sum(row["requests"] for row in found)


def test_again_in_another_pool(ledger: Run, traffic: Callable[..., Path]) -> None:
    """`--again` also lets another pool of the store pay for the same trace."""
    path = traffic(5)
    ledger("simulate", path)
    ledger("simulate", path, "--again", "--pool", "other")
    assert (11, 11) == (count("sqlite:///ledger.db"), count("sqlite:///ledger.db", "other"))


def test_resuming_where_nothing_was_run_is_refused(
    ledger: Run, refused: Run, traffic: Callable[..., Path]
) -> None:
    """With the wrong pool `--resume` would count the trace twice; it says so instead."""
    path = traffic(5)
    ledger("simulate", path)
    assert "pool 'trace'" in refused("simulate", path, "--resume", "--pool", "other")
    assert 0 == count("sqlite:///ledger.db", "other")


def test_resuming_under_other_prices_is_refused(
    ledger: Run, refused: Run, traffic: Callable[..., Path]
) -> None:
    """A run goes on as it was begun: with other prices it is another run."""
    path = traffic(5)
    ledger("simulate", path)
    assert refused("simulate", path, "--resume", "--input-price", "3")
    assert 11 == count("sqlite:///ledger.db")


def test_again_and_resume_contradict_each_other(ledger: Run, traffic: Callable[..., Path]) -> None:
    """One begins anew and the other goes on; given both, nothing is done."""
    path = traffic(5)
    ledger("simulate", path)
    ledger("simulate", path, "--again", "--resume", code=2)
    assert 11 == count("sqlite:///ledger.db")
