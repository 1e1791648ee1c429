"""`reconcile`: match a bill with the journal, by request id, or else by model and day."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TypeVar

from ledger.core.calendar import zone_named
from ledger.core.checks import (
    I64_MAX,
    check_amount,
    check_several,
    check_type,
    from_micros,
    to_micros,
)
from ledger.core.errors import InvalidInputError
from ledger.files.bill import Bill
from ledger.files.lines import BillLine
from ledger.files.mapping import COST_FIELD
from ledger.files.numbers import Amount
from ledger.ledger import Ledger
from ledger.reconcile.recorded import OpenCall, Recorded, open_calls, recorded
from ledger.reconcile.span import moved, with_range
from ledger.reconcile.values import Amounts, EntryRef, Match, Part, Reconciliation, Status
from ledger.reports.buckets import Unit, bucket
from ledger.reports.filters import EVERYTHING, Filter

_DAY = timedelta(days=1)
"""How far apart the times of a request in the bill and in the journal may be."""


_A = TypeVar("_A", int, Amount)


@dataclass(frozen=True, slots=True)
class _Key:
    """The key by which lines and entries are matched: a request id, or a model and a day."""

    request_id: str | None = None
    model: str | None = None
    day: str | None = None


@dataclass(slots=True)
class _Pair:
    """The sums of the two sides of one match, while lines and entries are added."""

    billed: list[Amount]
    recorded: list[int]
    model: str | None = None
    day: str | None = None
    lines: int = 0
    line: int | None = None
    entries: int = 0
    costing: int = 0
    """How many of the entries have a cost, each of which was rounded up to a micro-USD."""
    last: EntryRef | None = None
    held: list[int] | None = None
    """What the request's open leases hold; None if it has entries, or no open lease."""
    correctable: list[EntryRef] = field(default_factory=list)
    guessed: list[int] = field(default_factory=list)
    assumed: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """The usage that an expiry assumed, minus what late usage took back, by pool and lease."""


def reconcile(
    book: Ledger,
    bill: Bill,
    where: Filter = EVERYTHING,
    *,
    tolerance_tokens: int = 0,
    tolerance_cost_micros_usd: int = 0,
    axes: Sequence[str] = (),
    by: Unit = Unit.DAY,
) -> Reconciliation:
    """Compare a bill with the journal as corrected so far; nothing is written.

    Args:
        book: The store.
        bill: The bill.
        where: Which entries are compared. Its times and model select lines of the bill too; without
            times the days of the bill are compared.
        tolerance_tokens: The largest difference in tokens, on each axis, that still matches.
        tolerance_cost_micros_usd: The largest difference in cost that still matches, in millionths
            of a US dollar.
        axes: Only these amounts of the bill; by default all that it has.
        by: The piece of time that lines without a request id are compared by.

    Raises:
        InvalidInputError: The bill has no such amount, or a line is for longer than `by`.
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("book", book, Ledger)
    check_type("bill", bill, Bill)
    check_several("axes", axes)
    check_type("where", where, Filter)
    check_type("by", by, Unit)
    check_amount("tolerance_tokens", tolerance_tokens, ceiling=I64_MAX)
    check_amount("tolerance_cost_micros_usd", tolerance_cost_micros_usd, ceiling=I64_MAX)
    matching = _Matching(bill, where, _chosen(bill, axes), by)
    for one in recorded(book, matching.asked(), matching.axes):
        matching.add(one)
    for call in open_calls(book, matching.asked(), matching.unrecorded()):
        matching.add_open(call)
    return matching.result(tolerance_tokens, tolerance_cost_micros_usd)


def _chosen(bill: Bill, axes: Sequence[str]) -> tuple[str, ...]:
    for name in axes:
        if name not in bill.axes:
            raise InvalidInputError("axes", f"{name!r} is none of {', '.join(bill.axes)}")
    return tuple(name for name in bill.axes if not axes or name in axes)


class _Matching:
    """The matches of one comparison, which sums lines and entries by `_Key`."""

    def __init__(self, bill: Bill, where: Filter, axes: tuple[str, ...], by: Unit) -> None:
        self.axes = axes
        self._by = by
        self._bill = bill
        self._zone = zone_named(bill.mapping.zone)
        self._where = with_range(bill, where, by)
        self._pairs: dict[_Key, _Pair] = defaultdict(
            lambda: _Pair([0] * len(self.axes), [0] * len(self.axes))
        )
        self._billed: list[Amount] = [0] * len(axes)
        self._recorded = [0] * len(axes)
        self._lines = 0
        self._unpriced: dict[tuple[str, int], bool] = {}
        """Whether the left-out figure of an entry is still missing, by pool and entry."""
        self._by_day = by_model = False
        self._elsewhere: set[str] = set()
        for line in bill.lines:
            if not self._is_asked(line):
                if line.request_id is not None:
                    self._elsewhere.add(line.request_id)
            elif line.request_id is None:
                self._require_short(line)
                self._by_day = True
                by_model = by_model or line.model is not None
        # A bill without models is compared only by day.
        self._by_model = by_model or not self._by_day
        places = [bill.axes.index(name) for name in axes]
        for line in bill.lines:
            if self._is_asked(line):
                self._lines += 1
                self._elsewhere.discard(f"{line.request_id}")
                self._add_line(line, [line.amounts[place] for place in places])

    def asked(self) -> Filter:
        """Return which entries to read: more than the range, for requests dated differently.

        A request may be dated a day earlier. Later entries of a request, such as its settlement,
        may follow at any time.
        """
        named = any(key.request_id is not None for key in self._pairs)
        return replace(
            self._where,
            since=moved(self._where.since, -_DAY),
            until=None if named else self._where.until,
        )

    def add(self, one: Recorded) -> None:
        """Add an entry to its match, or leave it out if it is not to be compared."""
        key = self._key(one)
        if key is None:
            return
        pair = self._pairs[key]
        pair.recorded = _added(pair.recorded, one.amounts)
        self._recorded = _added(self._recorded, one.amounts)
        self._note_unpriced(one)
        pair.entries += 1
        if not one.corrects:
            pair.costing += COST_FIELD in self.axes and one.amounts[self.axes.index(COST_FIELD)] > 0
        if one.guessed:
            pair.guessed = _added(pair.guessed or [0] * len(self.axes), one.amounts)
        if one.assumed:
            so_far = pair.assumed.get(one.ref[::2], [0] * len(self.axes))
            pair.assumed[one.ref[::2]] = _added(so_far, one.amounts)
        pair.last = one.ref
        if pair.lines == 0 and key.request_id is not None:
            pair.model, pair.day = one.model, self._piece(from_micros(one.at))
        if key.request_id is not None and not one.corrects:
            pair.correctable.append(one.ref)

    def unrecorded(self) -> set[str]:
        """Return the request ids of the bill that no entry has."""
        return {
            key.request_id
            for key, pair in self._pairs.items()
            if key.request_id is not None and pair.lines and not pair.entries
        }

    def add_open(self, one: OpenCall) -> None:
        """Add a call that is not recorded, since its lease has not ended."""
        pair = self._pairs[_Key(request_id=one.request_id)]
        pair.held = _added(pair.held or [0] * len(one.held), one.held)
        pair.last = one.ref

    def _note_unpriced(self, one: Recorded) -> None:
        if one.corrected is None:
            if one.unpriced:
                self._unpriced[one.ref[:2]] = True
        elif (about := (one.ref.pool, one.corrected)) in self._unpriced:
            self._unpriced[about] = one.unpriced

    def result(self, tolerance_tokens: int, tolerance_cost_micros_usd: int) -> Reconciliation:
        """Return how the two sides compare."""
        tolerances = dict.fromkeys(self.axes, tolerance_tokens)
        tolerances[COST_FIELD] = tolerance_cost_micros_usd
        matches = sorted(
            (self._match(key, pair, tolerances) for key, pair in self._pairs.items()), key=_order
        )
        billed = Amounts.sum_of(self.axes, (match.billed for match in matches))
        exactly = dict(zip(self.axes, self._billed, strict=True))
        total = Amounts(**dict(zip(self.axes, self._recorded, strict=True)))
        return Reconciliation(
            file=self._bill.file,
            sha256=self._bill.sha256,
            mapping=self._bill.mapping.name,
            axes=self.axes,
            by=self._by,
            zone=self._bill.mapping.zone,
            since=self._where.since,
            until=self._where.until,
            as_of=self._where.as_of,
            lines=self._lines,
            empty_lines=self._bill.empty,
            not_selected_lines=self._bill.not_selected,
            lines_left_out=len(self._bill.lines) - self._lines,
            replaced_lines=self._bill.replaced,
            identical_lines=self._bill.identical,
            identical=self._bill.mapping.identical,
            unread_columns=self._bill.unread_columns,
            unread_lists=self._bill.unread_lists,
            unpriced=sum(self._unpriced.values()),
            tolerance_tokens=tolerance_tokens,
            tolerance_cost_micros_usd=tolerance_cost_micros_usd,
            matches=matches,
            parts=[self._part(status, matches) for status in Status],
            billed=billed,
            recorded=total,
            difference=billed.minus(total),
            explained_micros_usd=-sum(
                match.difference.cost_micros_usd or 0
                for match in matches
                if match.status is Status.MATCHED
                and (match.difference.cost_micros_usd or 0) < -tolerance_cost_micros_usd
            ),
            rounded_up_micros_usd=(billed.cost_micros_usd or 0)
            - Fraction(exactly.get(COST_FIELD, 0)),
            correctable={
                key.request_id: tuple(pair.correctable)
                for key, pair in self._pairs.items()
                if key.request_id is not None and pair.lines and pair.correctable
                # Usage that is still assumed is not corrected in an entry.
                if not any(map(any, pair.assumed.values()))
            },
        )

    def _is_asked(self, line: BillLine) -> bool:
        where = self._where
        if where.model is not None and line.model not in {None, where.model}:
            return False
        if line.at is None:
            return True
        return (where.since is None or line.at >= where.since) and (
            where.until is None or line.at < where.until
        )

    def _add_line(self, line: BillLine, amounts: list[Amount]) -> None:
        if line.request_id is None:
            model = line.model if self._by_model else None
            key = _Key(model=model, day=None if line.at is None else self._piece(line.at))
        else:
            key = _Key(request_id=line.request_id)
        pair = self._pairs[key]
        if pair.lines == 0:
            pair.line, pair.model = line.line, line.model
            pair.day = None if line.at is None else self._piece(line.at)
        pair.lines += 1
        pair.billed = _added(pair.billed, amounts)
        self._billed = _added(self._billed, amounts)

    def _key(self, one: Recorded) -> _Key | None:
        if one.request_id is not None:
            request = _Key(request_id=one.request_id)
            # If the bill has a line for the request, the time of the line decides, not the entry's.
            if request in self._pairs and self._pairs[request].lines:
                return request
            if one.request_id in self._elsewhere:
                return None
        at = from_micros(one.at)
        since, until = self._where.since, self._where.until
        if (since is not None and at < since) or (until is not None and at >= until):
            return None
        if one.request_id is not None and not self._by_day:
            return _Key(request_id=one.request_id)
        return _Key(
            model=one.model if self._by_model else None, day=self._piece(from_micros(one.at))
        )

    def _piece(self, at: datetime) -> str:
        return bucket(self._by, to_micros("at", at), self._zone)

    def _require_short(self, line: BillLine) -> None:
        if line.at is None or line.end is None:
            return
        if self._piece(line.at) != self._piece(line.end - timedelta(microseconds=1)):
            longer = " or ".join([*Unit][[*Unit].index(self._by) + 1 :])
            raise InvalidInputError(
                "by",
                f"line {line.line} of {self._bill.file} is for {line.at.isoformat()} to "
                f"{line.end.isoformat()}, which is longer than a {self._by}; "
                + (f"compare by {longer}" if longer else "give each month a line of its own"),
            )

    def _part(self, status: Status, matches: Sequence[Match]) -> Part:
        among = [match for match in matches if match.status is status]
        return Part(
            status=status,
            matches=len(among),
            billed=Amounts.sum_of(self.axes, (match.billed for match in among)),
            recorded=Amounts.sum_of(self.axes, (match.recorded for match in among)),
            difference=Amounts.sum_of(self.axes, (match.difference for match in among)),
        )

    def _match(self, key: _Key, pair: _Pair, tolerances: dict[str, int]) -> Match:
        # A cost is rounded up once for the whole match; tokens are whole numbers.
        billed = Amounts(
            **{name: math.ceil(part) for name, part in zip(self.axes, pair.billed, strict=True)}
        )
        said = Amounts(**dict(zip(self.axes, pair.recorded, strict=True)))
        difference = billed.minus(said)
        status = Status.DIFFERING
        if pair.held is not None and any(pair.billed):
            status = Status.OPEN
        elif not pair.entries and any(pair.billed):
            status = Status.BILLED_ONLY
        elif not pair.lines and any(pair.recorded):
            status = Status.RECORDED_ONLY
        elif self._agrees(difference, tolerances, pair.costing):
            status = Status.MATCHED
        return Match(
            status=status,
            request_id=key.request_id,
            model=pair.model if key.request_id is not None else key.model,
            day=pair.day if key.request_id is not None else key.day,
            billed=billed,
            recorded=said,
            difference=difference,
            lines=pair.lines,
            line=pair.line,
            entries=pair.entries,
            pool=None if pair.last is None else pair.last.pool,
            entry=None if pair.last is None else pair.last.seq,
            lease=None if pair.last is None else pair.last.lease,
            guessed=any(pair.guessed),
            held_tokens=None if pair.held is None else pair.held[0],
            held_cost_micros_usd=None if pair.held is None else pair.held[1],
        )

    def _agrees(self, difference: Amounts, tolerances: dict[str, int], costing: int) -> bool:
        """Tell whether a difference is tolerated, or comes from rounding up each cost."""
        return all(
            -max(tolerances[name], costing - 1 if name == COST_FIELD else 0)
            <= getattr(difference, name)
            <= tolerances[name]
            for name in self.axes
        )


def _added(known: Sequence[_A], more: Sequence[_A]) -> list[_A]:
    return [one + other for one, other in zip(known, more, strict=True)]


def _order(match: Match) -> tuple[object, ...]:
    return (
        [*Status].index(match.status),
        match.day or "",
        match.model or "",
        match.line or 0,
        match.request_id or "",
    )
