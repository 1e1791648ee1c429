"""A pool's statement: opening balance, movements, closing balance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    Attribution,
    Balance,
    EntryKind,
    Ledger,
    Remaining,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Totals,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
    reports,
)
from ledger.core.checks import from_micros
from ledger.core.errors import InvalidInputError, JournalDamagedError
from ledger.reports import Movement, Statement
from ledger.reports.render import statement_lines_sheet
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import DAY_US, Clock

from .test_render import printed


def total(amounts: list[Totals]) -> Totals:
    """Return the sum on each axis."""
    return Totals(*(sum(axis) for axis in zip(*amounts, strict=True)))


def check_adds_up(statement: Statement) -> None:
    """Check that opening and movements make the closing balance, on every axis."""
    for side in ("committed", "reserved"):
        moved = [getattr(movement, side) for movement in statement.movements]
        opening, closing = getattr(statement.opening, side), getattr(statement.closing, side)
        assert closing == total([opening, *moved])
    assert statement.seq == sum(movement.entries for movement in statement.movements)


def test_every_figure(busy: Ledger) -> None:
    """Each kind of entry, in the order in which it first occurs, with what it moved."""
    nothing = Totals()
    expected = Statement(
        pool="team",
        opening=Balance(),
        movements=[
            Movement(kind="opening", entries=1, committed=nothing, reserved=nothing),
            Movement(
                kind="reservation", entries=4, committed=nothing, reserved=Totals(427, 1_743, 4)
            ),
            Movement(
                kind="settlement",
                entries=3,
                committed=Totals(411, 1_691, 3),
                reserved=Totals(-412, -1_703, -3),
            ),
            Movement(kind="denial", entries=1, committed=nothing, reserved=nothing),
        ],
        closing=Balance(Totals(411, 1_691, 3), Totals(15, 40, 1)),
        seq=9,
        recorded_at=from_micros([*busy.entries("team")][-1].recorded_at),
        policy=SharedPoolBudgetOptions(capacity_tokens=5_000),
        balance=Balance(Totals(411, 1_691, 3), Totals(15, 40, 1)),
        remaining=Remaining(5_000 - 411 - 15, U64_MAX - 1_691 - 40, False),
    )
    found = reports.statement(busy, "team")
    assert expected == found
    check_adds_up(found)


def test_a_pool_is_stated_alone(busy: Ledger) -> None:
    """Other pools of the store are left out."""
    found = reports.statement(busy, "other")
    assert Balance(Totals(9, 15, 1), Totals()) == found.closing
    assert ["opening", "reservation", "settlement"] == [one.kind for one in found.movements]
    check_adds_up(found)


def test_a_new_pool(book: Ledger) -> None:
    """A pool in which nothing happened has its opening and nothing else."""
    policy = SharedPoolBudgetOptions(capacity_tokens=7, stop_threshold_tokens=2)
    book.pool("team", policy)
    found = reports.statement(book, "team")
    assert [Movement(kind="opening", entries=1, committed=Totals(), reserved=Totals())] == (
        found.movements
    )
    assert (Balance(), Balance(), 1, policy) == (
        found.opening,
        found.closing,
        found.seq,
        found.policy,
    )


def test_an_adjusted_policy_is_the_one_in_force(book: Ledger, call: Callable[..., object]) -> None:
    """The statement closes with the newest policy and with what remains under it."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=100))
    call(book, "team", UsageEstimate(total_tokens=60), Usage(total_tokens=60))
    less = SharedPoolBudgetOptions(capacity_tokens=50, capacity_cost_micros_usd=9)
    book.adjust("team", less, reason="less")
    found = reports.statement(book, "team")
    assert (less, Remaining(0, 9, True)) == (found.policy, found.remaining)
    assert "adjustment" == found.movements[-1].kind
    check_adds_up(found)


def test_movements_above_63_bits_are_exact(book: Ledger, call: Callable[..., object]) -> None:
    """What was held and given back is summed exactly, above and below 0."""
    book.pool("team", SharedPoolBudgetOptions())
    estimate = UsageEstimate(total_tokens=I64_MAX, cost_micros_usd=I64_MAX - 7)
    for _ in range(3):
        call(book, "team", estimate, Usage(total_tokens=5))
    found = reports.statement(book, "team")
    _opening, reservations, settlements = found.movements
    assert Totals(3 * I64_MAX, 3 * (I64_MAX - 7), 3) == reservations.reserved
    assert Totals(-3 * I64_MAX, -3 * (I64_MAX - 7), -3) == settlements.reserved
    assert Totals(15, 0, 3) == settlements.committed
    check_adds_up(found)


def test_a_saturated_pool_still_adds_up(book: Ledger, call: Callable[..., object]) -> None:
    """Spend beyond what a store can count stops at the largest amount, in every part of it."""
    book.pool("team", SharedPoolBudgetOptions())
    for _ in range(2):
        call(book, "team", UsageEstimate(), Usage(total_tokens=I64_MAX - 1))
    found = reports.statement(book, "team")
    assert Totals(I64_MAX, 0, 2) == found.closing.committed
    check_adds_up(found)


def test_an_unknown_pool_is_named(busy: Ledger) -> None:
    """The error says which pool there is not."""
    with pytest.raises(UnknownPoolError, match="no pool 'nope'"):
        reports.statement(busy, "nope")


START = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def dated(scribe: Any) -> Ledger:  # noqa: ANN401 - the conftest's own
    """Return books with an entry a minute, of every kind that moves a balance."""
    scribe.pool("team", capacity_tokens=1_000)
    at = [START + timedelta(minutes=number) for number in range(8)]
    who = {"run_id": "r"}
    held = {"estimate_total_tokens": 100, "estimate_cost_micros_usd": 10}
    lease = scribe.append("team", "reservation", who=who, recorded=at[0], at=NEVER, **held)
    scribe.append("team", "observation", lease=lease, recorded=at[1], usage_total_tokens=30)
    scribe.append("team", "expiry", lease=lease, recorded=at[2])
    scribe.append("team", "settlement", lease=lease, recorded=at[3], usage_total_tokens=99, flags=3)
    reason = '{"reason":"billed less"}'
    scribe.append("team", "correction", recorded=at[4], detail=reason, usage_total_tokens=-9)
    denial = '{"denial":{"reason":"threshold"}}'
    scribe.append("team", "denial", who=who, recorded=at[5], detail=denial, **held)
    scribe.append("team", "reservation", recorded=at[6], **held)
    book: Ledger = scribe.book
    return book


NEVER = datetime(1999, 1, 1, tzinfo=UTC)


RANGES = [(first, last) for last in (0, 3, 7) for first in range(-1, last + 1)]
"""From which minute to which."""


def test_a_range_opens_and_closes_with_the_balances_there(dated: Ledger) -> None:
    """Whatever the range, opening and movements make the closing balance, line by line too."""
    for first, last in RANGES:
        since, until = (START + timedelta(minutes=number) for number in (first, last))
        # The opening of the pool was recorded before: its clock is today's.
        found = reports.statement(dated, "team", since=since, until=until)
        lines = list(reports.statement_lines(dated, found))
        inside = [seq for seq in range(2, 9) if first <= seq - 2 < last]
        assert inside == [line.seq for line in lines], (first, last)
        assert len(lines) == sum(movement.entries for movement in found.movements), (first, last)
        for side in ("committed", "reserved"):
            opening, closing = getattr(found.opening, side), getattr(found.closing, side)
            assert closing == total([opening, *(getattr(line, side) for line in lines)])
            assert closing == total([opening, *(getattr(one, side) for one in found.movements)])
            running = opening
            for line in lines:
                running = total([running, getattr(line, side)])
                assert running == getattr(line.balance, side), (first, last)


def test_every_line(dated: Ledger) -> None:
    """Kinds, flags, reasons, runs, leases and both times."""
    found = reports.statement(dated, "team")
    lines = list(reports.statement_lines(dated, found))
    assert [
        (1, "opening", "", None, None, None),
        (2, "reservation", "", None, "r", 2),
        (3, "observation", "", None, "r", 2),
        (4, "expiry", "", None, "r", 2),
        (5, "settlement", "overrun late", None, "r", 2),
        (6, "correction", "", "billed less", None, None),
        (7, "denial", "", "stop threshold", "r", None),
        (8, "reservation", "", None, None, 8),
    ] == [(line.seq, line.kind, line.flags, line.reason, line.run_id, line.lease) for line in lines]
    assert (START, NEVER) == (lines[1].recorded_at, lines[1].occurred_at)
    assert None is lines[2].occurred_at
    assert SharedPoolBudgetOptions(capacity_tokens=1_000) == lines[0].policy


def test_lines_say_which_call_they_are_about(book: Ledger) -> None:
    """So that a bill can be matched, and in a pool above which entry of which pool to correct."""
    org = book.pool("org", SharedPoolBudgetOptions())
    team = book.pool("team", SharedPoolBudgetOptions(), parent="org")
    asked = RequestExtensions(Attribution(model="m", provider="p", request_id="call-1.1"))
    lease = team.reserve(asked, UsageEstimate(total_tokens=9), UNLIMITED)
    report = UsageReport(model="m-2024", request_id="chatcmpl-1")
    team.record_used(lease, Usage(total_tokens=7), report=report)
    org.record_used(org.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED), Usage(total_tokens=1))
    found = reports.statement(book, "org")
    lines = list(reports.statement_lines(book, found))
    assert [
        (None, None, None, None, None),
        ("call-1.1", "p", "m", "team", 2),
        ("chatcmpl-1", "p", "m-2024", "team", 3),
        (None, None, None, None, None),
        (None, None, None, None, None),
    ] == [
        (one.request_id, one.provider, one.model, one.origin_pool, one.origin_seq) for one in lines
    ]
    shown = [" ".join(line) for line in printed(statement_lines_sheet(found, lines))]
    assert any(line.endswith("m-2024 chatcmpl-1 of team, entry 3") for line in shown)
    sheet = statement_lines_sheet(found, lines)
    assert "Occurred" not in [sheet.columns[number].heading for number in sheet.shown()]
    assert Totals(8, 0, 2) == found.charged
    assert "Charged 8 0.000000" in shown


def test_lines_say_what_they_go_back_to(store_url: str) -> None:
    """The entry that is corrected, the lost lease, the carved pool, the rest of a window before."""
    clock = Clock()
    monthly = SharedPoolBudgetOptions(
        capacity_tokens=100, window=Window(timedelta(days=1), carry_over=True)
    )
    with Ledger.open(store_url, clock=clock, actor="ann") as book:
        org = book.pool("org", monthly)
        book.pool("team", SharedPoolBudgetOptions(capacity_tokens=30), parent="org", carved=True)
        book.close_pool("team", reason="done")
        lost = "17-3fa9c0d1e2b3a495"
        org.record_lost(lost, Usage(total_tokens=20))
        org.correct(5, Usage(total_tokens=10), "invoice")
        clock.now += DAY_US
        org.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED)
        found = reports.statement(book, "org")
        lines = list(reports.statement_lines(book, found))
        assert all(one.ok for one in book.verify())
    shown = [" ".join(line) for line in printed(statement_lines_sheet(found, lines), width=300)]
    for kind, ends in (
        ("reservation", "carved pool of team, entry 1"),
        ("settlement", "carved pool of team, entry 2"),
        ("reservation", f"in place of lost lease {lost}"),
        ("correction", "of entry 5: invoice by ann ("),
        ("rollover", "with 90 tokens carried over"),
    ):
        assert any(f" {kind} " in line and ends in line for line in shown), (kind, shown)
    assert [5] == [one.corrects for one in lines if one.corrects is not None]
    assert [Totals(90, 0, 0)] == [one.carried for one in lines if one.carried is not None]


def test_a_correction_for_a_carved_pool_keeps_its_reason(store_url: str) -> None:
    """What a closed pool spends late corrects what funded it: the line says that it came late."""
    with Ledger.open(store_url) as book:
        book.pool("org", SharedPoolBudgetOptions(capacity_tokens=100))
        options = SharedPoolBudgetOptions(capacity_tokens=30)
        team = book.pool("team", options, parent="org", carved=True)
        lease = team.reserve(EXTENSIONS, tokens(9), UNLIMITED)
        team.record_used(lease, Usage(total_tokens=9))
        book.close_pool("team", reason="done")
        team.correct(3, Usage(total_tokens=20), "the bill says 20")
        lines = list(reports.statement_lines(book, reports.statement(book, "org")))
    assert [
        ("carved pool", None),
        ("carved pool", None),
        ("late correction in pool 'team'", 3),
    ] == [(one.reason, one.corrects) for one in lines[1:]]


def test_what_was_charged_is_of_the_range(dated: Ledger) -> None:
    """Not what was charged before it: with it the opening balance makes the closing balance."""
    begun = next(one for one in dated.entries("team") if one.kind == EntryKind.SETTLEMENT)
    found = reports.statement(dated, "team", since=from_micros(begun.recorded_at))
    assert found.opening.committed != Totals()
    assert found.closing.committed == found.opening.committed.plus(found.charged)


def test_a_statement_as_of_an_entry(dated: Ledger) -> None:
    """It ends there, for ever."""
    found = reports.statement(dated, "team", as_of=3)
    assert (3, Totals(30, 0, 0)) == (found.seq, found.closing.committed)
    assert [1, 2, 3] == [line.seq for line in reports.statement_lines(dated, found)]


def test_the_policy_of_the_end_of_the_range(book: Ledger, call: Callable[..., object]) -> None:
    """What is left is counted under the policy that held then."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=100))
    call(book, "team", UsageEstimate(total_tokens=60), Usage(total_tokens=60))
    book.adjust("team", SharedPoolBudgetOptions(capacity_tokens=500), reason="more")
    assert 40 == reports.statement(book, "team", as_of=3).remaining.tokens
    found = reports.statement(book, "team")
    assert 440 == found.remaining.tokens
    assert "more" == list(reports.statement_lines(book, found))[-1].reason


def test_what_is_appended_later_is_not_in_the_lines(
    book: Ledger, call: Callable[..., object]
) -> None:
    """Lines are read after the statement, and end where it ended."""
    book.pool("team", SharedPoolBudgetOptions())
    found = reports.statement(book, "team")
    call(book, "team", UsageEstimate(total_tokens=5))
    assert [1] == [line.seq for line in reports.statement_lines(book, found)]


def test_before_there_was_a_pool(book: Ledger) -> None:
    """A range that ends before the pool was opened has no balance to show."""
    book.pool("team", SharedPoolBudgetOptions())
    with pytest.raises(InvalidInputError, match="opened later"):
        reports.statement(book, "team", until=NEVER)


@pytest.mark.parametrize("seed", range(2))
def test_random_statements_add_up(
    history: Callable[[int], Ledger], facts: Callable[..., list[dict[str, Any]]], seed: int
) -> None:
    """Each kind's movement is the sum of the differences from entry to entry, mirrors included."""
    book = history(seed)
    rows = facts(book)
    for pool in ("root", "leaf", "other"):
        found = reports.statement(book, pool)
        before = dict.fromkeys(("committed_tokens", "reserved_tokens"), 0)
        moved: dict[str, dict[str, int]] = {}
        for row in (row for row in rows if row["pool"] == pool):
            kind = moved.setdefault(row["kind"], dict.fromkeys(before, 0))
            for name, old in before.items():
                kind[name] += row[name] - old
                before[name] = row[name]
        assert moved == {
            one.kind: {
                "committed_tokens": one.committed.tokens,
                "reserved_tokens": one.reserved.tokens,
            }
            for one in found.movements
        }


@pytest.mark.parametrize("detail", ["{}}", "[1]", '{"policy":{"x":1}}', '{"denial":3}'])
def test_a_damaged_entry_is_named(scribe: Any, detail: str) -> None:  # noqa: ANN401
    """What cannot be read is an error that says where, in statements and among denials."""
    scribe.pool("team")
    seq = scribe.append("team", "denial", detail=detail, estimate_total_tokens=1)
    found = reports.statement(scribe.book, "team")
    for lines in (reports.statement_lines(scribe.book, found), reports.denials(scribe.book)):
        with pytest.raises(JournalDamagedError, match="'team', entry 2") as error:
            list(lines)
        assert seq == error.value.seq
