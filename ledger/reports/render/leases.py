"""Tables of leases: by age, stale ones, and ones used late."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.reports.leases import AgedLease, Leases
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.values import counted, duration, moment, text, usd


def lease_ages_sheet(found: Leases) -> Sheet:
    """Return the leases that have not ended, by age."""
    unpriced = any(row.unpriced for row in found.ages)
    names = ["Age", "Leases", "Expired", *(["Unpriced"] if unpriced else [])]
    sheet = Sheet(
        columns=columns(*names, "Held\ntokens", "Held\nUSD"),
        title=f"Leases that have not ended, at {moment(found.now)}",
    )
    for row in found.ages:
        if row.below_s is None:
            name = f"{duration(row.from_s)} and more"
        else:
            name = f"{duration(row.from_s)} to {duration(row.below_s)}"
        sheet.add(
            name,
            f"{row.leases:,}",
            f"{row.expired:,}",
            *([f"{row.unpriced:,}"] if unpriced else []),
            f"{row.held.tokens:,}",
            usd(row.held.cost_micros_usd),
        )
    sheet.add_section()
    sheet.add(
        "Total",
        f"{sum(row.leases for row in found.ages):,}",
        f"{sum(row.expired for row in found.ages):,}",
        *([f"{sum(row.unpriced for row in found.ages):,}"] if unpriced else []),
        f"{sum(row.held.tokens for row in found.ages):,}",
        usd(sum(row.held.cost_micros_usd for row in found.ages)),
    )
    return sheet


def stale_leases_sheet(found: Leases) -> Sheet:
    """Return the leases that are stale, the oldest first."""
    count = counted(len(found.stale), "lease")
    title = f"Stale: {count} granted {duration(found.stale_after_s)} ago or before, and not ended"
    return _aged_sheet(found.stale, title)


def state(lease: AgedLease) -> str:
    """Return a lease's phase, and that its estimate is unpriced if it is."""
    return f"{lease.phase}, unpriced" if lease.unpriced else str(lease.phase)


def open_leases_sheet(found: Sequence[AgedLease]) -> Sheet:
    """Return leases that have not ended, the oldest first."""
    return _aged_sheet(found, f"Not ended: {counted(len(found), 'lease')}")


def _aged_sheet(found: Sequence[AgedLease], title: str) -> Sheet:
    sheet = Sheet(
        columns=[
            Column(heading="Pool"),
            Column(heading="Lease"),
            Column(heading="State", rank=2, left=True),
            Column(heading="Reserved", rank=3),
            Column(heading="Age"),
            Column(heading="Held\ntokens"),
            Column(heading="Held\nUSD"),
            Column(heading="Run", rank=1, left=True),
            Column(heading="Agent", rank=4, left=True),
            Column(heading="Model", rank=4, left=True),
        ],
        title=title,
    )
    for row in found:
        sheet.add(
            text(row.pool),
            str(row.lease),
            state(row),
            moment(row.reserved_at),
            duration(row.age_s),
            f"{row.held.tokens:,}",
            usd(row.held.cost_micros_usd),
            text(row.run_id),
            text(row.agent),
            text(row.model),
        )
    return sheet


def late_uses_sheet(found: Leases) -> Sheet:
    """Return what was used after its lease had expired."""
    sheet = Sheet(
        columns=[
            Column(heading="Pool"),
            Column(heading="Lease"),
            Column(heading="Entry", rank=2),
            Column(heading="Expired", rank=3),
            Column(heading="Used", rank=1),
            Column(heading="Later by"),
            Column(heading="Total\ntokens"),
            Column(heading="Cost\nUSD"),
            Column(heading="Run", rank=1, left=True),
        ],
        title=f"Used late: {counted(len(found.late), 'entry', 'entries')}",
    )
    for row in found.late:
        sheet.add(
            text(row.pool),
            str(row.lease),
            str(row.seq),
            moment(row.expired_at),
            moment(row.used_at),
            duration(row.after_s),
            f"{row.total_tokens:,}",
            usd(row.cost_micros_usd),
            text(row.run_id),
        )
    return sheet
