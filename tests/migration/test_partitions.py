"""A store on PostgreSQL that is divided by its pools: every guard on every partition."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from ledger import Ledger, SharedPoolBudgetOptions, Usage, UsageEstimate
from ledger.testing.calls import EXTENSIONS, UNLIMITED

COUNT = 3
POOLS = 8
DIVIDED = ("attributions", "entries")
PARTITIONS = [f"{table}_p00{number}" for table in DIVIDED for number in range(COUNT)]


Run = Callable[..., str]


def fill(url: str) -> None:
    """Make pools, with a call in each."""
    with Ledger.open(url) as book:
        for number in range(POOLS):
            budget = book.pool(f"pool-{number}", SharedPoolBudgetOptions(capacity_tokens=100))
            lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=5), UNLIMITED)
            budget.record_used(lease, Usage(total_tokens=number))


@pytest.fixture
def divided(new_store: Callable[..., str], ran: Run) -> str:
    """Return an empty store in partitions."""
    url = new_store("postgresql", empty=True)
    ran("db", "upgrade", "--partitions", str(COUNT), "--url", url)
    return url


def test_pools_are_divided_and_every_partition_is_guarded(divided: str, ran: Run) -> None:
    """Also against TRUNCATE, and on a replica's session, where most triggers do not run."""
    fill(divided)
    with psycopg.connect(divided, autocommit=True) as connection:
        lies = "SELECT count(DISTINCT tableoid), count(*) FROM entries"
        before = connection.execute(lies).fetchone()
        assert (COUNT, 3 * POOLS) == before
        for role in ("origin", "replica"):
            connection.execute(f"SET session_replication_role = {role}")
            for name in (*DIVIDED, *PARTITIONS[COUNT:]):
                for change in ("UPDATE {} SET pool_id = pool_id", "DELETE FROM {}", "TRUNCATE {}"):
                    if name == "attributions" and change[0] != "T":
                        continue  # these calls have none, so that no row could be changed
                    with pytest.raises(psycopg.errors.RaiseException, match="is append-only"):
                        connection.execute(change.format(name))
        assert before == connection.execute(lies).fetchone()
    with Ledger.open(divided) as book:
        assert [True] * POOLS == [one.ok for one in book.verify()]
    assert "is as it should be" in ran("db", "check", "--url", divided)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP TRIGGER entries_no_truncate ON entries_p001", "entries_no_truncate of entries_p001"),
        (
            "ALTER TABLE entries_p002 ENABLE TRIGGER entries_no_change",
            "trigger entries_no_change of entries_p002 is",
        ),
        ("ALTER TABLE attributions DETACH PARTITION attributions_p000", "attributions_p000 is"),
    ],
)
def test_a_partition_that_lacks_a_guard_is_named(
    damage: str, named: str, divided: str, ran: Run
) -> None:
    """The guard of the whole table does not stand for those of its parts."""
    with psycopg.connect(divided, autocommit=True) as connection:
        connection.execute(damage)
    assert named in ran("db", "check", "--url", divided, code=1)


def test_a_reader_is_told_of_partitions_without_guards(divided: str, ran: Run) -> None:
    """Where no schema may be made to compare with, each guard is looked for by its name."""
    with psycopg.connect(divided, autocommit=True) as connection:
        connection.execute("DROP TRIGGER entries_no_truncate ON entries_p001")
        connection.execute(
            f"ALTER DATABASE {make_url(divided).database} SET default_transaction_read_only = on"
        )
    said = ran("db", "check", "--url", divided, code=1)
    assert "definitions were not compared" in said
    assert "trigger entries_no_truncate of entries_p001 is missing" in said


def test_a_store_is_divided_when_it_is_made_or_never(
    divided: str, new_store: Callable[..., str], tmp_path: Path, ran: Run
) -> None:
    """The command may run again at each start. Another number is refused, and so is SQLite."""
    assert "is at 0001" in ran("db", "upgrade", "--partitions", str(COUNT), "--url", divided)
    assert "is at 0001" in ran("db", "upgrade", "--url", divided)
    whole = new_store("postgresql")
    for url, found in ((divided, COUNT), (whole, 0)):
        said = ran("db", "upgrade", "--partitions", "4", "--url", url, code=2)
        assert f"is a store with {found} partitions" in said
        assert "ledger db copy --partitions 4" in said
    file = tmp_path / "ledger.db"
    assert "PostgreSQL" in ran(
        "db", "upgrade", "--partitions", "4", "--url", f"sqlite:///{file}", code=2
    )
    assert not file.exists()
    for count in ("0", "1001"):
        assert "1 to 1,000" in ran("db", "upgrade", "--partitions", count, "--url", whole, code=2)


def test_a_store_is_copied_into_partitions(
    tmp_path: Path, new_store: Callable[..., str], ran: Run
) -> None:
    """It is the way to divide a store that is in use; a second run goes on with it."""
    source, target = f"sqlite:///{tmp_path}/ledger.db", new_store("postgresql", empty=True)
    fill(source)
    for _ in range(2):
        ran("db", "copy", source, target, "--partitions", str(COUNT))
        with Ledger.open(source) as book:
            book.pool("pool-1").reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
    with Ledger.open(target) as book:
        assert 4 == book.pool("pool-1").status().seq
        assert all(one.ok for one in book.verify())
    assert "is as it should be" in ran("db", "check", "--url", target)


def test_roles_own_and_may_write_partitions(divided: str, ran: Run) -> None:
    """The owner of the tables has their parts, too, and others have no way round the whole."""
    prefix = f"p{os.getpid()}_"
    ran("db", "roles", "--prefix", prefix, "--apply", "--url", divided)
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname = ANY(%s)"
    reach = (
        "SELECT count(*) FROM unnest(%s::text[]) AS p WHERE has_table_privilege(%s, p, 'INSERT')"
    )
    with psycopg.connect(divided, autocommit=True) as connection:
        try:
            assert [(f"{prefix}owner",)] == connection.execute(owners, [PARTITIONS]).fetchall()
            connection.execute(f"GRANT INSERT ON entries_p000 TO {prefix}worker")
            ran("db", "roles", "--prefix", prefix, "--apply", "--url", divided)
            for role in ("worker", "holder", "auditor"):
                found = connection.execute(reach, [PARTITIONS, prefix + role]).fetchone()
                assert (0,) == found
        finally:
            for role in ("owner", "auditor", "worker", "holder"):
                connection.execute(f"REASSIGN OWNED BY {prefix}{role} TO CURRENT_USER")
                connection.execute(f"DROP OWNED BY {prefix}{role}")
                connection.execute(f"DROP ROLE {prefix}{role}")
