"""A benchmark on a store of the tests, with so little to do that it takes a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks.bench import Bench, Scale
from benchmarks.floor import floor
from tests.programs import ROOT

TINY = Scale(
    rounds=1,
    floor_operations=5,
    pairs=8,
    threads=(1, 2),
    tasks=(1, 3),
    calls=4,
    processes=2,
    threads_each=2,
    seconds=0.2,
    pools=3,
    entries=(10, 30),
    leases=(5, 15),
    history=300,
    warm_up=512,
    operations=1_024,
    starts=1,
)

Lend = Callable[[str], Bench]


@pytest.fixture(autouse=True)
def _soon_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a report be asked for a moment, and not until its figure is steady."""
    monkeypatch.setattr("benchmarks.reports._AT_LEAST_S", 0.005)


@pytest.fixture
def bench_on(new_store: Callable[..., str]) -> Iterator[Lend]:
    """Return a function that makes a tiny benchmark on a new store of a kind."""
    with ExitStack() as stack:

        def lend(store: str) -> Bench:
            url = new_store(store)
            return Bench(
                store=store,
                url=url,
                scale=TINY,
                floor=stack.enter_context(floor(url, TINY.floor_operations)),
                stack=ExitStack(),
                sql={"counter": ROOT / "benchmarks" / "peers" / "counter.sql"},
            )

        yield lend


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, bench_on: Lend) -> Bench:
    """Return a tiny benchmark, on each database in turn."""
    return bench_on(request.param)
