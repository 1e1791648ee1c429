"""`ledger metrics`: the page for Prometheus, printed and served."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from ledger import Ledger, SharedPoolBudgetOptions
from tests import programs
from tests.fixtures import Run
from tests.programs import LEDGER

URL = "sqlite:///ledger.db"


def pools(page: str) -> dict[str, float]:
    """Return how many tokens each pool on a page has left."""
    return {
        sample.labels["pool"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "ledger_pool_remaining_tokens"
    }


def opened() -> None:
    """Open two pools in the store that commands use."""
    with Ledger.open(URL) as book:
        for name, tokens in (("team", 500), ("other", 70)):
            book.pool(name, SharedPoolBudgetOptions(capacity_tokens=tokens))


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process behind if a test fails."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def test_it_is_printed(ledger: Run) -> None:
    """For a collector of text files; all pools, or those that are named."""
    opened()
    assert {"team": 500, "other": 70} == pools(ledger("metrics").out)
    assert {"other": 70} == pools(ledger("metrics", "--pool", "other").out)


def test_it_is_served_until_interrupted(ledger: Run) -> None:
    """Each look reads the store anew; the address is said, and an interrupt ends it."""
    opened()
    command = [LEDGER, "metrics", "--listen", "127.0.0.1:0"]
    with programs.Popen(command, stderr=subprocess.PIPE, text=True) as served, killed(served):
        assert served.stderr is not None
        said = re.fullmatch(r"Serving (http://127.0.0.1:\d+/metrics)\n", served.stderr.readline())
        assert said is not None
        looks = []
        for capacity in ("500", "900"):
            ledger("pool", "adjust", "team", "--capacity-tokens", capacity, "--reason", "test")
            with urllib.request.urlopen(said[1]) as answer:  # noqa: S310 - of the loopback
                looks.append(pools(answer.read().decode())["team"])
        served.send_signal(signal.SIGINT)
        assert 130 == served.wait()
    assert [500, 900] == looks


def test_what_cannot_be_served_is_refused(refused: Callable[..., str]) -> None:
    """An address that is none, a place that is taken or not here, a pool that is not there."""
    opened()
    for address in ("nowhere", ":9464", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1"):
        assert "must be HOST:PORT" in refused("metrics", "--listen", address)
    assert "cannot be served" in refused("metrics", "--listen", "192.0.2.1:0")
    assert "unknown" in refused("metrics", "--pool", "unknown")
