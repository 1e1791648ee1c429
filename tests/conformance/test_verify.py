"""Replay and verification: the journal says what it did when written, or the lie is named."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from ledger import (
    Attribution,
    Damage,
    EntryFlag,
    EntryKind,
    IdempotencyKey,
    JournalDamagedError,
    LeasePhase,
    Ledger,
    OtherStoreError,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.core.values import ESTIMATE_FIELDS
from ledger.store import journal
from ledger.store.schema import entries
from ledger.testing.calls import UNLIMITED
from tests.fixtures import Vandal

SMALL = SharedPoolBudgetOptions(capacity_tokens=100)
BIG = SharedPoolBudgetOptions(capacity_tokens=500)

OPENING, RESERVATION, DENIAL, DENIAL_2, SETTLEMENT, ADJUSTMENT, LATER, OPEN = range(1, 9)
"""The entries that `fill` writes."""


def extensions(run_id: str, *more: object) -> RequestExtensions:
    """Return extensions that name a run."""
    return RequestExtensions(Attribution(run_id=run_id, tags={"team": "t"}), *more)


def fill(book: Ledger) -> None:
    """Write one entry of each kind, and leave two leases open."""
    budget = book.pool("pool", SMALL)
    lease = budget.reserve(
        extensions("r1"), UsageEstimate(total_tokens=60), RequestBudget.from_tokens(65)
    )
    for number in (1, 2):
        with pytest.raises(ThresholdExceededError):
            budget.reserve(
                extensions("r1", IdempotencyKey(f"denied {number}")),
                UsageEstimate(total_tokens=41 + number),
                UNLIMITED,
            )
    with pytest.raises(RequestBudgetExceededError):
        budget.record_used(lease, Usage(total_tokens=70), report=UsageReport(model="m"))
    book.adjust("pool", BIG, reason="more")
    budget.reserve(RequestExtensions(), UsageEstimate(total_tokens=40), UNLIMITED)
    budget.reserve(extensions("r2"), UsageEstimate(total_tokens=5), UNLIMITED)


@pytest.fixture
def filled(book: Ledger) -> Ledger:
    """Return a ledger with one pool of eight entries, on each database in turn."""
    fill(book)
    return book


def damage(book: Ledger) -> Damage:
    """Return what verification finds wrong."""
    (found,) = book.verify("pool")
    assert not found.ok
    assert found.damage is not None
    assert found.damage.seq - 1 == found.entries
    return found.damage


def test_replay_equals_the_status(filled: Ledger) -> None:
    """The entries alone make the balance, the policy and the open leases."""
    status, pool = filled.pool("pool").status(), filled.replay("pool")
    assert (status.balance, status.policy, status.seq) == (pool.balance, pool.policy, pool.entries)
    assert ADJUSTMENT == pool.policy_seq
    assert [item.lease.id for item in filled.open_leases("pool")] == sorted(pool.leases)
    assert {LATER: LeasePhase.OPEN, OPEN: LeasePhase.OPEN} == {
        lease: state.phase for lease, state in pool.leases.items()
    }


def test_a_good_journal_is_verified(filled: Ledger) -> None:
    """Every entry is counted, and the last hash and the balance are reported."""
    (found,) = filled.verify("pool")
    newest = list(filled.entries("pool"))[-1]
    assert found.ok
    assert None is found.damage
    assert (OPEN, newest.hash, newest.balance) == (found.entries, found.hash, found.balance)
    assert "pool" == found.pool.name


def test_every_pool_is_verified(filled: Ledger) -> None:
    """Without a name all of them are, oldest first; a store without pools has nothing wrong."""
    filled.pool("empty", SMALL)
    assert [("pool", OPEN, True), ("empty", 1, True)] == [
        (found.pool.name, found.entries, found.ok) for found in filled.verify()
    ]


def test_an_empty_store_is_sound(book: Ledger) -> None:
    """There is nothing to verify."""
    assert [] == book.verify()


def test_entries_are_verified_page_by_page(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bounded memory, telling how far it got."""
    monkeypatch.setattr(journal, "PAGE", 2)
    monkeypatch.setitem(journal.PoolJournal.page.__kwdefaults__, "page", 2)
    steps: list[int] = []
    (found,) = filled.verify("pool", progress=steps.append)
    assert (OPEN, OPEN) == (found.entries, sum(steps))
    assert filled.pool("pool").status().balance == filled.replay("pool").balance


def test_the_flags_say_what_was_remarkable(filled: Ledger) -> None:
    """In this journal that is the overrun alone."""
    flagged = {entry.seq: entry.flags for entry in filled.entries("pool") if entry.flags}
    assert {SETTLEMENT: EntryFlag.OVERRUN} == flagged


def changed(value: object, column: str) -> object:
    """Return another value that the column can hold."""
    if value is None:
        python_type = entries.c[column].type.python_type
        return {int: 1, str: "{}", bytes: sha256(b"").digest()}[python_type]
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return sha256(bytes(value)).digest()  # type: ignore[arg-type]


@pytest.mark.parametrize("seq", [OPENING, DENIAL, SETTLEMENT, OPEN])
def test_a_change_of_any_column_is_found(filled: Ledger, vandal: Vandal, seq: int) -> None:
    """Each column by itself, on entries of several kinds: the first bad entry is that one."""
    missed = []
    before = vandal.row(seq)
    # These two must stay below their own entry, which the schema checks even for the owner.
    fixed = {"pool_id", "seq", *(("policy_seq", "window_seq") if seq == OPENING else ())}
    if seq == OPEN:
        fixed.add("lease")
    for column in sorted(set(before) - fixed):
        vandal.edit(seq, **{column: changed(before[column], column)})
        (found,) = filled.verify("pool")
        if found.damage is None or found.damage.seq != seq:
            missed.append(column)
        vandal.edit(seq, **{column: before[column]})
    assert [] == missed
    assert filled.verify("pool")[0].ok


@pytest.mark.parametrize(
    ("statements", "seq", "reason"),
    [
        (["DELETE FROM entries WHERE seq = 1"], 1, "entry 1 is missing; the next one is 2"),
        (["DELETE FROM entries WHERE seq = 4"], 4, "entry 4 is missing; the next one is 5"),
        (["DELETE FROM entries WHERE seq IN (3, 4)"], 3, "entry 3 is missing; the next one is 5"),
        (["DELETE FROM entries"], 1, "the pool's opening is missing"),
        (
            [
                "UPDATE entries SET seq = 1000 WHERE seq = 3",
                "UPDATE entries SET seq = 3 WHERE seq = 4",
                "UPDATE entries SET seq = 4 WHERE seq = 1000",
            ],
            3,
            "hash does not match",
        ),
        (["UPDATE entries SET seq = 9 WHERE seq = 8"], 8, "entry 8 is missing"),
        (["UPDATE pools SET name = 'pool ' WHERE name = 'pool'"], 1, "hash does not match"),
        (["UPDATE attributions SET run_id = 'x' WHERE run_id = 'r2'"], 8, "was changed"),
        (["UPDATE attributions SET run_id = NULL WHERE run_id = 'r2'"], 8, "was changed"),
        (['UPDATE attributions SET tags = \'{"team":"u"}\''], 2, "was changed"),
        (["UPDATE attributions SET tags = 'no JSON'"], 2, "attribution cannot be read"),
        (["UPDATE attributions SET model = 'n' WHERE model = 'm'"], 5, "was changed"),
        (["UPDATE attributions SET digest = content_key WHERE model = 'm'"], 5, "was changed"),
        (["DELETE FROM attributions WHERE run_id = 'r2'"], 8, "is missing"),
        (["DELETE FROM attributions"], 2, "is missing"),
        (["UPDATE entries SET recorded_at = 5 WHERE seq = 6"], 6, "recorded before"),
        (["UPDATE entries SET hash_version = 2 WHERE seq = 6"], 6, "hash version 2"),
    ],
)
def test_damage_is_found_where_it_begins(
    filled: Ledger,
    vandal: Vandal,
    statements: list[str],
    seq: int,
    reason: str,
) -> None:
    """What is deleted, swapped, renamed or redrawn, the first bad entry is named with why."""
    vandal.run(*statements)
    (found,) = filled.verify()
    assert not found.ok
    assert found.damage is not None
    assert (seq, True) == (found.damage.seq, reason in found.damage.reason)


@pytest.mark.parametrize("table", ["pools", "store"])
def test_another_identity_breaks_the_chain_from_the_start(
    filled: Ledger,
    vandal: Vandal,
    store_url: str,
    table: str,
) -> None:
    """A pool's entries cannot be moved to another pool or another store."""
    literal = "'\\x00112233445566778899aabbccddeeff'::bytea"
    if store_url.startswith("sqlite"):
        literal = "X'00112233445566778899aabbccddeeff'"
    vandal.run(f"UPDATE {table} SET identity = {literal}")
    filled.close()
    with pytest.raises(OtherStoreError):
        Ledger.open(store_url)
    with Ledger.open(store_url, read_only=True) as book:
        found = damage(book)
    assert found is not None
    reason = (
        "its hash does not match: the entry, or one before it, was changed; or a backup's data "
    )
    assert (1, True) == (found.seq, found.reason.startswith(reason))


HELD = {"held_tokens": 0, "held_cost_micros_usd": 0, "held_requests": 0}
ESTIMATED = {f"estimate_{name}": 0 for name in ESTIMATE_FIELDS}
USED = {f"used_{name}": 0 for name in ESTIMATE_FIELDS} | {"used_total_tokens": 70}
"""Columns that a settlement leaves empty, as its kind, its usage and its reservation say it all."""

TINY = (
    '{"actor":{"user":"u"},"policy":{"capacity_cost_micros_usd":null,"capacity_tokens":1,'
    '"stop_threshold_cost_micros_usd":0,"stop_threshold_tokens":0},"rules":{"since":"0.1.0","version":2}}'
)
"""The detail of an opening with less capacity than was reserved."""

FORGERIES: list[tuple[int, dict[str, Any], int, str]] = [
    (SETTLEMENT, {"committed_tokens": 69}, SETTLEMENT, "balance should be"),
    (SETTLEMENT, {"committed_requests": 0}, SETTLEMENT, "balance should be"),
    (SETTLEMENT, {"reserved_tokens": 60}, SETTLEMENT, "balance should be"),
    (SETTLEMENT, {"usage_total_tokens": 50}, SETTLEMENT, "balance should be"),
    (SETTLEMENT, {"usage_cost_micros_usd": 1}, SETTLEMENT, "balance should be"),
    (SETTLEMENT, {"usage_total_tokens": None}, SETTLEMENT, "without usage"),
    (SETTLEMENT, {"used_total_tokens": 50}, SETTLEMENT, "cannot be read"),
    (SETTLEMENT, USED | {"used_total_tokens": 50}, SETTLEMENT, "lease should be"),
    (SETTLEMENT, USED, SETTLEMENT, "amounts are not as they are written"),
    (SETTLEMENT, {"used_reasoning_tokens": 1}, SETTLEMENT, "amounts are not as they are written"),
    (SETTLEMENT, {"usage_reasoning_tokens": 0}, SETTLEMENT, "amounts are not as they are written"),
    (SETTLEMENT, {"held_tokens": 1}, SETTLEMENT, "cannot be read"),
    (SETTLEMENT, HELD | {"held_tokens": 1}, SETTLEMENT, "lease should be"),
    (SETTLEMENT, HELD, SETTLEMENT, "amounts are not as they are written"),
    (SETTLEMENT, ESTIMATED | {"estimate_total_tokens": 60}, SETTLEMENT, "with an estimate"),
    (SETTLEMENT, {"budget_tokens": None}, SETTLEMENT, "request_budget should be"),
    (SETTLEMENT, {"expires_at": 1}, SETTLEMENT, "lease should be"),
    (SETTLEMENT, {"flags": 0}, SETTLEMENT, "flags should be"),
    (SETTLEMENT, {"flags": 3}, SETTLEMENT, "flags should be"),
    (SETTLEMENT, {"lease": 1}, SETTLEMENT, "no open lease 1"),
    (SETTLEMENT, {"lease": None}, SETTLEMENT, "without a lease"),
    (SETTLEMENT, {"kind": "release"}, SETTLEMENT, "with usage"),
    (SETTLEMENT, {"kind": "observation"}, SETTLEMENT, "balance should be"),
    (SETTLEMENT, {"window_seq": 2}, SETTLEMENT, "window_seq should be None"),
    (SETTLEMENT, {"swept_until": 1}, SETTLEMENT, "swept_until should be None"),
    (RESERVATION, {"held_tokens": 60}, RESERVATION, "cannot be read"),
    (RESERVATION, HELD, RESERVATION, "lease should be"),
    (DENIAL, {"estimate_total_tokens": 40}, DENIAL, "the rules say: admitted"),
    (DENIAL, {"committed_tokens": 1}, DENIAL, "balance should be"),
    (DENIAL, {"policy_seq": 2}, DENIAL, "policy_seq should be 1"),
    (DENIAL, {"kind": "reservation"}, DENIAL, "without a lease"),
    (DENIAL, {"detail": None}, DENIAL, "whose figures should be"),
    (DENIAL, {"usage_total_tokens": 5}, DENIAL, "cannot be read"),
    (SETTLEMENT, {"detail": '{"policy":{"capacity_tokens":9}}'}, SETTLEMENT, "with a policy"),
    (DENIAL, {"kind": "adjustment"}, DENIAL, "without a policy"),
    (RESERVATION, {"kind": "denial"}, RESERVATION, "with a lease"),
    (RESERVATION, {"estimate_total_tokens": 61}, RESERVATION, "balance should be"),
    (RESERVATION, {"estimate_total_tokens": None}, RESERVATION, "cannot be read"),
    (RESERVATION, {"budget_tokens": 59}, RESERVATION, "the rules say: over the request"),
    (RESERVATION, {"lease": 1}, RESERVATION, "lease should be"),
    (OPENING, {"detail": None}, OPENING, "without a policy"),
    (OPENING, {"detail": "[]"}, OPENING, "cannot be read"),
    (OPENING, {"detail": "no JSON"}, OPENING, "cannot be read"),
    (OPENING, {"committed_tokens": 1}, OPENING, "balance should be"),
    (OPENING, {"kind": "adjustment"}, OPENING, "begins with its opening"),
    (ADJUSTMENT, {"kind": "opening"}, ADJUSTMENT, "has no other"),
    (ADJUSTMENT, {"policy_seq": 1}, ADJUSTMENT, "policy_seq should be 6"),
    (OPENING, {"detail": '{"policy":{"capacity_tokens":1}}'}, OPENING, "under which version"),
    (OPENING, {"detail": TINY}, RESERVATION, "the rules say"),
    (OPENING, {"detail": TINY.replace('"version":2', '"other":1')}, OPENING, "under which version"),
    (OPENING, {"detail": TINY.replace('"version":2', '"version":7')}, OPENING, "0.1.0 or newer"),
]
"""An entry, what is changed in it, and where that is found, and why."""


def test_a_forged_entry_is_found_although_the_chain_fits(filled: Ledger, vandal: Vandal) -> None:
    """Who can compute hashes cannot make the rules say something else."""
    missed = []
    for seq, changes, bad, reason in FORGERIES:
        before = vandal.row(seq)
        vandal.forge(seq, **changes)
        found = filled.verify("pool")[0].damage
        if found is None or bad != found.seq or reason not in found.reason:
            missed.append((seq, changes, found))
        vandal.forge(seq, **{name: before[name] for name in changes})
    assert [] == missed
    assert filled.verify("pool")[0].ok


def test_a_rechained_journal_is_otherwise_sound(filled: Ledger, vandal: Vandal) -> None:
    """The forger of these tests computes the hashes rightly: without a lie nothing is found."""
    before = filled.verify("pool")
    vandal.rechain()
    assert before == filled.verify("pool")


@pytest.mark.parametrize(
    ("like", "changes", "reason"),
    [
        (LATER, {"lease": 9}, "balance should be"),
        (LATER, {"lease": 9, "estimate_total_tokens": 386}, "the rules say: the pool cannot grant"),
        (SETTLEMENT, {"lease": 4}, "no open lease 4"),
        (SETTLEMENT, {"lease": 2, "kind": "expiry"}, "no open lease 2"),
        (SETTLEMENT, {"lease": 2, "kind": "correction"}, "has used is missing"),
        (SETTLEMENT, {"lease": 2, "kind": "jubilee"}, "no entry kind 'jubilee'"),
    ],
)
def test_an_entry_added_by_hand_is_found(
    filled: Ledger,
    vandal: Vandal,
    like: int,
    changes: dict[str, object],
    reason: str,
) -> None:
    """A reservation that nobody was granted, a settlement without its reservation."""
    fresh = {"idempotency_key": "by hand", "policy_seq": ADJUSTMENT}
    newest = {
        name: value
        for name, value in vandal.row(OPEN).items()
        if name.startswith(("committed_", "reserved_", "recorded_"))
    }
    vandal.add(OPEN + 1, like=like, **(fresh | newest | changes))
    found = damage(filled)
    assert (OPEN + 1, True) == (found.seq, reason in found.reason), found.reason


def test_entries_without_their_pool_are_found(filled: Ledger, vandal: Vandal) -> None:
    """Verifying everything tells of entries whose row in `pools` is gone."""
    filled.pool("other", SMALL)
    vandal.run("DELETE FROM pools WHERE name = 'pool'")
    other, stray = filled.verify()
    assert ("other", True) == (other.pool.name, other.ok)
    assert not stray.ok
    assert (1, 0, b"") == (stray.pool.pool_id, stray.entries, stray.hash)
    assert stray.damage == Damage(seq=1, reason="the entries of pool 1 have no row in pools")


def test_one_pool_s_damage_is_not_another_s(filled: Ledger, vandal: Vandal) -> None:
    """Each pool has a chain of its own."""
    filled.pool("other", SMALL)
    vandal.run("UPDATE entries SET committed_tokens = 7 WHERE pool_id = 2")
    assert [True, False] == [found.ok for found in filled.verify()]


def test_a_shortened_journal_has_another_last_hash(filled: Ledger, vandal: Vandal) -> None:
    """Cutting off the end leaves a good journal; who kept the last hash sees the difference."""
    (before,) = filled.verify("pool")
    vandal.run("DELETE FROM entries WHERE seq = 8")
    (after,) = filled.verify("pool")
    assert (True, 7) == (after.ok, after.entries)
    assert before.hash != after.hash


def test_a_redacted_attribution_leaves_the_chain_whole(filled: Ledger, vandal: Vandal) -> None:
    """The owner may take the personal data out; the entries then say nothing, and still verify."""
    gone = ("salt", "content_key", "run_id", "model", "tags")
    vandal.run(f"UPDATE attributions SET {' = NULL, '.join(gone)} = NULL")
    assert filled.verify("pool")[0].ok
    assert {None} == {entry.attribution for entry in filled.entries("pool")}


@pytest.mark.parametrize(
    ("seq", "changes"),
    [
        (OPENING, {"detail": "{}"}),
        (SETTLEMENT, {"usage_total_tokens": None}),
        (ADJUSTMENT, {"detail": None}),
    ],
)
def test_replay_names_the_entry_it_cannot_follow(
    filled: Ledger, vandal: Vandal, seq: int, changes: dict[str, object]
) -> None:
    """It does not look at hashes; what contradicts the rules it cannot fold."""
    vandal.edit(seq, **changes)
    with pytest.raises(JournalDamagedError, match=f"entry {seq}") as damaged:
        filled.replay("pool")
    assert ("pool", seq) == (damaged.value.pool, damaged.value.seq)


def test_a_pool_without_its_policy_is_not_written_to(
    filled: Ledger,
    vandal: Vandal,
    store_url: str,
) -> None:
    """No verdict is guessed where the books do not say under what rules."""
    vandal.run("UPDATE entries SET detail = NULL WHERE seq = 6")
    filled.close()
    with Ledger.open(store_url) as book, pytest.raises(JournalDamagedError, match="entry 6"):
        book.pool("pool").reserve(RequestExtensions(), UsageEstimate(), UNLIMITED)


def test_every_kind_is_there(filled: Ledger) -> None:
    """The entries that these tests damage are of the kinds they are taken for."""
    kinds = [
        EntryKind.OPENING,
        EntryKind.RESERVATION,
        EntryKind.DENIAL,
        EntryKind.DENIAL,
        EntryKind.SETTLEMENT,
        EntryKind.ADJUSTMENT,
        EntryKind.RESERVATION,
        EntryKind.RESERVATION,
    ]
    assert kinds == [entry.kind for entry in filled.entries("pool")]
