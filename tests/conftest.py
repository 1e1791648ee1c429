"""Stores for the tests: real SQLite files, and databases on a real PostgreSQL server."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from psycopg.pq import Trace
from sqlalchemy import Engine, make_url

from ledger import Ledger
from tests.clocks import Clock
from tests.shared import Compiled, Shared, numbers, quick_folder

STORES = ("sqlite", "postgresql")

LEFT_OUT = {
    "browser": "pages in a real browser, which needs Debian's chromium",
    "clients": "libraries and services that are not in the extra dev, which are fetched",
    "focus": "exports under the official FOCUS validator, which needs Python 3.12 or newer",
    "long": "the same as others on more histories, places and calls, which takes minutes",
    "tools": "exports in pandas, DuckDB, hledger and others, and Litestream, which are fetched",
    "sweep": "every place and every value that others take a sample of, which takes an hour or two",
}
"""Markers of tests that need more time, or more than a virtual environment: -m names them."""

_DESELECTED = pytest.StashKey[dict[str, int]]()
_SHARED = pytest.StashKey[Shared]()

_initialise = Engine.__init__

# The same examples in every run, however slow the machine is.
settings.register_profile("ledger", derandomize=True, database=None, deadline=None)
settings.load_profile("ledger")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run tests of one file in this process, and others in more processes than there are cores.

    Many tests wait for a while, and leave a core idle.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    files = {Path(argument.partition("::")[0]) for argument in config.args}
    return 0 if len(files) == 1 and files.pop().is_file() else (os.cpu_count() or 1) + 1


def _compile_once() -> None:
    """Keep what Python and SQLAlchemy compile, for the other processes and for the other stores.

    Else each process compiles the library and all tests, and each store the same statements: an
    eighth and a fifth of the time of all tests.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    compiled = Compiled()

    def initialise_sharing(engine: Engine, *given: Any, **options: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        _initialise(engine, *given, **options)
        engine.update_execution_options(compiled_cache=compiled)

    Engine.__init__ = initialise_sharing  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, and what the processes of the run share."""
    for name, what in LEFT_OUT.items():
        config.addinivalue_line("markers", f"{name}: {what}")
    config.addinivalue_line("markers", "alone: measures time; no other test runs meanwhile")
    _compile_once()
    # A shell ignores interrupts in what it runs in the background, and tests send some.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        folder = config.workerinput["shared"]
    else:
        # Whoever ends the run with `timeout` or a cancelled job means an interrupt: see below.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", quick_folder())
        folder = tempfile.mkdtemp(prefix="ledger-tests-", dir=quick_folder())
    config.stash[_SHARED] = Shared(Path(folder))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - a process of pytest-xdist
    """Tell a process that runs tests what it shares with the others."""
    node.workerinput["shared"] = str(node.config.stash[_SHARED].folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the run has started."""
    shared = config.stash[_SHARED]
    shared.disconnect()
    if not hasattr(config, "workerinput"):
        shared.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test that measures time run alone."""
    with item.config.stash[_SHARED].turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from what lives as long as the run: the tests themselves.

    Looking through eight thousand tests takes a third of a second, each time. And it comes less
    often than by its own thresholds, which cost a twelfth of the time of all tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what nobody asked for by its marker, and begin with what takes longest.

    The tests of the package wait for minutes of pip and mypy. At the end, one process alone would
    wait for them; and taken apart, two of them would each build the package.
    """
    asked = set(re.findall(r"\w+", config.option.markexpr))
    counts: dict[str, int] = {}
    kept: list[pytest.Item] = []
    gone: list[pytest.Item] = []
    left_out = LEFT_OUT.keys() - asked
    for item in sorted(items, key=lambda item: "tests/package/" not in item.nodeid):
        names = left_out.intersection(mark.name for mark in item.iter_markers())
        (gone if names else kept).append(item)
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    if gone:
        config.hook.pytest_deselected(items=gone)
    items[:] = kept
    config.stash[_DESELECTED] = counts


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that reports what was left out: it has collected nothing."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_DESELECTED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - a process of pytest-xdist
    """Take over what a process has left out; each of them has collected the same tests."""
    node.config.stash[_DESELECTED] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401 - pytest's own
    """Say what was left out, and how to run it."""
    for name, count in config.stash.get(_DESELECTED, {}).items():
        terminalreporter.write_line(
            f"LEFT OUT: {count} of the tests marked {name} ({LEFT_OUT[name]}). "
            f"Run them with: python -m pytest -m {name}"
        )


class Wiretap:
    """Reads along what sessions send to PostgreSQL; every message waits for an answer."""

    _MESSAGE = re.compile(
        r'^F\t\d+\t(?:Query|Parse)\t[ "]+(\w+)|^F\t\d+\t(CopyDone)$', re.MULTILINE
    )

    def __init__(self, file: Path) -> None:
        self._written = file.open("wb")
        self._read = file.open("rb")
        self._sessions: list[psycopg.Connection] = []

    def tap(self, *sessions: psycopg.Connection) -> None:
        """Read along from now on."""
        for session in sessions:
            session.pgconn.trace(self._written.fileno())
            session.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            self._sessions.append(session)

    def sent(self) -> list[str]:
        """Return what was sent since this was last asked, each message by its first word."""
        text = self._read.read().decode(errors="replace")
        return [word or done for word, done in self._MESSAGE.findall(text)]

    def close(self) -> None:
        """Read along no longer."""
        for session in self._sessions:
            if not session.closed:
                session.pgconn.untrace()
        self._written.close()
        self._read.close()


@pytest.fixture
def wiretap(tmp_path: Path) -> Iterator[Wiretap]:
    """Return something that reads along what sessions send."""
    made = Wiretap(tmp_path / "wire")
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Shared:
    """Return what the processes of the run share."""
    return pytestconfig.stash[_SHARED]


@pytest.fixture(scope="session")
def server_url(shared: Shared) -> str:
    """Return the URL of a PostgreSQL server, on which a test makes databases of its own."""
    return shared.server_url


@pytest.fixture
def own_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each store compile its statements: what a call passes then depends on no other test."""
    monkeypatch.setattr(Engine, "__init__", _initialise)


def _stores(folder: Path, shared: Shared) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def make(kind: str, *, empty: bool = False) -> str:
        if kind == "sqlite":
            path = folder / f"ledger{next(numbers)}.db"
            if not empty:
                shared.copy_sqlite(path)
            return f"sqlite:///{path}"
        url = shared.create_database(template="template0" if empty else shared.template)
        made.append(url)
        return url

    yield make
    for url in made:
        shared.drop_database(make_url(url).database)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command, expects its exit code, and returns what it says."""

    def run(*words: str, code: int = 0) -> str:
        from ledger.cli import main  # noqa: PLC0415 - most tests run no command

        monkeypatch.setattr("sys.argv", ["ledger", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert code == (ended.value.code or 0), said
        return " ".join((said.out + said.err).split())

    return run


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH on which the programs are.

    LEDGER_TEST_TOOLS names the folder that has them; without that, an environment is made.
    """
    found = os.environ.get("LEDGER_TEST_TOOLS")
    if not found:
        made = tmp_path_factory.mktemp("tools") / "venv"
        wanted = Path(__file__).parent / "reports" / "tools.txt"
        subprocess.run([sys.executable, "-m", "venv", made], check=True)
        subprocess.run([made / "bin" / "pip", "install", "-q", "-r", wanted], check=True)
        found = str(made / "bin")
    return f"{found}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def few_objects() -> None:
    """Keep what lives by now from collections: for a module that asks for many.

    Looking through all of it takes a fifth of a second, each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def new_store(tmp_path: Path, shared: Shared) -> Iterator[Callable[..., str]]:
    """Return a function that makes a store of a kind and returns its URL."""
    yield from _stores(tmp_path, shared)


@pytest.fixture(scope="module")
def module_store(
    tmp_path_factory: pytest.TempPathFactory, shared: Shared
) -> Iterator[Callable[..., str]]:
    """Return a function that makes a store for all tests of a module, which only read it."""
    yield from _stores(tmp_path_factory.mktemp("stores"), shared)


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, new_store: Callable[..., str]) -> str:
    """Return the URL of a new store, on each database in turn."""
    return new_store(request.param)


@pytest.fixture
def book(store_url: str) -> Iterator[Ledger]:
    """Return an open ledger on a new store, on each database in turn."""
    with Ledger.open(store_url) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still until it is set."""
    return Clock()


@pytest.fixture
def timed(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """Return a ledger that goes by `clock`, on each database in turn."""
    with Ledger.open(store_url, clock=clock) as book:
        yield book


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the packages that tests marked `clients` need, for PYTHONPATH.

    LEDGER_TEST_CLIENTS names it; without that, they are fetched.
    """
    found = os.environ.get("LEDGER_TEST_CLIENTS")
    if found:
        return Path(found)
    folder = tmp_path_factory.mktemp("clients")
    wanted = Path(__file__).with_name("clients.txt")
    words = [sys.executable, "-m", "pip", "install", "-q", "--target", folder, "-r", wanted]
    subprocess.run(words, check=True)
    return folder
