"""The lines of a file, kept in a temporary file: memory hardly grows with their number."""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from io import SEEK_END
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any, NamedTuple, overload
from weakref import finalize
from zoneinfo import ZoneInfo

from typing_extensions import override

from ledger.core.checks import from_micros
from ledger.files.numbers import Amount

_IN_MEMORY = 4 * 2**20
"""Up to how many bytes the lines are kept in memory."""

_WRITTEN_AT_ONCE = 1 << 16
_EPOCH = from_micros(0)
_MICROSECOND = timedelta(microseconds=1)


class BillLine(NamedTuple):
    """What one line of a bill, a log or a trace says was used.

    Attributes:
        line: The line's number in the file; in one JSON document the number of the object; from 1.
        request_id: The provider's request id.
        model: The model, as the journal calls it.
        at: The time of the usage; for a day, its beginning.
        end: The time at which it ends, which is not part of it; None if the line does not say it.
        day: The day in the mapping's time zone.
        amounts: The amounts in the order of the bill's axes. A cost is exact: it may be a fraction
            of a micro-USD, and below 0 (a credit).
        has_cost: Whether the line says a cost, be it 0.
        run_id: The run it was used for; this and the next three only where they are asked for.
        provider: The provider.
        tenant: The tenant.
        agent: The agent.
        identity: What tells the line apart from others, in a log that says so by other columns than
            a request id.
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


def _micros(at: datetime) -> int:
    """Return a time in microseconds since 1970; a bill may have times that no journal has."""
    return (at - _EPOCH) // _MICROSECOND


class Lines(Sequence[BillLine]):
    """The lines in the order of the file."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed below
        finalize(self, self._file.close)
        self._lock = Lock()
        self._begins = array("Q")
        self._sizes = array("I")
        self._end = 0
        self._pending = bytearray()
        """What comes at the end of the file, and is not written yet."""

    def add(self, line: BillLine, digest: bytes, *, at: int | None = None) -> int:
        """Add a line, or put it in place of an earlier one, and return its place.

        Args:
            line: The line.
            digest: The hash of its row.
            at: The place of the line that it replaces.
        """
        amounts: tuple[Any, ...] = line.amounts
        if Fraction in map(type, amounts):
            amounts = tuple(
                one if isinstance(one, int) else (one.numerator, one.denominator)
                for one in line.amounts
            )
        record = marshal.dumps(
            (
                line.line,
                line.request_id,
                line.model,
                None if line.at is None else _micros(line.at),
                None if line.end is None else _micros(line.end),
                line.day,
                amounts,
                digest,
                line.has_cost,
                (line.run_id, line.provider, line.tenant, line.agent, line.identity),
            )
        )
        with self._lock:
            self._pending += record
            if len(self._pending) > _WRITTEN_AT_ONCE:
                self._flush()
        if at is None:
            at = len(self._begins)
            self._begins.append(self._end)
            self._sizes.append(len(record))
        else:
            self._begins[at], self._sizes[at] = self._end, len(record)
        self._end += len(record)
        return at

    def digest(self, place: int) -> bytes:
        """Return the hash of a line's row."""
        found: bytes = self._record(place)[7]
        return found

    @override
    def __eq__(self, other: object) -> bool:
        """Tell whether they are the same lines, also as those of a list."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @override
    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> BillLine: ...
    @overload
    def __getitem__(self, index: slice) -> list[BillLine]: ...
    @override
    def __getitem__(self, index: int | slice) -> BillLine | list[BillLine]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        (number, request_id, model, at, end, day, amounts, _digest, has_cost, names) = self._record(
            index
        )
        run_id, provider, tenant, agent, identity = names
        return BillLine(
            line=number,
            request_id=request_id,
            model=model,
            at=None if at is None else from_micros(at).astimezone(self._zone),
            end=None if end is None else from_micros(end).astimezone(self._zone),
            day=day,
            amounts=tuple(one if isinstance(one, int) else Fraction(*one) for one in amounts),
            has_cost=has_cost,
            run_id=run_id,
            provider=provider,
            tenant=tenant,
            agent=agent,
            identity=identity,
        )

    @override
    def __iter__(self) -> Iterator[BillLine]:
        for place in range(len(self)):
            yield self[place]

    def _flush(self) -> None:
        if self._pending:
            self._file.seek(0, SEEK_END)
            self._file.write(self._pending)
            self._pending.clear()

    def _record(self, place: int) -> tuple:  # type: ignore[type-arg] # as `add` writes it
        begin, size = self._begins[place], self._sizes[place]
        with self._lock:
            self._flush()
            self._file.seek(begin)
            record = self._file.read(size)
        found: tuple = marshal.loads(record)  # type: ignore[type-arg]  # noqa: S302 - written above
        return found
