"""What a command says of its options, and of runs and tags that no entry has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import InvalidInputError, Ledger, SharedPoolBudgetOptions, Window, reports
from ledger.reconcile import READY, read_bill
from ledger.simulate import Backtest, RunRule
from ledger.simulate import run as simulate

from .conftest import Ended

Run = Callable[..., Ended]


def first_run(ledger: Run) -> str:
    """Return the name of a run that is there."""
    name: str = json.loads(ledger("report", "runs", "--format", "json").out)[0]["run_id"]
    return name


WRONG = [
    (("report", "runs", "--since", "2024-03-01", "--until", "2024-02-01"), "--until"),
    (("report", "runs", "--as-of", "3"), "--as-of"),
    (("report", "spend", "--by", "moon"), "--by"),
    (("pool", "open", "new", "--capacity-usd", "-1"), "--capacity-usd"),
    (("pool", "open", "new", "--stop-threshold-usd", "x"), "--stop-threshold-usd"),
    (("pool", "open", "new", "--lease-ttl", "1y"), "--lease-ttl"),
    (("pool", "open", "new", "--window", "day", "--time-zone", "Mars"), "--time-zone"),
    (("pool", "open", "new", "--carved"), "--carved"),
    (("simulate", "trace.csv", "--runs", "often"), "--runs"),
    (("simulate", "trace.csv", "--again", "--resume"), "--resume"),
    (("export", "out.txt"), "--format"),
]


@pytest.mark.parametrize(("words", "option"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_an_error_names_the_option(
    ledger: Run, refused: Run, traffic: Callable[..., Path], words: tuple[str, ...], option: str
) -> None:
    """The command line names options."""
    traffic(2)
    ledger("pool", "open", "team")
    assert str(refused(*words)).startswith(f"{option}: ")


def test_an_error_of_the_library_names_the_argument(
    traffic: Callable[..., Path], tmp_path: Path
) -> None:
    """In Python the same errors name arguments."""
    with pytest.raises(InvalidInputError, match=r"^window\.time_zone: "):
        Window(period="day", time_zone="Mars")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"^as_of: "):
        reports.Filter(as_of=3)
    backtest = Backtest(trace=read_bill(traffic(1), READY["trace"]), runs=RunRule.parse("1"))
    with (
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as book,
        pytest.raises(InvalidInputError, match=r"^resume: "),
    ):
        simulate(book, "p", SharedPoolBudgetOptions(), backtest, again=True, resume=True)


@pytest.mark.parametrize("report", ["runs", "spend", "estimates", "leases", "denials"])
def test_a_name_that_no_entry_has_is_said(
    ledger: Run, traffic: Callable[..., Path], report: str
) -> None:
    """A misspelt run or tag is told from one that spent nothing; one that is there is not."""
    ledger("simulate", traffic(2), "--runs", "1")
    told = ledger("report", report, "--run", "nope", "--tag", "a=b").err
    assert "No entry matches --run nope --tag a=b: the report is empty.\n" == told
    assert "" == ledger("report", report, "--run", first_run(ledger)).err
    assert "" == ledger("report", report).err


def test_a_forgotten_filter_is_hinted_at(ledger: Run, traffic: Callable[..., Path]) -> None:
    """A part of the journal is no damage: the options of the export are asked for."""
    ledger("simulate", traffic(4), "--runs", "1")
    run = first_run(ledger)
    ledger("export", "part.csv", "--run", run)
    ledger("verify-export", "part.csv", "--run", run)
    for words in ((), ("--run", "another")):
        said = ledger("verify-export", "part.csv", *words, code=1).out
        assert "verify it with the same filter" in said
