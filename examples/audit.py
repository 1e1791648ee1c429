"""Who spent what, what was refused, and the proof that no row was changed.

Install: `pip install .`

Prints:

    alice  1 request   900 tokens
    bob    1 request   300 tokens
    bob was denied 5,000 tokens when 3,800 were left
      1 opening      committed     0  held     0
      2 reservation  committed     0  held 1,000
      3 settlement   committed   900  held     0
      4 reservation  committed   900  held   500
      5 settlement   committed 1,200  held     0
      6 denial       committed 1,200  held     0
    6 entries verified: ok
    after tampering: entry 3: its hash does not match: the entry, or one before it, was changed
"""

import contextlib
import sqlite3
import tempfile
from pathlib import Path

from ledger import (
    Attribution,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    reports,
)


def main() -> None:
    """Spend as two people, look at the books, then change a row behind their back."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.db"
        with Ledger.open(f"sqlite:///{file}", record_denials=True) as book:
            budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=5_000))
            for run, estimated, used in (("alice", 1_000, 900), ("bob", 500, 300)):
                who = RequestExtensions(Attribution(run_id=run))
                lease = budget.reserve(
                    who, UsageEstimate(total_tokens=estimated), RequestBudget.unlimited()
                )
                budget.record_used(lease, Usage(total_tokens=used))
            # The denial is kept as an entry, because the store was opened with record_denials.
            with contextlib.suppress(ThresholdExceededError):
                budget.reserve(who, UsageEstimate(total_tokens=5_000), RequestBudget.unlimited())

            for cost in reports.runs(book):
                print(f"{cost.run_id:<6} {cost.requests} request {cost.total_tokens:>5,} tokens")
            for denied in reports.denials(book, "team"):
                print(
                    f"{denied.run_id} was denied {denied.requested_tokens:,} tokens "
                    f"when {denied.remaining_tokens:,} were left"
                )
            for entry in book.entries("team"):
                committed, held = entry.balance.committed.tokens, entry.balance.reserved.tokens
                print(f"{entry.seq:>3} {entry.kind:<12} committed {committed:>5,}  held {held:>5,}")
            (found,) = book.verify("team")
            print(f"{found.entries} entries verified: {'ok' if found.ok else found.damage}")

            with sqlite3.connect(file) as thief:
                thief.execute("DROP TRIGGER entries_no_update")
                thief.execute("UPDATE entries SET usage_total_tokens = 9 WHERE seq = 3")
            thief.close()
            (found,) = book.verify("team")
            if found.damage is not None:
                print(f"after tampering: entry {found.damage.seq}: {found.damage.reason}")


if __name__ == "__main__":
    main()
