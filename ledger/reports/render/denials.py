"""What was refused, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.reports.denials import Denied, DeniedGroup, Increase
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.values import limit, moment, text, usd

_WHO = ("tenant", "agent", "operation", "provider", "model")


def denials_sheet(rows: Iterable[Denied], *, title: str = "Denied") -> Sheet:
    """Return denials as a table."""
    denied = list(rows)
    several = len({row.pool for row in denied}) > 1
    sheet = Sheet(
        columns=[
            Column(heading="Run"),
            Column(heading="Pool", left=True, wide=not several),
            Column(heading="At"),
            Column(heading="Reason"),
            Column(heading="Tokens\nasked"),
            Column(heading="Tokens\nleft"),
            Column(heading="USD\nasked"),
            Column(heading="USD\nleft"),
            Column(heading="More\ntokens", wide=True),
            Column(heading="More\nUSD", wide=True),
            *(Column(heading=name.capitalize(), wide=True, left=True) for name in _WHO),
            Column(heading="Refused by", wide=True, left=True),
        ],
        title=title,
    )
    for row in denied:
        tokens, cost = row.remaining_tokens, row.remaining_cost_micros_usd
        sheet.add(
            text(row.run_id),
            text(row.pool),
            moment(row.at),
            row.reason.replace("_", " "),
            f"{row.requested_tokens:,}",
            "" if tokens is None else limit(tokens, f"{tokens:,}"),
            usd(row.requested_cost_micros_usd),
            "" if cost is None else limit(cost, usd(cost)),
            "" if row.increase_tokens is None else f"{row.increase_tokens:,}",
            "" if row.increase_cost_micros_usd is None else usd(row.increase_cost_micros_usd),
            *(text(getattr(row, name)) for name in _WHO),
            "" if row.refused_by is None else text(row.refused_by),
        )
    return sheet


def denied_groups_sheet(rows: Sequence[DeniedGroup], by: Sequence[str]) -> Sheet:
    """Return denials by who was refused, with what more capacity would have let in."""
    sheet = Sheet(
        columns=[
            Column(heading="Pool"),
            *(Column(heading=name.capitalize(), left=True) for name in by),
            Column(heading="Denials"),
            Column(heading="By their\nown budget", rank=5),
            Column(heading="By pools\nabove", wide=True),
            Column(heading="Tokens\nasked", rank=3),
            Column(heading="USD\nasked", rank=3),
            Column(heading="Half of them\n+ tokens", rank=2),
            Column(heading="Half of them\n+ USD", rank=2),
            Column(heading="9 in 10\n+ tokens", wide=True),
            Column(heading="9 in 10\n+ USD", wide=True),
            Column(heading="Each alone\n+ tokens", rank=1),
            Column(heading="Each alone\n+ USD", rank=1),
            Column(heading="All of them\n+ tokens"),
            Column(heading="All of them\n+ USD"),
            Column(heading="First", rank=6),
            Column(heading="Last", rank=6),
        ],
        title="Denials, and the capacity that would have let them in",
    )
    for row in rows:
        sheet.add(
            text(row.pool),
            *(text(value) for value in row.group.values()),
            f"{row.denials:,}",
            f"{row.by_request_budget:,}",
            f"{row.by_pools_above:,}",
            f"{row.requested_tokens:,}",
            usd(row.requested_cost_micros_usd),
            *(
                cell
                for part in ("half", "most", "each", "all")
                for cell in _increases(part, row.tokens, row.cost_micros_usd)
            ),
            moment(row.first_at),
            moment(row.last_at),
        )
    return sheet


def _increases(part: str, tokens: Increase | None, cost: Increase | None) -> tuple[str, str]:
    if tokens is None or cost is None:
        return "", ""
    return f"{getattr(tokens, part):,}", usd(getattr(cost, part))
