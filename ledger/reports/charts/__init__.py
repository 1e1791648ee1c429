"""Reports as pictures: values in, Altair charts out. Needs the extra `html`.

A picture shows numbers of its own size; the exact amount is text beside it, in tooltips and in the
tables that say the same.
"""

from ledger.reports.charts.burndown import burn_down_pictures
from ledger.reports.charts.canvas import PAGE, PAPER, Palette, Picture
from ledger.reports.charts.costs import estimates_picture, most_expensive, runs_picture
from ledger.reports.charts.spend import spend_picture

__all__ = [
    "PAGE",
    "PAPER",
    "Palette",
    "Picture",
    "burn_down_pictures",
    "estimates_picture",
    "most_expensive",
    "runs_picture",
    "spend_picture",
]
