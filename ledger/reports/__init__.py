"""What the books are for: each report is a query that returns typed values; rendering is separate.

A report works on one read-only snapshot and counts entries where they were made, so that nothing
is counted twice. Which entries it is about, a `Filter` says, or the name of a pool.
"""

from ledger.reports.denials import Denied, DeniedGroup, Increase, denials, denials_by
from ledger.reports.estimates import EstimateQuality, Held, Ratios, estimates
from ledger.reports.figures import Figures
from ledger.reports.filters import Filter, TimeBasis
from ledger.reports.forecast import AxisForecast, Forecast, Outlook, forecast
from ledger.reports.leases import AgedLease, LateUse, LeaseAge, Leases, leases
from ledger.reports.runs import RunCost, RunTree, run_trees, runs
from ledger.reports.spend import Spend, SpendRow, spend
from ledger.reports.statement import (
    Movement,
    Statement,
    StatementLine,
    statement,
    statement_lines,
)

__all__ = [
    "AgedLease",
    "AxisForecast",
    "Denied",
    "DeniedGroup",
    "EstimateQuality",
    "Figures",
    "Filter",
    "Forecast",
    "Held",
    "Increase",
    "LateUse",
    "LeaseAge",
    "Leases",
    "Movement",
    "Outlook",
    "Ratios",
    "RunCost",
    "RunTree",
    "Spend",
    "SpendRow",
    "Statement",
    "StatementLine",
    "TimeBasis",
    "denials",
    "denials_by",
    "estimates",
    "forecast",
    "leases",
    "run_trees",
    "runs",
    "spend",
    "statement",
    "statement_lines",
]
