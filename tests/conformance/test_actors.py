"""Who opened, adjusted, closed or corrected: recorded, hashed, shown, and never taken on trust."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pwd
from typing import Any

import pytest
from sqlalchemy import make_url

from ledger import (
    Actor,
    AsyncLedger,
    EntryKind,
    InvalidInputError,
    Ledger,
    SharedPoolBudgetOptions,
    Usage,
    exports,
    reports,
)
from ledger.reports.render import statement_lines_sheet
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.fixtures import Vandal
from tests.leases import OF_THOUSAND, TEN

USER = pwd.getpwuid(os.geteuid()).pw_name


def expected(book: Ledger, name: str | None) -> Actor:
    """Return the actor that an entry of this process must name."""
    address = make_url(book.url)
    role = address.username if address.get_backend_name() == "postgresql" else None
    return Actor(name=name, role=role, user=USER)


def use_up(book: Ledger, pool: str, **actor: str) -> None:
    """Write every kind of entry that somebody is answerable for, and others."""
    budget = book.pool(pool, OF_THOUSAND, **actor)
    budget.record_used(budget.reserve(EXTENSIONS, TEN, UNLIMITED), Usage(total_tokens=7))
    budget.correct(budget.status().seq, Usage(total_tokens=6), "invoice", **actor)
    book.adjust(pool, SharedPoolBudgetOptions(capacity_tokens=2_000), reason="more", **actor)
    book.close_pool(pool, **actor)


ASKED = ["opening", "correction", "adjustment", "closing"]


def test_who_asked_is_in_the_books(store_url: str) -> None:
    """By the call, by `open`, or by the database's role and the system's user alone."""
    with Ledger.open(store_url) as book:
        use_up(book, "nameless")
        use_up(book, "named", actor="alice@example.com")
    with Ledger.open(store_url, actor="the nightly job") as book:
        use_up(book, "opened")
        use_up(book, "both", actor="alice@example.com")
        for pool, name in (
            ("nameless", None),
            ("named", "alice@example.com"),
            ("opened", "the nightly job"),
            ("both", "alice@example.com"),
        ):
            found = [(one.kind, one.actor) for one in book.entries(pool)]
            assert [(kind, expected(book, name)) for kind in ASKED] == [
                (kind, actor) for kind, actor in found if actor is not None
            ]
            assert {"reservation", "settlement"} == {kind for kind, actor in found if not actor}
        assert [None] * 4 == [one.damage for one in book.verify()]


def test_who_corrected_is_in_the_pools_above_too(store_url: str) -> None:
    """A mirror says what its original says."""
    with Ledger.open(store_url, actor="alice") as book:
        book.pool("org", OF_THOUSAND)
        budget = book.pool("team", OF_THOUSAND, parent="org")
        budget.record_used(budget.reserve(EXTENSIONS, TEN, UNLIMITED), Usage(total_tokens=7))
        budget.correct(3, Usage(total_tokens=6), "invoice", actor="bob")
        for pool in ("org", "team"):
            (corrected,) = book.entries(pool, kind=EntryKind.CORRECTION)
            assert expected(book, "bob") == corrected.actor
        assert [None] * 2 == [one.damage for one in book.verify()]


def test_a_task_is_answerable_too(store_url: str) -> None:
    """The calls of asyncio take and inherit an actor as those of threads do."""

    async def main() -> None:
        async with AsyncLedger.open(store_url, actor="alice") as store:
            budget = await store.pool("pool", OF_THOUSAND)
            lease = await budget.reserve(EXTENSIONS, TEN, UNLIMITED)
            await budget.record_used(lease, Usage(total_tokens=7))
            await budget.correct(3, Usage(total_tokens=6), "invoice")
            await store.adjust("pool", OF_THOUSAND, actor="bob")
            found = [one.actor for one in store.sync.entries("pool") if one.actor is not None]
            assert ["alice", "alice", "bob"] == [one.name for one in found]

    asyncio.run(main())


def test_a_repeated_call_keeps_the_first_actor(shared_book: Ledger, fresh_name: str) -> None:
    """What is asked is the same, whoever asks: the key finds the first answer."""
    shared_book.pool(fresh_name, OF_THOUSAND)
    for actor in ("alice", "bob"):
        shared_book.adjust(fresh_name, OF_THOUSAND, idempotency_key="k", actor=actor)
    (adjusted,) = shared_book.entries(fresh_name, kind=EntryKind.ADJUSTMENT)
    assert expected(shared_book, "alice") == adjusted.actor


@pytest.mark.parametrize("actor", ["", "x" * 256, "a\0b", 7])
def test_no_other_actor_is_taken(shared_book: Ledger, fresh_name: str, actor: Any) -> None:  # noqa: ANN401 - any value
    """Neither by `open` nor by any call, and nothing is written."""
    budget = shared_book.pool(fresh_name, OF_THOUSAND)
    for call in (
        lambda: Ledger.open(shared_book.url, actor=actor),
        lambda: shared_book.pool(f"{fresh_name} 2", OF_THOUSAND, actor=actor),
        lambda: shared_book.adjust(fresh_name, OF_THOUSAND, actor=actor),
        lambda: shared_book.close_pool(fresh_name, actor=actor),
        lambda: budget.correct(1, Usage.zero(), "r", actor=actor),
    ):
        with pytest.raises(InvalidInputError, match="actor"):
            call()
    assert 1 == shared_book.size(fresh_name)


def test_the_longest_entry_is_stored(shared_book: Ledger, fresh_name: str) -> None:
    """A policy, a reason and an actor of signs that JSON spells in six characters each."""
    longest = SharedPoolBudgetOptions(
        thresholds={f"{number}" + "\1" * 63: 100 - number for number in range(8)}
    )
    shared_book.pool(fresh_name, OF_THOUSAND)
    shared_book.adjust(fresh_name, longest, reason="\1" * 2_000, actor="\1" * 255)
    (adjusted,) = shared_book.entries(fresh_name, kind=EntryKind.ADJUSTMENT)
    assert adjusted.actor is not None
    assert "\1" * 255 == adjusted.actor.name
    assert shared_book.verify(fresh_name)[0].ok


@pytest.mark.parametrize(
    "said",
    [None, {}, "alice", {"name": "alice"}, {"user": ""}, {"user": 1}, {"user": "u", "more": "x"}],
)
def test_an_entry_without_its_actor_is_found(book: Ledger, vandal: Vandal, said: object) -> None:
    """Although the chain was computed anew after the actor was taken out."""
    use_up(book, "pool")
    rightly = {seq: json.loads(vandal.row(seq)["detail"]) for seq in (1, 4, 5, 6)}
    for seq, detail in rightly.items():
        text = {key: value for key, value in detail.items() if key != "actor"}
        text |= {} if said is None else {"actor": said}
        forged = json.dumps(text, sort_keys=True, separators=(",", ":")) if text else None
        vandal.forge(seq, detail=forged)
        damage = book.verify("pool")[0].damage
        assert damage is not None
        assert seq == damage.seq
        vandal.forge(seq, detail=json.dumps(detail, sort_keys=True, separators=(",", ":")))
    assert book.verify("pool")[0].ok


def test_statements_and_exports_name_the_actor(shared_book: Ledger, fresh_name: str) -> None:
    """In the lines of a statement, and in a column of an export."""
    use_up(shared_book, fresh_name, actor="alice")
    told = str(expected(shared_book, "alice"))
    found = reports.statement(shared_book, fresh_name)
    lines = [one for one in reports.statement_lines(shared_book, found) if one.actor is not None]
    assert [(kind, told) for kind in ASKED] == [(one.kind, str(one.actor)) for one in lines]
    sheet = statement_lines_sheet(found, lines)
    assert [
        f"by {told}",
        f"of entry 3: invoice by {told}",
        f"more by {told}",
        f"closed by {told}",
    ] == [cells[-1] for cells in sheet.rows if cells is not None and "by" in str(cells[-1])]
    written = io.BytesIO()
    exports.write(shared_book, fresh_name, written, format=exports.Format.CSV)
    rows = csv.DictReader(io.StringIO(written.getvalue().decode()))
    assert [(kind, told) for kind in ASKED] == [
        (row["kind"], row["actor"]) for row in rows if row["actor"]
    ]
