"""docs/clients.md says what becomes of each attempt, by library and by what happens to the call."""

from __future__ import annotations

import pytest

from ledger import Ledger, LedgerBudgetManager
from tests.transport import fetched, matrix, wire
from tests.transport.faults import FAULTS, OF_EACH
from tests.transport.releases import OLDEST, differences

CELLS = list(matrix.cells())


def marked(fault: str, library: str) -> list[pytest.MarkDecorator]:
    """Return what keeps a cell out of the ordinary run, which has one library for each fault."""
    if library in fetched.COLUMNS and fault in OF_EACH:
        return [pytest.mark.clients]
    return [] if library in FAULTS[fault].core else [pytest.mark.sweep]


def test_the_page_has_every_cell() -> None:
    """Each fault with each library."""
    every = {(fault, library) for library in matrix.COLUMNS for fault in FAULTS}
    assert every == {(fault, library) for fault, library, _ in CELLS}


def test_what_changes_is_said() -> None:
    """A cell that another release makes otherwise, and one that the page does not have."""
    (fault, library, said), *_ = CELLS
    table = f"| what happens | {library} | new |\n|---|---|---|\n| {fault} | no | {said} |\n"
    assert [
        f"{library}: {fault}: no, not {said}",
        f"new: {fault}: {said}, not None",
    ] == differences(table)


def test_the_oldest_releases_are_named() -> None:
    """Those that the script tries, on the page."""
    page = " ".join(matrix.PAGE.read_text(encoding="utf-8").split())
    for name, version in (one.split("==") for one in OLDEST):
        assert f"{name} {version}" in page


@pytest.mark.parametrize(
    ("fault", "library", "said"),
    [pytest.param(*cell, marks=marked(*cell[:2]), id=f"{cell[1]}: {cell[0]}") for cell in CELLS],
)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_what_becomes_of_the_attempts(
    request: pytest.FixtureRequest,
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    fault: str,
    library: str,
    said: str,
) -> None:
    """Each attempt has one end, no lease stays open, and what is billed is what was recorded."""
    if library in fetched.COLUMNS:
        request.getfixturevalue("libraries")
    assert said == matrix.outcome(book, pool, server, fault, library)
