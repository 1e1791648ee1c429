"""How figures are shown: tables for people, JSON and CSV for programs."""

from ledger.reports.render.credits import credits_sheet
from ledger.reports.render.denials import denials_sheet, denied_groups_sheet
from ledger.reports.render.estimates import estimates_sheet, held_sheet
from ledger.reports.render.figures import run_trees_sheet, runs_sheet, spend_sheet, trend
from ledger.reports.render.forecast import assumptions, burned, forecast_sheet
from ledger.reports.render.formats import as_csv, as_json
from ledger.reports.render.leases import (
    late_uses_sheet,
    lease_ages_sheet,
    open_leases_sheet,
    stale_leases_sheet,
    state,
)
from ledger.reports.render.pools import PoolRow, pools_sheet
from ledger.reports.render.prices import (
    disagreements_sheet,
    price_sheet,
    priced_by,
    repriced_sheet,
    unrepriced_sheet,
)
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.statement import (
    silent_thresholds,
    statement_lines_sheet,
    statement_notes,
    statement_sheet,
)
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import (
    behind,
    capacity,
    counted,
    decimal,
    duration,
    figure,
    figures,
    in_words,
    moment,
    not_yet_charged,
    shown_axes,
    sparkline,
    text,
    usd,
)

__all__ = [
    "Column",
    "PoolRow",
    "Sheet",
    "as_csv",
    "as_json",
    "assumptions",
    "behind",
    "burned",
    "capacity",
    "columns",
    "counted",
    "credits_sheet",
    "decimal",
    "denials_sheet",
    "denied_groups_sheet",
    "disagreements_sheet",
    "duration",
    "estimates_sheet",
    "figure",
    "figures",
    "forecast_sheet",
    "held_sheet",
    "in_words",
    "late_uses_sheet",
    "lease_ages_sheet",
    "moment",
    "not_yet_charged",
    "open_leases_sheet",
    "pools_sheet",
    "price_sheet",
    "priced_by",
    "printable",
    "repriced_sheet",
    "run_trees_sheet",
    "runs_sheet",
    "shown_axes",
    "silent_thresholds",
    "sparkline",
    "spend_sheet",
    "stale_leases_sheet",
    "state",
    "statement_lines_sheet",
    "statement_notes",
    "statement_sheet",
    "text",
    "trend",
    "unrepriced_sheet",
    "usd",
]
