"""One name, one meaning: no two modules define a class or a constant under one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import ledger

PACKAGE = Path(ledger.__file__).parent
ALIKE = {
    "app": "the commands of each module of the command line",
    "Attributed": "the same for each library that calls models",
    "U64_MAX": "one number, which errors may not import from the checks",
}
"""Names that several modules define, and why."""


def defined(path: Path) -> list[str]:
    """Return the names of classes, constants and types that a module makes at its top."""
    names: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [one.id for one in targets if isinstance(one, ast.Name)]
    return [name for name in names if not name.startswith("_") and len(name) > 1]


def test_one_name_has_one_meaning() -> None:
    """A reader who knows what a `Row` is knows it everywhere; type variables are one letter."""
    where: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in defined(path):
            where[name].add(path.relative_to(PACKAGE).as_posix())
    several = {name: rooms for name, rooms in where.items() if len(rooms) > 1}
    assert ALIKE.keys() == several.keys(), several
