"""How figures are shown: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ledger.checks import I64_MAX
from ledger.records import Totals
from ledger.reports.denials import Denied
from ledger.reports.runs import RunCost
from ledger.reports.statement import Statement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MICROS = 1_000_000


def usd(micros: int) -> str:
    """Return millionths of a US dollar as dollars, every digit kept: `1,234.567890`."""
    sign, amount = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{amount // _MICROS:,}.{amount % _MICROS:06d}"


def limit(amount: int, shown: str) -> str:
    """Return `shown`, or `unlimited` where the amount is beyond what a store can hold."""
    return "unlimited" if amount > I64_MAX else shown


def moment(at: datetime) -> str:
    """Return a time in UTC to the second, as ISO 8601 writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json(rows: Sequence[DataclassInstance], out: TextIO) -> None:
    """Write rows as one JSON array: the fields' own names, integers as integers, ISO times."""
    json.dump([_plain(row) for row in rows], out, indent=2, ensure_ascii=False)
    out.write("\n")


def as_csv(rows: Sequence[DataclassInstance], kind: type[DataclassInstance], out: TextIO) -> None:
    """Write rows as CSV with a header of the fields' own names; None is an empty cell."""
    writer = csv.DictWriter(out, [part.name for part in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_plain, rows))


def runs_table(rows: Sequence[RunCost]) -> Table:
    """Return per-run costs as a table, with a line of totals."""
    table = columns(
        "Run",
        "Requests",
        "Denied",
        "Input\ntokens",
        "Output\ntokens",
        "Total\ntokens",
        "Estimated\ntokens",
        "Cost\nUSD",
        "Estimated\nUSD",
        "First",
        "Last",
    )
    for row in rows:
        table.add_row(text(row.run_id), *_run_figures([row]))
    if len(rows) > 1:
        table.add_section()
        table.add_row("Total", *_run_figures(rows))
    return table


def statement_table(found: Statement) -> Table:
    """Return a pool's statement as a table."""
    table = columns(
        "", "Entries", "Committed\ntokens", "Committed\nUSD", "Held\ntokens", "Held\nUSD"
    )

    def line(name: str, count: int | None, committed: Totals, reserved: Totals) -> None:
        table.add_row(
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
    table.add_section()
    line("Closing balance", found.seq, *found.closing)
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
        table.add_row(name, "", limit(tokens, f"{tokens:,}"), limit(cost, usd(cost)), "", "")
    return table


def denials_table(rows: Sequence[Denied]) -> Table:
    """Return denials as a table."""
    table = columns(
        "Run", "At", "Reason", "Tokens\nasked", "Tokens\nleft", "USD\nasked", "USD\nleft"
    )
    for row in rows:
        tokens, cost = row.remaining_tokens, row.remaining_cost_micros_usd
        table.add_row(
            text(row.run_id),
            moment(row.at),
            row.reason.replace("_", " "),
            f"{row.requested_tokens:,}",
            "" if tokens is None else limit(tokens, f"{tokens:,}"),
            usd(row.requested_cost_micros_usd),
            "" if cost is None else limit(cost, usd(cost)),
        )
    return table


def columns(first: str, *others: str) -> Table:
    """Return a table without rows: the first column names them, the others are figures."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def text(value: str | None) -> Text:
    """Return a name as text: square brackets in it are not rich's markup."""
    return Text("(none)", style="dim") if value is None else Text(printable(value))


def printable(value: str) -> str:
    """Return text with its control characters spelled out: a name must not drive a terminal."""
    return "".join(
        char if unicodedata.category(char) not in {"Cc", "Cf"} else repr(char)[1:-1]
        for char in value
    )


def _run_figures(rows: Sequence[RunCost]) -> list[str]:
    return [
        f"{sum(row.requests for row in rows):,}",
        f"{sum(row.denied for row in rows):,}",
        f"{sum(row.input_tokens for row in rows):,}",
        f"{sum(row.output_tokens for row in rows):,}",
        f"{sum(row.total_tokens for row in rows):,}",
        f"{sum(row.estimated_total_tokens for row in rows):,}",
        usd(sum(row.cost_micros_usd for row in rows)),
        usd(sum(row.estimated_cost_micros_usd for row in rows)),
        moment(min(row.first_at for row in rows)),
        moment(max(row.last_at for row in rows)),
    ]


def _plain(row: DataclassInstance) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(row).items()
    }
