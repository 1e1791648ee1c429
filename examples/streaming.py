"""A stream, and a call that was tried twice: each part is in the books as soon as it is known.

Install: `pip install .`

Prints:

    reserved 1,000 tokens
    chunk of 200: 200 committed, 800 held
    chunk of 300: 500 committed, 500 held
    the end of 50: 550 committed, 0 held
    tried twice: 1 request, 2 attempts, 190 tokens
      90 tokens by req-1, reported
      100 tokens by req-2, estimated
"""

import tempfile
from pathlib import Path

from ledger import (
    Ledger,
    LedgerBudgetManager,
    Provenance,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    reports,
)

CALL = RequestExtensions()
UNLIMITED = RequestBudget.unlimited()


def tokens(amount: int) -> Usage:
    """Return a usage of so many tokens."""
    return Usage(total_tokens=amount)


def stream(budget: LedgerBudgetManager) -> None:
    """Record what each chunk used; a process that is killed loses nothing that was observed."""
    lease = budget.reserve(CALL, UsageEstimate(total_tokens=1_000), UNLIMITED)
    print("reserved 1,000 tokens")

    def said(words: str) -> None:
        committed, reserved = budget.status().balance
        print(f"{words}: {committed.tokens:,} committed, {reserved.tokens:,} held")

    for chunk in (200, 300):
        budget.observe(lease, tokens(chunk))
        said(f"chunk of {chunk}")
    budget.record_used(lease, tokens(50))
    said("the end of 50")


def try_twice(budget: LedgerBudgetManager) -> None:
    """Two attempts of one call, each with the provider's id, and where its figures came from."""
    lease = budget.reserve(CALL, UsageEstimate(total_tokens=400), UNLIMITED)
    first = UsageReport(request_id="req-1", provenance=Provenance.REPORTED)
    budget.observe(lease, tokens(90), report=first)  # it broke off, but was charged
    second = UsageReport(request_id="req-2", provenance=Provenance.ESTIMATED)
    budget.record_used(lease, tokens(100), report=second)


def main() -> None:
    """Stream one call, try another one twice, and report."""
    policy = SharedPoolBudgetOptions(capacity_tokens=10_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        stream(book.pool("streams", policy))
        try_twice(book.pool("retries", policy))
        (run,) = reports.runs(book, "retries")
        print(
            f"tried twice: {run.requests} request, {run.attempts} attempts, "
            f"{run.total_tokens} tokens"
        )
        for entry in book.entries("retries", after=2):
            used = entry.usage.total_tokens if entry.usage else 0
            print(f"  {used} tokens by {entry.request_id}, {entry.provenance}")


if __name__ == "__main__":
    main()
