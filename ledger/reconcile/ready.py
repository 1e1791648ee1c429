"""The ready mappings, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.reconcile.mapping import BillMapping
from ledger.reconcile.ready_bills import BILLS
from ledger.reconcile.ready_logs import LOGS

READY: Mapping[str, Sequence[BillMapping]] = {**BILLS, **LOGS}
"""Mappings by name: one for each shape of a kind of file, of which the first that fits is used."""
