"""Reports as one self-contained page: no network, no server. Needs the extra `html`."""

from ledger.reports.page.document import Document, Section, Tile, to_html, write_page
from ledger.reports.page.whole import whole_page

__all__ = ["Document", "Section", "Tile", "to_html", "whole_page", "write_page"]
