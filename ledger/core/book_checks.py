"""Checks of credits: an entry must state the credits that the rules derive for it."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.credit_book import CreditBook, book_from_json
from ledger.core.entries import Balance, Entry, Totals
from ledger.core.entry_shape import Contradiction
from ledger.core.errors import InvalidInputError
from ledger.core.kinds import EntryKind
from ledger.core.policy import SharedPoolBudgetOptions

_UNREADABLE = (LookupError, TypeError, AttributeError, InvalidInputError)
"""The errors that reading a damaged part of a detail raises."""


def book_behind(
    entry: Entry,
    policy: SharedPoolBudgetOptions,
    book: CreditBook | None,
    credits: rules.Credits | None,
    balance: Balance,
) -> CreditBook | None:
    """Return the credits that a pool lists after an entry.

    Args:
        entry: The entry.
        policy: The policy before it.
        book: The credits that the pool listed before; None if it was never prepaid.
        credits: The state of these credits at the time when the entry was recorded.
        balance: The balance before it.

    Raises:
        Contradiction: The entry states other credits than the rules, or cannot be read.
    """
    if entry.policy is None:
        return book
    if entry.kind == EntryKind.OPENING:
        begun = CreditBook(entry.seq, entry.recorded_at, Totals())
        return begun if entry.policy.prepaid else None
    try:
        said = entry.detail.get("credits")
        stated = None if said is None else book_from_json(said)
    except _UNREADABLE as error:
        raise Contradiction(f"{entry.kind} whose credits cannot be read: {error}") from error
    if entry.kind == EntryKind.CREDIT:
        if credits is None or stated is None or not stated.listed:
            raise Contradiction("credit of a pool that is not prepaid, or none at all")
        if entry.policy != policy:
            raise Contradiction("credit that sets another policy")
        given = stated.listed[-1].credit, entry.seq, entry.recorded_at
        try:
            expected: CreditBook | None = credits.with_credit(*given, balance)
        except InvalidInputError as error:
            raise Contradiction(f"{entry.kind}: {error}") from error
    else:
        policies, at = (policy, entry.policy), (entry.seq, entry.recorded_at)
        expected = rules.carried_on(book, credits, *policies, *at, balance)
    if stated != expected:
        raise Contradiction(f"credits should be {expected}, but are {stated}")
    return stated
