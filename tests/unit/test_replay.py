"""Folding entries through the rules, and what contradicts them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    Balance,
    Entry,
    EntryFlag,
    EntryKind,
    LeaseAfter,
    LeasePhase,
    SharedPoolBudgetOptions,
    Totals,
    Usage,
    UsageDifference,
    UsageEstimate,
)
from ledger.core import fold
from ledger.core.entry_shape import Contradiction
from ledger.testing.calls import UNLIMITED
from tests.leases import OF_HUNDRED


def entry(seq: int, kind: str, *, lease: int | None = None, **values: Any) -> Entry:  # noqa: ANN401 - any field
    """Return an entry whose stored results are blank: the replay works out its own."""
    state = None
    if lease is not None:
        state = LeaseAfter(
            lease=lease,
            expires_at=values.pop("expires_at", None),
            phase=LeasePhase.OPEN,
            held=Totals(),
            used=Usage(),
        )
    blank: dict[str, Any] = {
        "pool_id": 1,
        "seq": seq,
        "kind": kind,
        "flags": EntryFlag.NONE,
        "detail": {},
        "lease": state,
        "balance": Balance(),
        "policy_seq": 1,
        "window_seq": 1,
        "swept_until": 0,
        "recorded_at": 0,
        "hash_version": 1,
        "hash": b"",
    }
    names = (
        "estimate",
        "request_budget",
        "usage",
        "policy",
        "attribution",
        "request_id",
        "provenance",
        "occurred_at",
        "idempotency_key",
        "payload_digest",
        "origin",
    )
    if kind == EntryKind.SETTLEMENT:
        values = {"request_budget": UNLIMITED, **values}
    ruled = {"rules": {"version": 1}} if values.get("policy") is not None else {}
    blank["detail"] = values.get("detail", {}) | ruled
    return Entry(**blank, **{name: values.get(name) for name in names})


def opening(policy: SharedPoolBudgetOptions = OF_HUNDRED) -> Entry:
    """Return a pool's first entry."""
    return entry(1, EntryKind.OPENING, policy=policy)


def denial(seq: int, tokens: int, *, left: int) -> Entry:
    """Return a denial, with what was left when it was given, while leases held the rest."""
    figures = {
        "reason": "threshold",
        "held_by_leases": True,
        "remaining_tokens": left,
        "uncounted": {"cost_micros_usd": 0},
    }
    return replace(reservation(seq, tokens, EntryKind.DENIAL), detail={"denial": figures})


def reservation(
    seq: int, tokens: int, kind: str = EntryKind.RESERVATION, *, expires_at: int | None = None
) -> Entry:
    """Return a reservation, or the denial of one."""
    asked = UsageEstimate(total_tokens=tokens)
    lease = seq if kind == EntryKind.RESERVATION else None
    return entry(
        seq,
        kind,
        lease=lease,
        estimate=asked,
        request_budget=UNLIMITED,
        expires_at=expires_at,
    )


def settlement(seq: int, lease: int | None, tokens: int) -> Entry:
    """Return the settlement of a lease."""
    return entry(seq, EntryKind.SETTLEMENT, lease=lease, usage=Usage(total_tokens=tokens))


def correction(
    seq: int,
    lease: int,
    before: int,
    after: int,
    **changes: Any,  # noqa: ANN401 - any field
) -> Entry:
    """Return a correction of the entry before it, of a lease that had used nothing else."""
    detail = {
        "corrects": seq - 1,
        "from": {"total_tokens": before},
        "to": {"total_tokens": after},
        "reason": "invoice",
    }
    made = entry(
        seq,
        EntryKind.CORRECTION,
        lease=lease,
        estimate=UsageEstimate(),
        request_budget=UNLIMITED,
        usage=UsageDifference(total_tokens=after - before),
        detail=detail | changes.pop("detail", {}),
    )
    assert made.lease is not None
    state = made.lease._replace(phase=LeasePhase.ENDED, used=Usage(total_tokens=after))
    return replace(made, **{"lease": state} | changes)


def test_a_correction_needs_no_memory_of_its_lease() -> None:
    """The replay forgets ended leases; what the correction says of its own is checked."""
    pool = fold.replay([opening(), reservation(2, 60), settlement(3, 2, 50)])
    effect = pool.apply(correction(4, 2, 50, 30))
    assert effect is not None
    assert (Balance(Totals(30, 0, 1)), Usage(total_tokens=30)) == (pool.balance, effect.lease.used)
    assert {} == pool.leases


def test_a_correction_cannot_leave_what_nothing_leads_to() -> None:
    """A lease that used 3 after 5 more were added used -2 before: the effect says 5."""
    pool = fold.replay([opening(), reservation(2, 60), settlement(3, 2, 50)])
    wrong = correction(4, 2, 50, 55)
    assert wrong.lease is not None
    effect = pool.apply(replace(wrong, lease=wrong.lease._replace(used=Usage(total_tokens=3))))
    assert effect is not None
    assert Usage(total_tokens=5) == effect.lease.used


def test_a_denial_says_by_how_much_the_pool_was_overspent() -> None:
    """As the rules do; nothing, in an entry of an earlier version; no other amount."""
    spent = [opening(), reservation(2, 60), settlement(3, 2, 110)]

    def replayed(**said: object) -> None:
        figures = {"reason": "threshold", "remaining_tokens": 0, **said}
        figures["uncounted"] = {"cost_micros_usd": 0}
        refused = replace(denial(4, 1, left=0), detail={"denial": figures})
        fold.replay([*spent, refused])

    replayed(overspent={"tokens": 10})
    replayed()
    with pytest.raises(Contradiction, match="overspent by 10 tokens"):
        replayed(overspent={"tokens": 9})


def test_a_journal_makes_a_pool() -> None:
    """Every kind of entry does to the replayed pool what it did to the real one."""
    bigger = replace(OF_HUNDRED, capacity_tokens=500)
    pool = fold.replay(
        [
            opening(),
            reservation(2, 60),
            reservation(3, 40),
            denial(4, 1, left=0),
            settlement(5, 2, 70),
            entry(6, EntryKind.ADJUSTMENT, policy=bigger),
            reservation(7, expires_at=0, tokens=200),
            entry(8, EntryKind.RELEASE, lease=3),
            entry(9, EntryKind.EXPIRY, lease=7),
            reservation(10, 5),
        ]
    )
    assert Balance(Totals(70, 0, 1), Totals(5, 0, 1)) == pool.balance
    assert (bigger, 6, 10) == (pool.policy, pool.policy_seq, pool.entries)
    assert {7: LeasePhase.EXPIRED, 10: LeasePhase.OPEN} == {
        lease: state.phase for lease, state in pool.leases.items()
    }


def test_an_expired_lease_is_remembered_until_it_is_settled() -> None:
    """A late settlement is accepted once; then the lease is forgotten."""
    pool = fold.replay(
        [opening(), reservation(2, 10, expires_at=0), entry(3, EntryKind.EXPIRY, lease=2)]
    )
    effect = pool.apply(settlement(4, 2, 10))
    assert effect is not None
    assert (EntryFlag.LATE, {}) == (effect.flags, pool.leases)
    assert Balance(Totals(10, 0, 1)) == pool.balance


def test_the_effect_is_what_the_entry_should_say() -> None:
    """`apply` returns it, and None where no amount moved."""
    pool = fold.Replay()
    assert None is pool.apply(opening())
    effect = pool.apply(reservation(2, 60))
    assert effect is not None
    assert (Balance(reserved=Totals(60, 0, 1)), 2) == (effect.balance, effect.lease.lease)
    assert None is pool.apply(denial(3, 41, left=40))


def test_the_ceiling_is_the_caller_s() -> None:
    """A replay of a store saturates where the store did."""
    pool = fold.replay(
        [opening(SharedPoolBudgetOptions()), reservation(2, 1), settlement(3, 2, I64_MAX)]
    )
    effect = fold.replay(
        [opening(SharedPoolBudgetOptions()), reservation(2, 1), settlement(3, 2, I64_MAX)],
        ceiling=1_000,
    )
    assert (I64_MAX, 1_000) == (pool.balance.committed.tokens, effect.balance.committed.tokens)


@pytest.mark.parametrize(
    ("journal", "reason"),
    [
        ([entry(1, EntryKind.OPENING)], "without a policy"),
        ([entry(1, EntryKind.ADJUSTMENT, policy=OF_HUNDRED)], "begins with its opening"),
        ([opening(), opening()], "begins with its opening"),
        ([opening(), entry(2, EntryKind.ADJUSTMENT)], "without a policy"),
        ([opening(), entry(2, EntryKind.RESERVATION)], "without an estimate"),
        ([opening(), entry(2, EntryKind.DENIAL)], "without an estimate"),
        ([opening(), reservation(2, 101)], "the rules say: the pool cannot grant 101"),
        ([opening(), reservation(2, 100, EntryKind.DENIAL)], "the rules say: admitted"),
        ([opening(), settlement(2, 1, 5)], "no open lease 1"),
        ([opening(), settlement(2, None, 5)], "without a lease"),
        ([opening(), reservation(2, 9), settlement(3, 2, 9), settlement(4, 2, 9)], "lease 2"),
        ([opening(), reservation(2, 9), entry(3, EntryKind.SETTLEMENT, lease=2)], "without usage"),
        (
            [
                opening(),
                reservation(2, 9),
                entry(3, EntryKind.RELEASE, lease=2),
                settlement(4, 2, 9),
            ],
            "no open lease 2",
        ),
        (
            [
                opening(),
                reservation(2, 9, expires_at=0),
                entry(3, EntryKind.EXPIRY, lease=2),
                entry(4, EntryKind.RELEASE, lease=2),
                entry(5, EntryKind.RELEASE, lease=2),
            ],
            "release: no open lease 2",
        ),
        (
            [
                opening(),
                reservation(2, 9, expires_at=0),
                entry(3, EntryKind.EXPIRY, lease=2),
                entry(4, EntryKind.EXPIRY, lease=2),
            ],
            "expiry: no open lease 2",
        ),
        (
            [opening(), reservation(2, 9, expires_at=1), entry(3, EntryKind.EXPIRY, lease=2)],
            "which was not due",
        ),
        ([opening(), reservation(2, 9), correction(3, 2, 9, 8)], "which cannot be of its lease"),
        (
            [opening(), reservation(2, 9), settlement(3, 2, 9), correction(4, 2, 9, 9)],
            "nothing to correct",
        ),
        (
            [
                opening(),
                reservation(2, 9),
                replace(settlement(3, 2, 9), kind=EntryKind.OBSERVATION),
                correction(4, 2, 9, 8),
            ],
            "lease 2 has not ended",
        ),
        (
            [
                opening(),
                reservation(2, 9),
                settlement(3, 2, 9),
                correction(4, 2, 9, 8, usage=UsageDifference(total_tokens=1)),
            ],
            "by another difference",
        ),
        (
            [
                opening(),
                reservation(2, 9),
                settlement(3, 2, 9),
                correction(4, 2, 9, 8, usage=Usage(total_tokens=1)),
            ],
            "correction whose usage is a Usage",
        ),
        (
            [
                opening(),
                reservation(2, 9),
                replace(settlement(3, 2, 9), usage=UsageDifference(total_tokens=-1)),
            ],
            "settlement whose usage is a UsageDifference",
        ),
        (
            [
                opening(),
                reservation(2, 9),
                settlement(3, 2, 9),
                correction(4, 2, 9, 8, detail={"to": {"tokens": 8}}),
            ],
            "does not say of what",
        ),
        (
            [
                opening(),
                reservation(2, 9),
                settlement(3, 2, 9),
                correction(4, 2, 9, 8, detail={"reason": None}),
            ],
            "without a reason",
        ),
        ([opening(), reservation(2, 9), entry(3, "jubilee")], "knows no entry kind 'jubilee'"),
        ([reservation(1, 9)], "begins with its opening"),
        ([opening(), entry(2, "opening", policy=OF_HUNDRED)], "has no other"),
        (
            [
                opening(SharedPoolBudgetOptions()),
                reservation(2, I64_MAX),
                reservation(3, 1),
            ],
            "reserved_tokens",
        ),
    ],
)
def test_what_the_rules_cannot_have_written(journal: list[Entry], reason: str) -> None:
    """The last entry contradicts the ones before it, and the reason is told."""
    pool = fold.replay(journal[:-1])
    before = replace(pool, leases=dict(pool.leases))
    with pytest.raises(Contradiction, match=reason):
        pool.apply(journal[-1])
    assert before == pool
