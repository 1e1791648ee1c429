"""The credits that a pool lists, and the entry after which spend counts against them.

Every entry that sets a policy states all of its credits, so only the newest such entry is read.
Later entries only refer to it, by `policy_seq`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ledger.core.checks import I64_MAX, Micros, check_amount, from_micros, to_micros
from ledger.core.credits import PRIORITY_DEFAULT, Credit
from ledger.core.entries import Totals

_NOTHING = Totals()


class Ended(NamedTuple):
    """The newest entry before a credit expired, and what the pool had committed by then."""

    seq: int
    committed: Totals


class Granted(NamedTuple):
    """A credit that an entry gave.

    Attributes:
        seq: The entry.
        at: When it was recorded.
        committed: What the pool had committed by then.
        credit: The credit.
        spent: What had been spent of it at the entry where the book begins; 0 if it was given
            later.
        ended: The newest entry recorded before it expired, if it had expired when the newest credit
            was given.
    """

    seq: int
    at: Micros
    committed: Totals
    credit: Credit
    spent: Totals = _NOTHING
    ended: Ended | None = None

    @property
    def amounts(self) -> Totals:
        """The amounts that it gave."""
        return Totals.on_axes(self.credit)

    @property
    def expires_at(self) -> Micros | None:
        """When it expires, None for never."""
        expires_at = self.credit.expires_at
        return None if expires_at is None else to_micros("expires_at", expires_at)


class CreditBook(NamedTuple):
    """The credits of a pool.

    Attributes:
        since: The entry after which spend counts against the credits: the one that made the pool
            prepaid, or the one at which expired and used-up credits were left out.
        at: When that entry was recorded.
        committed: What the pool had committed by then.
        debt: What had been spent by then and no credit had paid; the next credits pay it.
        listed: The credits, in the order in which they were given.
    """

    since: int
    at: Micros
    committed: Totals
    debt: Totals = _NOTHING
    listed: tuple[Granted, ...] = ()


def book_to_json(book: CreditBook) -> dict[str, Any]:
    """Return a book as an entry's detail holds it, without amounts that are 0."""
    return {
        "since": book.since,
        "at": book.at,
        "committed": _amounts(book.committed),
        "debt": _amounts(book.debt),
        "listed": [_granted_to_json(one) for one in book.listed],
    }


def book_from_json(stored: Mapping[str, Any]) -> CreditBook:
    """Return a book from its stored form.

    Raises:
        InvalidInputError: A value that a book cannot have.
        LookupError, TypeError: A field is missing, or is one that books do not have.
    """
    return CreditBook(
        check_amount("since", stored["since"], ceiling=I64_MAX),
        Micros(check_amount("at", stored["at"], ceiling=I64_MAX)),
        _totals(stored["committed"]),
        _totals(stored["debt"]),
        tuple(_granted_from_json(one) for one in stored["listed"]),
    )


def _granted_to_json(one: Granted) -> dict[str, Any]:
    credit = one.credit
    said: dict[str, Any] = {
        "seq": one.seq,
        "at": one.at,
        "committed": _amounts(one.committed),
        "name": credit.name,
        "amounts": _amounts(one.amounts),
    }
    if credit.expires_at is not None:
        said["expires_at"] = one.expires_at
    if credit.priority != PRIORITY_DEFAULT:
        said["priority"] = credit.priority
    if any(one.spent):
        said["spent"] = _amounts(one.spent)
    if one.ended is not None:
        said["ended"] = {"seq": one.ended.seq, "committed": _amounts(one.ended.committed)}
    return said


def _granted_from_json(stored: Mapping[str, Any]) -> Granted:
    expires_at, ended = stored.get("expires_at"), stored.get("ended")
    return Granted(
        check_amount("seq", stored["seq"], ceiling=I64_MAX),
        Micros(check_amount("at", stored["at"], ceiling=I64_MAX)),
        _totals(stored["committed"]),
        Credit(
            name=stored["name"],
            **stored["amounts"],
            expires_at=None if expires_at is None else from_micros(expires_at),
            priority=stored.get("priority", PRIORITY_DEFAULT),
        ),
        _totals(stored.get("spent", {})),
        None if ended is None else _ended_from_json(ended),
    )


def _ended_from_json(stored: Mapping[str, Any]) -> Ended:
    seq = check_amount("seq", stored["seq"], ceiling=I64_MAX)
    return Ended(seq, _totals(stored["committed"]))


def _amounts(totals: Totals) -> dict[str, int]:
    return {name: amount for name, amount in totals._asdict().items() if amount}


def _totals(stored: Mapping[str, int]) -> Totals:
    return Totals(**{name: check_amount(name, amount) for name, amount in stored.items()})
