"""A comparison with another commit: each side runs its own library; no time is ever asserted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import against, trees
from benchmarks.against import FIGURES, HERE, SECTIONS, Compared
from benchmarks.start import BARE, PROGRAMS
from benchmarks.trees import Process, Tree, checked_out
from tests.benchmarks.conftest import ROOT, TINY
from tests.conftest import STORES
from tests.shared import quick_folder

WORKLOADS = {
    "callers": ["1 thread", "2 threads", "1 task", "3 tasks"],
    "growth": ["remaining"],
    "start": [name for name in PROGRAMS if name != BARE],
    "processes": ["2 x 2 threads, 1 pool", "2 x 2 threads, 3 pools"],
}
OLD = "0.0.9"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose one commit holds this library under another version."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("ledger", "migrations"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    init = root / "ledger" / "__init__.py"
    text = init.read_text(encoding="utf-8")
    before = f'__version__ = "{version()}"'
    assert before in text
    init.write_text(text.replace(before, f'__version__ = "{OLD}"'), encoding="utf-8")
    commit(root)
    return root


def version() -> str:
    """Return the version that this tree has."""
    import ledger  # noqa: PLC0415

    return ledger.__version__


def commit(root: Path) -> None:
    """Make a repository of a folder, with one commit of all that is in it."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "All"]):
        subprocess.run(["git", "-C", root, *words], check=True, env=bare_git())  # noqa: S607


def bare_git() -> dict[str, str]:
    """Return an environment in which git knows no other repository and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stores of both sides where the stores of other tests are: in memory, if need be.

    A commit there may take less than 20 us, which a measurement refuses.
    """
    monkeypatch.setattr(tempfile, "tempdir", quick_folder())
    monkeypatch.setattr(against, "require_a_disk", lambda *_seen: None)


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_both_sides_have_figures(
    store: str, new_store: Callable[..., str], repository: Path
) -> None:
    """Every slice has every figure for this tree and for the other commit."""
    with checked_out("HEAD", repository) as other:
        found, floor = against.compare(
            store, new_store(store), other, TINY, SECTIONS, lambda _told: None
        )
        text = against.table(found, other)
    assert [name for names in WORKLOADS.values() for name in names] == list(
        dict.fromkeys(one.workload for one in found if one.section)
    )
    assert floor > 0
    for one in found:
        assert (store, True) == (one.store, min(one.then, one.now) > 0)
        assert 0 < one.ratio_min <= one.ratio <= one.ratio_max
    # A round without a context switch has no ratio of them.
    always = {(one.workload, one.figure) for one in found if one.figure != "context switches"}
    assert {
        (name, figure)
        for names in WORKLOADS.values()
        for name in names
        for figure in FIGURES
        if figure != "context switches"
    } | {("all of these", "bytes an entry")} == always
    header = text.splitlines()[1]
    assert header.split("  ")[-1].strip() == "max"
    assert other.name in header
    assert HERE in header


def test_each_side_imports_its_own_library(repository: Path, tmp_path: Path) -> None:
    """The other commit's code runs, in place of the one that is installed."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with checked_out("HEAD", repository) as other, Process(other, url) as process:
        assert OLD == process.version
    with Process(Tree(name=HERE, folder=ROOT), url) as process:
        assert version() == process.version


def test_a_library_that_is_not_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    """Nothing is measured under a wrong name."""
    with pytest.raises(SystemExit, match="was measured in place of empty"):
        Process(Tree(name="empty", folder=tmp_path), f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.mark.parametrize("ref", ["no-such-commit", "--all", "HEAD:ledger", ""])
def test_a_commit_that_is_not_there_is_refused(ref: str, repository: Path) -> None:
    """Before anything is measured, and with the repository that was asked."""
    with (
        pytest.raises(SystemExit, match=f"no such commit in {repository}"),
        checked_out(ref, repository),
    ):
        pass


def test_a_commit_without_a_library_is_refused(tmp_path: Path) -> None:
    """A repository of something else."""
    (tmp_path / "README").write_text("nothing\n")
    commit(tmp_path)
    with (
        pytest.raises(SystemExit, match="holds no package 'ledger'"),
        checked_out("HEAD", tmp_path),
    ):
        pass


def test_git_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is missing."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="needs git"), checked_out("HEAD"):
        pass


def test_a_section_that_needs_this_tree_alone_is_refused() -> None:
    """The message names the sections that can be compared."""
    with pytest.raises(SystemExit, match=r"compares callers, .* and not reports"):
        command.main(["--against", "HEAD", "--only", "reports"])


def test_the_command_prints_and_writes_the_comparison(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Both have the figures, the name of the other commit and the facts of the machine."""
    monkeypatch.setattr(trees, "checked_out", lambda ref: checked_out(ref, repository))
    monkeypatch.setattr(against, "less", lambda scale: TINY)  # noqa: ARG005 - asked by its name
    file = tmp_path / "figures.json"
    words = ["--against", "HEAD", "--store", "sqlite", "--only", "growth", "--rounds", "1"]
    words += ["--json", str(file)]
    assert 0 == command.main(words)
    result = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert "HEAD" == result["against"]
    assert "remaining" in printed
    assert "built with" in printed
    assert {"CPU us an operation"} <= {Compared(**one).figure for one in result["figures"]}
