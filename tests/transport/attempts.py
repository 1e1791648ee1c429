"""How the attempts of a pool ended, from its entries alone."""

from __future__ import annotations

import gc
from dataclasses import dataclass

from ledger import Entry, EntryKind, LeasePhase, Ledger, LedgerBudgetManager, Provenance
from tests.clocks import until

ENDS = {EntryKind.SETTLEMENT, EntryKind.RELEASE, EntryKind.EXPIRY}


@dataclass(frozen=True)
class Attempt:
    """An attempt.

    Attributes:
        call: The call that it belongs to.
        number: Which attempt of the call it is.
        end: `billed`, `estimated` or `released`.
        reserved: Tokens and micro-USD.
        observed: What was recorded before the end, in the same way.
        used: What was recorded in all.
    """

    call: str
    number: int
    end: str
    reserved: tuple[int, int]
    observed: tuple[int, int]
    used: tuple[int, int]


def attempts(book: Ledger, pool: LedgerBudgetManager) -> list[Attempt]:
    """Return the attempts of a pool, each of which has ended once; nothing is damaged."""
    # The end of a stream that was thrown away is left to the next batch.
    until(lambda: _ended(book, pool))
    by_lease: dict[int, list[Entry]] = {}
    for entry in book.entries(pool.name):
        if entry.lease is not None:
            by_lease.setdefault(entry.lease.lease, []).append(entry)
    assert book.verify(pool.name)[0].damage is None
    found = [_attempt(entries) for entries in by_lease.values()]
    spent = pool.status().balance
    assert (0, 0) == (spent.reserved.tokens, spent.reserved.cost_micros_usd)
    assert sum(one.used[1] for one in found) == spent.committed.cost_micros_usd
    return found


def _ended(book: Ledger, pool: LedgerBudgetManager) -> bool:
    if LeasePhase.OPEN not in {one.phase for one in book.open_leases(pool.name)}:
        return True
    gc.collect()  # a thread of the library may have kept a stream that was thrown away
    return False


def _attempt(entries: list[Entry]) -> Attempt:
    first, *between, last = entries
    assert first.kind == EntryKind.RESERVATION
    assert {EntryKind.OBSERVATION} >= {one.kind for one in between}
    assert last.kind in ENDS
    call, _, number = first.request_id.removeprefix("call-").partition(".")
    if last.kind == EntryKind.RELEASE:
        end = "released"
    else:
        end = "billed" if last.provenance == Provenance.REPORTED else "estimated"
    return Attempt(
        call=call,
        number=int(number),
        end=end,
        reserved=(first.estimate.total_tokens, first.estimate.cost_micros_usd),
        observed=(
            sum(one.usage.total_tokens for one in between),
            sum(one.usage.cost_micros_usd for one in between),
        ),
        used=(last.lease.used.total_tokens, last.lease.used.cost_micros_usd),
    )
