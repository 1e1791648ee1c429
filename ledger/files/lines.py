"""The lines of a file, kept in a temporary file: memory hardly grows with their number."""

from __future__ import annotations

import marshal
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from io import SEEK_END
from itertools import chain
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any, NamedTuple, overload
from weakref import finalize
from zoneinfo import ZoneInfo

from typing_extensions import override

from ledger.core.checks import from_micros
from ledger.files.numbers import Amount
from ledger.files.rows import DIGEST_BYTES

_IN_MEMORY = 4 * 2**20
"""Up to how many bytes the lines are kept in memory."""

_READ_AT_ONCE = 32_768
"""How many lines are read before the first is yielded, if lines were replaced; about 20 MB."""

_WRITTEN_AT_ONCE = 128
"""How many lines are written together; if one of them is asked for, all are read."""


class BillLine(NamedTuple):
    """What one line of a bill, a log or a trace says was used.

    Attributes:
        line: The line's number in the file; in one JSON document the number of the object; from 1.
        request_id: The provider's request id.
        model: The model, as the journal calls it.
        at: The time of the usage; for a day, its beginning.
        end: The end of that time, exclusive; None if the line does not say it.
        day: The day in the mapping's time zone.
        amounts: The amounts in the order of the bill's axes. A cost is exact: it may be a fraction
            of a micro-USD, and below 0 (a credit).
        has_cost: Whether the line says a cost, be it 0.
        run_id: The run it was used for; like the next three only if asked for.
        provider: The provider.
        tenant: The tenant.
        agent: The agent.
        identity: The identity of the line, in a log that identifies lines by other columns than a
            request id.
    """

    line: int
    request_id: str | None
    model: str | None
    at: datetime | None
    end: datetime | None
    day: str | None
    amounts: tuple[Amount, ...]
    has_cost: bool = False
    run_id: str | None = None
    provider: str | None = None
    tenant: str | None = None
    agent: str | None = None
    identity: str | None = None


class KeptLine(NamedTuple):
    """A line as it is kept: as a `BillLine`, with times in microseconds since 1970.

    A bill may have times that no journal has. `digest` is the hash of its row.
    """

    line: int
    request_id: str | None
    model: str | None
    at: int | None
    end: int | None
    amounts: tuple[Amount, ...]
    has_cost: bool
    run_id: str | None
    provider: str | None
    tenant: str | None
    agent: str | None
    identity: str | None
    digest: bytes

    def bill_line(self, zone: ZoneInfo) -> BillLine:
        """Return it as a line, with times in a zone."""
        at = None if self.at is None else from_micros(self.at).astimezone(zone)
        return BillLine(
            line=self.line,
            request_id=self.request_id,
            model=self.model,
            at=at,
            end=None if self.end is None else from_micros(self.end).astimezone(zone),
            day=None if at is None else at.date().isoformat(),
            amounts=self.amounts,
            has_cost=self.has_cost,
            run_id=self.run_id,
            provider=self.provider,
            tenant=self.tenant,
            agent=self.agent,
            identity=self.identity,
        )


class LineColumns(NamedTuple):
    """Several lines as they are kept, field by field of `KeptLine`."""

    line: Sequence[int]
    request_id: Sequence[str | None]
    model: Sequence[str | None]
    at: Sequence[int | None]
    end: Sequence[int | None]
    amounts: Sequence[tuple[Amount, ...]]
    has_cost: Sequence[bool]
    run_id: Sequence[str | None]
    provider: Sequence[str | None]
    tenant: Sequence[str | None]
    agent: Sequence[str | None]
    identity: Sequence[str | None]
    digest: Sequence[bytes]

    def records(self) -> Iterator[KeptLine]:
        """Yield the lines one by one."""
        return map(KeptLine._make, zip(*self, strict=True))


_AMOUNTS = KeptLine._fields.index("amounts")


class Lines(Sequence[BillLine]):
    """The lines in the order of the file."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed below
        finalize(self, self._file.close)
        self._lock = Lock()
        self._records = array("Q")
        """The number of each line's record, in the order of the lines."""
        self._firsts = array("Q")
        """The first record of each part of the file."""
        self._begins = array("Q", [0])
        """The offset at which each part begins, and the end of the last one."""
        self._written = 0
        self._digests = bytearray()
        """The digest of each record, since digests of early lines are asked for in any order."""
        self._waiting: list[list[Any]] = [[] for _ in KeptLine._fields]
        """The columns of the records not written yet."""
        self._read: tuple[int, list[tuple[Any, ...]]] = 0, []
        """The records that were read last, and the number of the first of them."""

    def extend(self, columns: LineColumns) -> None:
        """Add lines."""
        self._records.extend(range(self._count, self._count + len(columns.line)))
        self._digests += b"".join(columns.digest)
        self._append(columns)

    def add(self, record: KeptLine) -> int:
        """Add a line, and return its place."""
        self._records.append(self._count)
        self._digests += record.digest
        self._append([value] for value in record)
        return len(self) - 1

    def replace(self, place: int, record: KeptLine) -> None:
        """Put a line in place of an earlier one."""
        self._records[place] = self._count
        self._digests += record.digest
        self._append([value] for value in record)

    def drop(self, places: Collection[int]) -> None:
        """Leave lines out; those behind them move up."""
        if places:
            rest = (one for place, one in enumerate(self._records) if place not in places)
            self._records = array("Q", rest)

    def digest(self, place: int) -> bytes:
        """Return the hash of a line's row, without reading the line."""
        begin = self._records[place] * DIGEST_BYTES
        return bytes(self._digests[begin : begin + DIGEST_BYTES])

    def record(self, place: int) -> KeptLine:
        """Return a line as it is kept."""
        return self._numbered(self._records[place])

    def _numbered(self, number: int) -> KeptLine:
        with self._lock:
            first, records = self._read
            if not first <= number < first + len(records):
                first, records = self._read = self._part_with(number)
        found = KeptLine._make(records[number - first])
        if tuple in map(type, found.amounts):
            amounts: Any = found.amounts
            amounts = (one if isinstance(one, int) else Fraction(*one) for one in amounts)
            return found._replace(amounts=tuple(amounts))
        return found

    @override
    def __eq__(self, other: object) -> bool:
        """Tell whether the lines equal those of another sequence."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @override
    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> BillLine: ...
    @overload
    def __getitem__(self, index: slice) -> list[BillLine]: ...
    @override
    def __getitem__(self, index: int | slice) -> BillLine | list[BillLine]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self.record(index).bill_line(self._zone)

    @override
    def __iter__(self) -> Iterator[BillLine]:
        for begin in range(0, len(self), _READ_AT_ONCE):
            numbers = self._records[begin : begin + _READ_AT_ONCE]
            read: Iterable[KeptLine] = map(self._numbered, numbers)
            ordered = sorted(numbers)
            # Replaced lines may be anywhere. Each part is read once for all of its lines, which is
            # 128 times less than once for each line.
            if ordered != [*numbers]:
                found = {number: self._numbered(number) for number in ordered}
                read = (found[number] for number in numbers)
            for record in read:
                yield record.bill_line(self._zone)

    @property
    def _count(self) -> int:
        """How many records there are, replaced ones among them."""
        return self._written + len(self._waiting[0])

    def _append(self, columns: Iterable[Sequence[Any]]) -> None:
        with self._lock:
            for waiting, values in zip(self._waiting, columns, strict=True):
                waiting.extend(values)
            while len(self._waiting[0]) >= _WRITTEN_AT_ONCE:
                self._write([column[:_WRITTEN_AT_ONCE] for column in self._waiting])
                for column in self._waiting:
                    del column[:_WRITTEN_AT_ONCE]

    def _write(self, columns: list[list[Any]]) -> None:
        amounts = columns[_AMOUNTS]
        if Fraction in map(type, chain.from_iterable(amounts)):
            columns[_AMOUNTS] = [tuple(map(_plain, one)) for one in amounts]
        self._file.seek(0, SEEK_END)
        size = self._file.write(marshal.dumps(columns))
        self._firsts.append(self._written)
        self._begins.append(self._begins[-1] + size)
        self._written += len(amounts)

    def _part_with(self, number: int) -> tuple[int, list[tuple[Any, ...]]]:
        """Return the records that were written together with one, and the number of the first."""
        if number >= self._written:
            return self._written, [*zip(*self._waiting, strict=True)]
        part = bisect_right(self._firsts, number) - 1
        begin, end = self._begins[part : part + 2]
        self._file.seek(begin)
        columns = marshal.loads(self._file.read(end - begin))  # noqa: S302 - written above
        return self._firsts[part], [*zip(*columns, strict=True)]


def _plain(amount: Amount) -> int | tuple[int, int]:
    return amount if isinstance(amount, int) else (amount.numerator, amount.denominator)
