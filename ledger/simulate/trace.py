"""Read recorded traffic: a CSV file with one call a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from ledger.core.checks import I64_MAX, check_amount, check_moment, check_path, check_text
from ledger.errors import InvalidInputError, TraceError
from ledger.files.numbers import shown
from ledger.files.rows import COLUMNS_MAX, LINE_MAX
from ledger.simulate.pricing import ceil_micros, parse_count, parse_decimal

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "at": ("timestamp", "time", "at", "occurred_at", "created_at"),
    "input_tokens": ("contexttokens", "input_tokens", "prompt_tokens"),
    "output_tokens": ("generatedtokens", "output_tokens", "completion_tokens"),
    "run_id": ("run", "run_id"),
    "model": ("model",),
    "provider": ("provider",),
    "tenant": ("tenant",),
    "agent": ("agent",),
    "request_id": ("request_id",),
    "cost_usd": ("cost", "cost_usd"),
    "cost_micros_usd": ("cost_micros_usd",),
}
"""The headings each column may have, in any case; the first three columns are needed."""

_NEEDED = ("at", "input_tokens", "output_tokens")
_MEANINGS = {"at": "the time", "input_tokens": "input tokens", "output_tokens": "output tokens"}
_TEXTS = ("run_id", "model", "provider", "tenant", "agent", "request_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """One recorded call; times without a zone are taken as UTC."""

    line: int
    at: datetime
    input_tokens: int
    output_tokens: int
    cost_micros_usd: int | None = None
    run_id: str | None = None
    model: str | None = None
    provider: str | None = None
    tenant: str | None = None
    agent: str | None = None
    request_id: str | None = None


class Trace:
    """A trace file, read row by row in bounded memory, as often as it is asked for."""

    def __init__(self, path: str | Path) -> None:
        self.path = check_path("path", path)
        with self._reader() as reader:
            headings = reader.fieldnames or []
            if len(headings) > COLUMNS_MAX:
                raise self._error(1, f"{len(headings):,} columns; at most {COLUMNS_MAX:,} are read")
            self._columns = self._match(headings)
            self.ignored = [
                name for name in headings if name and name not in self._columns.values()
            ]

    def has(self, column: str) -> bool:
        """Tell whether the file has this column."""
        return column in self._columns

    def digest(self) -> str:
        """Return the SHA-256 of the file, which identifies the trace whatever its path is."""
        digest = sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def rows(self) -> Iterator[TraceRow]:
        """Yield the calls in the file's order.

        Raises:
            TraceError: A row cannot be read; the error names its line and what is wrong.
        """
        with self._reader() as reader:
            for cells in reader:
                try:
                    yield self._row(reader.line_num, cells)
                except InvalidInputError as error:
                    raise self._error(reader.line_num, str(error)) from error

    def _row(self, line: int, cells: Mapping[str | None, str | None]) -> TraceRow:
        if None in cells:
            raise InvalidInputError("cells", "more of them than the header has")
        if not _is_text("".join(cell or "" for cell in cells.values())):
            raise InvalidInputError("cells", "not UTF-8 text")
        given = {name: (cells[heading] or "").strip() for name, heading in self._columns.items()}
        return TraceRow(
            line=line,
            at=_moment(given["at"]),
            input_tokens=parse_count("input tokens", given["input_tokens"]),
            output_tokens=parse_count("output tokens", given["output_tokens"]),
            cost_micros_usd=_cost(given),
            **{name: check_text(name, given[name]) for name in _TEXTS if given.get(name)},
        )

    def _match(self, headings: Sequence[str]) -> dict[str, str]:
        matched: dict[str, str] = {}
        for heading in headings:
            for name, known in HEADINGS.items():
                if heading.strip().lower() in known:
                    if name in matched:
                        raise self._error(
                            1, f"{matched[name]!r} and {heading!r} are the same column"
                        )
                    matched[name] = heading
        if {"cost_usd", "cost_micros_usd"} <= matched.keys():
            raise self._error(1, "the cost is there twice, in US dollars and in micros")
        if not headings:
            raise self._error(1, "the file is empty")
        if not _is_text("".join(headings)):
            raise self._error(1, "the header is not UTF-8 text")
        for name in _NEEDED:
            if name not in matched:
                names = ", ".join(HEADINGS[name])
                raise self._error(1, f"no column for {_MEANINGS[name]}: name it one of {names}")
        return matched

    @contextmanager
    def _reader(self) -> Iterator[csv.DictReader[str]]:
        reader: csv.DictReader[str] | None = None
        try:
            # Decoding runs ahead of the rows, so bytes that are not UTF-8 must not raise here:
            # `_row` finds them and names their line.
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                reader = csv.DictReader(self._lines(file), strict=True)
                yield reader
        except OSError as error:
            raise self._error(1, f"the file cannot be read: {error.strerror}") from error
        except csv.Error as error:
            line = 1 if reader is None else reader.line_num + 1
            raise self._error(line, f"not CSV: {error}") from error

    def _lines(self, file: TextIO) -> Iterator[str]:
        number = 1
        while line := file.readline(LINE_MAX + 1):
            if len(line) > LINE_MAX:
                raise self._error(number, f"longer than {LINE_MAX:,} characters; is it a trace?")
            yield line
            number += 1

    def _error(self, line: int, reason: str) -> TraceError:
        return TraceError(str(self.path), line=line, reason=reason)


def _is_text(cells: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in cells)


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError("time", f"{shown(text)} is not an ISO 8601 time") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    try:
        check_moment("time", at)
    except InvalidInputError:
        raise InvalidInputError("time", f"{text!r} is outside the years 1900 to 2999") from None
    return at.astimezone(UTC)


def _cost(given: Mapping[str, str]) -> int | None:
    if given.get("cost_micros_usd"):
        return parse_count("cost_micros_usd", given["cost_micros_usd"])
    if given.get("cost_usd"):
        cost = ceil_micros(parse_decimal("cost", given["cost_usd"]))
        return check_amount("cost", cost, ceiling=I64_MAX)
    return None
