"""A reconciliation as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ledger.files.mapping import COST_FIELD, Identical
from ledger.files.numbers import Amount
from ledger.reconcile.explaining import Explained
from ledger.reconcile.values import Amounts, Match, Outcome, Reconciliation, Status
from ledger.reports.render import Column, Sheet, counted, text, usd

_TITLES = {
    Status.MATCHED: "Matched",
    Status.DIFFERING: "Differing",
    Status.OPEN: "Billed, lease still open",
    Status.BILLED_ONLY: "Billed but not recorded",
    Status.RECORDED_ONLY: "Recorded but not billed",
}
HEADINGS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "total_tokens": "tokens",
    COST_FIELD: "USD",
    "cache_creation_tokens": "cache written",
    "cache_read_tokens": "cache read",
    "reasoning_tokens": "reasoning",
}
_HELD = {"held_tokens": "total_tokens", "held_cost_micros_usd": COST_FIELD}
"""What a match says that an open lease holds, and of which amount that is."""
_MAIN = ("total_tokens", COST_FIELD)
"""The axes that count against budgets; the other axes have columns for differences only."""


def summary_sheet(found: Reconciliation) -> Sheet:
    """Return the sums of bill and journal for each status, and their difference."""
    axes = main_axes(found.axes)
    sheet = Sheet(
        columns=[
            Column(heading=""),
            Column(heading="Matches"),
            *_columns("Billed", axes),
            *_columns("Recorded", axes),
            *_columns("Difference", axes),
        ],
        title=f"Reconciliation of {found.file}",
    )
    for part in found.parts:
        if part.status is Status.OPEN and not part.matches:
            continue
        sheet.add(
            _TITLES[part.status],
            f"{part.matches:,}",
            *cells(part.billed, axes),
            *cells(part.recorded, axes),
            *cells(part.difference, axes, signed=True),
        )
    sheet.add_section()
    sheet.add(
        "Total",
        f"{len(found.matches):,}",
        *cells(found.billed, axes),
        *cells(found.recorded, axes),
        *cells(found.difference, axes, signed=True),
    )
    return sheet


def matches_sheet(found: Reconciliation, status: Status, *, top: int) -> Sheet:
    """Return the first `top` matches of this status."""
    matches = found.of(status)
    shown = matches[:top]
    more = f", of which the first {len(shown):,}" if len(matches) > len(shown) else ""
    main = main_axes(found.axes)
    others = [axis for axis in found.axes if axis not in main]
    applied = any(match.outcome is not None for match in matches)
    guessed = any(match.guessed for match in shown)
    held = [name for name, axis in _HELD.items() if axis in main and status is Status.OPEN]
    sheet = Sheet(
        columns=[
            Column(heading="Request"),
            Column(heading=found.by.capitalize(), left=True),
            Column(heading="Model", left=True),
            Column(heading="Line"),
            Column(heading="Pool", rank=2, left=True),
            Column(heading="Entry", rank=2),
            *_columns("Billed", main),
            *_columns("Recorded", main),
            *_columns("Difference", main),
            *_columns("Difference", others, rank=3),
            *_columns("Held", [_HELD[name] for name in held]),
            *([Column(heading="Assumed", left=True)] if guessed else []),
            *([Column(heading="Applied", left=True)] if applied else []),
        ],
        title=f"{_TITLES[status]}: {len(matches):,}{more}",
    )
    for match in shown:
        sheet.add(
            text(match.request_id),
            match.day or "",
            text(match.model),
            _first(match.line, match.lines),
            text(match.pool) if match.pool is not None else "",
            _first(match.entry, match.entries),
            *cells(match.billed, main),
            *cells(match.recorded, main),
            *cells(match.difference, main, signed=True),
            *cells(match.difference, others, signed=True),
            *(_cell(_HELD[name], getattr(match, name) or 0, signed=False) for name in held),
            *([f"of lease {match.lease}" if match.guessed else ""] if guessed else []),
            *([_outcome(match)] if applied else []),
        )
    return sheet


def next_steps(found: Reconciliation) -> list[str]:
    """Return lines on what to do about each kind of difference that is left to people."""
    said = []
    if found.of(Status.OPEN):
        said.append(
            f"{_TITLES[Status.OPEN]}: the call is not recorded yet\n"
            "  'ledger leases settle POOL LEASE' settles it as it was billed, if its program is "
            "gone"
        )
    if found.of(Status.BILLED_ONLY):
        said.append(
            f"{_TITLES[Status.BILLED_ONLY]}, and not under another id either:\n"
            "  'ledger record POOL --request-id ID --reason WHY' records a call\n"
            "  'ledger import' records those of a log"
        )
    if found.of(Status.RECORDED_ONLY):
        said.append(
            f"{_TITLES[Status.RECORDED_ONLY]}: it may be on the next bill\n"
            "  'ledger leases settle POOL LEASE --request-id ID' settles, as it was billed, a "
            "lease that is open or expired\n"
            "  'ledger correct POOL ENTRY --reason WHY' corrects an entry"
        )
    if any(match.outcome is Outcome.APPLIED for match in found.matches):
        said.append(
            "These figures are those of before the corrections\n"
            "  'ledger reconcile' without --apply prints what they are now"
        )
    return said


def explained_sheets(found: Explained) -> list[Sheet]:
    """Return the columns of each field, and the first rows as they are read."""
    fields = Sheet(
        columns=[Column(heading="Field", left=True), Column(heading="Columns", left=True)],
        title=f"{found.file}: {found.looks}; mapping {found.mapping}",
    )
    for name, columns in found.fields.items():
        fields.add(name, text(" + ".join(columns)))
    rows = Sheet(
        columns=[
            Column(heading="Line"),
            Column(heading="Request"),
            Column(heading="Day", left=True),
            Column(heading="Model", left=True),
            *(Column(heading=HEADINGS[axis]) for axis in found.axes),
            Column(heading="Not read, because", left=True),
        ],
        title=f"As they are read: the first {counted(len(found.rows), 'row')}",
    )
    for row in found.rows:
        line = row.read
        amounts = [""] * len(found.axes)
        if line is not None:
            pairs = zip(found.axes, line.amounts, strict=True)
            amounts = [_exactly(axis, amount) for axis, amount in pairs]
        rows.add(
            f"{row.line}",
            text(line.request_id) if line is not None else "",
            (line.day or "") if line is not None else "",
            text(line.model) if line is not None else "",
            *amounts,
            row.reason or "",
        )
    return [fields, rows]


def _exactly(axis: str, amount: Amount) -> str:
    """Return an amount of one line: in US dollars or tokens, with up to 12 decimal places."""
    units = round(Fraction(amount) * (10**6 if axis == COST_FIELD else 10**12))
    whole, part = divmod(abs(units), 10**12)
    return f"{'-' if units < 0 else ''}{whole:,}.{part:012d}".rstrip("0").rstrip(".")


def about(found: Reconciliation) -> str:
    """Return lines on the figures: the file's hash, the mapping, what was left out."""
    lines = [f"{counted(found.lines, 'line')} of the bill"]
    if found.empty_lines:
        lines.append(f"{found.empty_lines:,} without any amount")
    if found.not_selected_lines:
        lines.append(f"{found.not_selected_lines:,} left out by the mapping")
    if found.replaced_lines:
        lines.append(f"{found.replaced_lines:,} replaced by a later line of their request")
    if found.identical_lines:
        lines.append(_identical(found))
    if found.lines_left_out:
        lines.append(f"{found.lines_left_out:,} left out by the filter")
    said = [
        f"SHA-256 {found.sha256}; mapping {found.mapping}; {found.by}s of {found.zone}",
        "; ".join(lines),
    ]
    if found.since is not None or found.until is not None:
        begin = "" if found.since is None else f" from {found.since.isoformat()}"
        end = "" if found.until is None else f" to {found.until.isoformat()}"
        said.append(f"entries{begin}{end}")
    if found.unpriced:
        many = counted(found.unpriced, "entry", "entries")
        said.append(
            f"{many} of the journal unpriced and not corrected, so that too little is recorded"
        )
    if found.rounded_up_micros_usd:
        part = usd_exactly(found)
        said.append(f"billed USD hold {part} from rounding each match up to a micro")
    if found.explained_micros_usd:
        more = usd(found.explained_micros_usd)
        said.append(f"matches hold {more} USD more than billed, as each call was rounded up")
    said += _unread(found)
    return "\n".join(said)


_NAMES = 12
"""How many names of columns a sentence has."""


def _identical(found: Reconciliation) -> str:
    lines = found.identical_lines
    what = "left out as the same line" if found.identical is Identical.ONCE else "counted each"
    verb = "repeats" if len(lines) == 1 else "repeat"
    return f"{counted(len(lines), 'line')} {verb} an earlier one ({what}), first line {lines[0]}"


def _unread(found: Reconciliation) -> list[str]:
    """Return what of the file was not read: columns and lists that the mapping does not name."""
    said = []
    if found.unread_columns:
        names = found.unread_columns[:_NAMES]
        more = len(found.unread_columns) - len(names)
        rest = f" and {more:,} more" if more else ""
        said.append(f"columns not read: {', '.join(names)}{rest}")
    if found.unread_lists:
        lists = [f"{name} ({count:,})" for name, count in found.unread_lists.items()]
        said.append(f"not read, with the number of values: {', '.join(lists[:_NAMES])}")
    return said


def usd_exactly(found: Reconciliation) -> str:
    """Return what rounding added, in US dollars, to a millionth of a micro-USD."""
    units = round(found.rounded_up_micros_usd * 1_000_000)
    return f"{units // 10**12}.{units % 10**12:012d}".rstrip("0")


def main_axes(axes: Sequence[str]) -> list[str]:
    """Return the amounts that count against budgets, of those that there are, or else all."""
    return [axis for axis in _MAIN if axis in axes] or list(axes)


def _columns(side: str, axes: Sequence[str], *, rank: int = 0) -> list[Column]:
    return [Column(heading=f"{side}\n{HEADINGS[axis]}", rank=rank) for axis in axes]


def cells(amounts: Amounts, axes: Sequence[str], *, signed: bool = False) -> list[str]:
    """Return amounts as a row's cells, with a sign where that is asked for."""
    return [_cell(axis, getattr(amounts, axis), signed=signed) for axis in axes]


def _cell(axis: str, amount: int, *, signed: bool) -> str:
    shown = usd(amount) if axis == COST_FIELD else f"{amount:,}"
    return f"+{shown}" if signed and amount > 0 else shown


def _first(number: int | None, count: int) -> str:
    if number is None:
        return ""
    return f"{number} and {count - 1:,} more" if count > 1 else str(number)


def _outcome(match: Match) -> str:
    if match.outcome is None:
        return ""
    said = match.outcome.replace("_", " ")
    return said if match.reason is None else f"{said}: {match.reason}"
