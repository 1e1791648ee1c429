"""Reports on the books: each one is a query that returns typed values; rendering is separate.

A report works on one read-only snapshot. It counts each entry in the pool where it was made, so
nothing is counted twice. A `Filter` or the name of a pool selects the entries.
"""

from ledger.reports.burndown import BurnDown, BurnPoint, burn_down
from ledger.reports.credits import PoolCredit, credits
from ledger.reports.denials import Denied, DeniedGroup, denials, denials_by
from ledger.reports.due import DueLeases, due
from ledger.reports.estimates import EstimateQuality, Held, Ratios, estimates
from ledger.reports.figures import Figures
from ledger.reports.filters import Filter, PoolState, TimeBasis
from ledger.reports.forecast import AxisForecast, Forecast, Outlook, forecast
from ledger.reports.history import OutputHistory, output_history
from ledger.reports.increases import Increase
from ledger.reports.leases import AgedLease, LateUse, LeaseAge, Leases, leases
from ledger.reports.live import Glance, glance
from ledger.reports.overview import Overview, overview
from ledger.reports.reprice import Repriced, reprice
from ledger.reports.runs import RunCost, RunTree, run_trees, runs
from ledger.reports.spend import Spend, SpendRow, spend
from ledger.reports.standing import standing, unpriced
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
    "BurnDown",
    "BurnPoint",
    "Denied",
    "DeniedGroup",
    "DueLeases",
    "EstimateQuality",
    "Figures",
    "Filter",
    "Forecast",
    "Glance",
    "Held",
    "Increase",
    "LateUse",
    "LeaseAge",
    "Leases",
    "Movement",
    "Outlook",
    "OutputHistory",
    "Overview",
    "PoolCredit",
    "PoolState",
    "Ratios",
    "Repriced",
    "RunCost",
    "RunTree",
    "Spend",
    "SpendRow",
    "Statement",
    "StatementLine",
    "TimeBasis",
    "burn_down",
    "credits",
    "denials",
    "denials_by",
    "due",
    "estimates",
    "forecast",
    "glance",
    "leases",
    "output_history",
    "overview",
    "reprice",
    "run_trees",
    "runs",
    "spend",
    "standing",
    "statement",
    "statement_lines",
    "unpriced",
]
