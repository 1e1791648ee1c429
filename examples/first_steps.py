"""Reserve before a call, record after it, ask what is left; then do it again after a restart.

Install: `pip install .`

Prints:

    granted lease 2
    while the call runs: 8,600 tokens left
    after it: 8,880 tokens left
    after a restart: 8,880 tokens left
    denied: 9,000 asked, 8,880 left
"""

import tempfile
from pathlib import Path

from ledger import (
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)

POLICY = SharedPoolBudgetOptions(capacity_tokens=10_000)


def main() -> None:
    """Spend from a pool, close the store, and go on where it was left."""
    nothing = RequestExtensions()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with Ledger.open(url) as book:
            budget = book.pool("team", POLICY)
            estimate = UsageEstimate(input_tokens=1_000, output_tokens=400, total_tokens=1_400)
            lease = budget.reserve(nothing, estimate, RequestBudget.unlimited())
            print(f"granted lease {lease.id}")
            print(f"while the call runs: {budget.remaining(nothing).tokens:,} tokens left")
            used = Usage(input_tokens=1_000, output_tokens=120, total_tokens=1_120)
            budget.record_used(lease, used)
            print(f"after it: {budget.remaining(nothing).tokens:,} tokens left")

        with Ledger.open(url) as book:
            budget = book.pool("team", POLICY)
            print(f"after a restart: {budget.remaining(nothing).tokens:,} tokens left")
            try:
                budget.reserve(
                    nothing, UsageEstimate(total_tokens=9_000), RequestBudget.unlimited()
                )
            except ThresholdExceededError as denied:
                print(
                    f"denied: {denied.requested_tokens:,} asked, {denied.remaining_tokens:,} left"
                )


if __name__ == "__main__":
    main()
