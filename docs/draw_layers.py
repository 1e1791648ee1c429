"""Draw the picture in `architecture.md` from the import contracts and the imports themselves.

    python docs/draw_layers.py           writes it
    python docs/draw_layers.py --check   fails where it is out of date

The rooms and their order are those of the contract "Dependencies point one way" in
`pyproject.toml`. An arrow is an import that no longer way of arrows already shows.
"""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import product
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
CONTRACT = "Dependencies point one way"
BEGIN, END = "<!-- layers: drawn by docs/draw_layers.py -->", "<!-- /layers -->"


def contract() -> dict[str, list[str]]:
    """Return the contract as `pyproject.toml` has it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found: dict[str, list[str]] = next(one for one in contracts if one["name"] == CONTRACT)
    return found


def arrows(rooms: list[str], excepted: list[str]) -> list[tuple[str, str]]:
    """Return which room imports which, without what follows from other arrows."""
    graph = grimp.build_graph("ledger", exclude_type_checking_imports=True)
    # The package imports its public names when they are used, and says only to type checkers where
    # they are: whoever imports the package depends on them all the same.
    for imported in grimp.build_graph("ledger").find_modules_directly_imported_by("ledger"):
        graph.add_import(importer="ledger", imported=imported)
    for exception in excepted:
        importer, imported = exception.split(" -> ")
        graph.remove_import(importer=importer, imported=imported)
    names = {room: f"ledger.{room}" for room in rooms}
    below = {room: set[str]() for room in rooms}
    for upper, lower in product(rooms, rooms):
        if upper != lower and graph.find_shortest_chain(
            names[upper], names[lower], as_packages=True
        ):
            below[upper].add(lower)
    return [
        (upper, lower)
        for upper in rooms
        for lower in rooms
        if lower in below[upper] and not any(lower in below[one] for one in below[upper])
    ]


def picture() -> str:
    """Return the picture, in Mermaid's words."""
    found = contract()
    rooms = [room for layer in found["layers"] for room in re.split(r"\s*[|:]\s*", layer)]
    found_arrows = arrows(rooms, found.get("ignore_imports", []))
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"    {room}[{room}]" for room in rooms]
    lines += [f"    {upper} --> {lower}" for upper, lower in found_arrows]
    return "\n".join([*lines, "```"])


def main(arguments: list[str]) -> int:
    """Write the picture, or check that it is there; return the exit code."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = f"{before}{BEGIN}\n{picture()}\n{END}{after}"
    if "--check" in arguments:
        if drawn != text:
            print("docs/architecture.md is out of date: run python docs/draw_layers.py")
        return int(drawn != text)
    DOCUMENT.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
