"""A capacity that comes back every day, in a time zone; what is left is carried over, up to a cap.

Install: `pip install .`

Prints:

    Sat 28 Mar 12:00  remaining 10,000
    Sat 28 Mar 18:00  remaining  3,000
    Sun 29 Mar 00:00  remaining 12,000  (23 hours long, 2,000 carried over)
    Thu 02 Apr 09:00  remaining  8,000  (24 hours long, 2,000 carried over)
    Thu 02 Apr 09:00  remaining  9,000  (24 hours long, 2,000 carried over)
      1 opening     committed      0
      2 reservation committed      0
      3 settlement  committed  7,000
      4 rollover    committed  7,000
      5 reservation committed  7,000
      6 rollover    committed  7,000
      7 settlement  committed 10,000
    the books verify: True
"""

import tempfile
from datetime import datetime
from zoneinfo import ZoneInfo

from ledger import (
    Ledger,
    LedgerBudgetManager,
    Period,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
)

BERLIN = ZoneInfo("Europe/Berlin")
DAYS = Window(period=Period.DAY, time_zone="Europe/Berlin", carry_over=True, carry_cap_tokens=2_000)
CALL, UNLIMITED = RequestExtensions(), RequestBudget.unlimited()


class Clock:
    """A clock to be set, so that this program need not wait; without one, the store's counts."""

    def set(self, day: int, hour: int, *, month: int = 3) -> None:
        """Set it, by the clocks on the walls of Berlin."""
        self.now = datetime(2026, month, day, hour, tzinfo=BERLIN)

    def __call__(self) -> int:
        """Return the time in microseconds since 1970."""
        return int(self.now.timestamp()) * 1_000_000


def tell(budget: LedgerBudgetManager, clock: Clock) -> None:
    """Print what remains now, and what the window is like."""
    status = budget.status()
    line = f"{clock.now:%a %d %b %H:%M}  remaining {status.remaining.tokens:>6,}"
    window = status.window
    if window and window.carried.tokens:
        hours = (window.end - window.start) // 3_600_000_000
        line += f"  ({hours} hours long, {window.carried.tokens:,} carried over)"
    print(line)


def main() -> None:
    """Spend on one day, hold over a boundary, stay silent for days, and settle."""
    clock = Clock()
    clock.set(28, 12)
    options = SharedPoolBudgetOptions(capacity_tokens=10_000, window=DAYS)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db", clock=clock) as book,
    ):
        budget = book.pool("team", options)
        tell(budget, clock)
        lease = budget.reserve(CALL, UsageEstimate(total_tokens=8_000), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=7_000))
        clock.set(28, 18)
        tell(budget, clock)

        # Midnight: the first write begins the window. A lease may stay open over the next ones.
        clock.set(29, 0)
        tell(budget, clock)
        lease = budget.reserve(CALL, UsageEstimate(total_tokens=4_000), UNLIMITED)
        clock.set(2, 9, month=4)
        tell(budget, clock)
        budget.record_used(lease, Usage(total_tokens=3_000))
        tell(budget, clock)
        for entry in book.entries("team"):
            print(f"{entry.seq:>3} {entry.kind:<11} committed {entry.balance.committed.tokens:>6,}")
        print(f"the books verify: {book.verify('team')[0].ok}")


if __name__ == "__main__":
    main()
