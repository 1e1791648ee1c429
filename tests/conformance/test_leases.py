"""Leases and entries outlive the process that made them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection

from ledger import (
    Attribution,
    EntryKind,
    LeasePhase,
    LeaseTtl,
    Ledger,
    OpenLease,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.store import journal, queries
from ledger.store.dialects.functions import NewestEntry
from ledger.store.statements import Prepared
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests import programs
from tests.leases import OF_HUNDRED

FULL = UsageEstimate(input_tokens=1, output_tokens=2, total_tokens=30, cost_micros_usd=4)


def test_a_lease_is_its_reservation_s_entry(shared_book: Ledger, fresh_name: str) -> None:
    """The id is the entry's number, and the identity is the pool's."""
    budget = shared_book.pool(fresh_name, OF_HUNDRED)
    lease = budget.reserve(EXTENSIONS, FULL, RequestBudget.with_limits(40, None))
    newest = list(shared_book.entries(fresh_name))[-1]
    assert (2, budget.identity) == (lease.id, lease.pool)
    assert isinstance(lease.pool, UUID)
    assert (2, EntryKind.RESERVATION, FULL) == (newest.seq, newest.kind, newest.estimate)


def test_a_lease_is_found_again_by_its_token(shared_book: Ledger, fresh_name: str) -> None:
    """What `lease` returns is equal to what `reserve` returned."""
    budget = shared_book.pool(fresh_name, OF_HUNDRED)
    lease = budget.reserve(EXTENSIONS, FULL, RequestBudget.with_limits(40, None))
    assert lease == budget.lease(lease.token)
    assert lease == shared_book.pool(fresh_name).lease(lease.token)


@pytest.mark.parametrize("lease_id", [0, -1, 1, 4, 5, 999, 2**63 - 1, 2**63, 2**64])
def test_what_is_no_open_lease_is_unknown(
    shared_book: Ledger, fresh_name: str, lease_id: int
) -> None:
    """The opening, a settlement, an adjustment, and numbers that no entry has."""
    budget = shared_book.pool(fresh_name, OF_HUNDRED)
    settled, _ = (budget.reserve(EXTENSIONS, FULL, UNLIMITED) for _ in range(2))
    budget.record_used(settled, Usage())
    shared_book.adjust(fresh_name, OF_HUNDRED)
    for unknown in (lease_id, settled.id):
        with pytest.raises(UnknownLeaseError) as error:
            budget.record_used(replace(settled, id=unknown), Usage())
        stored = 0 < unknown < 2**63
        cause = "ended" if unknown == settled.id else "lost" if stored else "unknown"
        assert (unknown, cause) == (error.value.lease_id, error.value.cause)
        if unknown > 0:
            with pytest.raises(UnknownLeaseError):
                budget.lease(replace(settled, id=unknown).token)
    assert 5 == budget.status().seq


def test_a_lease_of_another_pool_writes_nothing(shared_book: Ledger, fresh_name: str) -> None:
    """Neither in the pool that is asked nor in the one that granted it."""
    here = shared_book.pool(fresh_name, OF_HUNDRED)
    there = shared_book.pool(f"{fresh_name} there", OF_HUNDRED)
    mine = here.reserve(EXTENSIONS, tokens(7), UNLIMITED)
    theirs = there.reserve(EXTENSIONS, tokens(9), UNLIMITED)
    assert mine.id == theirs.id
    before = (here.status(), there.status())
    for budget, lease in ((here, theirs), (there, mine)):
        with pytest.raises(UnknownLeaseError, match="another pool or store") as error:
            budget.record_used(lease, Usage(total_tokens=1))
        assert "elsewhere" == error.value.cause
        with pytest.raises(UnknownLeaseError):
            budget.record_used(replace(lease, pool=None), Usage(total_tokens=1))
    assert before == (here.status(), there.status())


def test_a_lease_of_another_store_writes_nothing(
    shared_book: Ledger, shared_sqlite: Ledger, shared_postgresql: Ledger, fresh_name: str
) -> None:
    """Pools of the same name in two stores have two identities."""
    other = shared_postgresql if shared_book is shared_sqlite else shared_sqlite
    here, there = (book.pool(fresh_name, OF_HUNDRED) for book in (shared_book, other))
    mine = here.reserve(EXTENSIONS, tokens(7), UNLIMITED)
    theirs = there.reserve(EXTENSIONS, tokens(7), UNLIMITED)
    assert mine == replace(theirs, pool=mine.pool, proof=mine.proof)
    before = here.status()
    with pytest.raises(UnknownLeaseError):
        here.record_used(theirs, Usage(total_tokens=1))
    assert before == here.status()


def test_a_lease_survives_a_reopened_ledger(store_url: str) -> None:
    """The token alone is enough to settle it, and the limits are still those of the reservation."""
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", OF_HUNDRED)
        lease = budget.reserve(EXTENSIONS, FULL, RequestBudget.from_tokens(30))
        left = budget.remaining(EXTENSIONS)
    with Ledger.open(store_url, create=False) as book:
        budget = book.pool("pool", OF_HUNDRED)
        assert left == budget.remaining(EXTENSIONS)
        assert lease == budget.lease(lease.token)
        with pytest.raises(RequestBudgetExceededError):
            budget.record_used(budget.lease(lease.token), Usage(total_tokens=31))
    with Ledger.open(store_url, create=False) as book:
        assert 69 == book.pool("pool").remaining(EXTENSIONS).tokens
        with pytest.raises(UnknownLeaseError):
            book.pool("pool").lease(lease.token)
        assert book.verify("pool")[0].ok


ANOTHER_PROCESS = """
import sys
from ledger import Ledger, RequestExtensions, Usage
with Ledger.open(sys.argv[1], create=False) as book:
    budget = book.pool("pool")
    lease = budget.lease(sys.argv[2])
    budget.record_used(lease, Usage(total_tokens=12))
    print(lease, budget.remaining(RequestExtensions()), sep="\\n")
"""


def test_a_lease_is_settled_in_another_process(store_url: str, book: Ledger) -> None:
    """Granted here, settled there by its token; this process sees it at once."""
    budget = book.pool("pool", OF_HUNDRED)
    lease = budget.reserve(EXTENSIONS, FULL, RequestBudget.from_tokens(30))
    done = programs.run(
        [sys.executable, "-c", ANOTHER_PROCESS, store_url, lease.token],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert "" == done.stderr
    assert [str(lease), str(budget.remaining(EXTENSIONS))] == done.stdout.splitlines()
    assert 88 == budget.remaining(EXTENSIONS).tokens
    with pytest.raises(UnknownLeaseError):
        budget.record_used(lease, Usage())


def test_two_ledgers_share_one_pool(store_url: str, book: Ledger) -> None:
    """Each sees what the other reserved and settled, and together they do not overspend."""
    with Ledger.open(store_url) as other:
        here, there = book.pool("pool", OF_HUNDRED), other.pool("pool", OF_HUNDRED)
        mine = here.reserve(EXTENSIONS, tokens(60), UNLIMITED)
        with pytest.raises(ThresholdExceededError) as denied:
            there.reserve(EXTENSIONS, tokens(41), UNLIMITED)
        assert 40 == denied.value.remaining_tokens
        theirs = there.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        there.record_used(mine, Usage(total_tokens=50))
        with pytest.raises(UnknownLeaseError):
            here.record_used(mine, Usage(total_tokens=50))
        here.record_used(theirs, Usage(total_tokens=1))
        assert here.status() == there.status()
        assert 49 == here.remaining(EXTENSIONS).tokens


def test_open_leases_are_listed_oldest_first(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with what it holds, for whom, and since when; ended ones are left out, over pages."""
    monkeypatch.setattr(journal, "PAGE", 8)  # open leases are read a quarter of a page at a time
    times = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    with Ledger.open(store_url, clock=lambda: next(times)) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        leases = []
        for number in range(9):
            extensions = RequestExtensions(Attribution(run_id=f"run {number}", request_id="q"))
            limits = RequestBudget.from_tokens(100 + number)
            leases.append(budget.reserve(extensions, tokens(number), limits))
        for lease in (leases[0], leases[4], leases[5]):
            budget.record_used(lease, Usage())
        expected = [lease for lease in leases if lease.reserved.total_tokens not in {0, 4, 5}]
        found = list(book.open_leases("pool"))
        assert expected == [item.lease for item in found]
        number = expected[0].reserved.total_tokens
        since = {entry.seq: entry.at for entry in book.entries("pool")}
        assert (
            OpenLease(
                lease=expected[0],
                phase=LeasePhase.OPEN,
                held=Totals(number, 0, 1),
                used=Usage(),
                attribution=Attribution(run_id=f"run {number}"),
                reserved_at=since[expected[0].id],
                expires_at=None,
            )
            == found[0]
        )


def test_a_release_is_an_entry_of_its_lease(shared_book: Ledger, fresh_name: str) -> None:
    """It carries the reservation's attribution, and uses nothing."""
    budget = shared_book.pool(fresh_name, OF_HUNDRED)
    extensions = RequestExtensions(Attribution(run_id="r", request_id="q"))
    lease = budget.reserve(extensions, FULL, RequestBudget.from_tokens(40))
    budget.release(lease)
    opening, _, release = shared_book.entries(fresh_name)
    assert (EntryKind.RELEASE, opening.balance, None) == (
        release.kind,
        release.balance,
        release.estimate,
    )
    assert (Attribution(run_id="r"), "q", None) == (
        release.attribution,
        release.request_id,
        release.usage,
    )
    assert release.lease is not None
    assert (lease.id, LeasePhase.ENDED, Totals(), Usage()) == (
        release.lease.lease,
        release.lease.phase,
        release.lease.held,
        release.lease.used,
    )
    assert [] == list(shared_book.open_leases(fresh_name))
    assert shared_book.verify(fresh_name)[0].ok


def test_a_pool_without_open_leases_lists_none(shared_book: Ledger, fresh_name: str) -> None:
    """Neither a new one nor one whose leases have all ended; other pools' do not show."""
    budget = shared_book.pool(fresh_name, OF_HUNDRED)
    other = shared_book.pool(f"{fresh_name} other", OF_HUNDRED)
    other.reserve(EXTENSIONS, FULL, UNLIMITED)
    assert [] == list(shared_book.open_leases(fresh_name))
    budget.record_used(budget.reserve(EXTENSIONS, FULL, UNLIMITED), Usage())
    assert [] == list(shared_book.open_leases(fresh_name))


def test_entries_are_read_in_order_after_any_of_them(
    shared_book: Ledger, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page, and only those of the pool."""
    monkeypatch.setattr(journal, "PAGE", 3)
    monkeypatch.setitem(journal.PoolJournal.page.__kwdefaults__, "page", 3)
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions())
    other = shared_book.pool(f"{fresh_name} other", OF_HUNDRED)
    for _ in range(6):
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        other.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    whole = list(shared_book.entries(fresh_name))
    assert [1, 2, 3, 4, 5, 6, 7] == [entry.seq for entry in whole]
    for after in (0, 1, 2, 3, 6, 7, 8, 2**63 - 1):
        assert whole[after:] == list(shared_book.entries(fresh_name, after=after))


def test_entries_never_go_back_in_time(store_url: str) -> None:
    """When the clock does, the next entry has the time of the one before."""
    now = first = 1_700_000_000_000_000
    with Ledger.open(store_url, clock=lambda: now) as book:
        budget = book.pool("pool", OF_HUNDRED)
        for now in (first + 40, first - 30, first + 41):  # noqa: B007 - the clock reads it
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        times = [entry.recorded_at - first for entry in book.entries("pool")]
        assert [0, 40, 40, 41] == times
        assert book.verify("pool")[0].ok


def test_holds_that_were_renewed_do_not_stand_in_the_way(new_store: Callable[..., str]) -> None:
    """More of them than are looked at in one go, all of one moment: what is due behind expires."""
    now = [1_700_000_000_000_000]
    with Ledger.open(new_store("sqlite"), clock=lambda: now[0]) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(lease_ttl=timedelta(minutes=1)))
        asked = RequestExtensions(), UsageEstimate(total_tokens=1), RequestBudget.unlimited()
        leases = [budget.reserve(*asked) for _ in range(journal.ENDING_PAGE + 5)]
        for lease in leases:
            budget.renew(lease, timedelta(hours=1))
        now[0] += 1
        budget.reserve(*asked)
        now[0] += 120_000_000
        assert (1, len(leases)) == (
            book.expire_due("pool"),
            budget.status().balance.reserved.tokens,
        )
        now[0] += 3_600_000_000
        assert len(leases) == book.expire_due("pool")
        assert book.verify("pool")[0].ok


class Slow(NewestEntry):
    """The newest entry and the time, a while before what is asked behind it."""

    def text(self, connection: Connection, parameters: Mapping[str, Any]) -> str:
        """Return what asks for it."""
        found = super().text(connection, parameters)
        return f"SELECT found.* FROM ({found}) AS found, pg_sleep(0.3)"


def test_a_hold_that_ends_while_its_pool_is_read_expires(
    new_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's time is read ahead of what is due by then: a hold in between would be missed."""
    with Ledger.open(new_store("postgresql")) as book:
        budget = book.pool("pool", OF_HUNDRED)
        soon = RequestExtensions(LeaseTtl(timedelta(milliseconds=150)))
        budget.reserve(soon, tokens(20), UNLIMITED)
        monkeypatch.setattr(queries, "HEAD", Slow(queries.HEAD._statement))
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        book.expire_due("pool")
        assert budget.status().balance.reserved.tokens == 1


LATER_US = 1_200_000_000


class Ahead(Prepared):
    """What reads the time, by a server whose clock is ahead.

    Other than a clock of the test's own, it is asked in the same message as what is due.
    """

    def rows_on(self, cursor: Any, *before: str) -> list[dict[str, Any]]:  # noqa: ANN401 - the driver's cursor
        """Return the rows with that time."""
        return [row | {"now": row["now"] + LATER_US} for row in super().rows_on(cursor, *before)]


def test_a_hold_expires_though_the_server_s_clock_went_back(
    new_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for as due is believed for no later time than that at which it was."""
    with Ledger.open(new_store("postgresql")) as book:
        budget = book.pool("pool", OF_HUNDRED)
        ttl = LeaseTtl(timedelta(minutes=10))
        budget.reserve(RequestExtensions(ttl), tokens(20), UNLIMITED)
        time.sleep(0.6)  # until holds are looked for again
        head, last = Ahead(queries.HEAD._statement), Ahead(queries.READ_CLOCK._statement)
        with monkeypatch.context() as patched:
            patched.setattr(queries, "HEAD", head)
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        assert budget.status().balance.reserved.tokens == 21
        monkeypatch.setattr(queries, "HEAD", head)
        monkeypatch.setattr(queries, "READ_CLOCK", last)
        assert book.expire_due("pool") == 1


def test_a_hold_expires_though_the_clock_went_back(new_store: Callable[..., str]) -> None:
    """It was looked for as due, and then it was not yet: its turn comes again."""
    began = 1_700_000_000_000_000
    times = [began]
    with Ledger.open(
        new_store("sqlite"), clock=lambda: times.pop(0) if len(times) > 1 else times[0]
    ) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions(lease_ttl=timedelta(microseconds=100)))
        budget.reserve(EXTENSIONS, tokens(20), UNLIMITED)
        times[:] = [began + 200, began + 50]
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        assert budget.status().balance.reserved.tokens == 21
        times[:] = [began + 1_000]
        assert book.expire_due("pool") == 2
