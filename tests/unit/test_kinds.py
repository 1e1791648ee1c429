"""One table of kinds: a kind is a row there, an operation, and its place in the docs."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from ledger import EntryFlag, EntryKind
from ledger.core import kinds
from ledger.core.entries import Entry
from ledger.core.kinds import KINDS, LeasePhase
from ledger.reports.figures import Figures

PACKAGE = Path(kinds.__file__).parents[1]
JOURNAL = Path(__file__).parents[2] / "docs" / "journal.md"


def test_every_kind_has_its_row() -> None:
    """The table has the kinds in their order, and nothing else."""
    assert list(EntryKind) == list(KINDS)


def test_no_other_module_groups_kinds() -> None:
    """A list of kinds elsewhere would be forgotten with the next kind; pairs may be compared."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        compared = {
            id(one)
            for node in ast.walk(tree)
            if isinstance(node, ast.Compare)
            for one in node.comparators
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Set | ast.Tuple | ast.List) and id(node) not in compared:
                names = [ast.unparse(one) for one in node.elts]
                if 1 < sum(name.startswith("EntryKind.") for name in names):
                    found.append(f"{path.relative_to(PACKAGE)}: {', '.join(names)}")
    assert [] == found


def test_every_kind_has_its_place_in_the_docs() -> None:
    """The table of kinds in docs/journal.md has a line for each, in this order."""
    heading = r"\| kind \| what it records \|\n\|---\|---\|\n"
    (table,) = re.findall(heading + r"((?:\|.*\n)+)", JOURNAL.read_text())
    assert [str(kind) for kind in EntryKind] == re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_flag_has_its_place_in_the_docs() -> None:
    """The page gives each flag the number that is stored."""
    (line,) = re.findall(r"\| `flags` \| integer \| (.*) \|", JOURNAL.read_text())
    known = {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", line)}
    assert {flag.name.lower(): flag.value for flag in EntryFlag if flag.name} == known


@pytest.mark.parametrize("kind", EntryKind)
def test_rows_do_not_contradict_themselves(kind: EntryKind) -> None:
    """What a row says of the lease, of usage and of reports fits together."""
    row = KINDS[kind]
    assert row.has <= {part.name for part in fields(Entry)}
    assert (row.phase is not None) == ("lease" in row.has)
    assert row.is_charged == ("usage" in row.has | row.may_have)
    assert not row.has & row.may_have
    assert not (row.can_be_corrected and row.is_difference)
    assert row.phase is LeasePhase.ENDED or not row.ends_lease
    assert row.phase is LeasePhase.OPEN or not row.sets_expiry
    assert row.counted_as in {None, *(part.name for part in fields(Figures))}


def test_conditions_are_spelled_as_indexes_are() -> None:
    """A single kind by `=`, several in the order of the table."""
    assert "kind = 'expiry'" == kinds.sql([EntryKind.EXPIRY])
    assert "e.kind IN ('settlement', 'release')" == kinds.sql(kinds.ENDS_LEASE, "e.kind")
