"""A program that shares a store with others; the tests start several of it at once.

It says `ready`, waits for a line, and only then does what its first argument names. Whatever the
store acknowledged goes into a log, a line at a time, by one write that survives SIGKILL.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count, islice
from pathlib import Path

from ledger import (
    Attribution,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)

POOL = "pool"
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=30_000, capacity_cost_micros_usd=70_000)
THREADS = 4
TIMEOUT_S = 60.0
ENDLESS = 0

Log = Callable[..., None]


def log_to(path: Path) -> Log:
    """Return a function that appends one line."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def log(*words: object) -> None:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())

    return log


def wait_for_the_others() -> None:
    """Tell that everything is imported, and wait for the start."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def hammer(
    budget: LedgerBudgetManager, log: Log, who: str, *, pairs: int, overruns: bool = False
) -> None:
    """Reserve and settle; leave every seventh lease open."""
    rng = random.Random(who)
    for number in islice(count(), pairs or None):
        request = f"{who}-{number}"
        estimate = UsageEstimate(
            total_tokens=rng.randint(1, 400), cost_micros_usd=rng.randint(1, 900)
        )
        extensions = RequestExtensions(Attribution(run_id=who, request_id=request))
        try:
            lease = budget.reserve(extensions, estimate, RequestBudget.unlimited())
        except ThresholdExceededError:
            log("denied", request, 0, 0, 0)
            continue
        log("reserved", request, lease.id, estimate.total_tokens, estimate.cost_micros_usd)
        if number % 7 == 6:
            continue
        most = 2 if overruns else 1
        usage = Usage(
            total_tokens=rng.randint(0, most * estimate.total_tokens),
            cost_micros_usd=rng.randint(0, most * estimate.cost_micros_usd),
        )
        budget.record_used(lease, usage)
        log("settled", request, lease.id, usage.total_tokens, usage.cost_micros_usd)


def hammer_in_threads(url: str, log: Log, who: str, pairs: int, overruns: int) -> None:
    """Hammer the pool from several threads on one ledger."""
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book, ThreadPoolExecutor(THREADS) as threads:
        budget = book.pool(POOL)
        wait_for_the_others()
        running = [
            threads.submit(
                hammer, budget, log, f"{who}-{thread}", pairs=pairs, overruns=bool(overruns)
            )
            for thread in range(THREADS)
        ]
        for each in running:
            each.result()


def hammer_a_tree(url: str, log: Log, who: str, pairs: int) -> None:
    """Hammer leaves of a tree, a carved pool, and the pools above, with leases that expire.

    What is spent is logged with the pool it was spent from; every fifth lease is left to expire,
    and every fourth of those is settled late.
    """
    rng = random.Random(who)
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book, ThreadPoolExecutor(THREADS) as threads:
        names = [info.name for info in book.pools()]
        wait_for_the_others()

        def work(thread: int) -> None:
            for number in islice(count(), pairs or None):
                pool = names[(thread + number + len(who)) % len(names)]
                spend_below(book.pool(pool), log, f"{who}-{thread}-{number}", rng.randint(0, 39))

        for each in [threads.submit(work, thread) for thread in range(THREADS)]:
            each.result()


def spend_below(budget: LedgerBudgetManager, log: Log, request: str, chance: int) -> None:
    """Reserve and settle in one pool of a tree; see `hammer_a_tree`."""
    estimate = UsageEstimate(total_tokens=20 + chance, cost_micros_usd=chance)
    leaves = chance % 5 == 0
    carried = [LeaseTtl(timedelta(milliseconds=1))] if leaves else []
    try:
        lease = budget.reserve(RequestExtensions(*carried), estimate, RequestBudget.unlimited())
    except ThresholdExceededError as denied:
        log("refused", request, denied.pool)
        return
    log("held", request, budget.name, lease.id)
    if leaves and chance % 4:
        return
    if leaves:
        time.sleep(0.005)
        budget._writer.sweep(budget._journal)
    half = Usage(total_tokens=chance // 2)
    budget.observe(lease, half)
    log("spent", request, budget.name, half.total_tokens)
    rest = Usage(total_tokens=chance, cost_micros_usd=chance)
    budget.record_used(lease, rest)
    log("spent", request, budget.name, rest.total_tokens)


def open_first(url: str, log: Log, who: str) -> None:
    """Open a store and a pool that may not exist yet, and use them."""
    wait_for_the_others()
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:
        budget = book.pool(POOL, OPTIONS)
        log("opened", budget.identity)
        hammer(budget, log, who, pairs=1)


def fork_and_share(url: str, log: Log, threads: int, children: int, pairs: int) -> None:
    """Use one ledger on both sides of several forks, while threads of the parent write."""
    stop = threading.Event()
    with Ledger.open(url, timeout_s=5) as book, ThreadPoolExecutor(max(1, threads)) as executor:
        budget = book.pool(POOL, OPTIONS)
        wait_for_the_others()

        def keep_writing(who: str) -> None:
            for number in count():
                hammer(budget, log, f"{who}-{number}", pairs=1)
                if stop.is_set():
                    return

        writing = [executor.submit(keep_writing, f"parent-{thread}") for thread in range(threads)]
        forked = []
        for child in range(children):
            forked.append(
                _fork(lambda who=f"child-{child}": hammer(book.pool(POOL), log, who, pairs=pairs))
            )
            time.sleep(0.02)
        codes = _wait(forked)
        stop.set()
        for each in writing:
            each.result()
        hammer(budget, log, "parent-after", pairs=pairs)
        log("children", *codes)


def fork_and_leave(url: str, log: Log, children: int) -> None:
    """Fork while threads read, and close the ledger here before the children write there."""
    stop = threading.Event()
    with Ledger.open(url, timeout_s=5) as book:
        budget = book.pool(POOL, OPTIONS)
        wait_for_the_others()

        def keep_reading() -> None:
            while not stop.is_set():
                budget.remaining(RequestExtensions())

        def write(who: str, parents_word: int) -> None:
            os.read(parents_word, 1)
            hammer(budget, log, who, pairs=3)

        readers = [threading.Thread(target=keep_reading) for _ in range(4)]
        for reader in readers:
            reader.start()
        word, speak = os.pipe()
        forked = []
        for child in range(children):
            forked.append(_fork(lambda who=f"child-{child}": write(who, word)))
            time.sleep(0.02)
        stop.set()
        for reader in readers:
            reader.join()
    os.write(speak, b"!" * children)
    log("children", *_wait(forked))


def fork_and_be_killed(url: str, log: Log) -> None:
    """Fork an idle child, and then die with a write in flight."""
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:
        budget = book.pool(POOL, OPTIONS)
        hammer(budget, log, "before", pairs=1)
        wait_for_the_others()
        _fork(lambda: time.sleep(TIMEOUT_S))
        dialect = book._database.dialect

        def hold(*_: object) -> None:
            log("holding")
            time.sleep(TIMEOUT_S)

        dialect.commit = hold
        hammer(budget, log, "never", pairs=1)


def _fork(life: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        life()
        code = 0
    except BaseException:  # noqa: BLE001 - nobody else will print it
        traceback.print_exc()
    finally:
        # Not sys.exit: the parent's threads and handlers are none of the child's business.
        os._exit(code)


def _wait(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


MODES: dict[str, Callable[..., None]] = {
    "hammer": hammer_in_threads,
    "tree": hammer_a_tree,
    "open": open_first,
    "fork": fork_and_share,
    "fork-leave": fork_and_leave,
    "fork-killed": fork_and_be_killed,
}

if __name__ == "__main__":
    mode, address, log_path, *rest = sys.argv[1:]
    MODES[mode](
        address,
        log_to(Path(log_path)),
        *(int(word) if word.isdecimal() else word for word in rest),
    )
