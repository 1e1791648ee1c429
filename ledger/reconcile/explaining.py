"""`explain`: what a mapping reads of a file's first rows, before anything is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from ledger.core.calendar import zone_named
from ledger.core.checks import I64_MAX, check_amount, check_path
from ledger.core.errors import InvalidInputError
from ledger.files.bill import fitted_table
from ledger.files.cells import CellReader
from ledger.files.lines import BillLine
from ledger.files.mapping import COLUMN_FIELDS, BillMapping
from ledger.files.rows import LIST, FileRows


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRow:
    """One row of a file, as its mapping reads it.

    Attributes:
        line: Its number in the file.
        cells: The texts of the columns that the mapping reads, by column.
        read: The line of the bill; None if the row is not a line.
        reason: Why the row is not a line: it is left out, has no amount, or cannot be read.
    """

    line: int
    cells: Mapping[str, str]
    read: BillLine | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What a mapping reads of a file.

    Attributes:
        file: The file.
        looks: What kind of file it is, in words.
        mapping: The mapping that fits.
        fields: The columns of each field that the mapping reads.
        axes: The amounts that the file has.
        unread: The columns that it does not read.
        rows: The first rows.
    """

    file: str
    looks: str
    mapping: str
    fields: Mapping[str, Sequence[str]]
    axes: Sequence[str]
    unread: Sequence[str]
    rows: Sequence[ExplainedRow]


def explain(path: str | Path, mappings: Sequence[BillMapping], *, rows: int = 5) -> Explained:
    """Return what the first mapping that fits reads of a file's first rows.

    Args:
        path: The file.
        mappings: The mappings.
        rows: How many rows.

    Raises:
        InvalidInputError: An argument of another type, or no mapping.
        BillingFileError: The file cannot be read, or no mapping fits. A row that cannot be read
            raises nothing: it is returned with the reason.
    """
    path = check_path("path", path)
    check_amount("rows", rows, ceiling=I64_MAX)
    with fitted_table(path, mappings) as (_source, mapping, table):
        reader = CellReader(mapping, table.columns)
        with closing(table.rows(reader.asked)) as found:
            each = (row for several in found for row in several.each())
            zone = zone_named(mapping.zone)
            shown = [_explained(reader, row, zone) for row in islice(each, rows)]
        return Explained(
            file=path.name,
            looks=table.looks,
            mapping=mapping.name,
            fields={
                name: [value] if isinstance(value, str) else value
                for name in COLUMN_FIELDS
                if (value := getattr(mapping, name))
            },
            axes=mapping.axes,
            unread=[
                name
                for name in dict.fromkeys(one.partition(LIST)[0] for one in table.columns)
                if name and not any(one.partition(LIST)[0] == name for one in reader.asked)
            ],
            rows=shown,
        )


def _explained(reader: CellReader, row: FileRows, zone: ZoneInfo) -> ExplainedRow:
    """Explain a row, which is given by itself."""
    line, reason = None, None
    try:
        if not all(reader.selected(row)):
            reason = "left out by only"
        elif not all(reader.have_amounts(row)):
            reason = "without any amount"
        else:
            read = reader.lines(row, *reader.times(row))
            (line,) = (record.bill_line(zone) for record in read.columns.records())
    except InvalidInputError as error:
        reason = str(error)
    cells = {name: text for name, (text,) in row.cells.items() if text}
    return ExplainedRow(line=row.lines[0], cells=cells, read=line, reason=reason)
