"""The two libraries of a comparison: this tree, and another commit of its repository."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.measure import Round
from benchmarks.worker import hear, tell

ROOT = Path(__file__).parents[1]

_PARTS = ("ledger/", "migrations/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder that holds a library, and the name that its figures are printed under."""

    name: str
    folder: Path


@contextmanager
def checked_out(ref: str, root: Path = ROOT) -> Iterator[Tree]:
    """Lend the library of a commit, in a temporary folder.

    Raises:
        SystemExit: There is no git, no repository, no such commit, or no library in it.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    name = _git(root, "rev-parse", "--short", commit.decode().strip()).decode().strip()
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as folder:
        packed = _git(root, "archive", "--format=zip", commit.decode().strip())
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            archive.extractall(
                folder, [one for one in archive.namelist() if one.startswith(_PARTS)]
            )
        if not (Path(folder) / "ledger" / "__init__.py").exists():
            raise SystemExit(f"--against {ref}: the commit {name} holds no package 'ledger'")
        yield Tree(name=name, folder=Path(folder))


def _git(root: Path, *words: str) -> bytes:
    try:
        return subprocess.run(  # noqa: S603 - no shell reads the words
            ["git", "-C", str(root), *words],  # noqa: S607 - the git of whoever runs it
            capture_output=True,
            check=True,
        ).stdout
    except FileNotFoundError as error:
        raise SystemExit("--against needs git, and it is not installed") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise SystemExit(
            f"--against: git finds no such commit in {root}"
            f" ({said or 'give a commit, a branch or a tag'})"
        ) from error


class Process:
    """A process that does slices of work on one library (`benchmarks.side`)."""

    def __init__(self, tree: Tree, url: str, *, under: Sequence[str] = ()) -> None:
        """Start it, and open the store.

        Args:
            tree: The library that it imports.
            url: The store; it is made if there is none.
            under: The program that runs the interpreter, with its options.

        Raises:
            SystemExit: It imports another library than that of the tree.
        """
        self._process = subprocess.Popen(  # noqa: S603 - a module of this package
            [*under, sys.executable, "-m", "benchmarks.side"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree.folder,  # the first place that is looked in for a package
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree.folder, ROOT)))},
        )
        self.version = ""
        found = self.ask("open", url=url)
        self.version = found["version"]
        if Path(found["ledger"]).resolve() != (tree.folder / "ledger").resolve():
            self.__exit__(None, None, None)
            raise SystemExit(f"{found['ledger']} was measured in place of {tree.name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def send(self, order: str, **told: Any) -> None:  # noqa: ANN401 - anything that JSON can say
        """Give an order, and do not wait for it."""
        tell(self._process, json.dumps({"do": order, **told}))

    def answer(self) -> Any:  # noqa: ANN401 - as above
        """Wait for the answer to the last order.

        Raises:
            RuntimeError: The process has ended; the reason is on its standard error.
        """
        return json.loads(hear(self._process))

    def ask(self, order: str, **told: Any) -> Any:  # noqa: ANN401 - as above
        """Give an order and return the answer."""
        self.send(order, **told)
        return self.answer()

    def slice(self, order: str, **told: Any) -> Round:  # noqa: ANN401 - as above
        """Let it do a slice of work."""
        return Round(**self.ask(order, **told))
