"""Charges as FOCUS has them: what each column says, and what the official validator says."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from ledger import (
    Attribution,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    exports,
    reports,
)
from ledger.exports.focus import focus_columns
from tests.programs import ROOT

FOCUS = exports.Format.FOCUS
V1_2, V1_4 = exports.FocusVersion

IN_BOTH = (
    "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd "
    "BillingPeriodStart ChargeCategory ChargeClass ChargeDescription ChargePeriodEnd "
    "ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost PricingQuantity "
    "PricingUnit ServiceCategory ServiceName"
)
MANDATORY = {
    V1_2: {*IN_BOTH.split(), "ProviderName", "PublisherName"},
    V1_4: {*IN_BOTH.split(), "HostProviderName", "ServiceProviderName"},
}
"""Columns that must be there, as the specification's own tables say."""

NULLABLE = {"BillingAccountName", "ChargeClass", "CommitmentDiscountStatus", "InvoiceId", "Tags"}

APPLICABLE = "USAGE_MEASUREMENT_SUPPORTED,SUB_ACCOUNT_SUPPORTED,TAGGING_SUPPORTED"
"""Which of the specification's conditions hold: tokens are measured, pools and tags exist."""

BLIND = {"InvoiceId-C-005-C"}
"""A conditional rule (charges of an invoice name it) whose condition the validator cannot see."""


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of an export."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def charged(book: Ledger, path: Path, version: exports.FocusVersion = V1_2) -> list[dict[str, str]]:
    """Export the charges of everything, and return them."""
    exports.write(book, reports.Filter(), path, format=FOCUS, focus_version=version)
    return rows(path)


@pytest.fixture
def spent(book: Ledger) -> Ledger:
    """Return books with one call that everything is known of, and one that nothing is."""
    budget = book.pool("2024", SharedPoolBudgetOptions())
    who = Attribution(
        run_id="r",
        parent_run_id="p",
        tenant="t",
        agent="a",
        operation="o",
        provider="Acme",
        model="m",
        request_id="id",
        tags={"team": "x", "=cost": '"y"'},
    )
    at = OccurredAt(datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC))
    lease = budget.reserve(
        RequestExtensions(who, at), UsageEstimate(total_tokens=9), RequestBudget.unlimited()
    )
    used = Usage(
        input_tokens=5,
        output_tokens=3,
        total_tokens=8,
        cost_micros_usd=4_800,
        cache_creation_tokens=1,
        cache_read_tokens=2,
        reasoning_tokens=3,
    )
    budget.record_used(lease, used, report=UsageReport())
    lease = budget.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
    budget.record_used(lease, Usage(total_tokens=1))
    return book


def test_what_each_column_says(spent: Ledger, tmp_path: Path) -> None:
    """Every column of a charge of which everything is known."""
    first, second = charged(spent, tmp_path / "out.csv")
    (entry,) = (one for one in spent.entries("2024") if one.seq == 3)
    (pool,) = spent.pools()
    assert {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), "0.004800"),
        **dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName"), "Acme"),
        **dict.fromkeys(("BillingAccountName", "InvoiceId"), ""),
        "ChargeClass": "Correction",  # of February, which was over
        "BillingCurrency": "USD",
        "BillingPeriodEnd": second["BillingPeriodEnd"],
        "BillingPeriodStart": second["BillingPeriodStart"],
        "ChargeCategory": "Usage",
        "ChargeDescription": "Settlement of m: 5 input tokens, 3 output tokens",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2024-03-01T00:00:00Z",
        "ChargePeriodStart": "2024-02-29T23:59:59Z",
        "CommitmentDiscountStatus": "",
        "ConsumedQuantity": "8.000000",
        "ConsumedUnit": "Tokens",
        "PricingQuantity": "8.000000",
        "PricingUnit": "Tokens",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Language Model Inference",
        "ServiceSubcategory": "Generative AI",
        "SubAccountId": str(pool.identity),
        "SubAccountName": "2024",
        "Tags": '{"=cost":"\\"y\\"","team":"x"}',
        "x_AgentName": "a",
        "x_CacheCreationTokens": "1",
        "x_CacheReadTokens": "2",
        "x_EntryFlags": "overrun",
        "x_EntryHash": entry.hash.hex(),
        "x_EntryKind": "settlement",
        "x_EntrySequence": "3",
        "x_InputTokens": "5",
        "x_LeaseSequence": "2",
        "x_ModelName": "m",
        "x_OperationName": "o",
        "x_OutputTokens": "3",
        "x_ParentRunId": "p",
        "x_PoolName": "2024",
        "x_Provenance": "reported",
        "x_ProviderName": "Acme",
        "x_Reason": "",
        "x_ReasoningTokens": "3",
        "x_RecordedAt": f"{datetime.fromtimestamp(entry.recorded_at // 10**6, UTC):%FT%TZ}",
        "x_RequestId": "id",
        "x_RunId": "r",
        "x_TenantName": "t",
        "x_TotalTokens": "8",
        "BillingAccountId": second["BillingAccountId"],
    } == first
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first["BillingAccountId"])


@pytest.mark.parametrize("version", exports.FocusVersion)
def test_the_columns_of_a_version(
    spent: Ledger, tmp_path: Path, version: exports.FocusVersion
) -> None:
    """Mandatory ones are there, ours come last, and none is empty that may not be."""
    found = charged(spent, tmp_path / "out.csv", version)
    names = list(found[0])
    ours = [name for name in names if name.startswith("x_")]
    standard = [name for name in names if name not in ours]
    assert set() == MANDATORY[version] - set(standard)
    assert sorted(standard) + sorted(ours) == names
    assert all(re.fullmatch(r"(x_)?([A-Z][a-z]+)+", name) for name in names)
    for row in found:
        assert set() == {name for name in standard if row[name] == ""} - NULLABLE
    gone = {"ProviderName", "PublisherName"} if version is V1_4 else {"HostProviderName"}
    assert set() == gone & set(names)


def test_a_provider_that_nobody_named(spent: Ledger, tmp_path: Path) -> None:
    """Where the specification wants a name and there is none, it says so."""
    row = charged(spent, tmp_path / "out.csv", V1_4)[1]
    for name in ("HostProviderName", "InvoiceIssuerName", "ServiceProviderName"):
        assert "Unknown" == row[name]
    assert ("", "") == (row["Tags"], row["x_ModelName"])


def test_only_charges_each_where_it_was_made(
    history: Callable[[int], Ledger], tmp_path: Path
) -> None:
    """Rows are entries that record usage; mirrors, reservations and denials are none."""
    book = history(6)
    found = charged(book, tmp_path / "out.csv")
    assert {"settlement", "observation", "correction"} == {row["x_EntryKind"] for row in found}
    total = reports.spend(book).total
    assert Decimal(total.cost_micros_usd) / 10**6 == sum(Decimal(r["BilledCost"]) for r in found)
    assert total.total_tokens == sum(Decimal(row["ConsumedQuantity"]) for row in found)
    assert total.attempts + total.corrections == len(found)


def test_corrections(scribe: Any, tmp_path: Path) -> None:  # noqa: ANN401 - tests/reports/conftest.py
    """A correction is billed in the month in which it was made; its charge stays where it was."""
    scribe.pool("team")
    march = datetime(2024, 3, 5, tzinfo=UTC)
    for made in (datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC), march):
        scribe.append(
            "team",
            "correction",
            at=made,
            recorded=datetime(2024, 3, 31, tzinfo=UTC),
            usage_total_tokens=-4,
            usage_cost_micros_usd=-1,
        )
    late, same = charged(scribe.book, tmp_path / "out.csv")
    assert ("Correction", "") == (late["ChargeClass"], same["ChargeClass"])
    assert ("2024-02-03T04:05:06Z", "2024-02-03T04:05:07Z") == (
        late["ChargePeriodStart"],
        late["ChargePeriodEnd"],
    )
    for row in (late, same):
        assert "2024-03-01T00:00:00Z" == row["BillingPeriodStart"]
        assert "2024-04-01T00:00:00Z" == row["BillingPeriodEnd"]
        assert ("-0.000001", "-4.000000") == (row["BilledCost"], row["ConsumedQuantity"])


@pytest.mark.parametrize(("month", "end"), [(1, "2024-02"), (2, "2024-03"), (12, "2025-01")])
def test_billing_periods_are_months(
    scribe: Any,  # noqa: ANN401 - tests/reports/conftest.py
    tmp_path: Path,
    month: int,
    end: str,
) -> None:
    """A month ends where the next one begins."""
    scribe.pool("team")
    at = datetime(2024, month, 1, tzinfo=UTC)
    scribe.append(
        "team", "observation", at=at, recorded=at, usage_total_tokens=1, usage_cost_micros_usd=0
    )
    (row,) = charged(scribe.book, tmp_path / "out.csv")
    assert f"2024-{month:02}-01T00:00:00Z" == row["BillingPeriodStart"]
    assert f"{end}-01T00:00:00Z" == row["BillingPeriodEnd"]


def test_late_usage(scribe: Any, tmp_path: Path) -> None:  # noqa: ANN401 - tests/reports/conftest.py
    """What is recorded when its month is over corrects it: a month that was sent stays as it is."""
    scribe.pool("team")
    end, begin = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)
    for at, recorded in ((end, end), (end, begin), (begin, end)):
        used = {"usage_total_tokens": 1, "usage_cost_micros_usd": 0}
        scribe.append("team", "settlement", at=at, recorded=recorded, **used)
    assert [("", "2024-02"), ("Correction", "2024-03"), ("", "2024-03")] == [
        (row["ChargeClass"], row["BillingPeriodStart"][:7])
        for row in charged(scribe.book, tmp_path / "out.csv")
    ]


def test_names_in_other_letters(book: Ledger, tmp_path: Path) -> None:
    """The specification's columns are ASCII, ours are exact; the file is held against both."""
    budget = book.pool("\u00e9quipe", SharedPoolBudgetOptions())
    who = RequestExtensions(Attribution(provider="\u5b9f", model="\u884c"))
    budget.record_used(
        budget.reserve(who, UsageEstimate(), RequestBudget.unlimited()), Usage(total_tokens=1)
    )
    (row,) = charged(book, tmp_path / "out.csv")
    assert ("\u00e9quipe", "\u5b9f") == (row["x_PoolName"], row["x_ProviderName"])
    assert ("\\xe9quipe", "\\u5b9f") == (row["SubAccountName"], row["ProviderName"])
    for name, cell in row.items():
        assert name.startswith("x_") or cell.isascii()
    assert exports.verify(book, tmp_path / "out.csv", format=FOCUS).ok


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("tokens", [10**13, 2**63 - 1])
def test_counts_that_have_more_than_64_bits_in_millionths(
    book: Ledger, tmp_path: Path, ending: str, tokens: int
) -> None:
    """The quantities of the specification are decimals, of every count that an entry can hold."""
    budget = book.pool("team", SharedPoolBudgetOptions())
    for used in (Usage(total_tokens=tokens), Usage(cost_micros_usd=1)):
        lease = budget.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
        budget.record_used(lease, used)
    path = tmp_path / f"out.{ending}"
    exports.write(book, reports.Filter(), path, format=FOCUS)
    found = rows(path) if ending == "csv" else parquet.read_table(path).to_pylist()
    assert [tokens, 0] == [Decimal(row["ConsumedQuantity"]) for row in found]
    assert exports.verify(book, path, format=FOCUS).ok


def test_every_column_is_documented() -> None:
    """docs/exports.md says of every column of both versions where its value comes from."""
    manual = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    section = manual.partition("## Columns of FOCUS")[2].partition("\n## ")[0]
    documented = {
        name.strip(" `")
        for line in section.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    }
    both = {column.name for version in exports.FocusVersion for column in focus_columns(version)}
    assert both == documented


@pytest.fixture(scope="session")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], set[str]]:
    """Return a function that runs the official validator, and returns the rules that failed.

    LEDGER_TEST_FOCUS_PYTHON names the Python that has it; without that, an environment is made.
    """
    python = os.environ.get("LEDGER_TEST_FOCUS_PYTHON")
    if not python:
        newer = subprocess.run(
            [ROOT / "tests" / "python312"], check=True, capture_output=True, encoding="utf-8"
        ).stdout.strip()
        made = tmp_path_factory.mktemp("focus") / "venv"
        wanted = Path(__file__).with_name("focus-validator.txt")
        subprocess.run([newer, "-m", "venv", made], check=True)
        subprocess.run([made / "bin" / "pip", "install", "-q", "-r", wanted], check=True)
        python = str(made / "bin" / "python")
    # It looks for a list of currencies in the folder in which it is started.
    say = (
        "import focus_validator, pathlib; print(pathlib.Path(focus_validator.__file__).parents[1])"
    )
    installed = subprocess.run(
        [python, "-c", say], check=True, capture_output=True, encoding="utf-8"
    ).stdout.strip()

    def run(path: Path) -> set[str]:
        done = subprocess.run(
            [
                *(python, "-m", "focus_validator.main", "--data-file", str(path)),
                *("--validate-version", "1.2", "--focus-dataset", "CostAndUsage"),
                *("--block-download", "--applicability-criteria", APPLICABLE),
            ],
            cwd=installed,
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            check=False,
        )
        assert "=== Validation Results ===" in done.stdout, done.stderr + done.stdout
        passed = set(re.findall(r"^\S+ (\S+): PASS", done.stdout, re.MULTILINE))
        assert {"BilledCost-C-003-M", "ConsumedQuantity-C-006-C", "Tags-C-001-M"} <= passed
        return set(re.findall(r"^\S+ (\S+): FAIL", done.stdout, re.MULTILINE))

    return run


def broad(history: Callable[..., Ledger]) -> Ledger:
    """Return books with charges and corrections of every kind, and names like numbers."""
    book = history(7, entries=300)
    budget = book.pool("\u00e9quipe 2024", SharedPoolBudgetOptions())
    who = Attribution(provider="\u5b9f", model="123", tags={"a": "b", "=c": '"d"'})
    lease = budget.reserve(RequestExtensions(who), UsageEstimate(), RequestBudget.unlimited())
    budget.record_used(lease, Usage(total_tokens=2**63 - 1, cost_micros_usd=2**62))
    return book


@pytest.mark.focus
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_official_validator_passes_it(
    history: Callable[..., Ledger],
    tmp_path: Path,
    validator: Callable[[Path], set[str]],
    ending: str,
) -> None:
    """No rule fails that is mandatory, and of the others only one that cannot be decided."""
    path = tmp_path / f"out.{ending}"
    exports.write(broad(history), reports.Filter(), path, format=FOCUS)
    failed = validator(path)
    assert set() == {rule for rule in failed if rule.endswith("-M")}
    assert BLIND == failed


@pytest.mark.focus
def test_the_official_validator_sees_what_is_wrong(
    spent: Ledger, tmp_path: Path, validator: Callable[[Path], set[str]]
) -> None:
    """Without a currency, or with an unknown category, mandatory rules fail."""
    path = tmp_path / "out.csv"
    charged(spent, path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"Usage"', '"Use"').replace('"USD"', '"???"'), encoding="utf-8")
    failed = validator(path)
    assert {"ChargeCategory-C-003-M", "BillingCurrency-C-003-M"} <= failed
