"""`ledger db copy`: a store in another database, of the other kind, row by row."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ledger import (
    Attribution,
    LeaseTtl,
    Ledger,
    Period,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    Window,
)
from ledger.cli import main
from ledger.core.errors import InvalidInputError
from ledger.store import copying, migrate, schema
from ledger.store.copying import Copied, copy
from ledger.store.database import Database
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.conftest import STORES
from tests.leases import TEN

OTHER = {"sqlite": "postgresql", "postgresql": "sqlite"}
Rows = dict[str, list[Sequence[Any]]]


def fill(url: str) -> None:
    """Make pools below pools, with all that a call may carry, and an open lease."""
    call = RequestExtensions(
        Attribution(run_id="run", model="m", tags={"team": "é"}), LeaseTtl(timedelta(hours=1))
    )
    with Ledger.open(url, record_denials=True) as book:
        top = book.pool("top", SharedPoolBudgetOptions(capacity_tokens=1_000))
        limits = SharedPoolBudgetOptions(capacity_tokens=100, window=Window(Period.DAY))
        below = book.pool("below", limits, parent="top")
        book.pool("carved", SharedPoolBudgetOptions(capacity_tokens=50), parent="top", carved=True)
        book.pool("idle", SharedPoolBudgetOptions())
        for number in range(4):
            lease = below.reserve(call, TEN, UNLIMITED)
            below.observe(lease, Usage(total_tokens=number))
            below.record_used(lease, Usage(total_tokens=2 * number))
        below.correct(below.status().seq, Usage(total_tokens=1), "the invoice says so")
        with pytest.raises(ThresholdExceededError):
            top.reserve(call, UsageEstimate(total_tokens=2_000), UNLIMITED)
        below.reserve(EXTENSIONS, TEN, UNLIMITED)


def copied(source: str, target: str) -> Copied:
    """Copy a store."""
    one = Database(source, timeout_s=10, create=False, read_only=True)
    other = Database(target, timeout_s=10, create=True)
    try:
        return copy(one, other)
    finally:
        other.close()
        one.close()


def rows(url: str) -> Rows:
    """Return every row of a store, by table."""
    with Ledger.open(url, read_only=True) as book:
        return {
            table.name: [
                tuple(row)
                for row in book.read(
                    lambda connection, table=table: connection.execute(  # type: ignore[misc]
                        select(table).order_by(*table.primary_key)
                    ).all()
                )
            ]
            for table in schema.metadata.tables.values()
        }


@pytest.fixture(params=STORES)
def urls(request: pytest.FixtureRequest, new_store: Callable[..., str]) -> tuple[str, str]:
    """Return a filled store, and an empty database of the other kind."""
    source = new_store(request.param)
    fill(source)
    return source, new_store(OTHER[request.param], empty=True)


def test_a_copy_is_the_same_store(urls: tuple[str, str]) -> None:
    """Every row of it, the identity too; leases go on by their tokens, and the schema is whole."""
    source, target = urls
    with Ledger.open(source) as book:
        token = book.pool("below").reserve(EXTENSIONS, TEN, UNLIMITED).token
    found = copied(source, target)
    assert rows(source) == rows(target)
    with Ledger.open(target) as book:
        assert (4, found.entries) == (found.pools, book.size())
        assert all(one.ok for one in book.verify(expect=found.anchors))
        assert [] == migrate.differences(book._database, [])
        below = book.pool("below")
        below.record_used(below.lease(token), Usage(total_tokens=3))
        assert all(one.ok for one in book.verify(expect=found.anchors))


def test_writers_go_on_and_a_second_copy_takes_what_they_wrote(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is the store as it was at one moment, pools above and below alike."""
    source, target = urls
    monkeypatch.setattr(copying, "COPIED_AT_ONCE", 3)
    append = copying._append
    with Ledger.open(source) as book:

        def busy(*given: Any) -> int:  # noqa: ANN401 - as `_append`
            book.pool("below").release(book.pool("below").reserve(EXTENSIONS, TEN, UNLIMITED))
            return append(*given)

        monkeypatch.setattr(copying, "_append", busy)
        before = book.size()
        assert before == copied(source, target).entries
        monkeypatch.setattr(copying, "_append", append)
        with Ledger.open(target) as made:
            assert all(one.ok for one in made.verify())
        assert before < book.size()
    assert rows(source) != rows(target)
    copied(source, target)
    assert rows(source) == rows(target)
    assert 0 == copied(source, target).entries


def test_a_copy_that_was_interrupted_goes_on(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is whole nobody finds a pool there, and none of it is written twice."""
    source, target = urls
    monkeypatch.setattr(copying, "COPIED_AT_ONCE", 3)
    append, calls = copying._append, iter(range(1_000))

    def interrupted(*given: Any) -> int:  # noqa: ANN401 - as `_append`
        done = append(*given)
        if next(calls) == 4:
            raise KeyboardInterrupt
        assert 0 == append(*given)  # as after a COMMIT that nobody heard of
        return done

    monkeypatch.setattr(copying, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copied(source, target)
    with Ledger.open(target) as book:
        assert [] == book.pools()
    assert 0 < copied(source, target).entries < len(rows(source)["entries"])
    assert rows(source) == rows(target)


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_copy_that_was_killed_goes_on(urls: tuple[str, str], at: int) -> None:
    """With SIGKILL, after some rows were written and before their COMMIT; then by the command."""
    source, target = urls
    code = f"""
import os, signal, sys
from ledger.cli import main
from ledger.store import copying
from ledger.store.dialects import dialect_for
dialect, calls = type(dialect_for({target!r}, timeout_s=1)), iter(range(1_000))
copying.COPIED_AT_ONCE = 3
insert = dialect.insert
def killed(*given):
    insert(*given)
    if next(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
dialect.insert = staticmethod(killed)
sys.argv = ["ledger", "db", "copy", {source!r}, {target!r}]
main()
"""
    done = programs.run([sys.executable, "-c", code], capture_output=True)
    assert -signal.SIGKILL == done.returncode, done.stderr
    with Ledger.open(target) as book:
        assert [] == book.pools()
    whole = len(rows(source)["entries"])
    assert len(rows(target)["entries"]) < whole
    words = ["-m", "ledger", "db", "copy", source, target]
    said = programs.run([sys.executable, *words], capture_output=True, text=True)
    assert (0, "") == (said.returncode, said.stderr)
    assert rows(source) == rows(target)
    with Ledger.open(target) as book:
        assert all(one.ok for one in book.verify())
        assert whole == book.size()


def test_a_copy_that_was_written_to_is_no_copy_any_more(urls: tuple[str, str]) -> None:
    """Both stores have entries of their own then, under the same numbers."""
    source, target = urls
    copied(source, target)
    for url in (target, source):
        with Ledger.open(url) as book:
            book.pool("top").reserve(EXTENSIONS, TEN, UNLIMITED)
        before = rows(target)
        with pytest.raises(InvalidInputError, match=r"was written to .* entries of pool 1"):
            copied(source, target)
        assert before == rows(target)


def test_a_copy_with_a_pool_of_its_own_is_no_copy_any_more(urls: tuple[str, str]) -> None:
    """Another pool has the same number in the source, or will have it."""
    source, target = urls
    copied(source, target)
    with Ledger.open(target) as book:
        book.pool("mine", SharedPoolBudgetOptions())
    with pytest.raises(InvalidInputError, match="pool 'mine' is not as in the source"):
        copied(source, target)


@pytest.mark.parametrize("first", [True, False])
def test_what_is_written_to_a_copy_meanwhile_is_found_out(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch, *, first: bool
) -> None:
    """Nothing is appended behind it, so that the copy stays what its own programs made of it."""
    source, target = urls
    if not first:
        copied(source, target)
        with Ledger.open(source) as book:
            for _ in range(2):
                book.pool("top").reserve(EXTENSIONS, TEN, UNLIMITED)
    append = copying._append

    def late(*given: Any) -> int:  # noqa: ANN401 - as `_append`
        if given[2] is copying._ENTRIES:
            with Ledger.open(target) as book:
                budget = book.pool("top", SharedPoolBudgetOptions(capacity_tokens=1_000))
                budget.release(budget.reserve(EXTENSIONS, TEN, UNLIMITED))
        return append(*given)

    monkeypatch.setattr(copying, "_append", late)
    with pytest.raises(InvalidInputError, match="was written to"):
        copied(source, target)
    with Ledger.open(target) as book:
        assert book.verify("top")[0].ok


def test_a_store_is_no_copy_of_itself(urls: tuple[str, str], tmp_path: Path) -> None:
    """Neither under its own name nor under another."""
    url, _ = urls
    fill(url)
    names = [url]
    if url.startswith("sqlite"):
        link = tmp_path / "link.db"
        link.symlink_to(url.removeprefix("sqlite:///"))
        names.append(f"sqlite:///{link}")
    for name in names:
        with pytest.raises(InvalidInputError, match="is the store itself"):
            copied(url, name)


def test_another_store_is_no_copy(urls: tuple[str, str]) -> None:
    """Not even one without pools: its identity is in none of the hashes."""
    source, target = urls
    Ledger.open(target).close()
    with pytest.raises(InvalidInputError, match="another store"):
        copied(source, target)
    assert [] == rows(target)["entries"]


def test_the_command_copies_and_verifies(
    urls: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints what `verify` prints, and nothing of a password."""
    source, target = urls
    monkeypatch.setattr(sys, "argv", ["ledger", "db", "copy", source, target])
    with pytest.raises(SystemExit) as ended:
        main()
    first, *others = capsys.readouterr().out.splitlines()
    assert (None, True) == (ended.value.code, " entries of 4 pools copied to " in first)
    assert ["top", "below", "carved", "idle"] == [line.split()[1].rstrip(":") for line in others]
    assert {"ok"} == {line.split()[0] for line in others}
