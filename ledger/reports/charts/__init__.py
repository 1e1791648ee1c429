"""Pictures of reports: values in, Altair charts out. Needs the extra `html`.

A picture shows rounded amounts. The exact ones are text: in tooltips, and in tables of the same
values.
"""

from ledger.reports.charts.burndown import burn_down_pictures
from ledger.reports.charts.canvas import ON_PAGE, ON_PAPER, Palette, Picture
from ledger.reports.charts.costs import estimates_picture, most_expensive, runs_picture
from ledger.reports.charts.spend import spend_picture

__all__ = [
    "ON_PAGE",
    "ON_PAPER",
    "Palette",
    "Picture",
    "burn_down_pictures",
    "estimates_picture",
    "most_expensive",
    "runs_picture",
    "spend_picture",
]
