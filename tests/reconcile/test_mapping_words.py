"""The words of a mapping: which rows, which kinds of token, which units, which forms of numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    BillingFileError,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
)
from ledger.exports import FocusVersion, Format, write
from ledger.reconcile import (
    READY,
    Bill,
    BillMapping,
    Identical,
    explain,
    read_bill,
    read_mappings,
    reconcile,
)
from ledger.reconcile.sheets import about
from ledger.reports import Filter
from tests.fixtures import Read, Write

KINDS = (
    "day,usage_type,amount,unit,cost,product\n"
    "2026-03-01,USE1-Claude-input-tokens,2.5,1K tokens,0.1,AmazonBedrock\n"
    "2026-03-01,USE1-Claude-output-tokens,1,1K tokens,0.2,AmazonBedrock\n"
    "2026-03-01,USE1-Claude-images,3,,0.3,AmazonBedrockFoundation\n"
    "2026-03-01,BoxUsage,9,Hrs,9,AmazonEC2\n"
)
CLOUD = BillMapping(
    at="day",
    model="usage_type",
    models={"*Claude*": "claude-x"},
    kind="usage_type",
    quantity="amount",
    kinds={"*-input-tokens": "input_tokens", "*-output-tokens": "output_tokens"},
    token_unit="unit",  # noqa: S106 - a column
    cost="cost",
    only={"product": ["AmazonBedrock*"]},
)


def amounts(bill: Bill) -> list[tuple[Any, ...]]:
    """Return the amounts of each line."""
    return [line.amounts for line in bill.lines]


def test_kinds_of_token_in_a_column(book: Ledger, bill: Read) -> None:
    """Each row is of one kind, in its own unit; rows of other products are counted and left out."""
    read = bill(KINDS, [CLOUD])
    assert ("input_tokens", "output_tokens", "total_tokens", "cost_micros_usd") == read.axes
    assert [
        (2_500, 0, 2_500, 100_000),
        (0, 1_000, 1_000, 200_000),
        (0, 0, 0, 300_000),
    ] == amounts(read)
    assert ["claude-x"] * 3 == [line.model for line in read.lines]
    assert 1 == read.not_selected
    assert {"kind 'USE1-Claude-images'": 1} == read.unread_lists
    said = about(reconcile(book, read))
    assert "1 left out by the mapping" in said
    assert "kind 'USE1-Claude-images' (1)" in said


@pytest.mark.parametrize(
    ("unit", "tokens", "expected"),
    [
        ("1K", "0.0355", Fraction("35.5")),
        ("10K", "1.25", 12_500),
        ("1M", "2", 2_000_000),
        ("1000", "1,5", 1_500),
        (None, "1000.000000", 1_000),
        (None, "-1000.000000", -1_000),
        (None, "-7", -7),
        (None, "59200.0", 59_200),
    ],
)
def test_units_and_forms_of_tokens(
    bill: Read, unit: str | None, tokens: str, expected: object
) -> None:
    """Quantities of a thousand or a million, a correction below 0, zeros behind the point."""
    mapping = BillMapping(at="at", total_tokens="tokens", token_unit=unit)
    assert [(expected,)] == amounts(bill(f"at;tokens\n2026-03-01;{tokens}\n", [mapping]))


@pytest.mark.parametrize(
    ("cost", "decimal", "expected"),
    [
        ("0E-6176", None, 0),
        ("7.5e-05", None, 75),
        ("0." + "0" * 39 + "1", None, Fraction(1, 10**34)),
        ("0,06", None, 60_000),
        ("1,234", ",", 1_234_000),
        ("1.234", ".", 1_234_000),
        ("-0.25", None, -250_000),
        ("+1", None, 1_000_000),
        ("-", None, 0),
    ],
)
def test_forms_of_money(bill: Read, cost: str, decimal: str | None, expected: object) -> None:
    """Every digit counts, with a point or a comma; a word may stand for nothing."""
    mapping = BillMapping(at="at", cost=["cost", "fee"], decimal=decimal, empty="-")
    assert [(expected,)] == amounts(bill(f"at;cost;fee\n2026-03-01;{cost};0\n", [mapping]))


@pytest.mark.parametrize(
    ("column", "text", "decimal"),
    [
        ("cost", "1,234", None),
        ("cost", "1.234,5", ","),
        ("cost", "1.5", ","),
        ("cost", "1e9999999", None),
        ("cost", "1" * 130, None),
        ("cost", "0x10", None),
        ("cost", "\u0661", None),
        ("tokens", "1.000", None),
        ("tokens", "1.5", None),
        ("tokens", "10K", None),
    ],
)
def test_numbers_that_are_not_guessed(
    bill: Read, column: str, text: str, decimal: str | None
) -> None:
    """What may be read in two ways is refused, with its line."""
    mapping = BillMapping(at="at", cost="cost", total_tokens="tokens", decimal=decimal)
    cells = {"cost": "0", "tokens": "0", column: text}
    with pytest.raises(BillingFileError, match=f"line 2: {column}: '") as caught:
        bill(f"at;cost;tokens\n2026-03-01;{cells['cost']};{cells['tokens']}\n", [mapping])
    assert text[:20] in str(caught.value)


def test_the_line_of_the_header_and_the_sign_between_cells(bill: Read) -> None:
    """A mapping may say what would be found out otherwise; it is then held to that."""
    content = "at;total\n2026-03-01;1\nat:total\n2026-03-02:2\n"
    mapping = BillMapping(at="at", total_tokens="total")
    said = replace(mapping, delimiter=":", skip_lines=2)
    assert [(2,)] == amounts(bill(content, [said]))
    with pytest.raises(BillingFileError, match="no 'at', 'total'"):
        bill(content, [replace(said, skip_lines=1)])


def test_times_in_several_forms(bill: Read) -> None:
    """Several forms are tried in their order."""
    mapping = BillMapping(at="at", cost="cost", at_format=["%m/%d/%Y", "iso"])
    content = "at,cost\n03/02/2026,1\n2026-03-03,1\n2026-03-04 10:00:00 UTC,1\n"
    assert ["2026-03-02", "2026-03-03", "2026-03-04"] == [
        line.day for line in bill(content, [mapping]).lines
    ]
    with pytest.raises(BillingFileError, match="is not of the form %m/%d/%Y or iso"):
        bill("at,cost\n31.12.2026,1\n", [mapping])


def test_what_says_which_line_it_is(bill: Read) -> None:
    """A log repeats a line with another time: some of its cells say that it is the same."""
    mapping = BillMapping(at="at", total_tokens="used", identity="so_far", identical=Identical.ONCE)
    content = "at,used,so_far\n2026-03-01,5,5\n2026-03-02,5,5\n2026-03-03,5,10\n"
    read = bill(content, [mapping])
    assert [(5,), (5,)] == amounts(read)
    assert [3] == read.identical


def test_a_ready_mapping_is_extended(write: Write, bill: Read) -> None:
    """In each of its shapes; what the file does not say stays as it is."""
    path = write('extends = "openai-costs"\nzone = "Europe/Berlin"\n', "mine.toml")
    mappings = read_mappings(path)
    assert [
        replace(one, name="mine.toml", zone="Europe/Berlin") for one in READY["openai-costs"]
    ] == mappings
    content = "start_time,amount_value,amount_currency\n1772323200,1,usd\n"
    assert "2026-03-01" == bill(content, mappings).lines[0].day
    with pytest.raises(InvalidInputError, match="extends: 'nope' is none of openai-usage"):
        read_mappings(write('extends = "nope"', "wrong.toml"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"kind": "k"}, "kind, quantity and kinds belong together"),
        ({"kind": "k", "quantity": "q", "kinds": {"a": "cost"}}, "'cost' is none of input_tokens"),
        ({"decimal": ";"}, "neither '.' nor ','"),
        ({"delimiter": '"'}, "must be one character"),
        ({"skip_lines": -1}, "skip_lines"),
        ({"only": {"a": 5}}, "only: must be a column, or a list of them"),
    ],
)
def test_words_that_are_refused(words: dict[str, Any], said: str) -> None:
    """A mapping that cannot mean anything is refused before a file is opened."""
    with pytest.raises(InvalidInputError, match=said):
        BillMapping(at="at", cost="cost", **words)


def test_our_own_focus_export_reads_back(
    book: Ledger,
    team: LedgerBudgetManager,
    spend: Callable[..., Any],
    used: Callable[..., Usage],
    tmp_path: Path,
) -> None:
    """Corrections below 0 and quantities with decimals: the journal agrees with its own export."""
    spend(team, used(100, 20, 900, cache_read_tokens=5), request_id="a")
    spend(team, used(7, 3, 50))
    lease = spend(team, used(5, 5, 40), request_id="b")
    team.correct(lease.id + 1, used(2, 5, 10), "invoice")
    book.pool("other", SharedPoolBudgetOptions())
    for version in FocusVersion:
        for suffix in ("csv", "parquet"):
            path = tmp_path / f"{version}.{suffix}"
            write(book, Filter(), path, format=Format.FOCUS, focus_version=version)
            read = read_bill(path, READY["focus"])
            assert min(line.amounts[0] for line in read.lines) < 0
            assert reconcile(book, read).agrees


def test_explain_reads_the_first_rows(write: Write) -> None:
    """What each field is read from, each row as a line or with the reason why not."""
    content = KINDS.replace(",1,1K tokens", ",x,1K tokens") + ",,,,,AmazonBedrock\n"
    found = explain(write(content), [CLOUD], rows=10)
    assert ("CSV with commas", ["product"]) == (found.looks, [*CLOUD.only])
    assert ["usage_type"] == found.fields["kind"]
    assert [2_500, None, 0, None, None] == [
        None if row.read is None else row.read.amounts[0] for row in found.rows
    ]
    reasons = [row.reason for row in found.rows]
    assert [None, None] == [reasons[0], reasons[2]]
    assert "amount: 'x' is not a whole number" in str(reasons[1])
    assert ["left out by only", "without any amount"] == reasons[3:]
    assert json.dumps(found.rows[0].cells)
    assert 2 == len(explain(write(content), [CLOUD], rows=2).rows)
