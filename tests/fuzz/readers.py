"""All readers of files, each called so that what it raises or leaves behind is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ledger import (
    AmountOutOfRangeError,
    Ledger,
    LedgerError,
    SharedPoolBudgetOptions,
)
from ledger.exports import verify
from ledger.files.bill import read_bill
from ledger.files.mapping_files import read_mappings
from ledger.files.ready import READY
from ledger.importing import Calls, Changed, import_calls
from ledger.prices.litellm import LitellmMap
from ledger.prices.table import PriceTable
from ledger.reconcile import apply, explain, reconcile
from ledger.simulate import Backtest, RunRule, run

LINES_MAX = 50
"""Only so many lines are imported, to be quick."""


class Readers:
    """The readers, with a store for those that need one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._book = Ledger.open(f"sqlite:///{folder / 'books.db'}")
        self._book.pool("team", SharedPoolBudgetOptions())
        self.all: list[Callable[[int, bytes], None]] = [
            self._bill,
            self._import,
            self._mapping,
            self._price_table,
            self._litellm,
            self._export,
            self._apply,
            self._simulate,
        ]

    def read(self, which: int, how: int, data: bytes) -> None:
        """Read a file by one of them; an error that is none of ours escapes."""
        self.all[which % len(self.all)](how, data)

    def _file(self, data: bytes, name: str = "file") -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path

    def _bill(self, how: int, data: bytes) -> None:
        path, mappings = self._file(data), READY[[*READY][how % len(READY)]]
        try:
            explain(path, mappings)
            bill = read_bill(path, mappings, attributed=True)
        except LedgerError:
            return
        assert bill == read_bill(path, mappings, attributed=True)

    def _import(self, how: int, data: bytes) -> None:
        """Import a file: all of its calls, or nothing."""
        path, mappings = self._file(data), READY[[*READY][how % len(READY)]]
        size = self._book.size("team")
        try:
            bill = read_bill(path, mappings, attributed=True)
            if len(bill.lines) > LINES_MAX:
                return
            calls = Calls(bill=bill)
            found = import_calls(self._book, "team", calls, changed=Changed.CORRECT)
        except LedgerError:
            assert size == self._book.size("team"), "a part of a refused file was imported"
            return
        assert found.agrees or found.kept, f"{found.difference} is not in the journal"
        written = found.new + found.known + found.corrected + found.kept
        assert found.calls == written + found.recorded

    def _apply(self, how: int, data: bytes) -> None:
        """Apply a bill: what is refused is not written, and twice is as good as once."""
        path, mappings = self._file(data), READY[[*READY][how % len(READY)]]
        size = self._book.size("team")
        try:
            bill = read_bill(path, mappings)
            if len(bill.lines) > LINES_MAX:
                return
            found = apply(self._book, reconcile(self._book, bill))
        except LedgerError:
            assert size == self._book.size("team"), "a part of a refused bill was applied"
            return
        size = self._book.size("team")
        apply(self._book, found)
        assert size == self._book.size("team"), "a bill was applied twice"

    def _simulate(self, how: int, data: bytes) -> None:
        """Run a trace into a store of its own: each of its calls, or nothing."""
        path, mappings = self._file(data), READY[[*READY][how % len(READY)]]
        try:
            trace = read_bill(path, mappings, attributed=True)
            if len(trace.lines) > LINES_MAX:
                return
            backtest = Backtest(trace=trace, runs=RunRule(every_rows=2), workers=1 + how % 3)
        except LedgerError:
            return
        for one in self._folder.glob("trace.db*"):
            one.unlink()
        with Ledger.open(f"sqlite:///{self._folder / 'trace.db'}") as book:
            try:
                found = run(book, "trace", SharedPoolBudgetOptions(), backtest)
            except AmountOutOfRangeError:  # all of them together are more than a store holds
                return
            except LedgerError:
                assert not book.pools(), "a part of a refused trace was run"
                return
            assert found.admitted == len(trace.lines)
            assert 1 + 2 * found.admitted == book.size("trace")

    def _mapping(self, how: int, data: bytes) -> None:
        try:
            read_mappings(self._file(data, "mapping.toml" if how % 2 else "mapping.json"))
        except LedgerError:
            return

    def _price_table(self, _how: int, data: bytes) -> None:
        try:
            PriceTable.load(self._file(data, "prices.toml"))
        except LedgerError:
            return

    def _litellm(self, _how: int, data: bytes) -> None:
        try:
            LitellmMap(self._file(data, "litellm.json"))
        except LedgerError:
            return

    def _export(self, _how: int, data: bytes) -> None:
        try:
            verify(self._book, self._file(data))
        except LedgerError:
            return
