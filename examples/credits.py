"""A prepaid budget: credits that expire, used in an order, and topped up when they run out.

Install: `pip install .`

Prints:

    before the first payment   0.00 USD remain
    paid, and a promotion     60.00 USD remain until 1 Aug
    after 8 USD of calls      52.00 USD remain until 1 Aug
    on 1 Aug                  50.00 USD remain
    a call of 51 USD is refused: give a credit of 1.00 USD; 'welcome' expired with a rest
    an invoice gives back 6 USD of the first call: 50.00 USD remain, 'welcome' has expired
    a call that cost 52 USD    0.00 USD remain, and 2.00 USD are owed
    a top-up of 20 USD        18.00 USD remain
    credit     given     used    left    lost
    welcome    10.00     2.00    0.00    8.00
    paid       50.00    50.00    0.00    0.00
    top-up     20.00     2.00   18.00    0.00
    the books verify: True
"""

import tempfile
from datetime import UTC, datetime

from ledger import (
    Credit,
    EntryKind,
    Ledger,
    LedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    from_micros,
    reports,
    usd,
)

CALL, UNLIMITED = RequestExtensions(), RequestBudget.unlimited()
JULY, AUGUST = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)
NOW = [JULY]


def dollars(micros: int) -> str:
    """Return millionths of a dollar in dollars."""
    return f"{micros / 1_000_000:.2f}"


def tell(what: str, budget: LedgerBudgetManager) -> None:
    """Print what remains, and until when."""
    status = budget.status()
    more = "" if status.until is None else f" until {from_micros(status.until):%-d %b}"
    if status.debt.cost_micros_usd:
        more += f", and {dollars(status.debt.cost_micros_usd)} USD are owed"
    print(f"{what:<25}{dollars(status.remaining.cost_micros_usd):>6} USD remain{more}")


def spend(budget: LedgerBudgetManager, estimate: int, used: int) -> None:
    """Reserve an estimate and record what the call cost."""
    lease = budget.reserve(CALL, UsageEstimate(cost_micros_usd=estimate), UNLIMITED)
    budget.record_used(lease, Usage(cost_micros_usd=used))


def main() -> None:
    """Pay, spend, let a credit expire, overspend, and top up."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(
            f"sqlite:///{folder}/ledger.db", clock=lambda: int(NOW[0].timestamp()) * 1_000_000
        ) as book,
    ):
        budget = book.pool("team", SharedPoolBudgetOptions(prepaid=["cost_micros_usd"]))
        tell("before the first payment", budget)
        # A key makes a payment count once, however often its notice comes.
        paid = Credit(name="paid", cost_micros_usd=usd(50))
        book.credit("team", paid, idempotency_key="invoice 17")
        welcome = Credit(name="welcome", cost_micros_usd=usd(10), expires_at=AUGUST)
        book.credit("team", welcome, reason="promotion")
        tell("paid, and a promotion", budget)

        spend(budget, usd(8), usd(8))  # paid from what expires first
        tell("after 8 USD of calls", budget)
        NOW[0] = AUGUST
        tell("on 1 Aug", budget)
        try:
            budget.reserve(CALL, UsageEstimate(cost_micros_usd=usd(51)), UNLIMITED)
        except ThresholdExceededError as refused:
            short = dollars((refused.top_up or {})["cost_micros_usd"])
            print(
                f"a call of 51 USD is refused: give a credit of {short} USD; "
                f"{refused.expired!r} expired with a rest"
            )

        # The refund goes back to the credit that paid, and is lost with it.
        (first,) = book.entries("team", kind=EntryKind.SETTLEMENT)
        budget.correct(first, Usage(cost_micros_usd=usd(2)), "invoice of July")
        left = dollars(budget.remaining(CALL).cost_micros_usd)
        print(
            f"an invoice gives back 6 USD of the first call: {left} USD remain, "
            "'welcome' has expired"
        )

        spend(budget, usd(50), usd(52))  # real spend is recorded, whatever it is
        tell("a call that cost 52 USD", budget)
        book.credit("team", Credit(name="top-up", cost_micros_usd=usd(20)))
        tell("a top-up of 20 USD", budget)
        print("credit     given     used    left    lost")
        for one in sorted(reports.credits(book, "team"), key=lambda one: one.name != "welcome"):
            amounts = (one.granted, one.used, one.left, one.lost)
            given, used, rest, lost = (dollars(each.cost_micros_usd) for each in amounts)
            print(f"{one.name:<8}{given:>8}{used:>9}{rest:>8}{lost:>8}")
        print(f"the books verify: {book.verify('team')[0].ok}")


if __name__ == "__main__":
    main()
