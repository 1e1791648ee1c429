"""What the books are for: each report is a query that returns typed values; rendering is separate.

A report works on one read-only snapshot and counts entries where they were made, so that nothing
is counted twice.
"""

from ledger.reports.denials import Denied, denials
from ledger.reports.runs import RunCost, runs
from ledger.reports.statement import Movement, Statement, statement

__all__ = ["Denied", "Movement", "RunCost", "Statement", "denials", "runs", "statement"]
