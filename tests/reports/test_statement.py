"""A pool's statement: opening balance, movements, closing balance."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    Balance,
    Ledger,
    Remaining,
    SharedPoolBudgetOptions,
    Totals,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.reports import Movement, Statement


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
        policy=SharedPoolBudgetOptions(capacity_tokens=5_000),
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
