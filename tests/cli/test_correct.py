"""`ledger correct`: the invoice said otherwise."""

from __future__ import annotations

import pytest

from ledger import (
    EntryKind,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)
from tests.fixtures import Run


@pytest.fixture
def url(store_url: str) -> str:
    """Return a store whose pool `team` has a settlement as entry 3."""
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=5_000))
        estimate = UsageEstimate(total_tokens=2_000)
        lease = budget.reserve(RequestExtensions(), estimate, RequestBudget.unlimited())
        budget.record_used(lease, Usage(input_tokens=7, total_tokens=1_200, cost_micros_usd=50))
    return store_url


def test_what_is_named_is_corrected(ledger: Run, url: str) -> None:
    """The rest stays as the entry says now; both figures and their changes are printed."""
    words = ("correct", "team", 3, "--url", url)
    shown = ledger(*words, "--total-tokens", 1_180, "--reason", "invoice 17").out
    assert "entry 3  tokens 1,180 (-20)  USD 0.000050 (+0.000000)\n" == shown
    shown = ledger(*words, "--cost-usd", "0.00004", "--reason", "invoice 18").out
    assert "entry 3  tokens 1,180 (+0)  USD 0.000040 (-0.000010)\n" == shown
    with Ledger.open(url, create=False) as book:
        expected = Usage(input_tokens=7, total_tokens=1_180, cost_micros_usd=40)
        assert expected == book.pool("team").usage_of(3)
        found = book.entries("team", kind=EntryKind.CORRECTION)
        assert ["invoice 17", "invoice 18"] == [entry.detail["reason"] for entry in found]
        assert book.verify("team")[0].ok
    assert "correction" in ledger("pool", "show", "team", "--url", url).out


def test_every_amount_can_be_named(ledger: Run, url: str) -> None:
    """Each of the seven has an option; under a key the same command corrects once."""
    names = [name for name in Usage.__dataclass_fields__ if name.endswith("tokens")]
    amounts = {name: 100 + number for number, name in enumerate(names)}
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", amounts[name])]
    words = ("correct", "team", 3, "--url", url, *options, "--cost-usd", "1.5")
    first = ledger(*words, "--reason", "all", "--key", "k").out
    assert first == ledger(*words, "--reason", "all", "--key", "k").out
    with Ledger.open(url, create=False) as book:
        assert Usage(**amounts, cost_micros_usd=1_500_000) == book.pool("team").usage_of(3)
        assert 4 == book.pool("team").status().seq


@pytest.mark.parametrize(
    ("before", "named", "after"),
    [
        ((7, 3, 10), {"input_tokens": 9}, (9, 3, 12)),
        ((7, 3, 10), {"output_tokens": 0}, (7, 0, 7)),
        ((7, 3, 10), {"input_tokens": 9, "total_tokens": 10}, (9, 3, 10)),
        ((7, 3, 10), {"reasoning_tokens": 2}, (7, 3, 10)),
        ((0, 0, 1_200), {"input_tokens": 9}, (9, 0, 1_200)),
        ((0, 0, 1_200), {"input_tokens": 900, "output_tokens": 280}, (900, 280, 1_180)),
    ],
    ids=["input", "output", "a total", "neither", "a total alone: one", "a total alone: both"],
)
def test_a_total_that_is_not_named_follows_its_parts(
    ledger: Run,
    store_url: str,
    before: tuple[int, int, int],
    named: dict[str, int],
    after: tuple[int, int, int],
) -> None:
    """Where it was their sum, or both are named; else what was recorded of it stays."""
    names = ("input_tokens", "output_tokens", "total_tokens")
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        lease = budget.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
        budget.record_used(lease, Usage(**dict(zip(names, before, strict=True))))
    options = [f"--{name.replace('_', '-')}={amount}" for name, amount in named.items()]
    words = ("correct", "team", 3, "--url", store_url, "--reason", "more")
    said = ledger(*words, *options).out
    assert f"entry 3  tokens {after[2]:,} ({after[2] - before[2]:+,})" in said
    with Ledger.open(store_url, create=False) as book:
        found = book.pool("team").usage_of(3)
    assert after == tuple(getattr(found, name) for name in names)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope", "3", "--total-tokens", "1"], "no pool 'nope'"),
        (
            ["team", "2", "--total-tokens", "1"],
            "it is of kind reservation, and entry 3 settles its lease",
        ),
        (["team", "1", "--total-tokens", "1"], "a settlement or an import, and an expiry for what"),
        (["team", "9", "--total-tokens", "1"], "there is no such entry"),
        (["team", "three", "--total-tokens", "1"], "not a whole number"),
        (["team", "3", "--total-tokens", "-1"], "not a whole number"),
        (["team", "3", "--total-tokens", "1200"], "nothing to correct"),
        (["team", "3"], "name at least one amount"),
    ],
)
def test_correct_refuses(refused: Run, url: str, words: list[str], said: str) -> None:
    """What cannot be corrected is named, and nothing is written."""
    assert said in refused("correct", *words, "--reason", "r", "--url", url)
    with Ledger.open(url, create=False) as book:
        assert 3 == book.pool("team").status().seq
