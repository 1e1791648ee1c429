"""The roles that `ledger db roles` makes: what each may do, and that it may do no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from ledger import (
    AsyncLedger,
    BudgetLease,
    Credit,
    Entry,
    EntryKind,
    InvalidInputError,
    LeaseTtl,
    Ledger,
    NotPermittedError,
    ReadOnlyLedgerError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.cli.database import app
from ledger.core import kinds
from ledger.core.checks import canonical_json
from ledger.engine.operations import Adjust, Reserve
from ledger.engine.perform import perform
from ledger.importing import Calls, import_calls
from ledger.reconcile import READY, read_bill
from ledger.store import migrate
from ledger.store.database import Database
from ledger.store.dialects.roles import ROLES
from ledger.store.schema import entries
from ledger.testing import AsyncManagerContract, ManagerContract, ReleaseContract
from ledger.testing.calls import EXTENSIONS, UNLIMITED, Make
from ledger.transport import budgeted, denial_of
from tests.clocks import Clock
from tests.leases import OF_THOUSAND, TEN
from tests.roles import NAMES, role_logins
from tests.shared import Shared

MORE = SharedPoolBudgetOptions(capacity_tokens=999_900)
PREFIX = f"r{os.getpid()}_"


@pytest.fixture(scope="module")
def urls(shared: Shared) -> Iterator[Mapping[str, str]]:
    """Return a store's address for its administrator ("admin") and a login of each role."""
    with role_logins(shared, PREFIX) as found:
        yield found


@pytest.fixture(scope="module")
def opened(urls: Mapping[str, str]) -> Iterator[Mapping[str, Ledger]]:
    """Return the store, opened by each role."""
    books = {name: Ledger.open(url, create=False) for name, url in urls.items()}
    yield books
    for book in books.values():
        book.close()


@pytest.fixture
def name(fresh_names: Iterator[str]) -> str:
    """Return a name that no pool has."""
    return next(fresh_names)


@pytest.fixture(scope="module")
def fresh_names() -> Iterator[str]:
    """Return names that no pool has."""
    return (f"pool {number}" for number in range(1_000_000))


class TestWorker(ManagerContract, ReleaseContract):
    """A worker does all that a budget manager does, in pools that a budget holder has opened."""

    @pytest.fixture
    def make_manager(self, opened: Mapping[str, Ledger], fresh_names: Iterator[str]) -> Make:
        """Return a function that opens a pool as the holder, and again as the worker."""

        def make(options: SharedPoolBudgetOptions) -> Any:  # noqa: ANN401 - the manager under test
            name = next(fresh_names)
            opened["holder"].pool(name, options)
            return opened["worker"].pool(name)

        return make


class TestWorkerInAsyncio(AsyncManagerContract, ReleaseContract):
    """The same from tasks; tests/conformance holds a worker to all that managers share besides."""

    @pytest.fixture
    def make_manager(self, opened: Mapping[str, Ledger], fresh_names: Iterator[str]) -> Make:
        """Return a function that opens a pool as the holder, and again as the worker."""

        async def make(options: SharedPoolBudgetOptions) -> Any:  # noqa: ANN401 - as above
            name = next(fresh_names)
            opened["holder"].pool(name, options)
            return await AsyncLedger(opened["worker"]).pool(name)

        return make


def granted(book: Ledger, name: str) -> BudgetLease:
    """Return the lease that is open."""
    return next(book.open_leases(name)).lease


def settled(book: Ledger, name: str) -> int:
    """Return the number of the settlement that `prepared` has written."""
    (found,) = book.entries(name, kind=EntryKind.SETTLEMENT)
    return found.seq


READS: dict[str, Callable[[Ledger, str], object]] = {
    "see what remains": lambda book, name: book.pool(name).remaining(EXTENSIONS),
    "see a pool's status": lambda book, name: book.pool(name).status(),
    "read entries": lambda book, name: list(book.entries(name)),
    "list leases": lambda book, name: list(book.open_leases(name)),
    "verify": lambda book, name: book.verify(name),
    "replay": lambda book, name: book.replay(name),
    "report": reports.runs,
    "be alerted": lambda book, name: list(book.alerts(pool=name)),
}
WORK: dict[str, Callable[[Ledger, str], object]] = {
    "reserve": lambda book, name: book.pool(name).reserve(EXTENSIONS, TEN, UNLIMITED),
    "settle": lambda book, name: book.pool(name).record_used(
        granted(book, name), Usage(total_tokens=1)
    ),
    "observe": lambda book, name: book.pool(name).observe(
        granted(book, name), Usage(total_tokens=1)
    ),
    "renew": lambda book, name: book.pool(name).renew(granted(book, name), timedelta(hours=1)),
    "release": lambda book, name: book.pool(name).release(granted(book, name)),
    "close": lambda book, name: book.pool(name).abandon(granted(book, name)),
    "expire": lambda book, name: book.expire_due(name),
}
HOLD: dict[str, Callable[[Ledger, str], object]] = {
    "open pool": lambda book, name: book.pool(f"{name} new", OF_THOUSAND),
    "adjust": lambda book, name: book.adjust(name, MORE),
    "close pool": lambda book, name: book.close_pool(name),
    "credit": lambda book, name: book.credit(name, Credit(name="more", requests=5)),
    "correct": lambda book, name: book.pool(name).correct(
        settled(book, name), Usage(total_tokens=3), "invoice"
    ),
}
MAY = {
    "auditor": READS,
    "worker": READS | WORK,
    "holder": READS | WORK | HOLD,
    "owner": READS | WORK | HOLD,
}
EVERYTHING = READS | WORK | HOLD


@pytest.mark.parametrize("operation", EVERYTHING)
@pytest.mark.parametrize("role", NAMES)
def test_each_role_may_do_what_is_its_own(
    opened: Mapping[str, Ledger], name: str, role: str, operation: str
) -> None:
    """And is told so, by a typed error, for all else: which role, which operation, what to do."""
    admin, book = opened["admin"], opened[role]
    budget = admin.pool(name, OF_THOUSAND)
    budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    budget.record_used(budget.reserve(EXTENSIONS, TEN, UNLIMITED), Usage(total_tokens=7))
    if operation == "credit":
        admin.adjust(name, replace(OF_THOUSAND, prepaid=["requests"]))
    before, pools = list(admin.entries(name)), len(admin.pools())
    if operation in MAY[role]:
        EVERYTHING[operation](book, name)
        for one in list(admin.entries(name))[len(before) :]:
            assert one.actor is None or f"{PREFIX}{role}_login" == one.actor.role
    else:
        with pytest.raises(NotPermittedError, match="ledger db roles") as refused:
            EVERYTHING[operation](book, name)
        assert (f"{PREFIX}{role}_login", operation) == (
            refused.value.role,
            refused.value.operation,
        )
        assert "pool_lock_" not in str(refused.value)
        assert 1 == str(refused.value).count("ledger db roles")
        assert (before, pools) == (list(admin.entries(name)), len(admin.pools()))
    assert [None] == [found.damage for found in admin.verify(name)]


@pytest.mark.parametrize("who", ["auditor", "reader"])
def test_a_client_that_may_not_reserve_is_told_that_for_good(
    opened: Mapping[str, Ledger], urls: Mapping[str, str], name: str, who: str
) -> None:
    """It is answered with 403: 503 would have it tried again later. Nothing leaves."""
    opened["holder"].pool(name, SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000_000))
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(500)

    book = opened["auditor"] if who == "auditor" else Ledger.open(urls["worker"], read_only=True)
    inner = httpx.Client(transport=httpx.MockTransport(answer))
    with budgeted(inner, pool=book.pool(name)) as client:
        found = client.post(
            "https://api.openai.com/v1/chat/completions",
            json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]},
        )
    if who == "reader":
        book.close()
    assert (403, "budget_not_permitted") == (found.status_code, found.json()["error"]["type"])
    expected = NotPermittedError if who == "auditor" else ReadOnlyLedgerError
    assert isinstance(denial_of(found), expected)
    assert [] == sent


def test_an_import_that_would_correct_says_by_which_line(
    opened: Mapping[str, Ledger], name: str, tmp_path: Path
) -> None:
    """A role that may not import may repeat an import, as nothing is written; not one that grew."""
    opened["holder"].pool(name, OF_THOUSAND)
    path = tmp_path / "log.csv"
    head = "request_id,startTime,model,prompt_tokens,completion_tokens,total_tokens,spend\n"
    lines = [f"{name} q{one},2024-02-20T10:00:00Z,m,10,5,15,0.5\n" for one in range(2)]

    def bring(role: str) -> object:
        bill = read_bill(path, READY["litellm"], attributed=True)
        return import_calls(opened[role], name, Calls(bill=bill))

    path.write_text(head + "".join(lines))
    bring("holder")
    bring("worker")
    path.write_text(head + "".join(lines).replace("15,0.5", "15,0.75"))
    before = list(opened["admin"].entries(name))
    with pytest.raises(NotPermittedError) as refused:
        bring("worker")
    said = "may not import log.csv: line 2 says something else of a call that was imported before"
    assert f"{said}, and entry 2 would be corrected" in str(refused.value)
    assert before == list(opened["admin"].entries(name))


def test_one_forbidden_call_does_not_fail_the_others_of_its_batch(
    opened: Mapping[str, Ledger], name: str
) -> None:
    """What a role may not do is refused alone: the calls beside it are done."""
    opened["holder"].pool(name, OF_THOUSAND)
    book = opened["worker"]
    journal, writer = book._journal(name), book._writer
    reserve = Reserve.of(EXTENSIONS, TEN, UNLIMITED, keep_denial=False)
    adjust = Adjust.of(MORE, None, None, None)
    done = writer.transactions.run(
        partial(
            perform, calls=lambda _locked: [(journal, adjust), (journal, reserve)], now=writer.now
        ),
        [journal],
        key=adjust.key,
    )
    refused, granted = done.outcomes
    assert isinstance(refused, NotPermittedError)
    assert EntryKind.RESERVATION == granted["kind"]


@pytest.mark.parametrize("whole", [True, False], ids=["all pools", "one pool"])
def test_who_may_not_expire_is_refused_where_a_lease_is_due(
    urls: Mapping[str, str], name: str, *, whole: bool
) -> None:
    """An answer of 0 to an auditor means that no lease was due."""
    clock = Clock()
    with (
        Ledger.open(urls["holder"], clock=clock) as holder,
        Ledger.open(urls["auditor"], clock=clock) as book,
    ):
        short = RequestExtensions(LeaseTtl(timedelta(minutes=1)))
        holder.pool(name, OF_THOUSAND).reserve(short, TEN, UNLIMITED)
        clock.minutes(2)
        with pytest.raises(NotPermittedError, match="expire"):
            book.expire_due(None if whole else name)
        assert 1 == holder.expire_due(name)


def test_the_whole_life_of_a_lease_is_a_worker_s(urls: Mapping[str, str], name: str) -> None:
    """Windows, thresholds, expiries, late usage, pools above and carved out: it writes them all."""
    clock = Clock()
    with (
        Ledger.open(urls["holder"], clock=clock) as holder,
        Ledger.open(urls["worker"], clock=clock, record_denials=True) as book,
    ):
        hourly = SharedPoolBudgetOptions(
            capacity_tokens=1_000, window=Window(period=timedelta(hours=1)), thresholds={"half": 50}
        )
        holder.pool(name, hourly)
        holder.pool(f"{name} below", OF_THOUSAND, parent=name)
        apart = SharedPoolBudgetOptions(capacity_tokens=300)
        holder.pool(f"{name} carved", apart, parent=name, carved=True)
        below, carved = book.pool(f"{name} below"), book.pool(f"{name} carved")
        short = RequestExtensions(LeaseTtl(timedelta(minutes=1)))
        late, later = (one.reserve(short, TEN, UNLIMITED) for one in (below, carved))
        clock.minutes(2)
        assert 1 == book.expire_due(below.name)
        below.record_used(late, Usage(total_tokens=700))
        holder.close_pool(f"{name} carved")
        carved.record_used(later, Usage(total_tokens=30))
        with pytest.raises(ThresholdExceededError):
            below.reserve(EXTENSIONS, UsageEstimate(total_tokens=400), UNLIMITED)
        clock.minutes(60)
        below.reserve(EXTENSIONS, TEN, UNLIMITED)
        written = {one.kind for pool in (name, f"{name} below") for one in book.entries(pool)}
        assert {"rollover", "threshold", "expiry", "correction", "denial"} <= written
        for pool in (name, f"{name} below", f"{name} carved"):
            assert [None] == [found.damage for found in book.verify(pool)]


def insert_like_the_opening(
    connection: psycopg.Connection, entry: Entry, **changes: object
) -> None:
    """Write a copy of a pool's opening as its third entry, past the library."""
    named = {"seq": 3, "policy_seq": 1, "idempotency_key": "forged", "origin_seq": None} | changes
    columns = [column.name for column in entries.columns]
    values = [f"%({name})s" if name in named else name for name in columns]
    connection.execute(
        f"INSERT INTO entries ({', '.join(columns)}) SELECT {', '.join(values)} FROM entries"
        f" WHERE pool_id = {entry.pool_id} AND seq = 1",
        named,
    )


def said(actor: dict[str, str], **more: object) -> str:
    """Return a detail."""
    return canonical_json({"actor": actor, **more})


@pytest.mark.parametrize(
    ("role", "changes", "refused"),
    [
        *(
            ("worker", {"kind": str(kind), "detail": None}, f"entry of kind {kind}")
            for kind in kinds.HAS_ACTOR
        ),
        ("worker", {"kind": "release", "policy_seq": 3}, "entry of kind release"),
        ("worker", {"kind": "correction", "policy_seq": 3, "detail": '{"late":"x"}'}, "correction"),
        ("holder", {"kind": "adjustment", "detail": said({"user": "u"})}, "does not say that role"),
        ("holder", {"kind": "closing", "detail": said({"role": "else"})}, "does not say that role"),
        ("holder", {"kind": "closing", "detail": None}, "does not say that role"),
        ("auditor", {"kind": "release"}, "permission denied"),
    ],
)
def test_the_database_itself_refuses_the_entry(
    urls: Mapping[str, str],
    opened: Mapping[str, Ledger],
    name: str,
    role: str,
    changes: dict[str, object],
    refused: str,
) -> None:
    """Past the library, too, a role writes no entry that is not its own, nor in another's name."""
    opened["admin"].pool(name, OF_THOUSAND).reserve(EXTENSIONS, TEN, UNLIMITED)
    opening = next(opened["admin"].entries(name))
    with (
        psycopg.connect(urls[role]) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match=refused),
    ):
        insert_like_the_opening(connection, opening, **changes)


STATEMENTS = [
    "UPDATE {} SET {} = {}",
    "DELETE FROM {}",
    "TRUNCATE {}",
    "ALTER TABLE {} DISABLE TRIGGER ALL",
    "DROP TABLE {} CASCADE",
    "CREATE TRIGGER t AFTER INSERT ON {} EXECUTE FUNCTION entries_append_only()",
]


@pytest.mark.parametrize("role", ["auditor", "worker", "holder"])
def test_history_and_schema_are_the_owner_s(urls: Mapping[str, str], role: str) -> None:
    """No other role may change what is written, or the tables and their guards."""
    tables = {"store": "identity", "pools": "name", "attributions": "salt", "entries": "hash"}
    statements = [
        *(
            one.format(table, *[column] * (one.count("{}") - 1))
            for one in STATEMENTS
            for table, column in tables.items()
        ),
        "INSERT INTO store SELECT * FROM store",
        "UPDATE ledger_version SET version_num = '9'",
        "DROP FUNCTION entries_rights() CASCADE",
        "CREATE OR REPLACE VIEW journal AS SELECT 1",
        "SET session_replication_role = replica",
        f"GRANT {PREFIX}owner TO CURRENT_USER",
        "GRANT INSERT ON pools TO CURRENT_USER",
    ]
    with psycopg.connect(urls[role], autocommit=True) as connection:
        for statement in statements:
            try:
                # What grants nothing warns, and is no error.
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                continue
            except psycopg.Error as error:
                raise AssertionError(statement) from error
            may = connection.execute("SELECT has_table_privilege('pools', 'INSERT')").fetchone()
            assert statement.startswith("GRANT INSERT"), statement
            assert (role == "holder",) == may


def test_the_owner_upgrades_and_checks_the_schema(urls: Mapping[str, str]) -> None:
    """It needs no administrator for it."""
    database = Database(urls["owner"], timeout_s=30, create=False)
    try:
        migrate.upgrade(database)
        assert [] == migrate.differences(database, [])
    finally:
        database.close()
    at = ["roles", "--url", urls["owner"], "--prefix", PREFIX, "--apply"]
    ended = CliRunner().invoke(app, at)
    assert 0 == ended.exit_code, ended.output


def test_a_backup_is_brought_back_by_the_owner(
    urls: Mapping[str, str], opened: Mapping[str, Ledger], name: str
) -> None:
    """Entries that name other roles are no forgery when the owner copies them."""
    opened["holder"].pool(name, OF_THOUSAND)
    opening = next(opened["admin"].entries(name))
    with psycopg.connect(urls["owner"]) as connection:
        insert_like_the_opening(connection, opening, kind="adjustment", policy_seq=3)
        connection.rollback()


def test_the_statements_are_printed(urls: Mapping[str, str]) -> None:
    """Plain SQL, with what each role may do, that can be run by any client; nothing is changed."""
    other = f"{PREFIX}other_"
    ended = CliRunner().invoke(app, ["roles", "--url", urls["admin"], "--prefix", other])
    assert 0 == ended.exit_code, ended.output
    for role in ROLES:
        assert f"-- {other}{role.name}: {role.may}" in ended.output
    with psycopg.connect(urls["admin"], autocommit=True) as connection:
        count = f"SELECT count(*) FROM pg_roles WHERE rolname LIKE '{other}%'"
        assert (0,) == connection.execute(count).fetchone()
        connection.execute("BEGIN")
        connection.execute(ended.output.replace("BEGIN;", "").replace("COMMIT;", ""))
        assert (4,) == connection.execute(count).fetchone()
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("prefix", ["", "pg_", "9_", "a b_", "A_", "x" * 51, 'a";_'])
def test_no_other_prefix_is_taken(urls: Mapping[str, str], prefix: str) -> None:
    """It becomes part of a statement."""
    ended = CliRunner().invoke(app, ["roles", "--url", urls["admin"], "--prefix", prefix])
    assert isinstance(ended.exception, InvalidInputError)


def test_sqlite_has_no_roles(new_store: Callable[..., str]) -> None:
    """There the permissions of the file are what there is."""
    ended = CliRunner().invoke(app, ["roles", "--url", new_store("sqlite")])
    assert isinstance(ended.exception, InvalidInputError)
    assert "permissions of the file" in str(ended.exception)
