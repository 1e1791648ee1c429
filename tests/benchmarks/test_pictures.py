"""Pictures are drawn from the figures of a run, and can be read without its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import __main__ as command
from benchmarks import pictures, report
from benchmarks.bench import Bench

AXES = {
    "throughput": ("callers on one pool", "operations a second, in floors"),
    "latency": ("callers on one pool", "latency of one operation, milliseconds"),
    "growth": ("entries in the pool", "latency of one call, microseconds"),
}


@pytest.fixture
def run(bench_on: Callable[[str], Bench], tmp_path: Path) -> Path:
    """Return the figures of a tiny run."""
    figures = command.run_store(bench_on("sqlite"), ["callers", "growth"])
    path = tmp_path / "figures.json"
    path.write_text(
        json.dumps(
            {
                "machine": report.machine(rounds=2) | {"floor_per_second": {"sqlite": 5_000.0}},
                "figures": [figure.as_json() for figure in figures],
            }
        )
    )
    return path


def test_pictures_are_legible(run: Path, tmp_path: Path) -> None:
    """Each has a white card, labelled axes with units, and names its run and its store.

    A section that was left out has no picture.
    """
    assert 0 == pictures.main([str(run), str(tmp_path / "out")])
    assert set(AXES) == {path.stem for path in (tmp_path / "out").glob("*.svg")}
    facts = report.described(json.loads(run.read_text())["machine"]).splitlines()
    for name, axes in AXES.items():
        drawn = ET.parse(tmp_path / "out" / f"{name}.svg").getroot()  # noqa: S314 - our own
        card = drawn[0]
        words = set(drawn.itertext())
        assert "white" == card.get("fill")
        assert {*axes, "SQLite", *facts} <= words
    result = json.loads(run.read_text())
    result["figures"] = [one for one in result["figures"] if one["section"] == "growth"]
    assert {"growth"} == set(pictures.draw(result))
