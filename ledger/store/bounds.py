"""Bounds of a pool at one time, beside its capacity: its limits and its credits."""

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
    """The limits and credits of a pool at one time."""

    limits: rules.Limits | None = None
    """None if the policy has no limits."""
    credits: rules.Credits | None = None
    """None if the pool is not prepaid."""


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
        read: Reads entries, on one snapshot or several, since the entries up to `upto` do not
            change.
        pool: The pool.
        policy: The policy in force.
        policy_seq: The entry that set it.
        upto: The number of the newest entry that counts.
        at: The time, not before that entry.
        due: What leases that are due by then will be charged, if that counts at the ends of their
            holds.
        counted: What was read for earlier answers; more is added to it. None reads everything
            again.

    Raises:
        JournalDamagedError: The credits, or an entry from which a limit or credit counts, cannot be
            read.
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
    """Return the credits of a pool at a time, None if it is not prepaid."""
    book = pool.terms.book(read, policy_seq) if policy.prepaid else None
    return None if book is None else rules.Credits(policy, book, at, history)
