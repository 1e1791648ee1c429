"""Bills, logs and traces: `read_bill` reads and checks every line of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ledger.core.checks import check_callable, check_path, check_several, check_type, from_micros
from ledger.core.errors import BillingFileError, InvalidInputError
from ledger.files.line_reader import LineReader
from ledger.files.lines import BillLine
from ledger.files.mapping import ATTRIBUTION, BillMapping
from ledger.files.numbers import Amount, shown
from ledger.files.rows import COLUMNS_MAX, LIST, FileTable
from ledger.files.source import SourceFile, opened
from ledger.files.tables import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The content of a file, read through a mapping.

    Attributes:
        file: The file's name, without its folder.
        sha256: The hash of its bytes, in hexadecimal digits.
        mapping: The mapping, without the optional fields that the file lacks.
        axes: The amounts that the file has, by the journal's names.
        lines: The lines with an amount.
        looks: What kind of file it is, in words.
        empty: How many more lines have no amount at all, such as the empty days of an export.
        not_selected: How many more lines the mapping leaves out, by its `only`, or since the line
            that they are `within` says the same.
        replaced: How many more lines were replaced by a later line of their request.
        identical: The numbers of the lines whose cells all equal those of an earlier line.
        undated: How many lines have no time.
        least: The smallest amount of a line on each axis, 0 without lines.
        most: The largest one.
        first: The earliest time of any line, also of one without amounts; None if no line has a
            time.
        last: The latest end of a line, or its beginning if it has no end.
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
        progress: Called now and then with how many bytes of the file are read, and its size in
            bytes.

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
        reader = LineReader(mapping, table.columns, source.refuse)
        for rows in table.rows(reader.cells.asked, hashed=reader.compares_rows):
            reader.add(rows)
            if progress is not None:
                progress(*source.position)
        reader.leave_out_inner()
        return Bill(
            # The journal holds UTF-8 text, but a file's name may have bytes that are not UTF-8.
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
            first=None if reader.first is None else from_micros(reader.first),
            last=None if reader.last is None else from_micros(reader.last),
            unread_columns=[
                name
                for name in table.columns
                if name and LIST not in name and name not in reader.cells.asked
            ],
            unread_lists=_unread(table, reader),
        )


@contextmanager
def fitted_table(
    path: Path, mappings: Sequence[BillMapping]
) -> Iterator[tuple[SourceFile, BillMapping, FileTable]]:
    """Open a file, and return the first mapping that fits one of its tables, and that table.

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


def _fitting(source: SourceFile, mappings: Sequence[BillMapping]) -> tuple[BillMapping, FileTable]:
    asked = {column for mapping in mappings for column in mapping.columns}
    known: dict[object, list[FileTable]] = {}
    refusal = "it holds no table"
    for mapping in mappings:
        how = (tuple(mapping.rows), mapping.delimiter, mapping.skip_lines)
        if how not in known:  # a JSON file is read once for its columns, not once for each mapping
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
            if not table.has_rows:  # an empty bill
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


def _unread(table: FileTable, reader: LineReader) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, count in table.unread.items():
        if name not in reader.cells.asked:
            found[name.partition(LIST)[0]] += count
    found.update({f"kind {shown(name)}": count for name, count in reader.other_kinds.items()})
    return dict(sorted(found.items()))
