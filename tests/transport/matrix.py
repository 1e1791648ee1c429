"""The matrix in docs/clients.md: what becomes of the attempts of a call, by fault and library.

`python -m tests.transport.matrix` prints it, as far as the libraries are installed.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path

from ledger import Ledger, LedgerBudgetManager, SharedPoolBudgetOptions, usd
from tests.transport import fetched, libraries, wire
from tests.transport.attempts import Attempt, attempts
from tests.transport.faults import FAULTS

COLUMNS = libraries.COLUMNS | fetched.COLUMNS
"""The columns: a library, and what it speaks."""

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def cells() -> Iterator[tuple[str, str, str]]:
    """Yield the fault, the library and the outcome of each cell that the page has."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- matrix -->\n")
    yield from cells_of(rest.partition("<!-- /matrix -->")[0])


def cells_of(table: str) -> Iterator[tuple[str, str, str]]:
    """Yield the same of a table as it is printed."""
    for part in table.split("\n\n"):
        head, _, *rows = [_cells(line) for line in part.strip().splitlines()]
        for fault, *found in rows:
            yield from ((fault, library, one) for library, one in zip(head[1:], found, strict=True))


def _cells(line: str) -> list[str]:
    return [one.strip() for one in re.split(r"(?<!\\)\|", line.strip("| "))]


def outcome(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, fault: str, library: str
) -> str:
    """Make a call that something happens to, and return what became of its attempts."""
    make, shape = COLUMNS[library]
    what = FAULTS[fault]
    url = server.url
    server.answers(*what.replies(shape))
    if what.refused:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    try:
        with closing(make(shape, url, what.read_s, {"pool": pool})) as calls:
            what.call(calls, server)
    except NotImplementedError:
        return "—"
    except Exception as error:  # whatever the library makes of it
        own = type(error).__module__.partition(".")[0] in {"builtins", "tests", "ledger"}
        if own and not isinstance(error, UnicodeDecodeError):  # botocore does not unpack
            raise
    found = attempts(book, pool)
    assert what.refused or len(server.requests) == len(found)
    assert len({one.call for one in found}) == 1
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    said = [_said(one, shape.billed, shape.known, shape.at_most) for one in found]
    counted = [(end, len(list(same))) for end, same in groupby(said)]
    return ", ".join(end if times == 1 else f"{times} × {end}" for end, times in counted)


def _said(
    one: Attempt, billed: tuple[int, int], known: tuple[int, int], at_most: tuple[int, int]
) -> str:
    if one.end == "billed":
        assert billed == one.used
        return "billed"
    if one.end == "released":
        assert (0, 0) == one.used == one.observed
        return "released"
    if one.observed == (0, 0):
        assert one.reserved == one.used
        return "estimated"
    assert known == one.observed
    assert at_most == one.used
    return "known, estimated"


def main() -> None:
    """Print the matrix."""
    named = sys.argv[1:] or list(COLUMNS)
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    logging.disable()
    warnings.simplefilter("ignore")
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db") as book,
        wire.served() as server,
    ):
        print("| what happens |", " | ".join(named), "|")
        print("|---|", "---|" * len(named), sep="")
        for fault in FAULTS:
            row = []
            for library in named:
                options = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("1"))
                pool = book.pool(f"{library}: {fault}", options)
                try:
                    row.append(outcome(book, pool, server, fault, library))
                except AssertionError as error:
                    row.append(f"broken: {error}".replace("\n", " "))
            print("|", fault, "|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
