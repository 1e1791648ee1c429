"""Every section of the real harness runs, on both databases; no time is ever asserted."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import peers, report
from benchmarks.bench import Bench
from benchmarks.by_hand import queries
from benchmarks.floor import NAME as FLOOR
from benchmarks.memory import EARLY, GROWTH, LATE
from benchmarks.peers.plain_sql import read_script
from benchmarks.processes import FAIRNESS, PARTITIONS, RETRIES, TAIL
from benchmarks.start import BARE, PROGRAMS
from benchmarks.stores import sqlite_path
from tests.conftest import STORES

Lend = Callable[[str], Bench]

EXPECTED = {
    "callers": [FLOOR, "1 thread", "2 threads", "1 task", "3 tasks"],
    "idle": ["one caller, past the queue", "one caller, through the queue"],
    "processes": [FLOOR, "2 x 2 threads, 1 pool", "2 x 2 threads, 3 pools"],
    "memory": [FLOOR, "a process at 512 and 1,024 operations"],
    "growth": [
        "remaining at 10 entries",
        "remaining at 30 entries",
        "reserve at 10 entries",
        "reserve at 30 entries",
    ],
    "pools": [
        f"{look}, 3 pools"
        for look in (
            "their names",
            "where they stand",
            "glance",
            "glance again",
            "meter again",
            "expire_due",
        )
    ],
    "reports": [row for name in queries(300, 2, sqlite=True) for row in (f"{name}, by hand", name)],
    "indexes": [f"1 thread, {word} the indexes of reports" for word in ("without", "with")],
    "start": [BARE, *(name for name in PROGRAMS if name != BARE)],
    "clients": [
        "a call, recorded by hand",
        "a call, priced and recorded by hand",
        "a call, budgeted",
        "a stream of 200 chunks, without a budget",
        "a stream of 200 chunks, recorded by hand",
        "a stream of 200 chunks, budgeted",
    ],
    "sweep": ["sweep behind 5 leases", "sweep behind 15 leases"],
}

ALSO = {"processes": {FAIRNESS, TAIL, RETRIES}, "memory": {EARLY, LATE, GROWTH}}


QUICK = {("sqlite", section) for section in EXPECTED} - {
    ("sqlite", "processes"),
    ("sqlite", "start"),
}
QUICK |= {("postgresql", "callers")}
"""What takes a moment: the others start many programs, or do on PostgreSQL what SQLite shows."""


@pytest.mark.parametrize(
    ("store", "section"),
    [
        pytest.param(*which, marks=[] if which in QUICK else [pytest.mark.long])
        for which in itertools.product(STORES, EXPECTED)
    ],
)
def test_a_section_measures_what_it_says(store: str, section: str, bench_on: Lend) -> None:
    """Each workload is there with figures that can be, and the books verify afterwards."""
    bench = bench_on(store)
    figures = command.run_store(bench, [section])
    expected = EXPECTED[section]
    if (section, store) == ("processes", "postgresql"):
        expected = [*expected, f"{expected[-1]} in {PARTITIONS} partitions"]
    assert expected == [figure.workload for figure in figures]
    for figure in figures:
        assert (section, bench.store) == (figure.section, figure.store)
        assert figure.rate > 0
        assert 0 < figure.ratio_min <= figure.ratio <= figure.ratio_max
        assert figure.cpu_us is not None
        assert figure.switches is not None
        assert figure.cpu_us > 0
        if figure.base is None:
            assert (1, {}) == (figure.ratio, figure.also)
        else:
            assert ALSO.get(section, set()) == set(figure.also)
    assert [] == bench.notes
    written = [figure.as_json() for figure in figures]
    assert written == json.loads(json.dumps(written))
    if section == "processes":
        for figure in figures[1:]:
            assert 0 < figure.also[FAIRNESS] <= 1 <= figure.also[TAIL]
            assert 0 <= figure.also[RETRIES]
    if section == "memory":
        early, late = figures[1].also[EARLY], figures[1].also[LATE]
        assert 5 < early < 1_000
        assert pytest.approx(100 * (late - early) / early) == figures[1].also[GROWTH]


def test_every_section_is_tested() -> None:
    """Whoever adds a section adds what is expected of it."""
    assert {*EXPECTED, "peers"} == set(command.SECTIONS)


PEERS = {"litellm": "LiteLLM", "eventsourcing": "eventsourcing"}


def test_peers_run_or_are_named(bench: Bench) -> None:
    """A peer that is installed has a row; one that is not is named, with how to install it.

    The operations of the example of plain SQL took turns, each was committed, and none was lost.
    """
    figures = command.run_store(bench, ["peers"])
    rows = [figure.workload for figure in figures]
    assert {FLOOR, "this library: durable", "SQL counter: durable"} <= set(rows)
    for package, name in PEERS.items():
        noted = [note for note in bench.notes if package in note and peers.INSTALL in note]
        shown = [row for row in rows if name in row]
        assert (1, 0) == (len(shown), len(noted)) if find_spec(package) else (0, 1)
    if bench.store == "postgresql":
        return
    pairs = 1 + bench.scale.calls * bench.scale.rounds  # the first try shows whether it works
    ledger = sqlite_path(bench.url)
    with closing(sqlite3.connect(ledger.with_name(f"{ledger.stem}_sql_counter.db"))) as file:
        assert [(0, 4_800 * pairs)] == file.execute("SELECT held, spent FROM budget").fetchall()
        counted = file.execute("SELECT count(*), sum(cost) FROM calls").fetchall()
        assert [(pairs, 4_800 * pairs)] == counted


def test_a_peer_that_is_not_installed_is_named(
    bench_on: Lend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is skipped silently."""
    monkeypatch.setattr(peers, "find_spec", lambda _name: None)
    bench = bench_on("sqlite")
    rows = [figure.workload for figure in command.run_store(bench, ["peers"])]
    assert not [row for row in rows for name in PEERS.values() if name in row]
    assert sorted(PEERS, reverse=True) == sorted(
        (note.split()[1] for note in bench.notes), reverse=True
    )


def test_plain_sql_is_read_in_parts(tmp_path: Path) -> None:
    """Comments may stand anywhere, marks in any case; operations take turns as written."""
    path = tmp_path / "mine.sql"
    path.write_text(
        "-- mine; with a semicolon\n-- SETUP\nCREATE TABLE t (a INTEGER);\n"
        "--operation\nINSERT INTO t VALUES (1); INSERT INTO t VALUES (2);\n"
        "-- operation\nDELETE FROM t;\n"
    )
    script = read_script(path)
    assert "CREATE TABLE t (a INTEGER);" == script.setup.strip()
    assert ["INSERT", "DELETE"] == [text.split()[0] for text in script.operations]


@pytest.mark.parametrize(
    "text",
    ["", "-- setup\nCREATE TABLE t (a INTEGER);\n", "SELECT 1;\n-- operation\nSELECT 1;\n"],
)
def test_a_file_without_its_marks_is_refused(text: str, tmp_path: Path) -> None:
    """Statements that would not run, or nothing to measure: the message says what must stand."""
    path = tmp_path / "mine.sql"
    path.write_text(text)
    with pytest.raises(SystemExit, match=r"mine\.sql: every statement must stand behind"):
        read_script(path)


def test_sql_that_the_database_refuses_is_named(bench: Bench, tmp_path: Path) -> None:
    """The message has the file and the database's own words."""
    path = tmp_path / "mine.sql"
    path.write_text("-- operation\nINSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(SystemExit, match=rf"mine\.sql: {bench.store} refuses it: .*nowhere"):
        command.run_store(replace(bench, sql={"mine": path}), ["peers"])


def test_the_command_prints_and_writes_the_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both have every figure, and the facts of the machine that they depend on."""
    monkeypatch.setattr(command, "require_a_disk", lambda *_seen: None)  # a time, and not ours
    file = tmp_path / "figures.json"
    words = ["--store", "sqlite", "--only", "idle", "--rounds", "1", "--json", str(file)]
    assert 0 == command.main(words)
    printed = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert EXPECTED["idle"] == [figure["workload"] for figure in result["figures"]]
    for expected in (*EXPECTED["idle"], command.SECTIONS["idle"].title):
        assert expected in printed
    assert report.described(result["machine"]) in printed
    assert {"date", "python", "sqlite", "postgresql", "fsync_us", "floor_per_second"} <= set(
        result["machine"]
    )
    assert {"sqlite"} == set(result["machine"]["floor_per_second"])


@pytest.mark.parametrize(
    "words", [["--sql", "counter"], ["--rounds", "0"], ["--only", "nothing"], ["--store", "mysql"]]
)
def test_words_that_mean_nothing_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured, and with the word that was wrong."""
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert 2 == stopped.value.code
    assert words[0] in capsys.readouterr().err


def test_a_file_of_sql_is_read_before_anything_is_measured(tmp_path: Path) -> None:
    """A slip in the name shows now, and not in half an hour."""
    with pytest.raises(SystemExit, match=r"gone\.sql cannot be read"):
        command.main(["--sql", f"mine={tmp_path / 'gone.sql'}"])
