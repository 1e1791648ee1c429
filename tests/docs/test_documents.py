"""Links lead somewhere, the changelog knows the version, and everything public is explained."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ledger
from tests.programs import ROOT

DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "examples", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link names a file that is there, and a heading that it has."""
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_document_is_reachable() -> None:
    """From the README a reader gets to every document of `docs/`."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop().resolve()
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        links = LINK.findall(path.read_text(encoding="utf-8"))
        waiting += [path.parent / link.partition("#")[0] for link in links if ":" not in link]
    assert set() == {path.resolve() for path in (ROOT / "docs").glob("*.md")} - seen


def test_the_changelog_knows_the_version() -> None:
    """Users find a heading for the version they have."""
    headings = re.findall(r"(?m)^## .*$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert any(ledger.__version__ in heading for heading in headings)


def public() -> Iterator[tuple[str, object]]:
    """Yield everything that `import ledger` offers, and the methods of its classes."""
    for name in ledger.__all__:
        value = getattr(ledger, name)
        if isinstance(value, int):
            continue
        yield name, value
        if inspect.isclass(value):
            for member, function in vars(value).items():
                if not member.startswith("_") and (
                    callable(function) or isinstance(function, property | classmethod)
                ):
                    yield f"{name}.{member}", function


PUBLIC = dict(public())


def test_everything_public_is_explained() -> None:
    """Each public class, function, method and property has a docstring, perhaps its protocol's."""
    for name, value in PUBLIC.items():
        text = inspect.getdoc(value)
        assert text, name
        # What a dataclass or an enumeration writes by itself explains nothing.
        assert not text.startswith(f"{name}("), name
        assert "An enumeration." != text, name


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Return all modules of the package, not imported: some need a library that may be missing."""
    paths = sorted(Path(ledger.__file__).parent.rglob("*.py"))
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths
    }


def test_every_module_says_what_it_is_for(trees: dict[str, ast.Module]) -> None:
    """A module's docstring names its job in one sentence."""
    for name, tree in trees.items():
        says = ast.get_docstring(tree)
        assert says, name
        assert says.splitlines()[0].rstrip().endswith((".", ":", "`")), name


LINES_MAX, OF_FUNCTION_MAX = 400, 70


def test_no_module_and_no_function_is_too_long(trees: dict[str, ast.Module]) -> None:
    """One that is longer asks for the idea that divides it, as CONTRIBUTING.md says."""
    found = [name for name in trees if len((ROOT / name).read_text().splitlines()) > LINES_MAX]
    for name, tree in trees.items():
        found += [
            f"{name}:{node.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or 0) - node.lineno >= OF_FUNCTION_MAX
        ]
    assert [] == found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_documents_exist(path: Path) -> None:
    """What a document imports from `ledger` can be imported."""
    text = path.read_text(encoding="utf-8")
    for names in re.findall(r"(?m)^from ledger import (.*)$", text):
        for name in re.findall(r"\w+", names):
            assert hasattr(ledger, name) or importlib.util.find_spec(f"ledger.{name}"), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_documents_name_exist(path: Path) -> None:
    """Each file, and each test in it; some documents leave the folder's name out."""
    text = path.read_text(encoding="utf-8")
    for folder, file, test in re.findall(r"`(tests/)?([\w/]+/test_\w+\.py)(?:::(\w+))?`", text):
        found = ROOT / "tests" / file
        assert found.is_file(), f"{folder}{file}"
        assert f"def {test}(" in found.read_text(encoding="utf-8") or not test, f"{file}::{test}"


def test_no_message_points_into_the_documents() -> None:
    """Who installed the wheel has none of them: a message says itself what to do."""
    for path in (ROOT / "ledger").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_message = id(node) not in explained
                assert not (is_message and ".md" in node.value), (path, node.lineno)
