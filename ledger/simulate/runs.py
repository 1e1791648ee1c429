"""Rules that group the rows of a trace into runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from ledger.core.errors import InvalidInputError
from ledger.files.lines import BillLine

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRule:
    """A rule that makes runs: by the trace's run column, by a length of time, or by row count."""

    column: bool = False
    every_s: int | None = None
    every_rows: int | None = None

    @classmethod
    def parse(cls, text: str) -> RunRule:
        """Read `column`, a length of time such as `10m` or `1h`, or a number of rows.

        Raises:
            InvalidInputError: It is none of them.
        """
        if text == "column":
            return cls(column=True)
        match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text)
        if match is None:
            raise InvalidInputError(
                "runs", f"{text!r} is not 'column', a time such as 10m or 1h, or a number of rows"
            )
        count, unit = int(match[1]), match[2]
        return cls(every_s=count * _UNITS[unit]) if unit else cls(every_rows=count)

    def run_id(self, row: BillLine, position: int) -> str | None:
        """Return the run of a row; `position` counts the rows from 0."""
        if self.every_rows is not None:
            return f"rows-{position // self.every_rows + 1:06d}"
        if self.every_s is not None and row.at is not None:
            # Integers only: a float would round the last microsecond of a run up to the next run.
            since = (row.at - _EPOCH) // timedelta(seconds=self.every_s) * self.every_s
            return _iso(since)
        return row.run_id


@lru_cache(maxsize=256)
def _iso(second: int) -> str:
    try:
        began = _EPOCH + timedelta(seconds=second)
    except OverflowError:
        began = datetime.min.replace(tzinfo=UTC)  # a run that began before the calendar does
    return began.isoformat().replace("+00:00", "Z")
