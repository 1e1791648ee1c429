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


@pytest.mark.parametrize(
    "words",
    [
        ("pool", "open", "new", "--capacity-usd", "1", "--capacity-usd", "3"),
        ("verify", "--url", "sqlite:///a.db", "--url", "sqlite:///b.db"),
        ("reconcile", "bill.csv", "--by", "hour", "--by", "day"),
    ],
    ids=" ".join,
)
def test_a_value_is_never_lost_to_a_later_one(
    ledger: Run, words: tuple[str, ...], folder: Path
) -> None:
    """An option that takes one value is refused with two, and nothing is written."""
    said = ledger(*words, code=2).err
    assert f"Error: {words[-2]}: given again with another value; it takes one\n" == said
    assert not list(folder.iterdir())


def test_an_option_may_be_given_again_with_the_same_value(ledger: Run) -> None:
    """It says nothing else; a script may put an option behind those it was given."""
    ledger("pool", "open", "team", "--capacity-usd", 3, "--capacity-usd", 3)
    ledger("report", "spend", "--wide", "--wide", "--pool", "team", "--pool", "team")


@pytest.mark.parametrize("report", ["spend", "estimates", "denials"])
def test_groups_add_up(ledger: Run, report: str) -> None:
    """`--by` given again is one more dimension."""
    ledger("pool", "open", "team")
    again = ledger("report", report, "--by", "tenant", "--by", "model").out
    assert ledger("report", report, "--by", "tenant,model").out == again
    assert ledger("report", report, "--by", "model").out != again


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("pool", "open", "new", "--capacity-usd"), "--capacity-usd"),
        (("leases", "settle", "team", "1", "--cost-usd"), "--cost-usd"),
    ],
    ids=["capacity", "cost"],
)
def test_an_amount_out_of_range_is_said_in_dollars(
    ledger: Run, words: tuple[str, ...], option: str
) -> None:
    """In the unit in which it was typed."""
    ledger("pool", "open", "team")
    said = ledger(*words, "99999999999999999", code=2).err
    assert f"Error: {option}: 99,999,999,999,999,999.000000 USD is outside 0 .. " in said
    assert said.endswith(",709.551615 USD\n")


@pytest.mark.parametrize("command", ["verify", "report statement"])
def test_an_argument_written_as_an_option_is_told_how(ledger: Run, command: str) -> None:
    """Some commands take pools as `--pool`, others one pool as an argument."""
    said = ledger(*command.split(), "--pool", "x", code=2).err
    assert f"Write POOL without --pool: ledger {command} POOL (" in said
    assert "Write" not in ledger(*command.split(), "--moon", "x", code=2).err
