"""How often a call waits for PostgreSQL to answer: as seldom as it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection

from ledger import (
    Attribution,
    Credit,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    Limit,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    from_micros,
    reports,
)
from ledger.reports.meter import Meter
from ledger.store import journal, queries, snapshot
from ledger.store.dialects.functions import SIGNATURES
from ledger.store.statements import Prepared, driver_of, rows_of_each
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.leases import OF_THOUSAND, TEN

if TYPE_CHECKING:
    from tests.conftest import Wiretap

USAGE = Usage(total_tokens=5)
INSERT = "SELECT"
"""The first word of what inserts a few rows: a function of the server."""
TWO = ["BEGIN", INSERT]
MANY_ROWS = ["BEGIN", "COPY", "CopyDone", "COMMIT"]


@pytest.fixture(autouse=True)
def _remembers_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process remember for a minute that no hold ends, and not for half a second.

    On a busy machine more than that passes between two calls, and the next one asks again.
    """
    monkeypatch.setattr(journal, "AHEAD_US", 120_000_000)
    monkeypatch.setattr(snapshot, "_QUIET_US", 60_000_000)


@pytest.fixture
def url(new_store: Callable[..., str]) -> str:
    """Return a store on PostgreSQL."""
    return new_store("postgresql")


@pytest.fixture
def book(url: str, wiretap: Wiretap) -> Iterator[Ledger]:
    """Return a ledger with a pool that was used before, read along."""
    with Ledger.open(url) as opened:
        opened.pool("pool", OF_THOUSAND).release(reserve(opened.pool("pool")))
        wiretap.tap(*opened._database.dialect._made)
        yield opened


def reserve(budget: LedgerBudgetManager, *given: object) -> object:
    """Reserve."""
    return budget.reserve(RequestExtensions(*given), TEN, UNLIMITED)


def test_a_write_alone_is_two_messages(book: Ledger, wiretap: Wiretap) -> None:
    """Reserve, settle and release: one message reads, behind the lock, and one commits."""
    budget = book.pool("pool")
    wiretap.sent()
    lease = reserve(budget)
    assert TWO == wiretap.sent()
    budget.record_used(lease, USAGE)
    assert TWO == wiretap.sent()
    other = reserve(budget)
    wiretap.sent()
    budget.release(other)
    assert TWO == wiretap.sent()


def test_the_small_question_is_asked_first(
    book: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a lease is due is asked of a pool that holds something, and then at once."""
    asked: list[Prepared] = []
    dialect, budget = book._database.dialect, book.pool("pool")
    read_alone = dialect.read_alone

    def noted(connection: Connection, statement: Prepared, *given: Any, **by_name: Any) -> Any:  # noqa: ANN401 - passed on
        asked.append(statement)
        return read_alone(connection, statement, *given, **by_name)

    monkeypatch.setattr(dialect, "read_alone", noted)
    budget.remaining(EXTENSIONS)
    with Ledger.open(url) as other:
        other.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
    assert [990, 990] == [budget.remaining(EXTENSIONS).tokens for _ in range(2)]
    expected = [queries.HEAD, *(queries.HEAD, queries.STANDING), queries.STANDING]
    assert expected == asked


def test_the_plan_of_the_newest_entry_does_not_age(book: Ledger, url: str) -> None:
    """A server that planned it for a tiny table, scans allowed, searches a grown one by its key.

    A scan would lock all entries for read, and every write beside it would clash.
    """
    budget = book.pool("pool")
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as session:
        session.execute("ANALYZE entries")
        asked = f"SELECT seq FROM {SIGNATURES[0].replace('bigint', '{}')}".format(1, "NULL")
        for _ in range(10):
            session.execute(asked)
        for _ in range(100):
            reserve(budget)
        session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        assert (budget.status().seq,) == session.execute(asked).fetchone()
        locked = session.execute("SELECT locktype FROM pg_locks WHERE mode = 'SIReadLock'")
        assert "relation" not in {locktype for (locktype,) in locked}
        session.rollback()


def test_a_denial_and_a_question_write_nothing(book: Ledger, wiretap: Wiretap) -> None:
    """`remaining` is one message; a denial that is not kept has nothing but its COMMIT to send."""
    budget = book.pool("pool")
    wiretap.sent()
    budget.remaining(EXTENSIONS)
    assert ["BEGIN"] == wiretap.sent()
    with pytest.raises(ThresholdExceededError):
        budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1_001), UNLIMITED)
    assert ["BEGIN", "COMMIT"] == wiretap.sent()


def test_an_attribution_is_looked_up_until_it_is_known(book: Ledger, wiretap: Wiretap) -> None:
    """The third reservation of a run costs no more than one without an attribution."""
    budget, run = book.pool("pool"), Attribution(run_id="run", tags={"a": "b"})
    for _ in range(2):
        reserve(budget, run)
    wiretap.sent()
    lease = reserve(budget, run)
    budget.record_used(lease, USAGE)
    assert [*TWO, *TWO] == wiretap.sent()


def test_entries_of_others_cost_one_more_message(book: Ledger, url: str, wiretap: Wiretap) -> None:
    """Behind another process's entry, what it changed is asked for; and what is not known, read."""
    budget = book.pool("pool")
    mine = [reserve(budget) for _ in range(2)]
    with Ledger.open(url) as elsewhere:
        theirs = reserve(elsewhere.pool("pool"))
    wiretap.sent()
    budget.record_used(mine[0], USAGE)
    assert ["BEGIN", "SELECT", INSERT] == wiretap.sent()
    budget.record_used(theirs, USAGE)
    assert ["BEGIN", "SELECT", INSERT] == wiretap.sent()
    budget.record_used(mine[1], USAGE)
    assert TWO == wiretap.sent()


def test_a_pool_three_deep_is_one_transaction(book: Ledger, wiretap: Wiretap) -> None:
    """One message reads in all three pools, behind all locks; another writes in all of them."""
    book.pool("org", OF_THOUSAND)
    book.pool("team", OF_THOUSAND, parent="org")
    run = book.pool("run", OF_THOUSAND, parent="team")
    run.release(reserve(run))
    wiretap.sent()
    lease = reserve(run)
    assert TWO == wiretap.sent()
    run.record_used(lease, USAGE)
    assert TWO == wiretap.sent()


def test_many_rows_go_by_copy(book: Ledger, wiretap: Wiretap) -> None:
    """Nine pools deep, an operation is nine rows."""
    parent = None
    for depth in range(9):
        budget = book.pool(f"level {depth}", OF_THOUSAND, parent=parent)
        parent = budget.name
    budget.release(reserve(budget))
    wiretap.sent()
    reserve(budget)
    assert MANY_ROWS == wiretap.sent()


def test_a_pool_three_deep_costs_at_most_three_times_the_statements(
    new_store: Callable[..., str],
) -> None:
    """Counted by the database itself, with BEGIN and COMMIT."""
    with Ledger.open(new_store("sqlite")) as book:
        flat = book.pool("flat", OF_THOUSAND)
        book.pool("org", OF_THOUSAND)
        book.pool("team", OF_THOUSAND, parent="org")
        run = book.pool("run", OF_THOUSAND, parent="team")
        counts = []
        for budget in (flat, run):
            budget.release(reserve(budget))
            said: list[str] = []
            (connection,) = book._database._idle
            driver_of(connection).set_trace_callback(said.append)
            lease = reserve(budget)
            budget.record_used(lease, USAGE)
            driver_of(connection).set_trace_callback(None)
            assert 2 == sum(text.startswith("BEGIN") for text in said)
            counts.append(len(said))
        assert counts[0] < counts[1] <= 3 * counts[0]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_asked_of_many_pools_is_answered_for_each(
    new_store: Callable[..., str], kind: str
) -> None:
    """By one statement on PostgreSQL: nothing, one row, and rows in their order."""
    with Ledger.open(new_store(kind)) as book:
        budgets = [book.pool(f"pool {number}", OF_THOUSAND) for number in range(4)]
        for number, budget in enumerate(budgets):
            for hour in reversed(range(number)):
                reserve(budget, LeaseTtl(timedelta(hours=hour + 1)))
        ids = [budget._journal.info.pool_id for budget in budgets]
        asked: list[tuple[Prepared, dict[str, Any]]] = [
            *((queries.HEAD, {"pool_id": one, "now": 7}) for one in (*ids, 2**40)),
            *((queries.SINCE, {"pool_id": one, "known": one, "page": 2}) for one in ids),
            *(
                (queries.ENDING, {"pool_id": one, "now": 0, "ahead": 2**60, "page": 9})
                for one in ids
            ),
        ]
        with book._database.connect() as connection:
            together = rows_of_each(connection, asked)
            apart = [statement.rows(connection, given) for statement, given in asked]
    assert apart == together
    assert [1, 1, 1, 1, 0] == [len(rows) for rows in together[:5]]
    assert [[], [2], [3, 2], [4, 3, 2]] == [[row["lease"] for row in rows] for rows in together[9:]]


def test_many_pools_are_looked_at_in_as_few_messages_as_a_few(
    book: Ledger, wiretap: Wiretap
) -> None:
    """Where they stand, what is open, what is counted and due: none costs a message a pool."""
    ttl = timedelta(hours=1)

    def looks() -> list[int]:
        seen = reports.glance(book)
        wiretap.sent()
        found = []
        for look in (
            lambda: reports.standing(book),
            lambda: reports.glance(book),
            lambda: reports.glance(book, oldest=seen.oldest),
            Meter(book).read,
            book.expire_due,
        ):
            look()
            found.append(len(wiretap.sent()))
        return found

    counts = []
    for many in (2, 8):
        for number in range(many):
            limits = SharedPoolBudgetOptions(capacity_tokens=1_000 + number, lease_ttl=ttl)
            reserve(book.pool(f"{many} {number}", limits, parent="pool"))
        counts.append(looks())
    assert counts[0] == counts[1]


def test_what_credits_and_limits_count_from_is_looked_up_once(url: str, wiretap: Wiretap) -> None:
    """After twenty credits and a hundred leases have expired, five messages ask, and not a hundred.

    They are three reads: of the newest entry, of what a limit begins at, and of corrections. Where
    an entry is new, a fourth one looks at the entry that all was read at.
    """
    clock = Clock()
    prepaid = SharedPoolBudgetOptions(
        prepaid=["tokens"],
        limits=[Limit(name="day", period=Rolling(timedelta(days=1)), capacity_tokens=10_000)],
        lease_ttl=timedelta(minutes=1),
    )
    with Ledger.open(url, clock=clock) as book, Ledger.open(url, clock=clock) as other:
        budget = book.pool("prepaid", prepaid)
        book.credit("prepaid", Credit(name="lasts", tokens=10_000))
        for number in range(20):
            until = from_micros(clock.now + (number + 1) * 600_000_000)
            book.credit("prepaid", Credit(name="ends", tokens=10, expires_at=until))
        for _ in range(25):
            for _ in range(4):
                budget.reserve(EXTENSIONS, TEN, UNLIMITED)
            clock.minutes(10)
        book.expire_due()
        expected = budget.remaining(EXTENSIONS)
        reader = other.pool("prepaid")
        wiretap.tap(*other._database.dialect._made)
        for most in (1_000, 5, 5):
            wiretap.sent()
            assert expected == reader.remaining(EXTENSIONS)
            assert len(wiretap.sent()) <= most
        budget.release(budget.reserve(EXTENSIONS, TEN, UNLIMITED))
        wiretap.sent()
        assert expected == reader.remaining(EXTENSIONS)
        assert len(wiretap.sent()) <= 7


def test_threads_may_share_what_was_looked_up(url: str) -> None:
    """They ask and write at once, and what is left then is what another ledger finds."""
    clock = Clock()
    limit = Limit(name="hour", period=Rolling(timedelta(hours=1)), capacity_tokens=100_000)
    policy = SharedPoolBudgetOptions(limits=[limit], lease_ttl=timedelta(minutes=1))
    with Ledger.open(url, clock=clock) as book, ThreadPoolExecutor(6) as threads:
        budget = book.pool("limited", policy)

        def ask(number: int) -> None:
            for _ in range(30):
                if number == 0:
                    clock.minutes(2)
                if number % 2:
                    budget.reserve(EXTENSIONS, TEN, UNLIMITED)
                else:
                    budget.remaining(EXTENSIONS)

        list(threads.map(ask, range(6)))
        with Ledger.open(url, clock=clock) as other:
            assert other.pool("limited").remaining(EXTENSIONS) == budget.remaining(EXTENSIONS)
