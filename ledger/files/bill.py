"""Bills, logs and traces: `read_bill` reads and checks every line of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ledger.core.calendar import zone_named
from ledger.core.checks import check_callable, check_path, check_several, check_type
from ledger.errors import BillingFileError, InvalidInputError
from ledger.files.cells import CellReader
from ledger.files.lines import BillLine, Lines
from ledger.files.mapping import ATTRIBUTION, BillMapping, Identical, Repeats
from ledger.files.numbers import Amount, shown
from ledger.files.rows import COLUMNS_MAX, LIST, Row, Table, digest_of
from ledger.files.source import Source, opened
from ledger.files.tables import tables

_MICROSECOND = timedelta(microseconds=1)
_TOLD_EVERY = 1_000
"""After how many rows the progress is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The content of a file, read through a mapping.

    Attributes:
        file: The file's name, without its folder.
        sha256: The hash of its bytes, in hexadecimal digits.
        mapping: The mapping, without the optional fields that the file lacks.
        axes: The amounts that the file has, by the journal's names.
        lines: The lines with an amount.
        looks: What kind of file it is, for people.
        empty: How many more lines have no amount at all: the empty days of an export.
        not_selected: How many more lines the mapping's `only` leaves out.
        replaced: How many more lines were replaced by a later line of their request.
        identical: The numbers of the lines that repeat an earlier line in every cell.
        undated: How many lines have no time.
        least: The smallest amount of a line on each axis, 0 without lines.
        most: The largest one.
        first: The earliest time that a line says, also one without amounts; None if none says one.
        last: The latest time at which a line ends, or begins if it says no end.
        unread_columns: The columns that the mapping does not name.
        unread_lists: How many values each list within the rows has that the mapping does not name;
            how many lines each kind of token has that it does not name; and how many rows other
            sheets of a workbook have.
    """

    file: str
    sha256: str
    mapping: BillMapping
    axes: tuple[str, ...]
    lines: Sequence[BillLine]
    looks: str
    empty: int
    not_selected: int
    replaced: int
    identical: Sequence[int]
    undated: int
    least: Sequence[Amount]
    most: Sequence[Amount]
    first: datetime | None
    last: datetime | None
    unread_columns: Sequence[str]
    unread_lists: Mapping[str, int]


def read_bill(
    path: str | Path,
    mappings: Sequence[BillMapping],
    *,
    attributed: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Bill:
    """Return a file's lines, all of them checked.

    Args:
        path: A file of CSV, JSON, or one JSON object a line; a workbook or a Parquet file; or one
            of them in gzip or zip.
        mappings: The meaning of its columns. The first mapping that fits the columns is used.
        attributed: Whether the run, provider, tenant and agent of each line are read, too.
        progress: Called now and then with how many bytes of the file are read, and how many it has.

    Raises:
        InvalidInputError: An argument of another type, or no mapping.
        BillingFileError: The file cannot be read; the error names the line and what is wrong.
        MissingExtraError: The library that reads such a file is not installed.
    """
    path = check_path("path", path)
    check_callable("progress", progress)
    _check_mappings(mappings)
    if not attributed:
        without: dict[str, Any] = dict.fromkeys(ATTRIBUTION)
        mappings = [replace(one, **without) for one in mappings]
    with fitted_table(path, mappings) as (source, mapping, table):
        reader = _Reader(mapping, table.columns)
        rows = table.rows(reader.cells.asked, hashed=reader.compares_rows)
        for number, row in enumerate(rows):
            if progress is not None and number % _TOLD_EVERY == 0:
                progress(*source.position)
            try:
                reader.add(row)
            except InvalidInputError as error:
                if isinstance(error, BillingFileError):
                    raise
                raise source.refuse(row.line, str(error)) from error
        return Bill(
            # The journal holds UTF-8 text; a file's name may have bytes that are none.
            file=path.name.encode(errors="replace").decode(),
            sha256=source.sha256,
            mapping=mapping,
            axes=mapping.axes,
            lines=reader.lines,
            looks=table.looks,
            empty=reader.empty,
            not_selected=reader.not_selected,
            replaced=reader.replaced,
            identical=reader.identical,
            undated=reader.undated,
            least=reader.least,
            most=reader.most,
            first=reader.first,
            last=reader.last,
            unread_columns=[
                name
                for name in table.columns
                if name and LIST not in name and name not in reader.cells.asked
            ],
            unread_lists=_unread(table, reader.cells),
        )


@contextmanager
def fitted_table(
    path: Path, mappings: Sequence[BillMapping]
) -> Iterator[tuple[Source, BillMapping, Table]]:
    """Open a file, and give the first mapping that fits one of its tables, and that table.

    Raises:
        InvalidInputError: An argument of another type, or no mapping.
        BillingFileError: The file cannot be read, or no mapping fits; the error is then the last
            mapping's, for the table that the file looks like.
    """
    _check_mappings(mappings)

    def refuse(line: int | None, reason: str) -> BillingFileError:
        return BillingFileError(str(path), line=line, reason=reason)

    with opened(path, refuse) as source:
        mapping, table = _fitting(source, mappings)
        yield source, mapping, table


def _check_mappings(mappings: Sequence[BillMapping]) -> None:
    check_several("mappings", mappings)
    for one in mappings:
        check_type("mappings", one, BillMapping)
    if not mappings:
        raise InvalidInputError("mappings", "must not be empty; READY has those of providers")


def _fitting(source: Source, mappings: Sequence[BillMapping]) -> tuple[BillMapping, Table]:
    asked = {column for mapping in mappings for column in mapping.columns}
    known: dict[object, list[Table]] = {}
    refusal = "it holds no table"
    for mapping in mappings:
        how = (tuple(mapping.rows), mapping.delimiter, mapping.skip_lines)
        if how not in known:  # a file of JSON is read once for its columns, not for each mapping
            known[how] = [
                *tables(
                    source,
                    lists=mapping.rows,
                    asked=asked,
                    delimiter=mapping.delimiter,
                    skip=mapping.skip_lines,
                )
            ]
        likely = None
        for table in known[how]:
            if not table.has_rows:  # a bill of nothing
                return mapping, table
            if len(table.columns) > COLUMNS_MAX:
                table.require_sound()
            try:
                fitted = mapping.fitted(table.columns)
            except InvalidInputError as error:
                likely = likely or f"{error} (it looks like {table.looks})"
            else:
                table.require_sound()
                return fitted, table
        refusal = likely or refusal
    raise source.refuse(None, refusal)


def _unread(table: Table, cells: CellReader) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, count in table.unread.items():
        if name not in cells.asked:
            found[name.partition(LIST)[0]] += count
    found.update({f"kind {shown(name)}": count for name, count in cells.other_kinds.items()})
    return dict(sorted(found.items()))


class _Several:
    """What the lines of one request have said so far."""

    def __init__(self, first: BillLine, digest: bytes, amounts: Sequence[str]) -> None:
        self.rows = {digest}
        self.lines = dict.fromkeys(amounts, first.line)


class _Reader:
    """The lines of a bill, while its rows are added one after the other."""

    def __init__(self, mapping: BillMapping, columns: Sequence[str]) -> None:
        self._mapping = mapping
        self.cells = CellReader(mapping, columns)
        self.lines = Lines(zone_named(mapping.zone))
        self._places: dict[bytes, int] = {}
        """Where the first line of a request is, by a hash of its id; of other lines by their row's.

        A hash of 16 bytes and a number are what memory holds of a line: 66 MB for 500,000.
        """
        self._several: dict[bytes, _Several] = {}
        self.empty = self.not_selected = self.replaced = 0
        self.identical: list[int] = []
        self._session = b""
        """The hash of the row that began the session that the next row is of."""
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.undated = 0
        self.least: Sequence[Amount] = (0,) * len(mapping.axes)
        self.most: Sequence[Amount] = self.least
        self._adds_all = mapping.request_id is None and mapping.identical is Identical.ADD
        self.compares_rows = not self._adds_all or bool(mapping.begins)
        """Whether any line may be one that the file has already."""

    def add(self, row: Row) -> None:
        """Add a row.

        Raises:
            InvalidInputError: A cell cannot be read, or the row repeats one that it must not.
        """
        if self._mapping.begins and self.cells.begins_session(row.cells):
            self._session = row.digest
        if self._mapping.only and not self.cells.is_selected(row.cells):
            self.not_selected += 1
            return
        when = self.cells.times(row.cells)
        if when is not None:
            at, _day, end = when
            last = at if end is None else end - _MICROSECOND
            self.first = at if self.first is None or at < self.first else self.first
            self.last = last if self.last is None or last > self.last else self.last
        if not self.cells.has_amounts(row.cells):
            self.empty += 1
            return
        if self._mapping.identity:
            row = row._replace(digest=self.cells.identity(row.cells, self._session))
        line = self.cells.line(row, when)
        self._note(line)
        if line.request_id is None and self._mapping.identical is Identical.ADD:
            self.lines.add(line, row.digest)
            return
        key = row.digest if line.request_id is None else digest_of(line.request_id)
        place = self._places.get(key)
        if place is None:
            self._places[key] = self.lines.add(line, row.digest)
        elif line.request_id is None:
            self.identical.append(line.line)
            if self._mapping.identical is not Identical.ONCE:
                self.lines.add(line, row.digest)
        else:
            self._add_more(line, row.digest, key, place)

    def _note(self, line: BillLine) -> None:
        """Note between what a line's time and amounts are."""
        if line.at is None:
            self.undated += 1
        amounts = line.amounts
        if not len(self.lines):
            self.least = self.most = amounts
            return
        for amount, least, most in zip(amounts, self.least, self.most, strict=True):
            if amount < least or amount > most:
                self.least = tuple(map(min, self.least, amounts))
                self.most = tuple(map(max, self.most, amounts))
                return

    def _add_more(self, line: BillLine, digest: bytes, key: bytes, place: int) -> None:
        """Add a further line of a request."""
        mapping = self._mapping
        known = self._several.get(key)
        if known is None:
            first = self.lines[place]
            known = _Several(first, self.lines.digest(place), self._said(first))
            self._several[key] = known
        repeated = digest in known.rows
        if repeated:
            self.identical.append(line.line)
            if mapping.identical is Identical.ONCE:
                return
        known.rows.add(digest)
        added = repeated and mapping.identical is Identical.ADD
        if mapping.repeats is Repeats.LAST:
            self.replaced += 1
            self.lines.add(line, digest, at=place)
            return
        if mapping.repeats is Repeats.REFUSE and not added:
            self._require_new(line, known, repeated=repeated)
        self.lines.add(line, digest)

    def _said(self, line: BillLine) -> list[str]:
        """Return the amounts that a line has of its own, which are not 0."""
        own = self._mapping.amounts
        pairs = zip(self._mapping.axes, line.amounts, strict=True)
        return [axis for axis, amount in pairs if amount and axis in own]

    def _require_new(self, line: BillLine, known: _Several, *, repeated: bool) -> None:
        """Refuse an amount that another line of the request has, too."""
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
