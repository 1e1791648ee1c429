"""The ready mappings, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.files.mapping import BillMapping
from ledger.files.ready_bills import BILLS
from ledger.files.ready_logs import LOGS
from ledger.files.ready_traces import TRACES

READY: Mapping[str, Sequence[BillMapping]] = {**BILLS, **LOGS, **TRACES}
"""The mappings of each name, one for each shape of that kind of file. The first that fits is
used."""
