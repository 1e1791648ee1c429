"""Wait for capacity instead of failing at once, first come, first served.

Install: `pip install .`

Prints:

    the pool is empty: ThresholdExceededError
    after a quarter of a second: ThresholdExceededError
    large: 600 tokens
    small: 100 tokens
    300 tokens left
"""

import asyncio
import tempfile
from pathlib import Path

from ledger import (
    AsyncLedger,
    AsyncLedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UsageEstimate,
)

CALL = RequestExtensions()
UNLIMITED = RequestBudget.unlimited()


async def hold(budget: AsyncLedgerBudgetManager, name: str, tokens: int) -> None:
    """Wait for tokens, at most ten seconds, and say that they are there."""
    estimate = UsageEstimate(total_tokens=tokens)
    await budget.reserve(CALL, estimate, UNLIMITED, wait_s=10)
    print(f"{name}: {tokens} tokens")


async def main() -> None:
    """Let two tasks wait until a third one ends its lease."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncLedger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book:
            budget = await book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
            lease = await budget.reserve(CALL, UsageEstimate(total_tokens=1_000), UNLIMITED)
            for words, wait_s in (
                ("the pool is empty", 0),
                ("after a quarter of a second", 0.25),
            ):
                try:
                    await budget.reserve(
                        CALL, UsageEstimate(total_tokens=1), UNLIMITED, wait_s=wait_s
                    )
                except ThresholdExceededError as denied:
                    print(f"{words}: {type(denied).__name__}")
            large = asyncio.create_task(hold(budget, "large", 600))
            await asyncio.sleep(0)  # it stands in line before the small one
            small = asyncio.create_task(hold(budget, "small", 100))
            await budget.release(lease)
            await asyncio.gather(large, small)
            print((await budget.remaining(CALL)).tokens, "tokens left")


if __name__ == "__main__":
    asyncio.run(main())
