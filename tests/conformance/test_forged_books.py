"""Lies that a whole chain tells: spend that vanishes, holds that never end, capacity sold twice."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger import (
    Damage,
    LeaseTtl,
    Ledger,
    PastCall,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock
from tests.fixtures import Vandal


def limit(tokens: int) -> SharedPoolBudgetOptions:
    """Return a policy of tokens."""
    return SharedPoolBudgetOptions(capacity_tokens=tokens)


def reserve(book: Ledger, pool: str, tokens: int, *more: object) -> Any:  # noqa: ANN401 - a lease
    """Reserve tokens."""
    estimate = UsageEstimate(total_tokens=tokens)
    return book.pool(pool).reserve(RequestExtensions(*more), estimate, UNLIMITED)


def spend(book: Ledger, pool: str, tokens: int) -> None:
    """Reserve tokens, and use them."""
    book.pool(pool).record_used(reserve(book, pool, tokens), Usage(total_tokens=tokens))


def damage(book: Ledger, pool: str) -> Damage:
    """Return what verifying a pool finds."""
    (found,) = book.verify(pool)
    assert found.damage is not None
    return found.damage


def test_a_hold_that_is_passed_over_is_found(timed: Ledger, clock: Clock, vandal: Vandal) -> None:
    """A lease behind `swept_until` never expires, and keeps its hold for ever."""
    timed.pool("pool", limit(100))
    reserve(timed, "pool", 60, LeaseTtl(timedelta(minutes=10)))
    clock.minutes(5)
    spend(timed, "pool", 1)
    assert timed.verify("pool")[0].ok
    vandal.forge(2, expires_at=clock.now - 1)
    found = damage(timed, "pool")
    assert (3, True) == (found.seq, "lease 2 is due and still holds" in found.reason)


def test_spend_that_is_said_to_be_another_pool_s_is_found(book: Ledger, vandal: Vandal) -> None:
    """Reports over several pools leave mirrors out: such spend is in none of them."""
    for pool in ("elsewhere", "pool"):
        book.pool(pool, limit(100))
        spend(book, pool, 60)
    vandal.run(
        "UPDATE entries SET origin_pool_id = 1, origin_seq = seq, idempotency_key = NULL,"
        " payload_digest = NULL WHERE pool_id = 2 AND seq IN (2, 3)"
    )
    vandal.rechain_all()
    reason = "it repeats entry 2 of pool 1, which is not below this one"
    assert Damage(seq=2, reason=reason) == damage(book, "pool")


def test_a_carving_whose_hold_was_given_back_is_found(book: Ledger, vandal: Vandal) -> None:
    """Its parent would grant the same capacity to others."""
    book.pool("org", limit(100))
    book.pool("worker", limit(90), parent="org", carved=True)
    reserve(book, "org", 4)
    vandal.run(
        # What was the reservation of 4 is now the release of the 90.
        "UPDATE entries SET kind = 'release', lease = 2, estimate_total_tokens = NULL,"
        " estimate_input_tokens = NULL, estimate_output_tokens = NULL,"
        " estimate_cost_micros_usd = NULL,"
        " reserved_tokens = 0, reserved_requests = 0"
        " WHERE pool_id = 1 AND seq = 3"
    )
    vandal.rechain_all()
    assert Damage(seq=3, reason="lease 2 is of pool 2") == damage(book, "org")


@pytest.mark.parametrize(
    ("cost", "forged"),
    [
        ("0.0000015", '{"cost_usd":"0.0000021"}'),
        ("0.0000000", '{"cost_usd":"-0.0000009"}'),
        ("0.0000015", '{"cost_usd":1}'),
        ("0.0000015", '{"cost_usd":"0.0000015","x":1}'),
        ("0.0000015", '"0.0000015"'),
    ],
    ids=["more", "below 0", "no text", "something else", "no mapping"],
)
def test_an_exact_cost_that_is_not_what_was_charged_is_found(
    store_url: str, vandal: Vandal, cost: str, forged: str
) -> None:
    """What a call of the past cost exactly is what its micros are when rounded up, and no more."""
    with Ledger.open(store_url, exact_costs=True) as book:
        budget = book.pool("pool", limit(100))
        call = PastCall(
            usage=Usage(cost_micros_usd=math.ceil(Decimal(cost) * 10**6)),
            occurred_at=datetime(2024, 2, 29, tzinfo=UTC),
            idempotency_key="k",
            cost_usd=Decimal(cost),
        )
        budget.import_calls([call], "moved")
        assert book.verify("pool")[0].ok
        kept = f'{{"cost_usd":"{cost}"}}'
        there, instead = (text.replace(":", "\\:") for text in (kept, forged))
        vandal.run(f"UPDATE entries SET detail = replace(detail, '{there}', '{instead}')")
        vandal.rechain_all()
        reason = "import whose exact cost is not what it charged"
        assert Damage(seq=2, reason=reason) == damage(book, "pool")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("estimate_total_tokens = 80, reserved_tokens = 80", "estimate should"),
        (
            (
                "held_tokens = 90, held_cost_micros_usd = 0, held_requests = 2, "
                "reserved_requests = 2, detail = replace(detail, '1', '2')"
            ),
            "detail",
        ),
    ],
)
def test_a_carving_that_holds_too_little_is_found(
    book: Ledger, vandal: Vandal, changes: str, said: str
) -> None:
    """Its parent holds as much as the pool may spend, on every axis."""
    book.pool("org", limit(1_000))
    book.pool("worker", limit(90), parent="org", carved=True)
    vandal.run(f"UPDATE entries SET {changes} WHERE pool_id = 1 AND seq = 2")
    vandal.rechain_all()
    found = damage(book, "org")
    assert (2, True) == (found.seq, said in found.reason), found.reason


def test_requests_of_a_closed_carving_are_proved(book: Ledger, vandal: Vandal) -> None:
    """The settlement counts as many calls as the pool had made."""
    book.pool("org", limit(1_000))
    book.pool("worker", limit(90), parent="org", carved=True)
    for _ in range(3):
        spend(book, "worker", 5)
    book.close_pool("worker")
    vandal.run(
        "UPDATE entries SET committed_requests = 2, detail = replace(detail, '3', '2')"
        " WHERE pool_id = 1 AND seq = 3"
    )
    vandal.rechain_all()
    found = damage(book, "org")
    assert (3, True) == (found.seq, "detail should be" in found.reason), found.reason


def test_a_key_that_is_there_twice_is_found(book: Ledger, vandal: Vandal) -> None:
    """The call took effect twice, and its caller knows of one."""
    book.pool("pool", limit(100))
    for _ in range(2):
        reserve(book, "pool", 5)
    vandal.loosen()
    vandal.run("UPDATE entries SET idempotency_key = 'k' WHERE seq > 1")
    vandal.rechain_all()
    reason = "an entry ahead of it has idempotency key 'k' too"
    assert Damage(seq=3, reason=reason) == damage(book, "pool")


def test_a_denial_that_no_pool_above_gave_is_found(store_url: str, vandal: Vandal) -> None:
    """What was refused fitted into the pool that is named, all the time in between."""
    with Ledger.open(store_url, record_denials=True) as book:
        book.pool("org", limit(100))
        book.pool("team", limit(1_000), parent="org")
        spend(book, "team", 5)
        for tokens in (96, 97):
            with pytest.raises(ThresholdExceededError, match="'org'"):
                reserve(book, "team", tokens)
        spend(book, "team", 5)
        assert all(found.ok for found in book.verify())
        vandal.run("UPDATE entries SET estimate_total_tokens = 95 WHERE pool_id = 2 AND seq = 5")
        vandal.rechain_all()
        reason = "pool 'org' did not refuse it: that never had what it says was left"
        assert Damage(seq=5, reason=reason) == damage(book, "team")
