"""`ledger alerts`: every threshold crossing, once for all or for as long as it runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, NoReturn

import typer

from ledger.cli.common import URL_DEFAULT, Url, existing, stderr, tell_left_out
from ledger.cli.exit_codes import ExitCode
from ledger.cli.filters import length_s
from ledger.core.alerts import Alert
from ledger.core.axes import AXES
from ledger.core.errors import (
    ContentionError,
    ExportError,
    InvalidInputError,
    LedgerUnavailableError,
    LeftOut,
)
from ledger.ledger import Ledger
from ledger.reports.output_file import output_file
from ledger.reports.render import in_words, moment, printable

_CURSOR_BEGINS = b'{"alerts":{'
_CURSOR_MAX_BYTES = 1 << 30
"""How many bytes are read as a cursor, since another file may have any length, or no end."""
_KEPT_EVERY = 100
"""After how many lines the cursor is written, since it grows with the pools and is written as a
whole."""


class AlertFormat(StrEnum):
    """How crossings are printed."""

    TEXT = "text"
    JSONL = "jsonl"


def alerts(
    pool: Annotated[
        str | None, typer.Option(help="Only this pool; by default all.", show_default=False)
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(
            help="A file that keeps the cursor: go on behind it, and move it on behind what is "
            "printed.",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="Go on behind this cursor, which each line of --format jsonl has.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is crossed from now on.")
    ] = False,
    every: Annotated[str, typer.Option(help="How often --follow looks: 1s, 10s, 1m.")] = "2s",
    output_format: Annotated[
        AlertFormat, typer.Option("--format", help="Text for people, JSON Lines for programs.")
    ] = AlertFormat.TEXT,
    url: Url = URL_DEFAULT,
) -> None:
    """Print every threshold crossing behind a cursor: at least once, and none is lost.

    Exit code 0 if there was none, 3 if there were some, 1 if a pool cannot be read.

    Example: ledger alerts --cursor alerts.cursor
    """
    if after is not None and cursor is not None:
        raise InvalidInputError("--after", "is in the file of --cursor; give one of them")
    if cursor is not None and not cursor.absolute().parent.is_dir():
        raise InvalidInputError("--cursor", f"no folder {cursor.absolute().parent}; make it first")
    every_s = length_s("--every", every)
    if every_s == 0:
        raise InvalidInputError("--every", "must be 1s or more")
    with existing(url) as book:
        reader = _Reader(book, pool, _AS[output_format], after, cursor)
        if follow:
            reader.follow(every_s)
        lost: LeftOut = []
        count = reader.read(lost)
    tell_left_out(lost)
    if count:
        raise typer.Exit(ExitCode.CROSSED)


class _Reader:
    """Prints crossings, and keeps the cursor."""

    def __init__(
        self,
        book: Ledger,
        pool: str | None,
        line: Callable[[Alert], str],
        after: str | None,
        file: Path | None,
    ) -> None:
        self._book = book
        self._pool = pool
        self._line = line
        self._after = after if file is None else _kept(file)
        self._file = file
        self._newest: Alert | None = None
        """The newest printed alert whose cursor is not kept yet."""

    def read(self, lost: LeftOut) -> int:
        """Print the new crossings, and return their number."""
        count = 0
        try:
            for alert in self._book.alerts(self._after, pool=self._pool, left_out=lost):
                typer.echo(self._line(alert))
                sys.stdout.flush()
                # If the program is killed before it keeps the cursor, it prints this once more.
                self._newest = alert
                count += 1
                if count % _KEPT_EVERY == 0:
                    self._go_on()
        finally:
            self._go_on()
        return count

    def _go_on(self) -> None:
        """Write the cursor after the last printed crossing."""
        if self._newest is None:
            return
        self._after, self._newest = self._newest.cursor, None
        if self._file is not None:
            _keep(self._file, self._after, self._book)

    def follow(self, every_s: int) -> NoReturn:
        """Read repeatedly; print an error once while it lasts."""
        told: list[str] = []
        while True:
            lost: LeftOut = []
            trouble = []
            try:
                self.read(lost)
            except (LedgerUnavailableError, ContentionError) as error:
                trouble = [f"away, looking again: {error}"]
            trouble += [f"left out: {error}" for error in lost]
            if trouble != told:
                for line in trouble:
                    stderr().print(printable(line), markup=False, soft_wrap=True)
            told = trouble
            time.sleep(every_s)


def _text(alert: Alert) -> str:
    crossing = alert.crossing
    axes = [axis for axis in AXES if not crossing.remaining.is_unlimited(axis.name)]
    left = in_words(axes, [axis.left(crossing.remaining) for axis in axes])
    return printable(
        f"{moment(crossing.recorded_at)}  {crossing.pool}  {crossing.threshold} "
        f"({crossing.percent} %) {crossing.direction}, {left} left"
    )


def _json(alert: Alert) -> str:
    crossing = alert.crossing
    return json.dumps(
        {
            "pool": crossing.pool,
            "seq": crossing.seq,
            "threshold": crossing.threshold,
            "percent": crossing.percent,
            "direction": crossing.direction,
            "recorded_at": moment(crossing.recorded_at),
            **{f"remaining_{axis.name}": axis.left(crossing.remaining) for axis in AXES},
            "key": alert.key,
            "cursor": alert.cursor,
        }
    )


_AS: dict[AlertFormat, Callable[[Alert], str]] = {AlertFormat.TEXT: _text, AlertFormat.JSONL: _json}


def _kept(path: Path) -> str | None:
    """Return the cursor in a file, None if there is no file yet, or an empty one.

    Raises:
        ExportError: The file cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            return file.read(_CURSOR_MAX_BYTES).decode().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExportError(path, f"{error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ExportError(path, "it holds no cursor") from error


def _keep(path: Path, cursor: str, book: Ledger) -> None:
    """Replace the cursor in a file. If the machine stops, the file holds the old or the new one."""
    with output_file(path, keep=book.files, recognises=_is_cursor) as file:
        file.write(f"{cursor}\n".encode())


def _is_cursor(file: BinaryIO) -> bool:
    return file.read(len(_CURSOR_BEGINS)) == _CURSOR_BEGINS
