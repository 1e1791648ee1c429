"""Reconciliation: compare a provider's bill with the journal, and correct what differs."""

from ledger.files.bill import Bill, read_bill
from ledger.files.lines import BillLine
from ledger.files.mapping import (
    BillMapping,
    CostUnit,
    Identical,
    Repeats,
    TokenCounting,
)
from ledger.files.mapping_files import read_mappings
from ledger.files.ready import READY
from ledger.reconcile.applying import apply
from ledger.reconcile.explaining import Explained, ExplainedRow, explain
from ledger.reconcile.matching import reconcile
from ledger.reconcile.values import (
    Amounts,
    EntryRef,
    Match,
    Outcome,
    Part,
    Reconciliation,
    Status,
)

__all__ = [
    "READY",
    "Amounts",
    "Bill",
    "BillLine",
    "BillMapping",
    "CostUnit",
    "EntryRef",
    "Explained",
    "ExplainedRow",
    "Identical",
    "Match",
    "Outcome",
    "Part",
    "Reconciliation",
    "Repeats",
    "Status",
    "TokenCounting",
    "apply",
    "explain",
    "read_bill",
    "read_mappings",
    "reconcile",
]
