"""The books as one page that needs no network, and a picture of a pool.

Install: `pip install '.[html]'`

Prints:

    spent 0.054000 USD in 3 days, 0.046000 left
    by day: ▄▆█
    page.html: one page, 4 pictures
    team.svg: the burn-down of the pool
"""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ledger import (
    Attribution,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.reports import charts, page, render

MONDAY = datetime(2024, 2, 26, 9, tzinfo=UTC)


def main() -> None:
    """Spend for three days, then write a page and a picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Ledger.open(f"sqlite:///{folder}/ledger.db") as book:
            budget = book.pool("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=100_000))
            for day in (1, 2, 3):
                who = RequestExtensions(
                    Attribution(run_id=f"night {day}", model="gpt-5"),
                    OccurredAt(MONDAY + timedelta(days=day)),
                )
                estimate = UsageEstimate(total_tokens=1_000 * day, cost_micros_usd=10_000 * day)
                lease = budget.reserve(who, estimate, RequestBudget.unlimited())
                budget.record_used(
                    lease, Usage(total_tokens=900 * day, cost_micros_usd=9_000 * day)
                )

            spent = reports.spend(book, by=["day"])
            left = budget.remaining(RequestExtensions()).cost_micros_usd
            total = render.usd(spent.total.cost_micros_usd)
            print(f"spent {total} USD in {len(spent.rows)} days, {render.usd(left)} left")
            print("by day:", render.sparkline([row.cost_micros_usd for row in spent.rows]))

            document = page.whole_page(reports.overview(book))
            page.write_page(document, folder / "page.html")
            drawn = sum(len(section.pictures) for section in document.sections)
            print(f"page.html: one page, {drawn} pictures")

            (picture,) = charts.burn_down_pictures(reports.burn_down(book, "team")).values()
            picture.save(folder / "team.svg")
            print("team.svg: the burn-down of the pool")


if __name__ == "__main__":
    main()
