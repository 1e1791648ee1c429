"""A hot standby of a real server: read while it follows, and written once it has taken over."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from ledger import (
    ContentionError,
    Ledger,
    LedgerUnavailableError,
    LostLeaseError,
    ReadOnlyLedgerError,
    StoreWentBackWarning,
    Totals,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.cli import main
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import until
from tests.faults.servers import FIRST, Servers
from tests.leases import OF_THOUSAND
from tests.shared import quick_folder


def tokens(count: int) -> UsageEstimate:
    """Return an estimate of so many tokens."""
    return UsageEstimate(total_tokens=count)


class Pair(Servers):
    """A server and its hot standby, which follows it without being waited for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.primary = self.first
        self.back_up("second", "--write-recovery-conf")
        self.standby = self.start("second")
        both = ",".join(str(self.sockets(name)).replace("/", "%2F") for name in (FIRST, "second"))
        self.both = f"postgresql://postgres@{both}/postgres"
        """Both servers in one address, as libpq writes it."""

    def catch_up(self) -> None:
        """Wait until the standby has all that the primary has."""
        written = self.ask(self.primary, "SELECT pg_current_wal_insert_lsn()")
        until(lambda: self.ask(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"))

    def cut(self) -> None:
        """Let the standby follow no longer."""
        self.ask(self.standby, "ALTER SYSTEM SET primary_conninfo = ''")
        self.ask(self.standby, "SELECT pg_reload_conf()")
        until(lambda: not self.ask(self.primary, "SELECT count(*) FROM pg_stat_replication"))

    def fail_over(self) -> None:
        """Kill the primary, and let the standby take over."""
        self.kill(FIRST)
        self.promote("second")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Return a server and its standby."""
    with tempfile.TemporaryDirectory(
        prefix="ledger-pair-", dir=quick_folder(), ignore_cleanup_errors=True
    ) as folder:
        made = Pair(Path(folder))
        yield made
        made.stop()


def test_a_hot_standby_is_read(pair: Pair) -> None:
    """Whatever only reads works there, and says how far it has come; what writes is refused."""
    url = pair.standby.render_as_string()
    with Ledger.open(pair.primary.render_as_string()) as book:
        budget = book.pool("read", OF_THOUSAND)
        budget.record_used(budget.reserve(EXTENSIONS, tokens(30), UNLIMITED), Usage(total_tokens=9))
        assert book.standby() is None
    pair.catch_up()
    with pytest.raises(LedgerUnavailableError, match="read_only=True"):
        Ledger.open(url)
    for address in (url, f"{pair.both}?target_session_attrs=standby"):
        with Ledger.open(address, read_only=True) as book:
            budget = book.pool("read")
            assert 991 == budget.remaining(EXTENSIONS).tokens
            assert [None] == [one.damage for one in book.verify("read")]
            assert [9] == [one.total_tokens for one in reports.spend(book, "read").rows]
            standby = book.standby()
            assert standby is not None
            assert standby.replayed_until is not None
            assert standby.replayed_until <= standby.at
            with pytest.raises(ReadOnlyLedgerError):
                budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)


def test_replay_that_ends_a_long_read_is_named(pair: Pair) -> None:
    """A standby ends a query that keeps it from replaying; the error says that, and what helps."""
    with Ledger.open(pair.primary.render_as_string()) as book:
        book.pool("replay", OF_THOUSAND)
    pair.ask(pair.primary, "CREATE TABLE busy AS SELECT 1 AS x")
    pair.ask(pair.standby, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
    pair.ask(pair.standby, "SELECT pg_reload_conf()")
    pair.catch_up()

    def look(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT count(*) FROM entries")
        for statement in ("UPDATE busy SET x = x + 1", "VACUUM busy"):
            pair.ask(pair.primary, statement)
        pair.catch_up()
        connection.exec_driver_sql("SELECT count(*) FROM entries")

    with Ledger.open(pair.standby.render_as_string(), read_only=True, timeout_s=3) as book:
        with pytest.raises(ContentionError, match="replay of a standby"):
            book.read(look)
        assert 1_000 == book.pool("replay").remaining(EXTENSIONS).tokens


def test_a_report_of_a_standby_says_how_far_it_is_behind(
    pair: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On standard error, where rows for programs are not disturbed, and on pages."""
    with Ledger.open(pair.primary.render_as_string()) as book:
        book.pool("report", OF_THOUSAND)
    pair.catch_up()
    url, page = pair.standby.render_as_string(), tmp_path / "page.html"
    for words in (["--format", "json"], ["--html", str(page)]):
        monkeypatch.setattr("sys.argv", ["ledger", "report", "spend", "--url", url, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        assert "Read from a standby that has what was committed until 2" in err
        assert "Read from" not in out
    assert "Read from a standby that has" in page.read_text(encoding="utf-8")


def test_a_standby_that_lacked_the_tail_takes_over(pair: Pair) -> None:
    """A lease that it never had is lost: its usage is booked once, and no other call's lease ends.

    The program goes on with the same ledger, by an address that names both servers.
    """
    with Ledger.open(f"{pair.both}?target_session_attrs=read-write") as book:
        budget = book.pool("pool", OF_THOUSAND)
        kept = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
        pair.catch_up()
        pair.cut()
        mine = budget.reserve(EXTENSIONS, tokens(500), UNLIMITED)
        pair.fail_over()
        with Ledger.open(pair.standby.render_as_string()) as elsewhere:
            others = elsewhere.pool("pool").reserve(EXTENSIONS, tokens(20), UNLIMITED)
        assert mine.id == others.id
        with pytest.warns(StoreWentBackWarning), pytest.raises(LostLeaseError):
            budget.record_used(mine, Usage(total_tokens=480))
        for _ in range(2):
            budget.record_lost(mine, Usage(total_tokens=480))
        budget.record_used(kept, Usage(total_tokens=9))
        budget.record_used(others, Usage(total_tokens=11))
        assert (Totals(500, 0, 3), Totals()) == budget.status().balance
        assert [None] == [one.damage for one in book.verify("pool")]
