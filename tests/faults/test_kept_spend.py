"""What an answer cost is kept while the store is away, and recorded once it answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from ledger import (
    Entry,
    EntryKind,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    Provenance,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    usd,
)
from ledger.core.kept_calls import Keeping
from ledger.integrations.calls import Counted
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from ledger.transport import budgeted
from tests.clocks import until
from tests.conformance.conftest import Vandal
from tests.transport import wire
from tests.transport.shapes import BY_NAME

if TYPE_CHECKING:
    from tests.faults.conftest import Proxy

OPTIONS = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("1"))
ESTIMATE = UsageEstimate(total_tokens=10, cost_micros_usd=10)
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
CHAT, MESSAGE = BY_NAME["chat"], BY_NAME["messages"]
SHOWN = "input_tokens 1000, output_tokens 200, total_tokens 1200, cost_micros_usd 3750"


@pytest.fixture
def server() -> Iterator[wire.Server]:
    """Run a server of models."""
    with wire.served() as one:
        yield one


@pytest.fixture
def book(url: str, proxy: Proxy) -> Iterator[Ledger]:
    """Return a ledger that reaches PostgreSQL through the proxy, and does not wait for long."""
    with Ledger.open(proxy.url_of(url), timeout_s=2) as opened:
        yield opened


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool of the book."""
    return book.pool("team", OPTIONS)


def reserve_and_release(budget: LedgerBudgetManager) -> None:
    """Use the store for something else."""
    budget.release(budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED))


def last(book: Ledger, kind: EntryKind) -> Entry:
    """Return the newest entry of a kind."""
    return [one for one in book.entries("team") if one.kind == kind][-1]


def shown(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the queue about what was not done."""
    return [one.getMessage() for one in caplog.records if "left in the queue" in one.getMessage()]


def ask(server: wire.Server, budget: object, way: str) -> None:
    """Call the model in one of the ways that there are."""
    url = f"{server.url}/v1/chat/completions"

    async def in_task() -> None:
        async with budgeted(httpx.AsyncClient(), pool=budget) as client:  # type: ignore[type-var]
            assert 200 == (await client.post(url, json=BODY)).status_code

    if way == "tasks":
        asyncio.run(in_task())
    elif way == "block":
        with Counted(budget, model="gpt-4o").call("hello") as call:  # type: ignore[arg-type]
            call.record(httpx.post(url, json=BODY).json())
    else:
        with budgeted(httpx.Client(), pool=budget) as client:  # type: ignore[type-var]
            assert 200 == client.post(url, json=BODY).status_code


@pytest.mark.parametrize("way", ["threads", "tasks", "block", "router"])
def test_usage_outlives_an_outage(
    book: Ledger,
    budget: LedgerBudgetManager,
    proxy: Proxy,
    server: wire.Server,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    """The store goes away while the model works; the lease is settled at what was really used."""

    def answer(_request: wire.Request) -> wire.Reply:
        proxy.refuse()
        return CHAT.whole

    server.answers(answer)
    with caplog.at_level(logging.WARNING, "ledger"):
        ask(server, book.router(lambda _: "team") if way == "router" else budget, way)
    (line,) = shown(caplog)
    proxy.restore()
    (held,) = book.open_leases("team")
    assert line.startswith(f"settle of lease {held.lease.token} in pool 'team' ({SHOWN}")
    assert "request 'chatcmpl-1'" in line
    assert "is kept" in line
    reserve_and_release(budget)
    until(lambda: not list(book.open_leases("team")))
    settled = last(book, EntryKind.SETTLEMENT)
    assert (1_200, 3_750) == (settled.usage.total_tokens, settled.usage.cost_micros_usd)
    assert (Provenance.REPORTED, "chatcmpl-1") == (settled.provenance, settled.request_id)
    assert 3_750 == budget.status().balance.committed.cost_micros_usd
    assert [None] == [one.damage for one in book.verify()]


@pytest.mark.filterwarnings("ignore::ledger.StoreWentBackWarning")
@pytest.mark.parametrize("way", ["threads", "tasks", "block"])
def test_usage_outlives_a_restore_in_an_outage(
    url: str,
    book: Ledger,
    budget: LedgerBudgetManager,
    proxy: Proxy,
    server: wire.Server,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    """What is kept turns out to be of a lease that the store has no more: it is booked anew."""

    def answer(_request: wire.Request) -> wire.Reply:
        proxy.refuse()
        return CHAT.whole

    server.answers(answer)
    with caplog.at_level(logging.WARNING, "ledger"):
        ask(server, budget, way)
        put_back = Vandal(url)
        put_back.run("DELETE FROM entries WHERE seq > 1", "DELETE FROM attributions")
        put_back.close()
        proxy.restore()
        reserve_and_release(budget)
        until(lambda: 3_750 == budget.status().balance.committed.cost_micros_usd)
    settled = last(book, EntryKind.SETTLEMENT)
    assert (Provenance.REPORTED, "chatcmpl-1") == (settled.provenance, settled.request_id)
    kept, lost = shown(caplog)
    assert "is kept" in kept
    assert lost.startswith("settle of lease 2-")
    assert lost.endswith(
        "is of a lease that is lost in a restore: what its call used is booked anew"
    )
    assert [None] == [one.damage for one in book.verify()]


def test_an_unknown_outcome_is_looked_up(
    book: Ledger, budget: LedgerBudgetManager, proxy: Proxy, server: wire.Server
) -> None:
    """The settlement was written, and its answer lost: it counts once."""

    def answer(_request: wire.Request) -> wire.Reply:
        proxy.arm(b"COMMIT", type(proxy._strike)["SWALLOW"], then_refuse=True)
        return CHAT.whole

    server.answers(answer)
    ask(server, budget, "threads")
    assert 1 == proxy.struck
    assert book._writer._kept
    proxy.restore()
    reserve_and_release(budget)
    until(lambda: not book._writer._kept and book._writer._leader is None)
    assert 1 == sum(one.kind == EntryKind.SETTLEMENT for one in book.entries("team"))
    assert 3_750 == budget.status().balance.committed.cost_micros_usd


def test_what_a_close_could_not_record_is_recorded_by_the_command_it_names(
    url: str,
    book: Ledger,
    budget: LedgerBudgetManager,
    proxy: Proxy,
    server: wire.Server,
    caplog: pytest.LogCaptureFixture,
    ran: Callable[..., str],
) -> None:
    """The store is away until after the end: the line of the log has all that is needed."""

    def answer(_request: wire.Request) -> wire.Reply:
        proxy.refuse()
        return CHAT.whole

    server.answers(answer)
    ask(server, budget, "threads")
    book.close()
    (line,) = [one for one in shown(caplog) if "queue, failed: " in one]
    _, command = line.split("; by hand: ledger ")
    assert "settled" in ran(*shlex.split(command), "--url", url)
    with Ledger.open(url, create=False) as again:
        settled = last(again, EntryKind.SETTLEMENT)
    assert (1_000, 200, 1_200, 3_750) == (
        settled.usage.input_tokens,
        settled.usage.output_tokens,
        settled.usage.total_tokens,
        settled.usage.cost_micros_usd,
    )
    assert "chatcmpl-1" == settled.request_id


def test_a_part_and_the_end_by_policy_keep_their_order(
    book: Ledger, budget: LedgerBudgetManager, proxy: Proxy, server: wire.Server
) -> None:
    """The known input of a cut stream is recorded first, the rest is charged behind it."""
    reply = MESSAGE.stream.cut(4, wire.End.SHORT)

    def answer(_request: wire.Request) -> wire.Reply:
        proxy.refuse()
        return reply

    server.answers(answer)
    body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": True, **BODY}
    with (
        budgeted(httpx.Client(), pool=budget) as client,
        contextlib.suppress(httpx.RemoteProtocolError),
        client.stream("POST", f"{server.url}/v1/messages", json=body) as content,
    ):
        for _ in content.iter_bytes():
            pass
    assert ["observe", "close"] == [one.operation.name for one in book._writer._kept]
    proxy.restore()
    reserve_and_release(budget)
    until(lambda: not list(book.open_leases("team")))
    kinds = [one.kind for one in book.entries("team") if one.usage is not None]
    assert [EntryKind.OBSERVATION, EntryKind.SETTLEMENT] == [
        kind for kind in kinds if kind in {EntryKind.OBSERVATION, EntryKind.SETTLEMENT}
    ]
    assert [None] == [one.damage for one in book.verify()]


def test_what_is_kept_goes_before_the_next_call_of_its_lease(
    book: Ledger, budget: LedgerBudgetManager, proxy: Proxy
) -> None:
    """A kept observation and the settlement behind it share a batch when the store is back."""
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    proxy.refuse()
    with Keeping():
        budget.observe(lease, Usage(total_tokens=3))
    proxy.restore()
    with Keeping():
        budget.record_used(lease, Usage(total_tokens=4))
    assert 7 == budget.status().balance.committed.tokens
    assert not list(book.open_leases("team"))


def test_a_call_that_can_be_repeated_is_not_kept(
    book: Ledger, budget: LedgerBudgetManager, proxy: Proxy
) -> None:
    """A program that calls the budget itself gets the error, and nothing is done behind it."""
    lease = budget.reserve(EXTENSIONS, ESTIMATE, UNLIMITED)
    proxy.refuse()
    with pytest.raises(LedgerUnavailableError):
        budget.record_used(lease, Usage(total_tokens=3))
    assert not book._writer._kept
    proxy.restore()
    reserve_and_release(budget)
    assert 1 == len(list(book.open_leases("team")))


def test_usage_outlives_a_writer_that_holds_the_file(tmp_path: Path, server: wire.Server) -> None:
    """SQLite is busy for longer than calls wait: the usage is recorded when it is free again."""
    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def answer(_request: wire.Request) -> wire.Reply:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(1.5, other.rollback).start()
        return CHAT.whole

    with Ledger.open(f"sqlite:///{path}", timeout_s=0.3) as book:
        budget = book.pool("team", OPTIONS)
        server.answers(answer)
        ask(server, budget, "threads")
        assert 0 == budget.status().balance.committed.cost_micros_usd
        time.sleep(2)
        reserve_and_release(budget)
        until(lambda: 3_750 == budget.status().balance.committed.cost_micros_usd)
    other.close()
