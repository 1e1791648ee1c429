"""An organisation, its teams, and a machine with a budget of its own, served by one manager.

Install: `pip install .`

Prints:

    research asks for 80,000: pool 'org' cannot grant it, 60,000 remain
    left: org 60,000, search 50,000, research 60,000
    worker-1 is carved out of research: org 30,000, research 30,000
    worker-1 spends 12,000 and touches nobody: org 30,000
    closed, its rest flows back: org 48,000, research 48,000
    org committed 52,000 = search 40,000 + research 12,000
    all books agree: True
"""

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
)

UNLIMITED = RequestBudget.unlimited()


def limit(tokens: int) -> SharedPoolBudgetOptions:
    """Return a policy of so many tokens."""
    return SharedPoolBudgetOptions(capacity_tokens=tokens)


def of(tenant: str) -> RequestExtensions:
    """Return what a request of a tenant carries."""
    return RequestExtensions(Attribution(tenant=tenant))


def by_tenant(request: RequestExtensions) -> str:
    """Choose the pool that pays for a request."""
    who = request.get(Attribution)
    return (who and who.tenant) or "org"


def main() -> None:
    """Spend below, and look at what it comes to above."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        book.pool("org", limit(100_000))
        for team in ("search", "research"):
            book.pool(team, limit(90_000), parent="org")
        router = book.router(by_tenant)

        def left(*names: str) -> str:
            return ", ".join(f"{name} {router.remaining(of(name)).tokens:,}" for name in names)

        def spend(tenant: str, tokens: int) -> None:
            estimate = UsageEstimate(total_tokens=tokens)
            lease = router.reserve(of(tenant), estimate, UNLIMITED)
            router.record_used(lease, Usage(total_tokens=tokens))

        spend("search", 40_000)
        try:
            spend("research", 80_000)
        except ThresholdExceededError as denied:
            print(
                f"research asks for 80,000: pool {denied.pool!r} cannot grant it, "
                f"{denied.remaining_tokens:,} remain"
            )
        print(f"left: {left('org', 'search', 'research')}")

        # One machine gets a share of its own: its calls never touch the rows of the others.
        book.pool("worker-1", limit(30_000), parent="research", carved=True)
        print(f"worker-1 is carved out of research: {left('org', 'research')}")
        spend("worker-1", 12_000)
        print(f"worker-1 spends 12,000 and touches nobody: {left('org')}")
        book.close_pool("worker-1", reason="the job is done")
        print(f"closed, its rest flows back: {left('org', 'research')}")

        spent = {
            name: book.pool(name).status().balance.committed.tokens
            for name in ("org", "search", "research")
        }
        print(
            f"org committed {spent['org']:,} = search {spent['search']:,} "
            f"+ research {spent['research']:,}"
        )
        print(f"all books agree: {all(found.ok for found in book.verify())}")


if __name__ == "__main__":
    main()
