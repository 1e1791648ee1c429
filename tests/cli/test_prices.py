"""`ledger price`, `ledger prices diff` and `ledger reprice`, as they are printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    Attribution,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UsageEstimate,
)
from ledger.prices import Counts, PriceList, PriceTable

TABLE = """
version = "march"
[[price]]
model = "house-1"
input = 2
cache_read = 0.2
output = 8
"""


@pytest.fixture
def table(folder: Path) -> Path:
    """Return a price table in this folder."""
    path = folder / "prices.toml"
    path.write_text(TABLE, encoding="utf-8")
    return path


@pytest.fixture
def spent(folder: Path) -> str:
    """Return a store in which ten calls of a model are recorded, and one without a model."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    prices = PriceList(PriceTable({"price": [{"model": "house-1", "input": 1, "output": 4}]}))
    with Ledger.open(url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        for output in range(1, 12):
            extensions = RequestExtensions()
            extensions.insert(Attribution(operation="chat"))
            estimate = UsageEstimate(total_tokens=1, cost_micros_usd=1)
            lease = budget.reserve(extensions, estimate, RequestBudget())
            model = "house-1" if output <= 10 else None
            used = Counts(input_tokens=100, output_tokens=10 * output)
            it = prices.recording(used, model=model or "gpt-4o")
            budget.record_used(lease, it.usage, report=it.report)
    return url


def test_a_price_says_what_and_why(ledger: Callable[..., Any]) -> None:
    """Each kind with its count, price and cost; the exact sum and what is charged; the source."""
    words = ["price", "claude-sonnet-4-5", "--input", 7_100, "--output", 50, "--of"]
    out = ledger(*words, "cache_read=5000", "--of", "cache_write=2000").out
    lines = [line.split() for line in out.splitlines()]
    assert ["input", "100", "3", "1,000,000", "0.0003"] in lines
    assert ["cache_read", "5,000", "0.3", "1,000,000", "0.0015"] in lines
    assert ["cache_write", "2,000", "3.75", "1,000,000", "0.0075"] in lines
    assert ["output", "50", "15", "1,000,000", "0.00075"] in lines
    assert ["exactly", "0.01005"] in lines
    assert ["charged", "0.010050"] in lines
    assert "Priced by genai-prices" in out
    assert "as claude-sonnet-4-5 of anthropic, undated." in out


def test_a_price_for_programs(ledger: Callable[..., Any]) -> None:
    """JSON has the call with its lines, CSV the lines."""
    words = ["price", "gpt-5", "--input", 10, "--service-tier", "batch", "--provider", "openai"]
    (found,) = json.loads(ledger(*words, "--format", "json").out)
    assert ("0.00000625", 7, "gpt-5", {"service_tier": "batch"}) == tuple(
        found[name] for name in ("cost_usd", "cost_micros_usd", "priced_as", "conditions")
    )
    assert [
        {"kind": "input", "count": 10, "usd": "0.625", "per": 1_000_000, "cost_usd": "0.00000625"}
    ] == (found["lines"])
    assert [
        "kind,count,usd,per,cost_usd",
        '"input",10,0.625,1000000,0.00000625',
    ] == ledger(*words, "--format", "csv").out.splitlines()


def test_a_table_of_ones_own_comes_first(
    ledger: Callable[..., Any], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By option or by variable; a step, a time and a file are as in Python."""
    words = ["price", "house-1", "--input", 10, "--output", 1]
    assert "Priced by own march as house-1" in ledger(*words, "--prices", table).out
    monkeypatch.setenv("LEDGER_PRICES", str(table))
    assert "0.000028" in ledger(*words, "--no-library").out
    early = ledger("price", "o3", "--input", 1_000_000, "--at", "2025-06-09").out
    assert "10.000000" in early


def test_tokens_of_a_file_are_counted(ledger: Callable[..., Any], folder: Path) -> None:
    """By OpenAI's vocabulary for its models."""
    (folder / "prompt.txt").write_text("how many tokens?", encoding="utf-8")
    words = ["price", "gpt-4o", "--input-file", "prompt.txt", "--format", "json"]
    assert 4 == json.loads(ledger(*words).out)[0]["input_tokens"]


def test_output_by_what_calls_have_had(ledger: Callable[..., Any], table: Path, spent: str) -> None:
    """The 90th percentile of ten calls is that of the ninth."""
    words = ["price", "house-1", "--prices", table, "--url", spent, "--operation", "chat"]
    found = json.loads(ledger(*words, "--output-percentile", 90, "--format", "json").out)
    assert 90 == found[0]["output_tokens"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobodys-model"], "no price for the model 'nobodys-model'"),
        (["gpt-5", "--input", "1", "--service-tier", "scale"], "no price of it for service_tier"),
        (["gpt-4o", "--input", "5", "--of", "input_audio=5"], "no price for input audio"),
        (["gpt-4o", "--input", "-5"], "whole number"),
        (["gpt-4o", "--input", "1.5"], "whole number"),
        (["gpt-4o", "--of", "words=5"], "no KIND=COUNT"),
        (["gpt-4o", "--of", "cache_read"], "no KIND=COUNT"),
        (["gpt-4o", "--of", "cache_read=5"], "does not include cache_read_tokens"),
        (["gpt-4o", "--input", "1", "--input-file", "x"], "give one of them"),
        (["gpt-4o", "--input-file", "none.txt"], "none.txt"),
        (["gpt-4o", "--output", "1", "--output-percentile", "95"], "give one"),
        (["gpt-4o", "--at", "tomorrow"], "is no time"),
        (["gpt-4o", "--prices", "none.toml"], "cannot be read"),
    ],
)
def test_a_price_that_cannot_be_said(
    refused: Callable[..., str], words: list[str], said: str
) -> None:
    """One line that says what is wrong; exit code 2."""
    assert said in refused("price", *words)


def test_no_calls_no_percentile(refused: Callable[..., str], spent: str) -> None:
    """A model without calls has no history to go by."""
    words = ["price", "gpt-4.1", "--output-percentile", 95, "--url", spent]
    assert "no settled call of 'gpt-4.1'" in refused(*words)


def test_where_sources_disagree(ledger: Callable[..., Any], folder: Path) -> None:
    """Exit code 1 and a line for each price that differs; 0 where all agree."""
    (folder / "prices.toml").write_text(
        '[[price]]\nmodel = "gpt-4o"\ninput = 2.5\noutput = 11\n', encoding="utf-8"
    )
    ended = ledger("prices", "diff", "--prices", "prices.toml", code=1)
    assert ["gpt-4o", "(none)", "output", "0", "11", "10", "0.909"] in [
        line.split() for line in ended.out.splitlines()
    ]
    assert "1 model compared" in ended.out
    assert "" == ended.err
    words = ["prices", "diff", "--prices", "prices.toml", "--format", "json"]
    (row,) = json.loads(ledger(*words, code=1).out)
    assert ("11", "10") == (row["first_usd"], row["second_usd"])
    (folder / "same.toml").write_text(
        '[[price]]\nmodel = "gpt-4o"\ninput = 2.50\noutput = 10.0\n', encoding="utf-8"
    )
    assert "Prices that differ: 0" in ledger("prices", "diff", "--prices", "same.toml").out


def test_litellms_map_is_compared_too(ledger: Callable[..., Any], folder: Path) -> None:
    """The map against genai-prices, and a table of one's own against both."""
    entry = {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 3e-06}
    (folder / "map.json").write_text(json.dumps({"claude-sonnet-4-5": entry}), encoding="utf-8")
    (folder / "prices.toml").write_text(
        '[[price]]\nmodel = "claude-sonnet-4-5"\nprovider = "anthropic"\ninput = 3\n',
        encoding="utf-8",
    )
    words = ["prices", "diff", "--litellm", "map.json", "--format", "csv"]
    alone = ledger(*words, code=1).out.splitlines()
    both = ledger(*words, "--prices", "prices.toml", code=1).out.splitlines()
    assert (2, 3) == (len(alone), len(both))
    assert ",200000," in alone[1]
    assert alone == ledger(*words, "--model", "claude-sonnet-4-5", code=1).out.splitlines()


def test_a_model_that_no_source_names(refused: Callable[..., str], table: Path) -> None:
    """A misspelled model is no agreement."""
    words = ["prices", "diff", "--prices", table, "--model", "house-1", "--model", "nope"]
    assert "--model: 'nope' is not named in full in" in refused(*words)


def test_a_price_of_nothing(refused: Callable[..., str], table: Path) -> None:
    """Without tokens there is nothing to price; a count of 0 is one."""
    said = refused("price", "house-1", "--prices", table, "--no-library")
    assert "no tokens are given: say how many with --input, --output or --of" in said
    assert "kinds: cache_read, cache_write" in refused("price", "house-1", "--of", "foo=3")


def test_something_must_be_compared(refused: Callable[..., str]) -> None:
    """Without a table and without a map there is nothing to compare."""
    assert "give a table of your own" in refused("prices", "diff")


def test_a_month_by_other_prices(ledger: Callable[..., Any], table: Path, spent: str) -> None:
    """What it cost, what it would have cost, and what cannot be said; nothing is written."""
    words = ["reprice", "--dry-run", "--prices", table, "--no-library", "--url", spent]
    before = ledger("verify", "--url", spent).out
    lines = [line.split() for line in ledger(*words).out.splitlines()]
    recorded, repriced = 10 * 100 + 4 * 550, 10 * 200 + 8 * 550
    shown = [f"0.{amount:06d}" for amount in (recorded, repriced)]
    shown.append(f"+0.{repriced - recorded:06d}")
    assert ["house-1", "(none)", "10", *shown, "own", "march"] in lines
    assert ["Total", "10", *shown] in lines
    assert any("no price for the model 'gpt-4o'" in " ".join(line) for line in lines)
    assert before == ledger("verify", "--url", spent).out
    rows = json.loads(ledger(*words, "--format", "json").out)
    assert [("house-1", repriced), ("gpt-4o", None)] == [
        (row["model"], row["repriced_micros_usd"]) for row in rows
    ]
    none = ledger(*words, "--until", "2020-01-01", "--format", "csv").out.splitlines()
    assert 1 == len(none)


def test_entries_are_never_repriced(refused: Callable[..., str], spent: str) -> None:
    """Without --dry-run the command says that it changes nothing, and what does."""
    said = refused("reprice", "--url", spent)
    assert "entries keep the price" in said
    assert "ledger correct" in said


def test_what_has_no_price_asks_for_what_is_missing(refused: Callable[..., str]) -> None:
    """For the provider only where none was named."""
    words = ("price", "nope-1", "--input", 10, "--output", 3)
    assert refused(*words).endswith("or name its provider")
    named = refused(*words, "--provider", "openai")
    assert "the model 'nope-1' of openai" in named
    assert named.endswith("or name it as its provider does")
