"""An agent that hands work to others: each has a pool of its own, below the pool of the run.

Install: `pip install '.[prices]' openai`

Prints:

    research: 2 calls, then over its budget: pool 'run 7 / research'
    review: 1 call
    the answer is made of what there is: 1 call
    run 7            16,120 of 20,000 micro-USD, with all below it
      research        8,060 of 10,000
      review          4,030 of  5,000
    run 7: 4,030 of its own, 16,120 with all below it
      run 7 / research: 8,060 of its own, 8,060 with all below it
      run 7 / review: 4,030 of its own, 4,030 with all below it
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from openai import APIStatusError, OpenAI

from ledger import Attribution, Ledger, RequestExtensions, SharedPoolBudgetOptions, reports
from ledger.transport import attributed, budgeted, denial_of

ANSWER = {
    "id": "chatcmpl-1",
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Done."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 400, "total_tokens": 412},
}
RUN = "run 7"


def dollars(micros_usd: int) -> SharedPoolBudgetOptions:
    """Return a policy of so many millionths of a dollar."""
    return SharedPoolBudgetOptions(capacity_cost_micros_usd=micros_usd)


def payer(call: RequestExtensions) -> str:
    """Choose the pool that pays for a call: a run has one of its name."""
    who = call.get(Attribution)
    return (who and who.run_id) or RUN


@contextmanager
def sub_agent(book: Ledger, name: str, micros_usd: int) -> Iterator[None]:
    """Run an agent below the run: the calls of the block are its own, and its pool pays."""
    run_id = f"{RUN} / {name}"
    book.pool(run_id, dollars(micros_usd), parent=RUN)
    with attributed(Attribution(run_id=run_id, parent_run_id=RUN, agent=name)):
        yield


def ask(client: OpenAI, what: str) -> None:
    """Make a call."""
    client.chat.completions.create(
        model="gpt-4o",
        max_completion_tokens=400,
        messages=[{"role": "user", "content": what}],
    )


def research(client: OpenAI) -> None:
    """Look things up as long as there is money for it."""
    calls = 0
    try:
        while True:
            ask(client, "Look something up.")
            calls += 1
    except APIStatusError as error:
        denied = denial_of(error)
        if denied is None:
            raise
        print(f"research: {calls} calls, then over its budget: pool {denied.pool!r}")


def main() -> None:
    """Run an agent and two others below it, and look at who spent what."""
    provider = httpx2.MockTransport(lambda _: httpx2.Response(200, json=ANSWER))
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
        OpenAI(api_key="none", http_client=httpx2.Client(transport=provider)) as client,
    ):
        book.pool(RUN, dollars(20_000))
        budgeted(client, pool=book.router(payer), run_id=RUN)
        with sub_agent(book, "research", 10_000):
            research(client)
        with sub_agent(book, "review", 5_000):
            ask(client, "Review it.")
        print("review: 1 call")
        ask(client, "Answer.")
        print("the answer is made of what there is: 1 call")
        tell(book)


def tell(book: Ledger) -> None:
    """Print what the pools and the runs came to."""
    run, *below = (
        (status.pool.name, status.spent.cost_micros_usd, status.policy.capacity_cost_micros_usd)
        for name in (RUN, f"{RUN} / research", f"{RUN} / review")
        for status in (book.pool(name).status(),)
    )
    print(f"{run[0]:<16} {run[1]:,} of {run[2]:,} micro-USD, with all below it")
    for name, spent, capacity in below:
        print(f"  {name.rpartition(' ')[2]:<14} {spent:>6,} of {capacity:>6,}")
    for row in reports.run_trees(book):
        own = 0 if row.own is None else row.own.cost_micros_usd
        print(
            f"{'  ' * row.depth}{row.run_id}: {own:,} of its own, "
            f"{row.with_subruns.cost_micros_usd:,} with all below it"
        )


if __name__ == "__main__":
    main()
