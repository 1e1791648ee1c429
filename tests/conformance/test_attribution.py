"""Whom and what a call is for: captured by the reservation, carried by its lease's entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from ledger import (
    Attribution,
    Entry,
    EntryFlag,
    EntryKind,
    InvalidInputError,
    Ledger,
    OccurredAt,
    Provenance,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    from_micros,
)
from ledger.core.checks import AHEAD_MAX_US
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock

OPEN = SharedPoolBudgetOptions()
CAPTURED = Attribution(
    run_id="run",
    parent_run_id="parent",
    tenant="caf\u00e9",
    agent="\U0001f916",
    operation="chat",
    provider="p1",
    model="m1",
    tags={"b": "2", "a": '"1"'},
)
THEN = datetime(2023, 11, 16, 18, 17, 3, 979_961, tzinfo=UTC)
LATER = THEN + timedelta(seconds=5)


def settled(
    book: Ledger, name: str, *values: object, report: UsageReport | None = None
) -> tuple[Entry, Entry]:
    """Reserve with these extensions and settle; return both entries as stored."""
    budget = book.pool(name, OPEN)
    lease = budget.reserve(RequestExtensions(*values), UsageEstimate(), UNLIMITED)
    budget.record_used(lease, Usage(), report=report)
    reservation, settlement = list(book.entries(name))[-2:]
    assert (EntryKind.RESERVATION, EntryKind.SETTLEMENT) == (reservation.kind, settlement.kind)
    return reservation, settlement


def without_request_id(attribution: Attribution) -> Attribution:
    """Return the attribution as entries hold it: they carry the request id themselves."""
    return Attribution(
        **{
            name: getattr(attribution, name)
            for name in attribution.__dataclass_fields__
            if name != "request_id"
        }
    )


@pytest.mark.parametrize(
    "attribution",
    [
        CAPTURED,
        Attribution(run_id="only a run"),
        Attribution(tags={"only": "a tag"}),
        Attribution(request_id="req-1", run_id="r"),
        Attribution(model="x" * 255),
    ],
)
def test_an_attribution_is_carried_by_every_entry_of_its_lease(
    shared_book: Ledger, fresh_name: str, attribution: Attribution
) -> None:
    """The settlement says whom it is for without being told again."""
    entries = settled(shared_book, fresh_name, attribution)
    expected = without_request_id(attribution)
    assert [expected, expected] == [entry.attribution for entry in entries]
    assert {attribution.request_id} == {entry.request_id for entry in entries}


def test_a_call_needs_no_attribution(shared_book: Ledger, fresh_name: str) -> None:
    """Neither none nor an empty one is stored."""
    for values in ((), (Attribution(),)):
        entries = settled(shared_book, fresh_name, *values)
        assert [None, None] == [entry.attribution for entry in entries]


def test_a_request_id_alone_is_kept_with_the_entry(shared_book: Ledger, fresh_name: str) -> None:
    """It is different for every call, so it is no part of the shared attribution."""
    entries = settled(shared_book, fresh_name, Attribution(request_id="req-1"))
    assert [("req-1", None)] * 2 == [(entry.request_id, entry.attribution) for entry in entries]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (UsageReport(provider="p2"), {"provider": "p2"}),
        (UsageReport(model="m2"), {"model": "m2"}),
        (UsageReport(tags={"c": "3"}), {"tags": {"c": "3"}}),
        (UsageReport(tags={}), {"tags": {}}),
        (
            UsageReport(provider="p2", model="m2", tags={"c": "3"}),
            {"provider": "p2", "model": "m2", "tags": {"c": "3"}},
        ),
    ],
)
def test_a_report_overrides_on_the_settlement_only(
    shared_book: Ledger, fresh_name: str, report: UsageReport, expected: dict[str, object]
) -> None:
    """What is given replaces what was captured; the rest, and the reservation, stay."""
    reservation, settlement = settled(shared_book, fresh_name, CAPTURED, report=report)
    assert CAPTURED == reservation.attribution
    fields = {name: getattr(CAPTURED, name) for name in CAPTURED.__dataclass_fields__}
    assert Attribution(**fields | expected) == settlement.attribution


def test_a_report_attributes_a_call_that_had_no_attribution(
    shared_book: Ledger, fresh_name: str
) -> None:
    """What is learned only afterwards is kept on the settlement."""
    reservation, settlement = settled(shared_book, fresh_name, report=UsageReport(model="m2"))
    assert (None, Attribution(model="m2")) == (reservation.attribution, settlement.attribution)


def test_the_rest_of_a_report_is_kept_on_the_settlement(
    shared_book: Ledger, fresh_name: str
) -> None:
    """Request id, provenance, time and detail."""
    report = UsageReport(
        request_id="req-2",
        provenance=Provenance.ESTIMATED,
        occurred_at=LATER,
        detail={"finish": "length", "n": [1, None, {"\u00e9": 0.5}]},
    )
    captured = Attribution(request_id="req-1", run_id="r")
    reservation, settlement = settled(
        shared_book, fresh_name, captured, OccurredAt(THEN), report=report
    )
    assert ("req-1", None) == (reservation.request_id, reservation.provenance)
    assert ("req-2", "estimated") == (settlement.request_id, settlement.provenance)
    assert (THEN, LATER) == (reservation.at, settlement.at)
    assert {"report": {"finish": "length", "n": [1, None, {"\u00e9": 0.5}]}} == settlement.detail
    assert shared_book.verify(fresh_name)[0].ok


@pytest.mark.parametrize("again", [False, True], ids=["remembered", "read again"])
@pytest.mark.parametrize("end", ["settle", "release", "renew", "abandon"])
def test_a_report_of_an_observation_stays_with_it(store_url: str, end: str, *, again: bool) -> None:
    """Later entries of the lease say what its reservation captured."""
    said = UsageReport(
        provider="p2",
        model="m2",
        request_id="other",
        provenance=Provenance.RECOVERED,
        occurred_at=LATER,
        tags={"c": "3"},
        detail={"finish": "length"},
    )
    captured = replace(CAPTURED, request_id="mine")
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", OPEN)
        lease = budget.reserve(
            RequestExtensions(captured, OccurredAt(THEN)), UsageEstimate(total_tokens=9), UNLIMITED
        )
        budget.observe(lease, Usage(total_tokens=3), report=said)
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", OPEN)
        if not again:
            budget.observe(lease, Usage(total_tokens=1), report=said)
        if end == "settle":
            budget.record_used(lease, Usage(total_tokens=2))
        elif end == "renew":
            budget.renew(lease, timedelta(minutes=1))
        else:
            getattr(budget, end)(lease)
        reservation, observation, *_, last = list(book.entries("pool"))[1:]
    assert ("other", LATER) == (observation.request_id, observation.at)
    assert "m2" == (observation.attribution or Attribution()).model
    for entry in (reservation, last):
        assert without_request_id(captured) == entry.attribution
        assert ("mine", THEN) == (entry.request_id, entry.at)
    assert "report" not in last.detail
    assert Provenance.RECOVERED != last.provenance


def test_usage_is_taken_as_reported(shared_book: Ledger, fresh_name: str) -> None:
    """That is the provenance where no report says otherwise."""
    _, settlement = settled(shared_book, fresh_name)
    assert Provenance.REPORTED == settlement.provenance


@pytest.mark.parametrize(
    "moment",
    [THEN, datetime(1969, 7, 20, tzinfo=UTC), THEN.astimezone(timezone(timedelta(hours=-9)))],
)
def test_a_call_can_be_dated(shared_book: Ledger, fresh_name: str, moment: datetime) -> None:
    """`OccurredAt` dates the reservation, exactly, and its settlement unless that has its own."""
    entries = settled(shared_book, fresh_name, OccurredAt(moment))
    assert [moment, moment] == [entry.at for entry in entries]
    assert all(entry.recorded_at != entry.occurred_at for entry in entries)


def test_a_call_is_not_dated_into_the_future(store_url: str) -> None:
    """A day ahead is a clock or a time zone that is wrong; more is refused, but not after the call.

    Then the usage is recorded without that time, and the entry says so.
    """
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        tomorrow = from_micros(clock.now + AHEAD_MAX_US)
        later = tomorrow + timedelta(microseconds=1)
        report = UsageReport(occurred_at=later, request_id="r")
        with pytest.raises(InvalidInputError, match="ahead of the clock"):
            settled(book, "pool", OccurredAt(later), report=report)
        assert 1 == book.pool("pool").status().seq
        reservation, settlement = settled(book, "pool", OccurredAt(tomorrow), report=report)
        assert [tomorrow, tomorrow] == [reservation.at, settlement.at]
        assert EntryFlag.SHORTENED in settlement.flags
        assert ({"shortened": ["occurred_at"]}, "r") == (settlement.detail, settlement.request_id)
        _, settlement = settled(book, "pool", report=replace(report, occurred_at=tomorrow))
        assert (tomorrow, {}) == (settlement.at, settlement.detail)


def test_a_call_without_a_date_happened_when_it_was_recorded(
    shared_book: Ledger, fresh_name: str
) -> None:
    """There is no second time where none is known."""
    for entry in settled(shared_book, fresh_name):
        assert None is entry.occurred_at
        assert from_micros(entry.recorded_at) == entry.at


def test_the_newest_layer_of_the_extensions_counts(shared_book: Ledger, fresh_name: str) -> None:
    """What a program lays over its defaults wins."""
    extensions = RequestExtensions(Attribution(run_id="default"))
    extensions.extend(RequestExtensions(Attribution(run_id="mine")))
    extensions.push_fallback(RequestExtensions(OccurredAt(THEN)))
    budget = shared_book.pool(fresh_name, OPEN)
    budget.reserve(extensions, UsageEstimate(), UNLIMITED)
    newest = list(shared_book.entries(fresh_name))[-1]
    assert (Attribution(run_id="mine"), THEN) == (newest.attribution, newest.at)


def test_each_distinct_attribution_is_stored_once(
    store_url: str, book: Ledger, rows_of: Callable[[str, str], list[tuple[object, ...]]]
) -> None:
    """Entries stay small: they point to a row that holds tags as canonical JSON text."""
    for values in (CAPTURED, CAPTURED, Attribution(run_id="other"), CAPTURED):
        settled(book, "pool", values)
    rows = rows_of(store_url, "SELECT attribution_id, run_id, tags FROM attributions ORDER BY 1")
    assert [(1, "run", '{"a":"\\"1\\"","b":"2"}'), (2, "other", None)] == rows


def test_text_is_stored_as_it_is_given(shared_book: Ledger, fresh_name: str) -> None:
    """Composed and decomposed letters, quotes, newlines and percent signs stay what they are."""
    given = "\u00e9 e\u0301 '\" %s :x \n\t\\ \u202e \ufffd"
    reservation, _ = settled(
        shared_book, fresh_name, Attribution(run_id=given, request_id=given, tags={given: given})
    )
    assert Attribution(run_id=given, tags={given: given}) == reservation.attribution
    assert given == reservation.request_id


@pytest.fixture
def rows_of() -> Callable[[str, str], list[tuple[object, ...]]]:
    """Return a function that reads a store with plain SQL."""

    def read(url: str, query: str) -> list[tuple[object, ...]]:
        with Ledger.open(url, create=False) as reader:
            return reader._database.read(
                lambda connection: [tuple(row) for row in connection.execute(text(query))]
            )

    return read
