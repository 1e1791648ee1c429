"""What bounds a pool at one time, beside its capacity: its limits and its credits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.store.history import StoredHistory
from ledger.store.journal import PoolJournal
from ledger.store.marks import KnownCounts
from ledger.store.statements import ReadEach


class Bounds(NamedTuple):
    """What bounds a pool at one time, beside its capacity."""

    limits: rules.Limits | None = None
    """None where the policy has none."""
    credits: rules.Credits | None = None
    """None where the pool is not prepaid."""


UNBOUNDED = Bounds()


def bounds_of(
    read: ReadEach,
    pool: PoolJournal,
    policy: SharedPoolBudgetOptions,
    *,
    policy_seq: int,
    upto: int,
    at: Micros,
    due: Sequence[rules.Charge] = (),
    counted: KnownCounts | None = None,
) -> Bounds:
    """Return the limits and the credits of a pool at one of its entries and at a time.

    Args:
        read: Reads entries, on one snapshot or several: those up to `upto` do not change.
        pool: The pool.
        policy: The policy in force.
        policy_seq: The entry that set it.
        upto: The number of the newest entry that counts.
        at: The time, not before that entry.
        due: What leases that are due by then will be charged, as far as it counts when they ended.
        counted: What was read for earlier answers, to which more is added; None reads all anew.

    Raises:
        JournalDamagedError: An entry from which one of them counts cannot be read, or the credits.
    """
    if not policy.limits and not policy.prepaid:
        return UNBOUNDED
    history = StoredHistory(read, pool.info, upto=upto, counted=counted).with_due(due)
    limits = rules.Limits(policy, at, history) if policy.limits else None
    return Bounds(limits, credits_at(read, pool, policy, policy_seq, at, history))


def credits_at(
    read: ReadEach,
    pool: PoolJournal,
    policy: SharedPoolBudgetOptions,
    policy_seq: int,
    at: Micros,
    history: rules.History,
) -> rules.Credits | None:
    """Return the credits of a pool at a time, None where it is not prepaid."""
    book = pool.terms.book(read, policy_seq) if policy.prepaid else None
    return None if book is None else rules.Credits(policy, book, at, history)
