"""Makes lines of rows: they are read together, and compared with earlier lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ledger.core.calendar import zone_named
from ledger.core.columns import kept
from ledger.core.errors import InvalidInputError
from ledger.files.cells import CellReader, Moments, ReadRows
from ledger.files.lines import KeptLine, LineColumns, Lines
from ledger.files.mapping import COST_FIELD, BillMapping, Identical, Repeats
from ledger.files.numbers import Amount, shown
from ledger.files.rows import FileRows, digest_of
from ledger.files.source import Refuse


class _Several:
    """The earlier lines of one request."""

    def __init__(self, first: bytes) -> None:
        self.rows = {first}
        """The hashes of their rows."""
        self.lines: dict[str, int] = {}
        """The line of each amount, if a second one is refused."""


class _Block(NamedTuple):
    """Several rows, read but not added.

    Attributes:
        session: The hash of the row that began the session of the last of them.
        begins: When the selected rows begin.
        ends: When the selected rows end.
        not_selected: How many are not selected.
        empty: How many of the selected rows have no amount.
        lines: The other rows, as lines.
        within: Which line each of these is a part of, if the mapping says so.
    """

    session: bytes
    begins: Moments
    ends: Moments
    not_selected: int
    empty: int
    lines: ReadRows
    within: Sequence[str]


class LineReader:
    """The lines of a file, while its rows are added.

    Attributes:
        cells: The meaning of its cells.
        lines: The lines so far.
        compares_rows: Whether any line may be one that the file has already.
        empty, not_selected, replaced, identical, undated, least, most: As `Bill` has them.
        first, last: As `Bill` has them, but in microseconds since 1970.
        other_kinds: How many lines each kind of token has that the mapping does not name.
    """

    def __init__(self, mapping: BillMapping, columns: Sequence[str], refuse: Refuse) -> None:
        self._mapping = mapping
        self._refuse = refuse
        self.cells = CellReader(mapping, columns)
        self.lines = Lines(zone_named(mapping.zone))
        self._places: dict[bytes, int] = {}
        """The place of the first line of each request, by a hash of its id; of other lines by the
        row's hash.

        A hash of 16 bytes and a number are what memory holds of a line: 66 MB for 500,000.
        """
        self._several: dict[bytes, _Several] = {}
        self._within: dict[bytes, bytes] = {}
        """Which request a request is a part of, by the hashes of their ids."""
        self._tops: dict[bytes, bool] = {}
        self.empty = self.not_selected = self.replaced = 0
        self.identical: list[int] = []
        self.other_kinds: Counter[str] = Counter()
        self._session = b""
        """The hash of the row that began the present session."""
        self.first: int | None = None
        self.last: int | None = None
        self.undated = 0
        self.least: Sequence[Amount] = (0,) * len(mapping.axes)
        self.most: Sequence[Amount] = self.least
        self._adds_all = mapping.request_id is None and mapping.identical is Identical.ADD
        self.compares_rows = not self._adds_all or bool(mapping.begins)

    def add(self, rows: FileRows) -> None:
        """Add rows.

        Raises:
            LedgerError: A cell cannot be read, or a row repeats one that it must not.
        """
        try:
            block = self._read(rows)
        except InvalidInputError as error:
            if len(rows.lines) == 1:
                raise self._refuse(rows.lines[0], str(error)) from error
            for row in rows.each():  # one by one, to name the first that cannot be read
                self.add(row)
            return
        self._session = block.session
        self.not_selected += block.not_selected
        self.empty += block.empty
        self.other_kinds.update(block.lines.other_kinds)
        self._note_times(block)
        lines = block.lines.columns
        if lines.line:
            self._note_amounts(lines)
            self._add(lines)
            parts = zip(lines.request_id, block.within, strict=False)
            self._within |= {digest_of(f"{one}"): digest_of(whole) for one, whole in parts if whole}

    def leave_out_inner(self) -> None:
        """Leave out the lines that say the same as the line that they are a part of.

        Of several such parts one is left out, since only one of them is the same call. Lines
        without tokens are kept: nothing says that they are the same.
        """
        inner: dict[int, int] = {}
        for one, whole in self._within.items():
            part, around = self._places.get(one), self._places.get(whole)
            if part is None or around is None or not self._has_top(one):
                continue
            tokens = self._tokens(part)
            if any(tokens) and tokens == self._tokens(around):
                inner.setdefault(around, part)
        self.not_selected += len(inner)
        self.lines.drop(set(inner.values()))

    def _has_top(self, one: bytes) -> bool:
        """Tell whether a line is, in the end, a part of one that is no part of itself."""
        path, tops = [], self._tops
        while one in self._within and one not in tops:
            tops[one] = False  # until its end is known
            path.append(one)
            one = self._within[one]
        found = tops.get(one, True)
        tops |= dict.fromkeys(path, found)
        return found

    def _tokens(self, place: int) -> list[Amount]:
        pairs = zip(self._mapping.axes, self.lines.record(place).amounts, strict=True)
        return [amount for axis, amount in pairs if axis != COST_FIELD]

    def _read(self, rows: FileRows) -> _Block:
        """Return the content of rows; nothing is changed.

        Raises:
            InvalidInputError: A cell cannot be read.
        """
        cells, session = self.cells, self._session
        sessions = [session] * len(rows.lines)
        if self._mapping.begins:
            begun = zip(cells.begin_session(rows), rows.digests, strict=True)
            sessions = [session := digest if is_first else session for is_first, digest in begun]
        if self._mapping.identity:
            rows = rows._replace(digests=cells.identities(rows, sessions))
        selected = rows.kept(cells.selected(rows))
        begins, ends = cells.times(selected)
        filled = cells.have_amounts(selected)
        told = selected.kept(filled)
        return _Block(
            session=session,
            begins=begins,
            ends=ends,
            not_selected=len(rows.lines) - len(selected.lines),
            empty=len(selected.lines) - len(told.lines),
            lines=cells.lines(told, kept(begins, filled), kept(ends, filled)),
            within=told.cells.get(self._mapping.within or "", ()),
        )

    def _note_times(self, block: _Block) -> None:
        """Note the earliest and the latest time of rows."""
        pairs = zip(block.begins, block.ends, strict=True)
        lasts = [at if end is None else end - 1 for at, end in pairs if at is not None]
        if lasts:
            first, last = min(at for at in block.begins if at is not None), max(lasts)
            self.first = first if self.first is None else min(first, self.first)
            self.last = last if self.last is None else max(last, self.last)

    def _note_amounts(self, lines: LineColumns) -> None:
        """Note the smallest and largest amounts of lines, and how many lines have no time."""
        self.undated += lines.at.count(None)
        by_axis = [*zip(*lines.amounts, strict=True)]
        least, most = tuple(map(min, by_axis)), tuple(map(max, by_axis))
        if len(self.lines):
            least = tuple(map(min, self.least, least))
            most = tuple(map(max, self.most, most))
        self.least, self.most = least, most

    def _add(self, lines: LineColumns) -> None:
        """Add lines, some of which may repeat earlier ones."""
        if self._adds_all:
            self.lines.extend(lines)
            return
        named = zip(lines.request_id, lines.digest, strict=True)
        keys = [digest if name is None else digest_of(name) for name, digest in named]
        count = len(self.lines)
        places = dict(zip(keys, range(count, count + len(keys)), strict=True))
        if len(places) == len(keys) and places.keys().isdisjoint(self._places.keys()):
            self._places.update(places)
            self.lines.extend(lines)
            return
        for record, key in zip(lines.records(), keys, strict=True):
            try:
                self._add_one(record, key)
            except InvalidInputError as error:
                raise self._refuse(record.line, str(error)) from error

    def _add_one(self, line: KeptLine, key: bytes) -> None:
        mapping = self._mapping
        place = self._places.get(key)
        if place is None:
            self._places[key] = self.lines.add(line)
        elif line.request_id is not None:
            self._add_more(line, key, place)
        elif mapping.identical is Identical.ADD:
            self.lines.add(line)
        else:
            self.identical.append(line.line)
            if mapping.identical is not Identical.ONCE:
                self.lines.add(line)

    def _add_more(self, line: KeptLine, key: bytes, place: int) -> None:
        """Add a further line of a request."""
        mapping = self._mapping
        known = self._several.get(key)
        if known is None:
            known = self._several[key] = _Several(self.lines.digest(place))
            if mapping.repeats is Repeats.REFUSE:
                first = self.lines.record(place)
                known.lines = dict.fromkeys(self._said(first), first.line)
        repeated = line.digest in known.rows
        if repeated:
            self.identical.append(line.line)
            if mapping.identical is Identical.ONCE:
                return
        known.rows.add(line.digest)
        added = repeated and mapping.identical is Identical.ADD
        if mapping.repeats is Repeats.LAST:
            self.replaced += 1
            self.lines.replace(place, line)
            return
        if mapping.repeats is Repeats.REFUSE and not added:
            self._require_new(line, known, repeated=repeated)
        self.lines.add(line)

    def _said(self, line: KeptLine) -> list[str]:
        """Return the amounts of a line that are not 0."""
        own = self._mapping.amounts
        pairs = zip(self._mapping.axes, line.amounts, strict=True)
        return [axis for axis, amount in pairs if amount and axis in own]

    def _require_new(self, line: KeptLine, known: _Several, *, repeated: bool) -> None:
        """Refuse an amount that another line of the request also has."""
        for axis in self._said(line):
            if axis in known.lines:
                meaning = "repeats 'add' (each line is a part) or 'last' (the last line says all)"
                if repeated:
                    meaning = "identical 'once' (they are one line) or 'add' (each was billed)"
                raise InvalidInputError(
                    f"{self._mapping.request_id}",
                    f"{shown(f'{line.request_id}')} has {axis} on line {known.lines[axis]} "
                    f"already; say what that means, in the mapping or as an option: {meaning}",
                )
            known.lines[axis] = line.line
