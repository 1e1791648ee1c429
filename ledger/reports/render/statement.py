"""The tables of a pool's statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import attrgetter

from ledger.core.axes import AXES, Axis
from ledger.core.entries import Balance, Totals
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.status import CreditStatus, LimitStatus
from ledger.core.values import GUESSED
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import (
    capacity,
    counted,
    figure,
    figures,
    in_words,
    moment,
    shown_axes,
    text,
)
from ledger.reports.statement import Statement, StatementLine

_HEADINGS = {"entries": "Entries", "unpriced": "Unpriced\nentries"}
"""What is counted of each kind: of one call, its reservation and its settlement."""


def statement_sheet(found: Statement) -> Sheet:
    """Return a pool's statement, summed up by kind."""
    axes = shown_axes([found.policy])
    counts = ["entries"]
    if any(movement.unpriced for movement in found.movements):
        counts.append("unpriced")
    sheet = Sheet(
        columns=columns(
            "",
            *(_HEADINGS[name] for name in counts),
            *(f"{what}\n{axis.shown}" for what in ("Committed", "Held") for axis in axes),
        ),
        title=f"Statement of pool {found.pool}",
    )

    def line(name: str, many: Sequence[int | None], committed: Totals, reserved: Totals) -> None:
        sheet.add(
            name,
            *("" if count is None else f"{count:,}" for count in many),
            *figures(axes, committed),
            *figures(axes, reserved),
        )

    line("Opening balance", [None for _count in counts], *found.opening)
    for movement in found.movements:
        many = [getattr(movement, name) for name in counts]
        line(f"  {movement.kind}", many, movement.committed, movement.reserved)
    sheet.add_section()
    closing = [found.seq - found.opening_seq, sum(one.unpriced for one in found.movements)]
    line("Closing balance", closing[: len(counts)], *found.closing)
    policy = found.policy
    limits = {axis: axis.limit(policy) for axis in axes}
    below: list[tuple[str, list[str]]] = [
        ("Capacity", [capacity(axis, policy) for axis in axes]),
        ("Kept back", [figure(axis, getattr(policy, axis.stop_threshold)) for axis in axes]),
        ("Remaining", [figure(axis, axis.left(found.remaining)) for axis in axes]),
    ]
    carried = Totals() if found.window is None else found.window.carried
    for name, percent in policy.thresholds.items():
        # Rounded up to the first amount at which the threshold is reached.
        parts = [
            capacity(axis, policy)
            if limit is None
            else figure(axis, -(-max(0, limit + getattr(carried, axis.name)) * percent // 100))
            for axis, limit in limits.items()
        ]
        below.append((f"{text(name)} ({percent} %)", parts))
    for name, shown in below:
        sheet.add(name, *("" for _count in counts), *shown, *("" for _axis in axes))
    return sheet


def silent_thresholds(policy: SharedPoolBudgetOptions) -> list[str]:
    """Return in words which named thresholds can never be crossed, nothing where all can."""
    if not policy.thresholds or not all(map(policy.is_unlimited, AXES)):
        return []
    names, are = ", ".join(policy.thresholds), "is" if len(policy.thresholds) == 1 else "are"
    said = f"{names} {are} crossed by the capacity or credits alone, and this pool has neither: "
    return [f"{said}limits raise no alert"]


def statement_notes(found: Statement, now: datetime) -> list[str]:
    """Return in words what a statement's remainder counts beside the closing balance."""
    axes, notes = shown_axes([found.policy]), []
    if found.recorded_at > now:
        notes.append(
            f"The newest entry is of {moment(found.recorded_at)}, ahead of the clock: until then"
            " no hold expires and no window ends"
        )

    def said(amounts: Totals) -> str:
        return in_words(axes, [getattr(amounts, axis.name) for axis in axes])

    if found.balance != found.closing:
        committed, held = found.balance
        notes.append(
            f"Leases are due and count as expired: committed {said(committed)}, held {said(held)}"
        )
    window = found.window
    if window is not None:
        begun = f"Window {moment(window.start)} to {moment(window.end)}: "
        if not window.begun:
            begun = f"No session lasts; a call now would begin one until {moment(window.end)}: "
        line = (
            f"{begun}committed {said(window.committed)}, "
            f"remaining {in_words(axes, [axis.left(found.remaining) for axis in axes])}"
        )
        moved = _carried(axes, window.carried)
        notes.append(f"{line}, {moved}" if moved else line)
    notes += silent_thresholds(found.policy)
    notes += [*map(_limit_line, found.limits), *map(_credit_line, found.credits)]
    if any(found.debt):
        owing = [axis for axis in AXES if getattr(found.debt, axis.name)]
        owed = in_words(owing, [getattr(found.debt, axis.name) for axis in owing])
        notes.append(f"Owed, and paid by the next credit: {owed}")
    if found.until is not None:
        notes.append(f"What remains is so until {moment(found.until)}")
    return notes


def _carried(axes: Sequence[Axis], amounts: Totals) -> str:
    """Return what a window got of the one before, nothing if it got nothing."""
    said = []
    for sign, what in ((1, "with {} carried over"), (-1, "after {} of overage were deducted")):
        moved = [axis for axis in axes if sign * getattr(amounts, axis.name) > 0]
        if moved:
            parts = [abs(getattr(amounts, axis.name)) for axis in moved]
            said.append(what.format(in_words(moved, parts)))
    return ", ".join(said)


def _limit_line(status: LimitStatus) -> str:
    """Return how much a limit of a pool is, what is left of it, and since when it counts."""
    limit = status.limit
    axes = [axis for axis in AXES if not axis.is_unlimited(limit)]
    allowed = in_words(axes, [axis.limit(limit) for axis in axes])
    counted = in_words(axes, [getattr(status.counted, axis.name) for axis in axes])
    left = in_words(axes, [axis.left(status.remaining) for axis in axes])
    return (
        f"Limit {printable(limit.name)} of {allowed} in {limit.period}, since "
        f"{moment(status.since)}: used {counted}, remaining {left}"
    )


def _credit_line(status: CreditStatus) -> str:
    """Return what is left of a credit of a pool, and until when."""
    credit = status.credit
    axes = [axis for axis in AXES if getattr(credit, axis.name)]

    def said(amounts: object) -> str:
        return in_words(axes, [getattr(amounts, axis.name) for axis in axes])

    line = f"Credit {printable(credit.name)} of {said(credit)}: used {said(status.used)}"
    if any(status.lost):
        return f"{line}, expired {moment(credit.expires_at)} with {said(status.lost)}"
    line += f", left {said(status.left)}"
    return line if credit.expires_at is None else f"{line} until {moment(credit.expires_at)}"


_CALL: dict[str, Callable[[StatementLine], str | None]] = {
    "Run": attrgetter("run_id"),
    "Model": attrgetter("model"),
    "Request": attrgetter("request_id"),
}
"""The columns that say which call an entry is about, shown where a line has them."""


def statement_lines_sheet(found: Statement, lines: Iterable[StatementLine]) -> Sheet:
    """Return a pool's statement with a line for each entry."""
    axes, listed = shown_axes([found.policy]), list(lines)
    dated = any(moment(one.occurred_at) not in {"", moment(one.recorded_at)} for one in listed)

    def for_each(what: str, rank: int) -> list[Column]:
        return [Column(heading=f"{what}\n{axis.shown}", rank=rank) for axis in axes]

    sheet = Sheet(
        columns=[
            Column(heading="Entry"),
            Column(heading="Recorded", rank=3, left=True),
            Column(heading="Occurred", rank=5, left=True, wide=not dated),
            Column(heading="Kind", left=True),
            *for_each("Committed", 2),
            *for_each("Held", 4),
            *for_each("Balance", 0),
            *for_each("Held after", 6),
            *(
                Column(heading=name, rank=7, left=True, wide=not any(map(of, listed)))
                for name, of in _CALL.items()
            ),
            Column(heading="Remarks", rank=1, left=True),
        ],
        title=f"Statement of pool {found.pool}",
    )
    _balance(sheet, axes, "Opening balance", found.opening)
    for line in listed:
        sheet.add(
            str(line.seq),
            moment(line.recorded_at),
            moment(line.occurred_at),
            printable(line.kind),
            *_movement(axes, line.committed),
            *_movement(axes, line.reserved),
            *figures(axes, line.balance.committed),
            *figures(axes, line.balance.reserved),
            *("" if (said := of(line)) is None else text(said) for of in _CALL.values()),
            printable(_remarks(line, axes)),
        )
    sheet.add_section()
    unpriced = sum(one.unpriced for one in found.movements)
    remark = f"{counted(unpriced, 'entry', 'entries')} unpriced" if unpriced else ""
    # The opening balance and this make the closing balance.
    charged = ["", "", "", "Charged", *figures(axes, found.charged)]
    sheet.add(*charged, *[""] * (len(sheet.columns) - len(charged)))
    _balance(sheet, axes, "Closing balance", found.closing, remark)
    return sheet


def _remarks(line: StatementLine, axes: Sequence[Axis]) -> str:
    actor = None if line.actor is None else f"by {line.actor}"
    corrected = None if line.corrects is None else f"of entry {line.corrects}:"
    carried = None if line.carried is None else _carried(axes, line.carried)
    origin = None if line.origin_pool is None else f"of {line.origin_pool}, entry {line.origin_seq}"
    flags = " ".join(one for one in line.flags.split() if one != "imported")  # its kind says so
    guess = line.provenance if line.provenance in GUESSED else None
    return " ".join(filter(None, (flags, guess, corrected, carried, line.reason, actor, origin)))


def _balance(
    sheet: Sheet, axes: Sequence[Axis], name: str, balance: Balance, remark: str = ""
) -> None:
    sheet.add(
        *("", "", "", name),
        *("" for _axis in (*axes, *axes)),
        *figures(axes, balance.committed),
        *figures(axes, balance.reserved),
        *("" for _part in _CALL),
        remark,
    )


def _movement(axes: Sequence[Axis], moved: Totals) -> list[str]:
    return ["" for _axis in axes] if moved == Totals() else figures(axes, moved)
