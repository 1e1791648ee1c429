"""A worker dies: its lease expires and is charged, until usage that comes late takes its place.

Install: `pip install .`

Prints:

    the worker holds 600 tokens, 400 are left
    renewed for 10 minutes; after 6 minutes 400 are left
    after 11 minutes 400 are left: the call may have been made
    late usage recorded: 700 are left
      2 reservation
      3 renewal
      4 expiry       EXPIRED AT_EXPIRY
      5 correction   LATE AT_EXPIRY
      6 settlement   LATE AT_EXPIRY
    settled twice: UnknownLeaseError
"""

import tempfile
from datetime import timedelta
from pathlib import Path

from ledger import (
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)

CALL = RequestExtensions()
MINUTE_US = 60_000_000


def main() -> None:
    """Reserve, let the time pass, and settle too late."""
    now = [1_700_000_000_000_000]  # a program leaves the clock to the ledger
    policy = SharedPoolBudgetOptions(capacity_tokens=1_000, lease_ttl=timedelta(minutes=5))
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}", clock=lambda: now[0]) as book,
    ):
        budget = book.pool("team", policy)

        def left() -> str:
            book.expire_due()  # every write to the pool does so, too
            return f"{budget.remaining(CALL).tokens:,}"

        estimate = UsageEstimate(total_tokens=600)
        lease = budget.reserve(CALL, estimate, RequestBudget.unlimited())
        print(f"the worker holds 600 tokens, {left()} are left")
        budget.renew(lease, timedelta(minutes=10))
        now[0] += 6 * MINUTE_US
        print(f"renewed for 10 minutes; after 6 minutes {left()} are left")
        now[0] += 5 * MINUTE_US
        print(f"after 11 minutes {left()} are left: the call may have been made")
        budget.record_used(lease, Usage(total_tokens=300))
        print(f"late usage recorded: {left()} are left")
        for entry in book.entries("team", after=1):
            said = " ".join(str(flag.name) for flag in entry.flags)
            print(f"{entry.seq:>3} {entry.kind:<12} {said}".rstrip())
        try:
            budget.record_used(lease, Usage(total_tokens=300))
        except UnknownLeaseError as error:
            print(f"settled twice: {type(error).__name__}")


if __name__ == "__main__":
    main()
