"""The profile knows the stages of the write path as they are."""

from __future__ import annotations

import pytest

from benchmarks import profile
from benchmarks.bench import Bench
from benchmarks.profile import REST, STAGES, described


@pytest.mark.alone
def test_every_stage_is_seen(bench: Bench) -> None:
    """Each stage runs in a batch: none is named that the write path no longer has."""
    found = profile.profile(bench.url, batch=4, batches=2)
    assert [*STAGES, REST] == list(found.stages)
    # On either clock: the processor's moves in steps that a short stage may miss.
    assert [] == [stage for stage, spent in found.stages.items() if sum(spent) <= 0]
    text = described(bench.store, 4, found)
    for stage in (*STAGES, REST, "through the queue, 4 tasks"):
        assert stage in text


def test_a_stage_that_is_gone_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever renames a function learns where to say so, and nothing stays watched."""
    before = profile.Direct.done.__globals__["perform"]
    monkeypatch.setitem(STAGES, "dream", ("ledger.store.rows:dream",))
    with pytest.raises(SystemExit, match=r"ledger\.store\.rows:dream is gone.*'dream'"):
        profile.profile(bench.url, batch=1, batches=1)
    assert before is profile.Direct.done.__globals__["perform"]
