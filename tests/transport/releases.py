"""What other releases of the client libraries do: held against the matrix in docs/clients.md.

`python -m tests.transport.releases` takes the newest ones, and is meant to be run once a week;
`python -m tests.transport.releases oldest` takes the oldest that are supported, and
`... openai==3.0.0` those that are named. It installs them in a folder of their own, says which
cells have changed, and ends with 1 if any has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from tests.transport.matrix import COLUMNS, cells, cells_of

OLDEST = ("openai==2.0.0", "anthropic==1.0.0", "google-genai==2.0.0")
"""docs/clients.md names them, and litellm's, of which not all cells are the same."""
NEWEST = tuple(dict.fromkeys(column.partition(",")[0] for column in COLUMNS))


def main() -> None:
    """Install, make the matrix, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = OLDEST if sys.argv[1:] == ["oldest"] else sys.argv[1:] or NEWEST
        print("\n".join(installed(wanted, folder)), flush=True)
        named = {one.partition("=")[0] for one in wanted}
        columns = [one for one in COLUMNS if one.partition(",")[0] in named]
        changed = list(differences(matrix(folder, columns)))
    print("\n".join(changed) or "nothing has changed")
    sys.exit(bool(changed))


def installed(wanted: tuple[str, ...] | list[str], folder: str) -> list[str]:
    """Install packages in a folder, and return those of them that were named, with versions."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", folder, *wanted]
    subprocess.run(pip, check=True)
    named = {one.partition("=")[0] for one in wanted}
    found = {one.name: one.version for one in distributions(path=[folder])}
    return [f"{name} {found[name]}" for name in sorted(named)]


def matrix(folder: str, columns: list[str]) -> str:
    """Return the matrix as the packages in a folder make it, before all others."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.transport.matrix", *columns],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": folder},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    # litellm prints to standard output, too.
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("|"))


def differences(table: str) -> list[str]:
    """Return what a table says otherwise than the page."""
    said = {(fault, library): outcome for fault, library, outcome in cells()}
    return [
        f"{library}: {fault}: {outcome}, not {said.get((fault, library))}"
        for fault, library, outcome in cells_of(table)
        if said.get((fault, library)) != outcome
    ]


if __name__ == "__main__":
    main()
