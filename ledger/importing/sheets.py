"""An import as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.importing.values import Imported
from ledger.reconcile.sheets import HEADINGS, cells, main_axes
from ledger.reports.render import Column, Sheet, counted


def summary_sheet(found: Imported) -> Sheet:
    """Return what the file says, what the journal says, and their difference."""
    axes = main_axes(found.axes)
    sheet = Sheet(
        columns=[
            Column(heading=""),
            Column(heading="Calls"),
            *(Column(heading=HEADINGS[axis]) for axis in axes),
        ],
        title=f"Import of {found.file} into pool {found.pool}",
    )
    here = found.calls - found.recorded
    sheet.add("The file says", f"{here:,}", *cells(found.told, axes))
    if not found.is_dry_run:
        sheet.add("The journal says", f"{here:,}", *cells(found.journal, axes))
        sheet.add("Difference", "0", *cells(found.difference, axes, signed=True))
    if found.recorded:
        sheet.add_section()
        sheet.add("Left out", f"{found.recorded:,}", *cells(found.left_out, axes))
    return sheet


def about(found: Imported) -> str:
    """Return sentences on the calls: which are new, which were left out, what is not known."""
    to_be = "to be " if found.is_dry_run else ""
    said = [
        f"{counted(found.new, 'call')} {to_be}imported",
        f"{found.known:,} imported before",
    ]
    if found.priced:
        said.append(
            f"{found.priced:,} imported before without a price, and {to_be}charged now what "
            f"{found.prices} says"
        )
    if found.corrected > found.priced:
        said.append(
            f"{found.corrected - found.priced:,} {to_be}corrected, since the file says something "
            "else now"
        )
    if found.kept:
        said.append(f"{found.kept:,} left as they were corrected since they were imported")
    if found.recorded:
        said.append(
            f"{found.recorded:,} left out, whose request ids are in the books (ledger reconcile "
            "compares them)"
        )
    if found.settled:
        said.append(
            f"{found.settled:,} of these {to_be}settled: their leases had expired, and what the "
            "file says takes the place of what was assumed"
        )
    if found.recorded_then:
        said.append(
            f"{found.unnamed:,} without a request id, and "
            f"{counted(found.recorded_then, 'call')} that the pool recorded in the same time: it "
            "is not known whether they are the same"
        )
    if found.assumed:
        said.append(
            f"{counted(sum(found.assumed.values()), 'call')} of this time charged what was "
            f"assumed, or due to be, since nobody recorded it (pool {_named(found.assumed)}): what "
            "the file has under another id is charged twice, until their leases are settled or "
            "released, or what was assumed is corrected ('ledger reconcile' lists them)"
        )
    said += _about_prices(found)
    if found.attributed_before:
        said.append(
            f"{found.attributed_before:,} imported before with another attribution, which stays: "
            "the options for whom calls were made had no effect on them"
        )
    return "; ".join((*said, *_about_file(found)))


def _about_prices(found: Imported) -> list[str]:
    said: list[str] = []
    if found.unpriced:
        nor = "" if found.prices is None else f", and {found.prices} has no price"
        remedy = (
            " (--prices charges what a price list says, 'ledger reprice --dry-run' only says it; "
            "or limit tokens)"
            if found.prices is None
            else ""
        )
        said.append(
            f"{counted(found.unpriced, 'call')} unpriced: the file says nothing of what the pool "
            f"limits{nor}, and nothing of it is charged{remedy}"
        )
    if found.without_price:
        said.append(
            f"no price for {_named(found.without_price)}: add it to a price table of your own, "
            "and import the file again"
        )
    return said


def _about_file(found: Imported) -> list[str]:
    said = [
        f"SHA-256 {found.sha256}",
        f"mapping {found.mapping}",
        f"{counted(found.lines, 'line')}",
    ]
    if found.empty:
        said.append(f"{found.empty:,} more without any amount")
    if found.not_selected:
        said.append(f"{found.not_selected:,} more left out by the mapping")
    unread = [*found.unread_columns, *found.unread_lists]
    if unread:
        said.append(f"not read: {_listed(unread)}")
    return said


def _named(calls: Mapping[str, int]) -> str:
    return _listed([f"{name} ({count:,})" for name, count in calls.items()])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


_NAMES = 12
"""How many names of columns a sentence has."""
