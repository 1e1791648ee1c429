"""Reconciliation: compare a provider's bill with the journal, and correct what differs."""

from ledger.reconcile.applying import apply
from ledger.reconcile.bill import Bill, BillLine, read_bill
from ledger.reconcile.mapping import (
    BillMapping,
    CostUnit,
    Identical,
    Repeats,
    TokenCounting,
    read_mapping,
)
from ledger.reconcile.matching import reconcile
from ledger.reconcile.ready import READY
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
    "Identical",
    "Match",
    "Outcome",
    "Part",
    "Reconciliation",
    "Repeats",
    "Status",
    "TokenCounting",
    "apply",
    "read_bill",
    "read_mapping",
    "reconcile",
]
