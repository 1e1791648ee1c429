"""Processes that are told what to do: they start together, and a failure is not lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.bench import fresh_pool
from benchmarks.worker import run_alone, run_together
from ledger import Ledger


def test_every_process_reports(new_store: Callable[..., str]) -> None:
    """Each has a report of its own; together they did what the books say."""
    url = new_store("sqlite")
    with Ledger.open(url) as book:
        name = fresh_pool(book).name
        told = {"url": url, "pools": [name], "threads": 2, "seconds": 0.1}
        reports = run_together(
            "benchmarks.processes:share", [told | {"process": number} for number in range(2)]
        )
        done = sum(report["round"]["operations"] for report in reports)
        assert 2 == len(reports)
        assert 1 + done == book.pool(name).status().seq


def test_a_process_that_fails_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """The caller gets an error, and the reason stands on the standard error."""
    with pytest.raises(RuntimeError, match="without a report"):
        run_alone("benchmarks.processes:nothing")
    assert "nothing" in capfd.readouterr().err
