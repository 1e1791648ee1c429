"""Rounds, ratios and percentiles, from rounds whose times are given."""

from __future__ import annotations

import time

import pytest

from benchmarks.floor import require_a_disk
from benchmarks.measure import Figure, Meter, Round, Workload, measure
from benchmarks.report import table


def given(name: str, *rounds: Round, log: list[str], **options: object) -> Workload:
    """Return a workload that gives these rounds one after the other, and logs its runs."""
    waiting = iter(rounds)

    def run() -> Round:
        log.append(name)
        return next(waiting)

    return Workload(name=name, run=run, **options)


def one(operations: int, *latencies_s: float) -> Round:
    """Return a round that took a second."""
    return Round(operations=operations, seconds=1, latencies_s=latencies_s)


def test_a_ratio_is_taken_to_the_base_beside_it_round_by_round() -> None:
    """A machine that is twice as fast in one round changes no ratio."""
    log: list[str] = []
    base = given("base", one(100), one(200), one(100), log=log)
    work = given("work", one(300), one(600), one(400), log=log, base=base)
    shown, found = measure("section", "store", [work], 3)
    assert (3, 3, 4) == (found.ratio, found.ratio_min, found.ratio_max)
    assert (400, "base") == (found.rate, found.base)
    assert ("base", 1, 100) == (shown.workload, shown.ratio, shown.rate)


def test_who_goes_first_changes_with_every_round() -> None:
    """Neither side always finds the machine as the other left it."""
    log: list[str] = []
    base = given("base", *[one(1)] * 4, log=log)
    works = [given(name, *[one(1)] * 2, log=log, base=base) for name in ("a", "b")]
    figures = measure("section", "store", works, 2)
    assert ["base", "a", "base", "b", "a", "base", "b", "base"] == log
    assert ["base", "a", "b"] == [figure.workload for figure in figures]
    assert [4, 2, 2] == [len(figure.rounds) for figure in figures]


def test_a_ratio_of_latencies_is_one_of_medians() -> None:
    """One slow call makes no difference, and lower is better."""
    log: list[str] = []
    base = given("base", one(3, 2e-6, 2e-6, 9e-6), log=log)
    work = given("work", one(3, 3e-6, 3e-6, 900e-6), log=log, base=base, compare="latency")
    _, found = measure("section", "store", [work], 1)
    assert 1.5 == pytest.approx(found.ratio)
    assert (3, 900) == pytest.approx((found.p50_us, found.p99_us))


def test_latencies_cannot_be_compared_where_none_were_noted() -> None:
    """The workload is named, and no figure is made up."""
    log: list[str] = []
    base = given("base", one(1, 1e-6), log=log)
    work = given("work", one(1), log=log, base=base, compare="latency")
    with pytest.raises(ValueError, match="work is compared by latency"):
        measure("section", "store", [work], 1)


def test_what_else_was_seen_is_the_median_and_has_a_column() -> None:
    """Fairness and the like are printed under their names, beside rows that have none."""
    log: list[str] = []
    rounds = [
        Round(operations=1, seconds=1, also={"slow/fast": value}) for value in (0.5, 0.9, 0.7)
    ]
    base = given("base", one(1), one(1), one(1), log=log)
    figures = measure("s", "store", [given("work", *rounds, log=log, base=base)], 3)
    assert {"slow/fast": 0.7} == figures[1].also
    title, header, first, second = table(figures, {"s": "A title"}).splitlines()
    assert ("A title", "slow/fast", "0.70") == (title, header.split()[-1], second.split()[-1])
    assert len(first) < len(second)


def test_a_figure_keeps_its_rounds() -> None:
    """The JSON has what every round came to, for whoever wants to know how much it varies."""
    log: list[str] = []
    seen = Round(operations=2, seconds=1, latencies_s=[1e-6], cpu_s=8e-6, switches=3)
    (figure,) = measure("section", "store", [given("base", seen, log=log)], 1)
    assert isinstance(figure, Figure)
    expected = {"rate": 2, "ratio": 1, "p50_us": 1, "p99_us": 1, "cpu_us": 4, "switches": 1.5}
    assert [expected] == figure.as_json()["rounds"]


def test_what_one_round_lacks_has_no_median() -> None:
    """A figure of some rounds is not shown as one of all."""
    log: list[str] = []
    rounds = [Round(operations=1, seconds=1, cpu_s=cpu_s) for cpu_s in (1e-6, None)]
    (figure,) = measure("section", "store", [given("base", *rounds, log=log)], 2)
    assert figure.cpu_us is None


def test_a_meter_counts_what_this_process_did() -> None:
    """Processor time is spent by work and not by sleep, and a sleep is a context switch."""
    meter = Meter()
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    busy = meter.round([1.0, 1.0])
    meter = Meter()
    for _ in range(20):
        time.sleep(0.001)
    idle = meter.round([1.0] * 20)
    assert busy.operations == 2
    assert busy.cpu_us is not None
    assert idle.cpu_us is not None
    assert idle.switches_each is not None
    assert idle.cpu_us < 10_000
    assert busy.cpu_us > 24_000
    assert idle.switches_each >= 1


def test_a_floor_that_no_disk_could_have_makes_the_run_invalid() -> None:
    """Five microseconds a commit are no fsync; a hundred may be one."""
    require_a_disk(Round(operations=10, seconds=1e-3))
    with pytest.raises(SystemExit, match="fsync does nothing"):
        require_a_disk(Round(operations=10, seconds=5e-5))
