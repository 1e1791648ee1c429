"""Count calls: a third axis beside tokens and cost.

Install: `pip install .`

Prints:

    3 requests are left
    2 open and 1 done: 0 requests are left
    the fourth is denied: 0 requests remain
    one is released: 1 request is left
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

CALL = RequestExtensions()


def main() -> None:
    """Use up a pool that admits three calls."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        budget = book.pool("trial", SharedPoolBudgetOptions(capacity_requests=3))

        def left() -> int:
            return budget.remaining(CALL).requests

        print(f"{left()} requests are left")
        leases = [
            budget.reserve(CALL, UsageEstimate.zero(), RequestBudget.unlimited()) for _ in range(3)
        ]
        budget.record_used(leases[0], Usage(total_tokens=1_200))
        print(f"2 open and 1 done: {left()} requests are left")
        try:
            budget.reserve(CALL, UsageEstimate.zero(), RequestBudget.unlimited())
        except ThresholdExceededError as denied:
            print(f"the fourth is denied: {denied.remaining_requests} requests remain")
        budget.release(leases[1])
        print(f"one is released: {left()} request is left")


if __name__ == "__main__":
    main()
