"""Take entries out of the books, and show later that the file says what the journal says.

Install: `pip install .`

Prints:

    5 rows, up to entry 5
    0.004800 US dollars for nightly-1
    0.001200 US dollars for nightly-2
    every cell holds: True
    row 3, entry 3: usage_usd is '0.000001' in the file, and '0.004800' in the journal
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from ledger import (
    Attribution,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    exports,
)


def main() -> None:
    """Spend a little, export it, hold the file against the journal, and meddle with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "team.csv"
        with Ledger.open(f"sqlite:///{folder}/ledger.db") as book:
            budget = book.pool("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=50_000_000))
            for run, cost in (("nightly-1", 4_800), ("nightly-2", 1_200)):
                call = RequestExtensions(Attribution(run_id=run, model="gpt-5"))
                estimate = UsageEstimate(total_tokens=1_400, cost_micros_usd=9_000)
                lease = budget.reserve(call, estimate, RequestBudget.unlimited())
                budget.record_used(lease, Usage(total_tokens=1_120, cost_micros_usd=cost))

            done = exports.write(book, "team", path)
            print(f"{done.rows} rows, up to entry {done.up_to['team']}")
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if row["usage_usd"]:
                        print(f"{row['usage_usd']} US dollars for {row['run_id']}")

            print(f"every cell holds: {exports.verify(book, path, 'team').ok}")
            path.write_bytes(path.read_bytes().replace(b",0.004800,", b",0.000001,", 1))
            found = exports.verify(book, path, "team").difference
            if found is not None:
                print(f"row {found.row}, entry {found.seq}: {found.reason}")


if __name__ == "__main__":
    main()
