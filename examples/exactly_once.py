"""A call that is retried is counted once.

Install: `pip install .`

Prints:

    first try:  lease 2
    second try: lease 2
    recorded twice, committed 120 tokens
    another call under the same key: IdempotencyConflictError
"""

import tempfile
from pathlib import Path

from ledger import (
    IdempotencyConflictError,
    IdempotencyKey,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)


def main() -> None:
    """Repeat a reservation and its settlement, as a program does that lost the first answer."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=10_000))
        call = RequestExtensions(IdempotencyKey("order-42"))
        estimate = UsageEstimate(total_tokens=400)
        for name in ("first try: ", "second try:"):
            lease = budget.reserve(call, estimate, RequestBudget.unlimited())
            print(f"{name} lease {lease.id}")
        report = UsageReport(idempotency_key="order-42:used")
        for _ in range(2):
            budget.record_used(lease, Usage(total_tokens=120), report=report)
        committed = budget.status().balance.committed.tokens
        print(f"recorded twice, committed {committed:,} tokens")
        try:
            budget.reserve(call, UsageEstimate(total_tokens=7), RequestBudget.unlimited())
        except IdempotencyConflictError as conflict:
            print(f"another call under the same key: {type(conflict).__name__}")


if __name__ == "__main__":
    main()
