"""Arguments of another type are refused by name, in every report, export and reconciliation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    Ledger,
    LedgerError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    exports,
    reconcile,
    reports,
)
from ledger.prices import PriceList
from ledger.reports import page

WRONG = (
    *(5, -1, 2.5, float("nan"), 2**70, True, None, "x", "", "a\0b", "\ud800", b"x"),
    *([5], [None], [["a"]], (object(),), {"a": 5}, {5: "a"}, object(), reports),
    *(Path("x"), datetime(2020, 1, 1), timedelta(0)),  # noqa: DTZ001 - that is what is wrong
)
"""Values that some argument may take, and no argument may fall over."""

Calls = dict[str, tuple[Callable[..., object], dict[str, Any]]]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    """Return every public function with arguments that are good, over a ledger of one call."""
    folder = tmp_path_factory.mktemp("arguments")
    bill = folder / "bill.csv"
    bill.write_text("request_id,total_tokens\nx,4\n", encoding="utf-8")
    with Ledger.open(f"sqlite:///{folder}/ledger.db") as book:
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
        lease = budget.reserve(
            RequestExtensions(), UsageEstimate(total_tokens=5), RequestBudget.unlimited()
        )
        budget.record_used(lease, Usage(total_tokens=4))
        exports.write(book, "team", folder / "good.csv")
        read = reconcile.read_bill(bill, reconcile.READY["generic"])
        document = page.whole_page(reports.overview(book))
        good = {
            "book": book,
            "pool": "team",
            "by": ["model"],
            "found": reports.statement(book, "team"),
            "prices": PriceList(),
        }
        found: Calls = {"Filter": (reports.Filter, {})}
        for name in reports.__all__:
            function = getattr(reports, name)
            if inspect.isfunction(function):
                needed = [
                    one.name
                    for one in inspect.signature(function).parameters.values()
                    if one.default is inspect.Parameter.empty
                ]
                found[name] = (function, {one: good[one] for one in needed})
        mapping = reconcile.READY["generic"][0]
        found |= {
            "write": (exports.write, {"book": book, "where": "team", "to": folder / "new.csv"}),
            "verify": (exports.verify, {"book": book, "path": folder / "good.csv"}),
            "read_bill": (reconcile.read_bill, {"path": bill, "mappings": [mapping]}),
            "explain": (reconcile.explain, {"path": bill, "mappings": [mapping]}),
            "reconcile": (reconcile.reconcile, {"book": book, "bill": read}),
            "apply": (reconcile.apply, {"book": book, "found": reconcile.reconcile(book, read)}),
            "read_mappings": (reconcile.read_mappings, {"path": folder / "none.toml"}),
            "BillMapping": (
                reconcile.BillMapping,
                {one: getattr(mapping, one) for one in mapping.__dataclass_fields__},
            ),
            "write_page": (page.write_page, {"document": document, "file": folder / "page.html"}),
        }
        yield found


@pytest.mark.parametrize(
    "name",
    [
        *("Filter", "burn_down", "denials", "denials_by", "estimates", "forecast", "glance"),
        *(
            "leases",
            "output_history",
            "overview",
            "reprice",
            "run_trees",
            "runs",
            "spend",
            "standing",
            "statement",
            "unpriced",
        ),
        *("statement_lines", "write", "verify", "read_bill", "explain", "reconcile", "apply"),
        *("read_mappings", "BillMapping", "write_page"),
    ],
)
def test_every_argument_of_another_type_is_refused_by_name(
    name: str, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either the call takes the value, or the error is one of this library's: never a bare one."""
    monkeypatch.chdir(tmp_path)
    function, good = calls[name]
    for argument in inspect.signature(function).parameters:
        for value in WRONG:
            try:
                result = function(**{**good, argument: value})
                if isinstance(result, Iterator):
                    list(result)
            except LedgerError:
                pass
            except Exception as error:
                raise AssertionError(f"{name}({argument}={value!r})") from error


def test_every_report_is_asked(calls: Calls) -> None:
    """A report that is added is held to this as well."""
    known = {one for one in reports.__all__ if inspect.isfunction(getattr(reports, one))}
    assert known <= calls.keys()
