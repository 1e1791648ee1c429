"""Whatever a row holds: the damaged pool is named, and every other pool is answered."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    Attribution,
    IdempotencyKey,
    JournalDamagedError,
    LeaseTtl,
    Ledger,
    LedgerError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
    exports,
    reports,
)
from ledger.store.database import Database
from ledger.store.schema import attributions, entries, pools
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock

ABSURD: list[Any] = [
    None,
    -1,
    2**62,
    2**63 - 1,
    -(2**63),
    "jubilee",
    "",
    b"\xff\x00",
    1.5,
    b"text",
    '{"policy":{"capacity_tokens":-1}}',
    '{"policy":{"window":{"period":"day","anchor":1000000000000000000000000}}}',
    '{"policy":{"lease_ttl":1e400}}',
    "[" * 5_000,
    "[]",
    "no JSON",
]
"""What no column should hold where it stands; `b"text"` stands for text that is no UTF-8."""
EVERY = 1 if os.environ.get("LEDGER_TEST_LONG") else 12
"""One case in so many is tried, each column with others; LEDGER_TEST_LONG=1 tries all of them."""
KINDS = {
    *("opening", "reservation", "denial", "observation", "renewal", "settlement", "release"),
    *("expiry", "adjustment", "correction", "rollover", "threshold", "closing"),
}


def asked(*more: object) -> RequestExtensions:
    """Return extensions that name a run."""
    return RequestExtensions(Attribution(run_id="run", model="m", tags={"x": "y"}), *more)


def fill(book: Ledger, clock: Clock, name: str) -> None:
    """Write entries of every kind into a pool, and into one below it."""
    policy = SharedPoolBudgetOptions(
        capacity_tokens=100, thresholds={"some": 25}, window=Window(period=timedelta(days=1))
    )
    budget = book.pool(name, policy)
    below = book.pool(f"below {name}", policy, parent=name)
    budgets = (budget, below)
    for one in budgets:
        lease = one.reserve(asked(), UsageEstimate(total_tokens=30), UNLIMITED)
        one.observe(lease, Usage(total_tokens=4), report=UsageReport(idempotency_key="part"))
        one.renew(lease, timedelta(hours=1))
        one.record_used(lease, Usage(total_tokens=10), report=UsageReport(detail={"a": 1}))
        one.release(one.reserve(asked(), UsageEstimate(total_tokens=1), UNLIMITED))
        one.reserve(asked(LeaseTtl(timedelta(minutes=1))), UsageEstimate(total_tokens=2), UNLIMITED)
        with pytest.raises(LedgerError):
            one.reserve(asked(IdempotencyKey("no")), UsageEstimate(total_tokens=101), UNLIMITED)
    clock.minutes(5)
    book.expire_due()
    settled = next(
        entry.seq for entry in book.entries(name) if entry.kind == "settlement" and not entry.origin
    )
    budget.correct(settled, Usage(total_tokens=11), "because")
    clock.minutes(24 * 60)
    book.adjust(name, policy, reason="again")
    below.reserve(asked(), UsageEstimate(total_tokens=9), UNLIMITED)
    budget.reserve(asked(LeaseTtl(timedelta(days=9))), UsageEstimate(total_tokens=1), UNLIMITED)


def build(url: str, clock: Clock) -> None:
    """Make a store with a pool that is to be damaged, and two others."""
    with Ledger.open(url, clock=clock, record_denials=True) as book:
        for name in ("first", "hurt", "last"):
            fill(book, clock, name)
        fill(book, clock, "closed")
        book.close_pool("closed")


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose tables take anything: no types, no conditions, no guards."""
    path = tmp_path_factory.mktemp("loose") / "ledger.db"
    build(f"sqlite:///{path}", Clock())
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("PRAGMA writable_schema = ON")
        for name, sql in raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            taken = re.sub(r"\b(INTEGER|TEXT|BLOB) NOT NULL", r"\1", sql).replace(",\n STRICT", "")
            raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (taken, name))
        raw.execute("PRAGMA writable_schema = RESET")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


class Patient:
    """A store that is damaged, looked at and healed again, over one engine with warm caches."""

    def __init__(self, loose: Path, path: Path) -> None:
        self._loose = sqlite3.connect(loose)
        self._raw = sqlite3.connect(path, isolation_level=None)
        self._raw.text_factory = bytes
        self.heal()
        self._raw.execute("PRAGMA ignore_check_constraints = ON")
        self.database = Database(f"sqlite:///{path}", timeout_s=2, create=False)

    def heal(self) -> None:
        """Put everything back."""
        self._loose.backup(self._raw)

    def damage(self, table: str, column: str, where: str, value: object) -> bool:
        """Change one value, and tell whether that changed anything."""
        self.heal()
        changed = "CAST(x'ff61' AS TEXT)" if value == b"text" else "?"
        parameters = () if value == b"text" else (value,)
        look = f"SELECT quote({column}) FROM {table} WHERE {where}"
        before = self._raw.execute(look).fetchall()
        try:
            self._raw.execute(f"UPDATE {table} SET {column} = {changed} WHERE {where}", parameters)
        except sqlite3.IntegrityError:
            return False  # a key would be there twice
        return before != self._raw.execute(look).fetchall()

    def close(self) -> None:
        """Close the store."""
        self.database.close()
        self._raw.close()
        self._loose.close()


@pytest.fixture(scope="module")
def patient(loose: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """Return a store to be damaged."""
    made = Patient(loose, tmp_path_factory.mktemp("patient") / "ledger.db")
    yield made
    made.close()


def whole_store(book: Ledger, lost: list[JournalDamagedError]) -> Iterator[Callable[[], Any]]:
    """Yield every door that answers about all pools."""
    yield lambda: [info.name for info in book.pools(left_out=lost)]
    yield lambda: [one.pool.name for one in reports.standing(book, left_out=lost)]
    yield lambda: book.expire_due(left_out=lost)
    yield lambda: reports.runs(book, left_out=lost)
    yield lambda: reports.run_trees(book, left_out=lost)
    yield lambda: reports.spend(book, by=["hour", "pool", "tag:x"], left_out=lost)
    yield lambda: reports.spend(book, by=[], zone="Asia/Tokyo", left_out=lost)
    yield lambda: reports.estimates(book, by=["pool"], left_out=lost)
    yield lambda: reports.leases(book, left_out=lost)
    yield lambda: list(reports.denials(book, left_out=lost))
    yield lambda: reports.denials_by(book, by=["agent", "reason"], left_out=lost)
    yield lambda: lost.extend(reports.glance(book).left_out)
    yield lambda: lost.extend(reports.overview(book, verify=False).left_out)


def one_pool(book: Ledger, name: str) -> Iterator[Callable[[], object]]:
    """Yield every door that answers about one pool, and every call that writes to it."""
    yield lambda: book.pool(name).status()
    yield lambda: book.pool(name).remaining(RequestExtensions())
    yield lambda: list(book.entries(name))
    yield lambda: list(book.open_leases(name))
    yield lambda: book.replay(name)
    yield lambda: book.entry_with_key(name, "part")
    yield lambda: book.entry_with_key(name, "no")
    yield lambda: list(reports.statement_lines(book, reports.statement(book, name)))
    yield lambda: reports.burn_down(book, name)
    yield lambda: reports.forecast(book, name)
    yield lambda: reports.runs(book, name)
    yield lambda: reports.spend(book, name, by=["day", "model"])
    yield lambda: list(reports.denials(book, name))
    yield lambda: reports.leases(book, name)
    yield lambda: reports.estimates(book, name)
    yield lambda: exports.write(book, name, BytesIO(), format=exports.Format.CSV)
    yield lambda: exports.write(book, name, BytesIO(), format=exports.Format.FOCUS)
    yield lambda: book.expire_due(name)
    for number in (2, 8):
        yield lambda number=number: book.pool(name).lease(number)  # type: ignore[misc]
        yield lambda number=number: book.pool(name).correct(  # type: ignore[misc]
            number, Usage(total_tokens=1), "because"
        )
    for lease in [one.lease for one in readable(lambda: list(book.open_leases(name))) or []]:
        yield lambda lease=lease: book.pool(name).renew(lease, timedelta(days=1))  # type: ignore[misc]
        yield lambda lease=lease: book.pool(name).observe(lease, Usage(total_tokens=1))  # type: ignore[misc]
        yield lambda lease=lease: book.pool(name).record_used(lease, Usage(total_tokens=1))  # type: ignore[misc]
    yield lambda: book.pool(name).reserve(
        asked(IdempotencyKey("no")), UsageEstimate(total_tokens=101), UNLIMITED
    )
    yield lambda: book.pool(name).reserve(asked(), UsageEstimate(total_tokens=1), UNLIMITED)
    yield lambda: book.adjust(name, SharedPoolBudgetOptions(capacity_tokens=500))
    yield lambda: book.close_pool(name)


def readable(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it answers
    """Return what a call answers, None for an error of the library."""
    try:
        return call()
    except LedgerError:
        return None


def trouble(patient: Patient) -> list[str]:
    """Go through all doors, and return what went wrong."""
    clock = Clock()
    clock.minutes(30 * 24 * 60)
    try:
        book = Ledger(patient.database, clock=clock)
    except LedgerError:
        return []  # the store as a whole is named
    found: list[str] = []
    verified = guarded(found, "verify", book.verify) or []
    ok = {one.pool.name: one.ok for one in verified}
    if not (ok.get("first") and ok.get("last")) or all(ok.values()):
        found.append(f"verify: {ok}")
    lost: list[JournalDamagedError] = []
    for number, call in enumerate(whole_store(book, lost)):
        guarded(found, f"whole {number}", call, refused=())
    if any(error.pool in {"first", "last", "closed"} for error in lost):
        found.append(f"left out: {lost}")
    for name in ("hurt", "below hurt"):
        for number, door in enumerate(one_pool(book, name)):
            guarded(found, f"{name} {number}", door)
    guarded(found, "another pool", lambda: use("first", book), refused=())
    return found


def use(name: str, book: Ledger) -> None:
    """Ask a pool that is not damaged, and write to it."""
    for door in itertools.islice(one_pool(book, name), 11):
        door()
    budget = book.pool(name)
    lease = budget.reserve(asked(), UsageEstimate(total_tokens=1), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=1))


def guarded(
    found: list[str],
    door: str,
    call: Callable[[], Any],
    refused: tuple[type[Exception], ...] = (LedgerError,),
) -> Any:  # noqa: ANN401 - whatever it answers
    """Return what a door answers; note an error that it may not raise."""
    try:
        return call()
    except refused:
        return None
    except Exception as error:  # noqa: BLE001 - what is tested
        found.append(f"{door}: {error!r:.200}")
        return None


def kinds_of(loose: Path) -> dict[str, int]:
    """Return an entry of each kind in the pool that is damaged."""
    with closing(sqlite3.connect(loose)) as raw:
        rows = raw.execute("SELECT kind, max(seq) FROM entries WHERE pool_id = 3 GROUP BY kind")
        return dict(rows.fetchall())


ENTRY_COLUMNS = [column.name for column in entries.columns]


@pytest.mark.parametrize("column", ENTRY_COLUMNS)
def test_any_column_of_any_entry(loose: Path, patient: Patient, column: str) -> None:
    """Each kind of entry, with a value that it should not hold: every door answers, or says why."""
    number = ENTRY_COLUMNS.index(column)
    kinds = sorted(kinds_of(loose).items())
    turned = itertools.islice(itertools.cycle(kinds), number, number + len(kinds))
    values = itertools.islice(itertools.cycle(ABSURD), number, None)
    failed, tried = [], 0
    for (kind, seq), value in zip(turned, values, strict=False):
        if patient.damage("entries", column, f"pool_id = 3 AND seq = {seq}", value):
            tried += 1
            failed += [f"{kind} = {value!r:.40}: {one}" for one in trouble(patient)]
        if tried * EVERY >= len(kinds):
            break
    assert [] == failed
    assert tried


@pytest.mark.parametrize(
    ("table", "column", "where"),
    [
        *(("pools", column.name, "pool_id = 3") for column in pools.columns),
        *(
            ("attributions", column.name, "pool_id = 3 AND attribution_id = 1")
            for column in attributions.columns
        ),
        ("store", "identity", "store_id = 1"),
        ("store", "format_version", "store_id = 1"),
    ],
)
def test_any_column_of_any_other_row(patient: Patient, table: str, column: str, where: str) -> None:
    """A pool's own row, an attribution, the store's row: the same."""
    failed, tried = [], 0
    for value in ABSURD[:: min(EVERY, 5)]:
        if patient.damage(table, column, where, value):
            tried += 1
            failed += [f"{value!r:.40}: {one}" for one in trouble(patient)]
    assert [] == failed
    assert tried


def test_every_kind_is_there(loose: Path) -> None:
    """The damaged pool holds an entry of every kind but a closing, and mirrors."""
    assert KINDS - {"closing"} == set(kinds_of(loose))


def test_a_sound_store_answers_at_every_door(patient: Patient) -> None:
    """Without damage nothing is refused, so that what the other tests see is the damage's."""
    patient.heal()
    assert ["verify"] == [found.partition(":")[0] for found in trouble(patient)]
