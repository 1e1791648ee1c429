"""Rules of credits: which credit pays for usage, what is left of each, and what they admit.

A moment is a time at which a credit is given or expires. Usage that was committed between two
moments is paid together, by the credits of that time, in the order of their use. What none of them
pays is a debt, which the next credits pay. So what a credit has paid follows from the committed
totals at the moments, however many entries lie between them. A correction that takes usage back
takes it from the time at which the call counted. If the credit that paid has expired since, the
amount is lost. A dated entry (an import or an expiry) is paid by the credits of its own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ledger.core.axes import AXES, NAMES, U64_MAX
from ledger.core.checks import Micros, from_micros
from ledger.core.credit_book import CreditBook, Ended, Granted
from ledger.core.credits import CREDITS_MAX, Credit, order_of_use
from ledger.core.entries import Balance, Seq, Totals
from ledger.core.errors import InvalidInputError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.limits import History, Move, Point
from ledger.core.rules.remainder import Three, left_of, too_little
from ledger.core.status import CreditStatus
from ledger.core.values import Remaining, UsageEstimate

_NOTHING = Totals()


class Shortage(NamedTuple):
    """Credits that refuse a reservation.

    Attributes:
        left: What was left of them.
        top_up: The least credit that would admit it, on each axis; 0 where there is enough.
        expired: The credit that expired last with an amount left, None if there is none.
    """

    left: Three
    top_up: Totals
    expired: Granted | None


class _Paid(NamedTuple):
    """What is left of each credit, by the entry that gave it, and the debt."""

    left: dict[int, Totals]
    debt: Totals


class Credits:
    """The credits of a pool at one time."""

    def __init__(
        self,
        policy: SharedPoolBudgetOptions,
        book: CreditBook,
        at: Micros,
        history: History,
        more: Sequence[Move] = (),
    ) -> None:
        """Compute what each credit has paid up to the last moment.

        Args:
            policy: The policy in force.
            book: The credits that the pool lists.
            at: The time.
            history: What the pool had committed at its entries.
            more: The correction or dated entry after them that is being decided, if there is one.
        """
        self._policy = policy
        self._book = book
        self._prepaid = [name in policy.prepaid for name in NAMES]
        self._lost: dict[int, Totals] = {}
        self._ended: dict[int, Ended] = {}
        self._valid: list[Granted] = []
        in_order = sorted(book.listed, key=lambda given: order_of_use(given.credit, given.seq))
        self._place = {one.seq: place for place, one in enumerate(in_order)}
        self._paid = _Paid(
            {one.seq: one.amounts.minus(one.spent) for one in book.listed}, book.debt
        )
        self._whole: dict[int, Totals] = {}
        begun = Point(book.since, book.at, book.committed)
        self._base = history.base(begun, book.at, more)
        for one in book.listed:
            if one.seq <= book.since:
                self._begin(one)
        for point, one, expires in _moments(book, at, history):
            since = one.expires_at if expires else one.at
            base = history.base(point, since or at, more)
            self._paid = self._pay(base.minus(self._base))
            self._base = base
            if expires:
                self._valid.remove(one)
                self._lost[one.seq] = self._paid.left[one.seq]
                self._ended[one.seq] = Ended(point.seq, point.committed)
            else:
                self._begin(one)
        capacity = [
            sum(self._paid.left[one.seq][axis] for one in self._valid) for axis in range(len(AXES))
        ]
        # The sum of all credits could reach 2^64-1, which means unlimited.
        tokens, cost, requests = (
            min(amount, U64_MAX - 1) if prepaid else U64_MAX
            for amount, prepaid in zip(capacity, self._prepaid, strict=True)
        )
        self._capacities = tokens, cost, requests

    def _begin(self, one: Granted) -> None:
        """Begin to use a credit; the debt is paid first."""
        self._valid.append(one)
        self._valid.sort(key=lambda given: self._place[given.seq])
        self._paid = self._pay(_NOTHING)
        self._whole = {one.seq: self._paid.left[one.seq] for one in self._valid}

    def _pay(self, spent: Totals) -> _Paid:
        """Return what is left and the debt after more was spent."""
        owed = self._of_prepaid(spent).plus(self._of_prepaid(self._paid.debt))
        frozen = self._paid.debt.minus(self._of_prepaid(self._paid.debt))
        left = dict(self._paid.left)
        for one in self._valid:
            if not any(owed):
                break
            taken = Totals(*map(min, owed, left[one.seq]))
            left[one.seq] = left[one.seq].minus(taken)
            owed = owed.minus(taken)
        return _Paid(left, owed.plus(frozen))

    def _of_prepaid(self, amounts: Totals) -> Totals:
        """Return amounts on the axes that credits pay, none of them below 0."""
        return Totals(
            *(
                max(0, amount) if prepaid else 0
                for amount, prepaid in zip(amounts, self._prepaid, strict=True)
            )
        )

    def _counts(self, balance: Balance) -> Three:
        """Return what counts against what was left at the last moment: debt, spent and held."""
        spent = self._of_prepaid(balance.committed.minus(self._base))
        owed = spent.plus(self._of_prepaid(self._paid.debt))
        tokens, cost, requests = owed.plus(self._of_prepaid(balance.reserved))
        return tokens, cost, requests

    def remaining(self, balance: Balance, kept_back: Three) -> Remaining:
        """Return what is left of all credits together."""
        return left_of(self._capacities, self._counts(balance), kept_back)

    def refusal(
        self, balance: Balance, estimate: UsageEstimate, requests: int, kept_back: Three
    ) -> Shortage | None:
        """Return why the credits refuse a reservation, None if they are enough."""
        counts, strict = self._counts(balance), self._policy.strict
        left = too_little(self._capacities, counts, kept_back, estimate, requests, strict)
        if left is None:
            return None
        asked = Totals.of(estimate, requests=requests)
        at_least = int(strict)  # a strict pool must keep more than its stop threshold
        missing = (
            max(used + kept + max(one, at_least) - capacity, 0)
            for used, kept, one, capacity in zip(
                counts, kept_back, asked, self._capacities, strict=True
            )
        )
        expired = [one for one in self._book.listed if any(self._lost.get(one.seq, _NOTHING))]
        return Shortage(
            left,
            self._of_prepaid(Totals(*missing)),
            max(expired, key=lambda one: (one.expires_at or 0, one.seq), default=None),
        )

    def debt(self, balance: Balance) -> Totals:
        """Return what was spent that no credit has paid."""
        return self._pay(balance.committed.minus(self._base)).debt

    def wholes(self, balance: Balance) -> Iterator[tuple[int, int]]:
        """Yield for each prepaid axis the credits at the newest top-up, and how much is used.

        Credits that have expired since count in neither figure. Before the first credit, an axis is
        left out until something is spent or held on it; then both figures are 0.
        """
        counts = self._counts(balance)
        for axis, prepaid in enumerate(self._prepaid):
            if prepaid and (counts[axis] or any(one.amounts[axis] for one in self._book.listed)):
                whole = sum(self._whole[one.seq][axis] for one in self._valid)
                yield whole, whole - max(0, self._capacities[axis] - counts[axis])

    def states(self, balance: Balance) -> Iterator[CreditStatus]:
        """Yield the status of each credit, in the order in which they were given."""
        paid = self._pay(balance.committed.minus(self._base))
        valid = {one.seq for one in self._valid}
        for one in self._book.listed:
            left = paid.left[one.seq]
            yield CreditStatus(
                seq=Seq(one.seq),
                credit=one.credit,
                granted_at=from_micros(one.at),
                used=one.amounts.minus(left),
                left=left if one.seq in valid else _NOTHING,
                lost=_NOTHING if one.seq in valid else left,
            )

    def book_at(self, since: int, at: Micros, balance: Balance) -> CreditBook:
        """Return the book that begins after an entry, without expired and used-up credits.

        Later corrections of usage before that entry give nothing back to any credit.
        """
        paid = self._pay(balance.committed.minus(self._base))
        listed = tuple(
            one._replace(spent=one.amounts.minus(paid.left[one.seq]))
            for one in self._book.listed
            if one in self._valid and any(paid.left[one.seq])
        )
        return CreditBook(since, at, balance.committed, paid.debt, listed)

    def with_credit(self, credit: Credit, seq: int, at: Micros, balance: Balance) -> CreditBook:
        """Return the book after the entry that gives a credit.

        The book begins anew if all earlier credits have expired and there is no debt, and if it
        lists `CREDITS_MAX` credits.

        Args:
            credit: The credit.
            seq: The number of the entry.
            at: When it is recorded.
            balance: The balance, which it does not move.

        Raises:
            InvalidInputError: It gives an amount on an axis that is not prepaid, or it has expired,
                or too many credits have an amount left.
        """
        for axis, prepaid in zip(AXES, self._prepaid, strict=True):
            if getattr(credit, axis.name) and not prepaid:
                raise InvalidInputError(
                    f"credit.{axis.name}",
                    f"the pool does not spend {axis.shown} of credits: its prepaid axes are "
                    f"{', '.join(self._policy.prepaid) or 'none'}; add it with adjust()",
                )
        given = Granted(seq, at, balance.committed, credit)
        if given.expires_at is not None and given.expires_at <= at:
            raise InvalidInputError(
                "credit.expires_at",
                f"it has expired: the pool's clock says {from_micros(at).isoformat()}",
            )
        book, anew = self._book, self.book_at(seq, at, balance)
        if len(book.listed) >= CREDITS_MAX or not (self._valid or any(anew.debt)):
            book = anew
        if len(book.listed) >= CREDITS_MAX:
            raise InvalidInputError(
                "credit", f"{CREDITS_MAX} credits have something left; a pool lists no more"
            )
        listed = (one._replace(ended=self._ended.get(one.seq)) for one in book.listed)
        return book._replace(listed=(*listed, given))


def carried_on(
    book: CreditBook | None,
    credits: Credits | None,
    before: SharedPoolBudgetOptions,
    after: SharedPoolBudgetOptions,
    seq: int,
    at: Micros,
    balance: Balance,
) -> CreditBook | None:
    """Return the credits after an adjustment, None if the pool was never prepaid.

    Usage counts against credits only while its axis is prepaid. So the book begins anew if the
    prepaid axes change.

    Args:
        book: The credits before it.
        credits: Their state at the time of the adjustment.
        before: The policy before the adjustment.
        after: The policy that it sets.
        seq: Its number.
        at: When it is recorded.
        balance: The balance, which it does not move.
    """
    if before.prepaid == after.prepaid:
        return book
    if credits is None:
        return CreditBook(seq, at, balance.committed)
    return credits.book_at(seq, at, balance)


def _moments(
    book: CreditBook, at: Micros, history: History
) -> Iterator[tuple[Point, Granted, bool]]:
    """Yield the entries after which a credit was given or had expired, in order of time.

    Two credits may expire after the same entry, and calls of the time between them be imported
    later.
    """
    found = []
    for one in book.listed:
        given = Point(one.seq, one.at, one.committed)
        if one.seq > book.since:
            found.append((given, one, False))
        if one.ended is not None:
            found.append((Point(one.ended.seq, at, one.ended.committed), one, True))
        elif one.expires_at is not None and one.expires_at <= at:
            last = history.newest_before(one.expires_at)
            # A history may leave out entries that commit nothing, such as that of the credit.
            found.append((max(last, given, key=lambda point: point.seq), one, True))
    yield from sorted(found, key=_when)


def _when(moment: tuple[Point, Granted, bool]) -> tuple[Micros, bool, int]:
    point, one, expires = moment
    at = one.expires_at if expires else one.at
    return at or one.at, not expires, point.seq
