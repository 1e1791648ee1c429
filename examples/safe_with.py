"""A lease in a `with` block is ended whatever happens in it.

Install: `pip install .`

Prints:

    recorded: 120 tokens committed
    an error came through: the provider hung up
    not recorded, so the estimate counts: 520 tokens committed, estimated
    a pool that releases instead: 0 tokens committed
"""

import tempfile
from pathlib import Path

from ledger import (
    Attribution,
    EntryKind,
    Ledger,
    LedgerBudgetManager,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)

ESTIMATE = UsageEstimate(total_tokens=400)


def call_model() -> None:
    """Do what does not work today."""
    raise ConnectionError("the provider hung up")


def fail(budget: LedgerBudgetManager) -> str:
    """Leave a block by an exception, and return what it said."""
    try:
        with budget.lease(ESTIMATE):
            call_model()
    except ConnectionError as error:
        return str(error)


def main() -> None:
    """Record, fail, and look at what was committed."""
    policy = SharedPoolBudgetOptions(capacity_tokens=10_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        budget = book.pool("team", policy)

        def committed(of: LedgerBudgetManager) -> str:
            return f"{of.status().balance.committed.tokens:,} tokens committed"

        with budget.lease(ESTIMATE, attribution=Attribution(run_id="nightly")) as lease:
            lease.record(Usage(total_tokens=120))
        print(f"recorded: {committed(budget)}")

        print(f"an error came through: {fail(budget)}")
        *_, last = book.entries("team", kind=EntryKind.SETTLEMENT)
        print(f"not recorded, so the estimate counts: {committed(budget)}, {last.provenance}")

        lenient = SharedPoolBudgetOptions(settlement=SettlementPolicy.RELEASE)
        releasing = book.pool("lenient", lenient)
        fail(releasing)
        print(f"a pool that releases instead: {committed(releasing)}")


if __name__ == "__main__":
    main()
