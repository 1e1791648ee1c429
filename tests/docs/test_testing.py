"""The manager of docs/testing.md passes the suite, which finds what is wrong with others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from tests.programs import ROOT

_LOCK = "        with self._lock:\n"
_LIMIT = """\
        if not request_budget.allows_estimate(estimate):
            raise over(request_budget, asked)
"""
_END = "            del self._open[lease.id]\n"
_REFUSE = """\
            if not granted.request_budget.allows_usage(usage):
                raise over(granted.request_budget, used)
"""
FAULTS = {
    "equal_is_denied": ("a > l or", "a >= l or"),
    "threshold_is_kept_too_well": ("l - a < k", "l - a <= k"),
    "second_axis_is_free": ("zip(asked, left, self._kept)", "[(asked[0], left[0], self._kept[0])]"),
    "pool_before_request": (_LIMIT + _LOCK, _LOCK),
    "limit_refuses_the_spend": (_END, _REFUSE + _END),
    "settled_twice": (_END, ""),
    "caller_is_believed": ("granted.request_budget", "lease.request_budget"),
    "pool_is_not_asked": ("granted is None or lease.pool != granted.pool", "granted is None"),
    "spend_stops_at_the_estimate": (
        "used = usage.total_tokens, usage.cost_micros_usd",
        "used = min(usage.total_tokens, lease.reserved.total_tokens), usage.cost_micros_usd",
    ),
    "below_is_not_at": ("any(l <= k", "any(l < k"),
    "less_than_nothing_left": ("max(0, c - g)", "c - g"),
    "no_lock": ("threading.Lock()", "contextlib.nullcontext()"),
    "no_types": ("        check_reserve(extensions, estimate, request_budget)\n", ""),
    "ids_from_0": ("itertools.count(1)", "itertools.count(0)"),
}
"""What is wrong with a manager, and the change of its program that makes it so."""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Run the suite on the page's manager and on each faulty one; return which tests failed."""
    folder = tmp_path_factory.mktemp("managers")
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    (folder / "test_right.py").write_text(program, encoding="utf-8")
    for name, (right, wrong) in FAULTS.items():
        assert right in program, name
        faulty = f"import contextlib\n{program.replace(right, wrong)}"
        if name == "no_lock":  # let another thread in where the lock would have kept it out
            gap = "time.sleep(1e-4)\n            lease = BudgetLease("
            faulty = f"import time\n{faulty.replace('lease = BudgetLease(', gap)}"
        (folder / f"test_{name}.py").write_text(faulty, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--junitxml=report.xml", "-p", "no:xdist", "."],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,  # faulty ones fail
    )
    found: dict[str, list[str]] = {"right": [], **{name: [] for name in FAULTS}}
    cases = list(ET.parse(folder / "report.xml").iter("testcase"))  # noqa: S314 - pytest wrote it
    assert len(found) * 60 < len(cases)
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            name = str(case.get("classname")).split(".")[0].removeprefix("test_")
            found[name].append(str(case.get("name")))
    return found


def test_the_manager_of_the_page_passes(failed: dict[str, list[str]]) -> None:
    """The example is complete, and keeps the contract."""
    assert [] == failed["right"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(failed: dict[str, list[str]], fault: str) -> None:
    """A manager with one thing wrong fails at least one test."""
    assert failed[fault]


def test_without_pytest_the_extra_is_named() -> None:
    """Importing `ledger` does not need pytest; importing the suite says what to install."""
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "import ledger\n"
        "assert 'ledger.testing' not in sys.modules\n"
        "try:\n    import ledger.testing\n"
        "except ledger.MissingExtraError as error:\n    print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "pytest is not installed. Run: pip install 'budget-ledger[testing]'" == said.strip()
