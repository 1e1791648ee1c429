"""Bills, and books to hold them against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    Attribution,
    BudgetLease,
    Ledger,
    LedgerBudgetManager,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.reconcile import READY, Bill, BillMapping, read_bill

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a file."""

    def make(content: str | bytes, name: str = "bill.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.fixture
def bill(write: Callable[..., Path]) -> Callable[..., Bill]:
    """Return a function that writes a bill and reads it."""

    def make(
        content: str | bytes,
        mapping: str | Sequence[BillMapping] = "generic",
        name: str = "bill.csv",
    ) -> Bill:
        mappings = READY[mapping] if isinstance(mapping, str) else mapping
        return read_bill(write(content, name), mappings)

    return make


@pytest.fixture
def team(book: Ledger) -> LedgerBudgetManager:
    """Return an unlimited pool, on each database in turn."""
    return book.pool("team", SharedPoolBudgetOptions())


@pytest.fixture
def spend() -> Callable[..., BudgetLease]:
    """Return a function that makes a call whose attempts used so much, the last one settling it."""

    def make(
        budget: LedgerBudgetManager,
        *attempts: Usage,
        request_id: str | None = None,
        model: str | None = "gpt-5",
        at: datetime = NOON,
        ends: bool = True,
    ) -> BudgetLease:
        extensions = RequestExtensions(Attribution(model=model, request_id=request_id))
        extensions.insert(OccurredAt(at))
        lease = budget.reserve(extensions, UsageEstimate(), RequestBudget.unlimited())
        report = UsageReport(occurred_at=at)
        for number, attempt in enumerate(attempts, start=1):
            last = ends and number == len(attempts)
            (budget.record_used if last else budget.observe)(lease, attempt, report=report)
        return lease

    return make


@pytest.fixture
def used() -> Callable[..., Usage]:
    """Return a function that makes a usage of input and output tokens and a cost."""
    return lambda tokens_in, tokens_out, cost, **more: Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        total_tokens=tokens_in + tokens_out,
        cost_micros_usd=cost,
        **more,
    )


@pytest.fixture
def plain() -> Callable[[Any], dict[str, int]]:
    """Return a function that gives those amounts that are compared, by name."""
    return lambda amounts: {
        name: value
        for name in amounts.__dataclass_fields__
        if (value := getattr(amounts, name)) is not None
    }
