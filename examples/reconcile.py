"""A provider's bill is held against the books, and what differs is corrected exactly once.

Install: `pip install .`

Prints:

    before: 3 lines billed, difference +70 tokens, +0.000190 USD
      matched       req_1  tokens   +0  USD 0.000000
      differing     req_2  tokens  +20  USD 0.000200
      billed_only   req_4  tokens  +75  USD 0.000100
      recorded_only req_3  tokens  -25  USD -0.000110
    corrections: 1, because billed: usage.csv, line 3
    applied again: 0 more
    after: difference +50 tokens, -0.000010 USD
    the books verify: True
"""

import tempfile
from pathlib import Path

from ledger import (
    Attribution,
    EntryKind,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    from_micros,
)
from ledger.reconcile import READY, apply, read_bill, reconcile
from ledger.reports.render import usd

NOON_US = 1_709_208_000_000_000  # 2024-02-29, 12:00 in UTC

BILL = """request_id,at,model,total_tokens,cost_usd
req_1,2024-02-29T12:00:01Z,gpt-5,1200,0.0045
req_2,2024-02-29T12:00:02Z,gpt-5,920,0.0032
req_4,2024-02-29T12:00:04Z,gpt-5,75,0.0001
"""


def spend(book: Ledger, request_id: str, tokens: int, cost_micros_usd: int) -> None:
    """Make a call that a provider answered under its own request id."""
    budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=10_000))
    call = RequestExtensions(Attribution(model="gpt-5", request_id=request_id))
    call.insert(OccurredAt(from_micros(NOON_US)))
    lease = budget.reserve(call, UsageEstimate(total_tokens=1_500), RequestBudget.unlimited())
    budget.record_used(lease, Usage(total_tokens=tokens, cost_micros_usd=cost_micros_usd))


def main() -> None:
    """Record three calls, reconcile a bill with them, and apply it twice."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db") as book,
    ):
        for call in (("req_1", 1_200, 4_500), ("req_2", 900, 3_000), ("req_3", 25, 110)):
            spend(book, *call)
        path = Path(folder) / "usage.csv"
        path.write_text(BILL, encoding="utf-8")

        bill = read_bill(path, READY["generic"])
        found = reconcile(book, bill)
        tokens, cost = found.difference.total_tokens or 0, found.difference.cost_micros_usd or 0
        print(f"before: {found.lines} lines billed, difference {tokens:+} tokens, +{usd(cost)} USD")
        for match in found.matches:
            tokens = match.difference.total_tokens or 0
            cost = match.difference.cost_micros_usd or 0
            print(f"  {match.status:13} {match.request_id}  tokens {tokens:>+4}  USD {usd(cost)}")

        apply(book, found)
        made = list(book.entries("team", kind=EntryKind.CORRECTION))
        reason = str(made[0].detail["reason"]).replace(f" SHA-256 {bill.sha256},", "")
        print(f"corrections: {len(made)}, because {reason}")
        apply(book, reconcile(book, bill))
        again = len(list(book.entries("team", kind=EntryKind.CORRECTION)))
        print(f"applied again: {again - len(made)} more")

        after = reconcile(book, bill).difference
        tokens, cost = after.total_tokens or 0, after.cost_micros_usd or 0
        print(f"after: difference {tokens:+} tokens, {usd(cost)} USD")
        print(f"the books verify: {book.verify('team')[0].ok}")


if __name__ == "__main__":
    main()
