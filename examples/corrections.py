"""A provider's invoice says otherwise: the difference is appended, and the books show both.

Install: `pip install .`

Prints:

    recorded   1,200 tokens, 0.003600 USD
    corrected by -200 tokens and -0.000600 USD
    the entry says now 1,000 tokens
      3 settlement  +1,200  committed 1,200
      4 correction    -200  committed 1,000  (invoice 2024-07, line 3)
    statement: settlement +1,200, correction -200, closing 1,000
    the books verify: True
"""

import tempfile

from ledger import (
    EntryKind,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.reports.render import usd


def main() -> None:
    """Record a call, correct it by the invoice, and look at what the books say."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db") as book,
    ):
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=10_000))
        estimate = UsageEstimate(total_tokens=1_500, cost_micros_usd=4_500)
        lease = budget.reserve(RequestExtensions(), estimate, RequestBudget.unlimited())
        budget.record_used(lease, Usage(total_tokens=1_200, cost_micros_usd=3_600))
        (settlement,) = book.entries("team", kind=EntryKind.SETTLEMENT)
        print("recorded   1,200 tokens, 0.003600 USD")

        # All of what it really was; the key makes a repeated import of the invoice harmless.
        really = Usage(total_tokens=1_000, cost_micros_usd=3_000)
        reason, key = "invoice 2024-07, line 3", "invoice-2024-07-3"
        for _ in range(2):
            moved = budget.correct(settlement, really, reason, idempotency_key=key)
        print(f"corrected by {moved.total_tokens:,} tokens and {usd(moved.cost_micros_usd)} USD")
        print(f"the entry says now {budget.usage_of(settlement).total_tokens:,} tokens")

        for entry in book.entries("team", after=lease.id):
            committed = entry.balance.committed.tokens
            why = f"  ({entry.detail['reason']})" if "reason" in entry.detail else ""
            amount = 0 if entry.usage is None else entry.usage.total_tokens
            print(f"{entry.seq:>3} {entry.kind}  {amount:>+6,}  committed {committed:,}{why}")
        found = reports.statement(book, "team")
        moves = [f"{one.kind} {one.committed.tokens:+,}" for one in found.movements[2:]]
        print(f"statement: {', '.join(moves)}, closing {found.closing.committed.tokens:,}")
        print(f"the books verify: {book.verify('team')[0].ok}")


if __name__ == "__main__":
    main()
