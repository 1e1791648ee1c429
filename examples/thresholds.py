"""Be told before a budget runs out, and stop a strict pool at its reserve.

Install: `pip install .`

Prints:

    soft: half (50 %) reached, 400 tokens left
    soft: warning (80 %) reached, 100 tokens left
    soft: warning (80 %) left, 350 tokens left
    the journal: half reached, warning reached, warning left
    strict: 200 tokens left are kept back, and nothing is admitted: ThresholdExceededError
"""

import tempfile
from pathlib import Path

from ledger import (
    EntryKind,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdCrossing,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)

CALL = RequestExtensions()
UNLIMITED = RequestBudget.unlimited()
SOFT = SharedPoolBudgetOptions(capacity_tokens=1_000, thresholds={"half": 50, "warning": 80})
STRICT = SharedPoolBudgetOptions(capacity_tokens=1_000, stop_threshold_tokens=200, strict=True)


def tell(crossing: ThresholdCrossing) -> None:
    """Tell whoever must know: here anybody who reads along."""
    print(
        f"{crossing.pool}: {crossing.threshold} ({crossing.percent} %) {crossing.direction}, "
        f"{crossing.remaining.tokens} tokens left"
    )


def main() -> None:
    """Spend most of a pool whose thresholds report, then all that a strict pool gives."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with Ledger.open(url, on_threshold=tell) as book:  # closing waits for the last call of it
            budget = book.pool("soft", SOFT)
            budget.reserve(CALL, UsageEstimate(total_tokens=600), UNLIMITED)
            lease = budget.reserve(CALL, UsageEstimate(total_tokens=300), UNLIMITED)
            budget.record_used(lease, Usage(total_tokens=50))
        with Ledger.open(url) as book:
            reports = [
                entry.detail["threshold"]
                for entry in book.entries("soft", kind=EntryKind.THRESHOLD)
            ]
            print("the journal:", ", ".join(f"{one['name']} {one['direction']}" for one in reports))
            budget = book.pool("strict", STRICT)
            budget.reserve(CALL, UsageEstimate(total_tokens=800), UNLIMITED)
            left = budget.remaining(CALL).tokens
            try:
                budget.reserve(CALL, UsageEstimate(), UNLIMITED)
            except ThresholdExceededError as denied:
                print(
                    f"strict: {left} tokens left are kept back, and nothing is admitted: "
                    f"{type(denied).__name__}"
                )


if __name__ == "__main__":
    main()
