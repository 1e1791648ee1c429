"""The section on reports: what a report of a long pool costs, against SQL written by hand."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import psycopg

from benchmarks import history
from benchmarks.bench import Bench
from benchmarks.by_hand import queries
from benchmarks.measure import Workload, repeated, timed
from benchmarks.stores import beside, sqlite_path
from benchmarks.work import TIMEOUT_S
from ledger import Ledger, reports
from ledger.core.checks import from_micros, to_micros
from ledger.reports import Filter
from ledger.reports.burndown import POINTS

_DAY = timedelta(days=1)
_AT_LEAST_S = 0.2


def workloads(bench: Bench) -> list[Workload]:
    """Return each report, compared with the query for the same question, in a store of its own."""
    url = bench.stack.enter_context(beside(bench.url, "reports"))
    newest = history.write(url, bench.scale.history)
    book = bench.stack.enter_context(Ledger.open(url, create=False, timeout_s=TIMEOUT_S))
    run = _by_hand(bench, url)
    (last,) = book.entries(history.POOL, after=newest - 1)
    end = from_micros(last.recorded_at)
    asked = {
        "run": history.RUN,
        "begin": to_micros("begin", end - _DAY),
        "end": last.recorded_at,
        "newest": newest,
    }
    by_hand = queries(newest, POINTS, sqlite=url.startswith("sqlite"))
    found = []
    for name, report in _reports(book, end).items():
        base = _workload(
            f"{name}, by hand",
            lambda name=name: [run(text, asked) for text in by_hand[name]],  # type: ignore[misc]
        )
        found.append(_workload(name, report, base=base))
    return found


def _workload(name: str, work: Callable[[], object], *, base: Workload | None = None) -> Workload:
    return Workload(
        name=name,
        run=lambda: repeated(1, lambda noted: _asked(noted, work)),
        base=base,
        compare="latency",
    )


def _asked(latencies_s: list[float], work: Callable[[], object]) -> None:
    """Repeat the work until it took a while: the first time includes work that is done once."""
    while sum(latencies_s) < _AT_LEAST_S:
        timed(latencies_s, work)


def _reports(book: Ledger, end: datetime) -> dict[str, Callable[[], object]]:
    of_run, of_day = Filter(run_id=history.RUN), Filter(since=end - _DAY, until=end)
    pool = history.POOL
    return {
        "runs": lambda: reports.runs(book),
        "runs, one": lambda: reports.runs(book, of_run),
        "runs, a day's": lambda: reports.runs(book, of_day),
        "spend by day and model": lambda: reports.spend(book, by=["day", "model"]),
        "spend by model": lambda: reports.spend(book, by=["model"]),
        "spend of a day by hour": lambda: reports.spend(book, of_day, by=["hour"]),
        "statement": lambda: reports.statement(book, pool),
        "estimates": lambda: reports.estimates(book),
        "leases": lambda: reports.leases(book, now=end),
        "denials by agent": lambda: reports.denials_by(book, by=["agent"]),
        "forecast": lambda: reports.forecast(book, pool, window=_DAY, now=end),
        "burn-down": lambda: reports.burn_down(book, pool),
        "standing": lambda: reports.standing(book),
    }


def _by_hand(bench: Bench, url: str) -> Callable[[str, Mapping[str, Any]], object]:
    """Return a function that runs a query on a connection of the raw driver."""
    if url.startswith("sqlite"):
        file = bench.stack.enter_context(closing(sqlite3.connect(sqlite_path(url))))
        return lambda text, values: file.execute(text, values).fetchall()
    server = bench.stack.enter_context(psycopg.connect(url, autocommit=True))
    return lambda text, values: server.execute(_named(text), values).fetchall()


def _named(text: str) -> str:
    """Return SQL with named parameters in the syntax of psycopg."""
    return re.sub(r":(\w+)", r"%(\1)s", text)
