"""Worker processes that share a budget: they take jobs until it is spent, and lose none.

Install: `pip install '.[prices]' httpx`

Prints:

    2 workers, 8 jobs: 5 done, 3 left until the budget comes back
    paid for once: each job that was done, and no other: True
    spent 20,150 of 22,000 micro-USD, 0 held, the books verify: True
"""

import functools
import multiprocessing
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx

from ledger import (
    Attribution,
    EntryKind,
    Ledger,
    Period,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Window,
)
from ledger.transport import attributed, budgeted, denial_of

DAILY = SharedPoolBudgetOptions(
    capacity_cost_micros_usd=22_000,
    window=Window(period=Period.DAY),
    lease_ttl=timedelta(minutes=10),  # if a worker dies, its call is charged then
)
ANSWER = {
    "id": "chatcmpl-1",
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Done."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 400, "total_tokens": 412},
}


@functools.cache
def client_of(store_url: str) -> httpx.Client:
    """Return the client of this process: each opens the store once, for all of its jobs."""
    pool = Ledger.open(store_url).pool("jobs")
    provider = httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))
    client = httpx.Client(base_url="https://api.openai.com/v1", transport=provider)
    return budgeted(client, pool=pool)


def work(store_url: str, job: str) -> bool:
    """Do a job, and tell whether it is done: one that the budget refuses stays in the queue."""
    request = {
        "model": "gpt-4o",
        "max_tokens": 400,
        "messages": [{"role": "user", "content": f"Summarise {job}."}],
    }
    with attributed(Attribution(run_id=job)):
        answer = client_of(store_url).post("/chat/completions", json=request)
    if isinstance(denial_of(answer), ThresholdExceededError):
        return False
    answer.raise_for_status()
    return True


def run(store_url: str, jobs: Iterable[str]) -> dict[str, bool]:
    """Have jobs done by processes of their own, and return which ones are."""
    jobs = list(jobs)
    # Not forked: a child would inherit the connections of its parent.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as workers:
        done = workers.map(functools.partial(work, store_url), jobs)
        return dict(zip(jobs, done, strict=True))


def main() -> None:
    """Give two workers more jobs than the budget pays for."""
    with tempfile.TemporaryDirectory() as folder:
        store_url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with Ledger.open(store_url) as book:
            pool = book.pool("jobs", DAILY)
            done = run(store_url, [f"report {number}" for number in range(1, 9)])
            finished = [job for job, is_done in done.items() if is_done]
            print(
                f"2 workers, {len(done)} jobs: {len(finished)} done, "
                f"{len(done) - len(finished)} left until the budget comes back"
            )
            paid = [
                entry.attribution.run_id
                for entry in book.entries("jobs")
                if entry.kind == EntryKind.SETTLEMENT and entry.attribution
            ]
            print(
                f"paid for once: each job that was done, and no other: {sorted(paid) == finished}"
            )
            committed, reserved = pool.status().balance
            print(
                f"spent {committed.cost_micros_usd:,} of {DAILY.capacity_cost_micros_usd:,} "
                f"micro-USD, {reserved.cost_micros_usd} held, the books verify: "
                f"{book.verify()[0].ok}"
            )


if __name__ == "__main__":
    main()
