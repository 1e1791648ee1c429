"""The ready mappings, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.files.mapping import BillMapping
from ledger.files.ready_bills import BILLS
from ledger.files.ready_logs import LOGS
from ledger.files.ready_traces import TRACES

READY: Mapping[str, Sequence[BillMapping]] = {**BILLS, **LOGS, **TRACES}
"""Mappings by name: one for each shape of a kind of file, of which the first that fits is used."""
