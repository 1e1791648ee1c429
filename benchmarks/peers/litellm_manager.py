"""LiteLLM's BudgetManager: a dict of costs, one user, in a process of its own.

After every update it rewrites `user_cost.json` in the current folder from a thread that nobody
waits for, without an fsync. Importing it takes seconds and starts nothing here, so it runs in
another process, in an empty folder.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import Round, Workload, repeated, timed
from benchmarks.work import USED
from benchmarks.worker import Report, run_alone

_USER = "benchmark"
_MODEL = "gpt-4o"
_OFFLINE = {"LITELLM_OFFLINE_MODE": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
"""As its documentation has it: prices from the copy in the package, nothing from the network."""


def workload(bench: Bench) -> Workload:
    """Return an update of the cost for each call, behind the check that its documentation shows."""

    def run() -> Round:
        return Round(**run_alone(f"{__name__}:update_costs", calls=bench.scale.calls))

    return Workload(
        name="LiteLLM BudgetManager: a JSON file, not synced", run=run, base=bench.floor
    )


def update_costs(told: Mapping[str, Any], ready: Callable[[], None]) -> Report:
    """Check the budget and add the cost of a call, again and again."""
    os.environ |= _OFFLINE
    from litellm import BudgetManager, ModelResponse  # noqa: PLC0415 - an optional extra
    from litellm import Usage as Counted  # noqa: PLC0415

    answer = ModelResponse(
        model=_MODEL,
        usage=Counted(
            prompt_tokens=USED.input_tokens,
            completion_tokens=USED.output_tokens,
            total_tokens=USED.total_tokens,
        ),
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        manager = BudgetManager(project_name="benchmark")
        manager.create_budget(total_budget=1e9, user=_USER)

        def once() -> None:
            if manager.get_current_cost(user=_USER) > manager.get_total_budget(_USER):
                raise ValueError("not enough left")
            manager.update_cost(completion_obj=answer, user=_USER)

        once()  # the first loads the prices
        ready()
        done = repeated(told["calls"], lambda latencies: timed(latencies, once))
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()  # they write into this folder
    return asdict(done)
