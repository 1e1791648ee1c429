"""Sixteen threads share one pool and ask for twice what it holds: none can overspend it.

Install: `pip install .`

Prints:

    granted 50 calls of 100, denied 50
    committed 5,000 of 5,000 tokens
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
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


def main() -> None:
    """Let the threads compete, and count."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=5_000))

        def call(_number: int) -> bool:
            estimate = UsageEstimate(total_tokens=100)
            try:
                lease = budget.reserve(RequestExtensions(), estimate, RequestBudget.unlimited())
            except ThresholdExceededError:
                return False
            budget.record_used(lease, Usage.from_estimate(estimate))
            return True

        with ThreadPoolExecutor(16) as threads:
            granted = list(threads.map(call, range(100)))
        status = budget.status()
        print(f"granted {sum(granted)} calls of {len(granted)}, denied {granted.count(False)}")
        committed = status.balance.committed.tokens
        print(f"committed {committed:,} of {status.policy.capacity_tokens:,} tokens")


if __name__ == "__main__":
    main()
