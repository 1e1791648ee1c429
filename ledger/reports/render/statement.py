"""A pool's statement as a table."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.core.entries import Balance, Totals
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import limit, moment, text, usd
from ledger.reports.statement import Statement, StatementLine


def statement_sheet(found: Statement) -> Sheet:
    """Return a pool's statement, summed up by kind."""
    sheet = Sheet(
        columns=columns(
            "", "Entries", "Committed\ntokens", "Committed\nUSD", "Held\ntokens", "Held\nUSD"
        ),
        title=f"Statement of pool {found.pool}",
    )

    def line(name: str, count: int | None, committed: Totals, reserved: Totals) -> None:
        sheet.add(
            name,
            "" if count is None else f"{count:,}",
            f"{committed.tokens:,}",
            usd(committed.cost_micros_usd),
            f"{reserved.tokens:,}",
            usd(reserved.cost_micros_usd),
        )

    line("Opening balance", None, *found.opening)
    for movement in found.movements:
        line(f"  {movement.kind}", movement.entries, movement.committed, movement.reserved)
    sheet.add_section()
    line("Closing balance", found.seq - found.opening_seq, *found.closing)
    policy, left = found.policy, found.remaining
    for name, tokens, cost in (
        ("Capacity", policy.capacity_tokens, policy.capacity_cost_micros_usd),
        (
            "Kept back",
            policy.stop_threshold_tokens,
            policy.stop_threshold_cost_micros_usd,
        ),
        ("Remaining", left.tokens, left.cost_micros_usd),
    ):
        sheet.add(name, "", limit(tokens, f"{tokens:,}"), limit(cost, usd(cost)), "", "")
    for name, percent in policy.thresholds.items():
        tokens, cost = (
            -(-capacity * percent // 100)  # rounded up: reached from there on
            for capacity in (policy.capacity_tokens, policy.capacity_cost_micros_usd)
        )
        sheet.add(
            f"{text(name)} ({percent} %)",
            "",
            limit(policy.capacity_tokens, f"{tokens:,}"),
            limit(policy.capacity_cost_micros_usd, usd(cost)),
            "",
            "",
        )
    return sheet


def statement_lines_sheet(found: Statement, lines: Iterable[StatementLine]) -> Sheet:
    """Return a pool's statement with a line for each entry."""
    sheet = Sheet(
        columns=[
            Column(heading="Entry"),
            Column(heading="Recorded", rank=3, left=True),
            Column(heading="Occurred", rank=5, left=True),
            Column(heading="Kind", left=True),
            Column(heading="Committed\ntokens", rank=2),
            Column(heading="Committed\nUSD", rank=2),
            Column(heading="Held\ntokens", rank=4),
            Column(heading="Held\nUSD", rank=4),
            Column(heading="Balance\ntokens"),
            Column(heading="Balance\nUSD"),
            Column(heading="Held after\ntokens", rank=6),
            Column(heading="Held after\nUSD", rank=6),
            Column(heading="Run", rank=7, left=True),
            Column(heading="Remarks", rank=1, left=True),
        ],
        title=f"Statement of pool {found.pool}",
    )
    _balance(sheet, "Opening balance", found.opening)
    for line in lines:
        sheet.add(
            str(line.seq),
            moment(line.recorded_at),
            moment(line.occurred_at),
            printable(line.kind),
            *_movement(line.committed),
            *_movement(line.reserved),
            *_amounts(line.balance.committed),
            *_amounts(line.balance.reserved),
            "" if line.run_id is None else text(line.run_id),
            printable(" ".join(filter(None, (line.flags, line.reason)))),
        )
    sheet.add_section()
    _balance(sheet, "Closing balance", found.closing)
    return sheet


def _balance(sheet: Sheet, name: str, balance: Balance) -> None:
    sheet.add(
        *("", "", "", name, "", "", "", ""),
        *_amounts(balance.committed),
        *_amounts(balance.reserved),
        *("", ""),
    )


def _amounts(amounts: Totals) -> tuple[str, str]:
    return f"{amounts.tokens:,}", usd(amounts.cost_micros_usd)


def _movement(moved: Totals) -> tuple[str, str]:
    return ("", "") if moved == Totals() else _amounts(moved)
