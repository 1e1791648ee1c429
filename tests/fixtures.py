"""The types of what fixtures give, as many tests name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledger import LedgerBudgetManager
from ledger.files.bill import Bill

Run = Callable[..., Any]
"""Runs a program, and returns what it printed."""
Lines = Callable[[str], list[str]]
"""Cuts what a program printed into lines, without what fills them up."""
Read = Callable[..., Bill]
"""Reads a bill that it writes into a file."""
MakePool = Callable[..., LedgerBudgetManager]
"""Makes a pool."""
Write = Callable[..., Path]
"""Writes a bill into a file, and returns its name."""
Vandal = Any
"""Changes what is stored, as an owner of the database could: `Vandal` in tests/conformance."""
