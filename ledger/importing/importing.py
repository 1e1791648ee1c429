"""Import the calls of a file: read what is there, write what is missing, and prove the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from itertools import islice

from ledger.core import rules
from ledger.core.checks import check_callable, check_type
from ledger.core.errors import (
    BillingFileError,
    EntryCorrectedError,
    IdempotencyConflictError,
    NotPermittedError,
)
from ledger.core.extensions import ATTRIBUTION_TEXTS
from ledger.core.past_calls import PastCall
from ledger.core.values import USAGE_FIELDS, Usage
from ledger.files.rows import digest_of
from ledger.importing.books import (
    CallInBooks,
    KnownEntry,
    assumed_between,
    correction_key,
    find_recorded,
    reason_of,
    recorded_between,
    standing,
)
from ledger.importing.calls import Calls, Told, amounts_of
from ledger.importing.expired import ExpiredLeases, sharing
from ledger.importing.values import Imported
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.reconcile.values import Amounts

WRITTEN_AT_ONCE = 256
"""How many calls are looked up, and written, at once."""

_DAY = timedelta(days=1)
_TRIES = 100
"""How often a call is read again if others correct it between reading and writing."""


class Changed(StrEnum):
    """What it means if a file says something else of a line than a file that was imported before.

    Lines with a request id or another sign of their own are always corrected.
    """

    REFUSE = "refuse"
    """Two accounts may have such a line each: nothing is imported."""

    CORRECT = "correct"
    """It is a newer export of the same account: what was imported is corrected."""


def import_calls(
    book: Ledger,
    pool: str,
    calls: Calls,
    *,
    changed: Changed = Changed.REFUSE,
    actor: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Imported:
    """Import the calls of a bill, a log or a trace into a pool, each once, and prove the totals.

    All lines are checked before the first is written. A call is in the pool once, however often the
    file is imported and however it has grown. The same import, repeated after an interrupt,
    continues. Calls that the store already has under the same request id (recorded, or imported
    into another pool or under another key) are left out and counted.

    Args:
        book: The store.
        pool: The pool.
        calls: The calls of the file.
        changed: What it means if lines without a request id say something else than before.
        actor: Who imports; by default the `actor` of `Ledger.open`.
        dry_run: Whether only to look.
        progress: Called with the number of calls that were dealt with.

    Raises:
        InvalidInputError: An argument of another type.
        BillingFileError: A line cannot be imported; nothing was written.
        UnknownPoolError: There is no such pool.
        NotPermittedError: The role may not import.
        StoreError: The store failed. What was imported stays; the same call, repeated, goes on.
    """
    check_type("book", book, Ledger)
    check_type("calls", calls, Calls)
    check_type("changed", changed, Changed)
    check_callable("progress", progress)
    return _Import(book, pool, calls, changed, actor).run(dry_run=dry_run, progress=progress)


class _Import:
    """One import, in passes over the calls: check, look, write and prove."""

    def __init__(
        self, book: Ledger, pool: str, calls: Calls, changed: Changed, actor: str | None
    ) -> None:
        self._book = book
        self._budget: LedgerBudgetManager = book.pool(pool)
        self._calls = calls
        self._changed = changed
        self._actor = actor
        self._now: datetime = book.now()
        bill = calls.bill
        self._axes = calls.axes
        self._prices = None if calls.prices is None else calls.prices.named
        self._reason = reason_of(bill.file, bill.sha256, self._prices)
        self._counts: Counter[str] = Counter()
        self._without_price: Counter[str] = Counter()
        self._named: set[bytes] = set()
        self._recorded: dict[bytes, KnownEntry] = {}
        self._told = dict.fromkeys(self._axes, 0)
        self._left_out = dict.fromkeys(self._axes, 0)
        self._journal = dict.fromkeys(self._axes, 0)
        self._rounded = Fraction(0)
        self._policies = sharing(book, pool)
        self._first: datetime | None = None
        self._last: datetime | None = None

    def run(self, *, dry_run: bool, progress: Callable[[int], object] | None) -> Imported:
        """Do all passes, and return the result."""
        self._check()
        for page in self._pages():
            self._look(page)
        if dry_run:
            self._journal = dict(self._told)
            return self._result(is_dry_run=True)
        self._counts -= Counter({name: self._counts[name] for name in _WRITTEN})
        for page in self._pages():
            self._write(page)
            if progress is not None:
                progress(len(page))
        return self._result(is_dry_run=False)

    def _check(self) -> None:
        """Check every call, sum what the file says, and find which ids the store has."""
        named = self._named
        unnamed: list[datetime] = []
        for told in self._calls.told(self._now):
            call, at = told.call, told.call.occurred_at
            self._counts["calls"] += 1
            self._rounded += told.rounded
            self._first = at if self._first is None else min(self._first, at)
            self._last = at if self._last is None else max(self._last, at)
            if call.request_id is not None:
                named.add(digest_of(call.request_id))
            else:
                self._counts["unnamed"] += 1
                unnamed = [at, at] if not unnamed else [min(unnamed[0], at), max(unnamed[1], at)]
        if unnamed:
            pool = self._budget.name
            self._counts["recorded_then"] = recorded_between(self._book, pool, *unnamed)
        if named and self._first is not None:
            since = self._first - _DAY  # a request may be dated a day earlier
            self._recorded = find_recorded(self._book, self._budget.name, named, since=since)

    def _pages(self) -> Iterator[list[Told]]:
        """Yield the calls that are to be imported, page by page."""
        calls = (told for told in self._calls.told(self._now) if not self._is_recorded(told.call))
        while page := list(islice(calls, WRITTEN_AT_ONCE)):
            yield page

    def _is_recorded(self, call: PastCall) -> bool:
        return (
            bool(self._recorded)
            and call.request_id is not None
            and digest_of(call.request_id) in self._recorded
        )

    def _look(self, page: Sequence[Told]) -> None:
        """Read which calls of a page the pool has.

        Raises:
            BillingFileError: A line without a request id was imported with other amounts.
        """
        found, page = self._found(page)
        for told in page:
            self._name_without_price(told)
            _add(self._told, amounts_of(self._axes, told.call.usage))
            there = found.get(told.call.key)
            self._counts["unpriced"] += self._is_unpriced(told.call.usage)
            self._counts["attributed_before"] += self._is_attributed_otherwise(told, there)
            if there is None:
                self._counts["new"] += 1
            elif self._says_so(told, there):
                self._counts["known"] += 1
            elif not self._is_newly_priced(told, there) and (
                told.call.usage in (there.imported, there.brought)
            ):
                self._counts["kept"] += 1
            elif told.is_named or self._changed is Changed.CORRECT:
                self._counts["corrected"] += 1
                self._counts["priced"] += self._is_newly_priced(told, there)
            else:
                raise BillingFileError(
                    self._calls.bill.file,
                    line=told.line,
                    reason=f"entry {there.seq} was imported for the same time and model, with "
                    "other amounts. If this is a newer export of the same account, say that "
                    "changes are corrected (--changed correct); if it is another account, give "
                    "each a name of its own (--source)",
                )

    def _is_unpriced(self, usage: Usage) -> bool:
        return bool(rules.unpriced_flag(self._policies, usage))

    def _is_attributed_otherwise(self, told: Told, there: CallInBooks | None) -> bool:
        """Tell whether the import gives a call an attribution that differs from the journal's."""
        said, whom = self._calls.attribution, told.call.attribution
        if there is None or said is None or whom is None:
            return False
        return any(
            getattr(said, name) is not None and getattr(whom, name) != getattr(there.whom, name)
            for name in ATTRIBUTION_TEXTS
        )

    def _says_so(self, told: Told, there: CallInBooks) -> bool:
        """Tell whether the journal's usage of a call now agrees with the file."""
        usages = told.call.usage, there.usage
        wanted, found = (amounts_of(self._axes, usage) for usage in usages)
        return wanted == found

    def _write(self, page: Sequence[Told]) -> None:
        """Import the calls of a page, correct those that changed, and read all of them again."""
        priced: set[str] = set()
        if not all(told.says_cost for told in page):
            before, page = self._found(page)
            keys = (told.call.key for told in page)
            priced = {
                key
                for key, told in zip(keys, page, strict=True)
                if self._is_newly_priced(told, before.get(key))
            }
        calls = [told.call for told in page]
        done = self._budget.import_calls(calls, self._reason, actor=self._actor)
        corrected = {
            told.call.key
            for told, imported in zip(page, done, strict=True)
            if (imported.is_changed or told.call.key in priced)
            and self._correct(told, imported.entry)
        }
        found = self._standing(page)
        for told, imported in zip(page, done, strict=True):
            there = found[told.call.key]
            _add(self._journal, amounts_of(self._axes, there.usage))
            self._counts["unpriced"] += self._is_unpriced(there.usage)
            if not self._says_so(told, there):
                self._counts["kept"] += 1
            elif told.call.key in corrected:
                self._counts["corrected"] += 1
                self._counts["priced"] += told.call.key in priced
            else:
                self._counts["new" if imported.is_new else "known"] += 1

    def _correct(self, told: Told, entry: int) -> bool:
        """Correct a call that was imported with other usage, once; return whether it was now."""
        said = digest_of(repr(amounts_of(USAGE_FIELDS, told.call.usage))).hex()
        for _try in range(_TRIES):
            before = self._budget.usage_of(entry)
            after = replace(before, **amounts_of(self._axes, told.call.usage))
            if before == after:
                return False
            # Under a key, so that a later correction by others is not reverted.
            with suppress(EntryCorrectedError):
                try:
                    self._budget.correct(
                        entry,
                        after,
                        self._reason,
                        idempotency_key=correction_key(told.call.key, said),
                        expected=before,
                        actor=self._actor,
                    )
                except IdempotencyConflictError:
                    return False
                except NotPermittedError as error:
                    raise error.of_call(
                        f"import {self._calls.bill.file}: line {told.line} says something else "
                        f"of a call that was imported before, and entry {entry} would be corrected"
                    ) from error
                return True
        return False

    def _found(self, page: Sequence[Told]) -> tuple[dict[str, CallInBooks], list[Told]]:
        """Return which calls of a page the pool has, and the calls with their prices there."""
        found = self._standing(page)
        return found, [self._as_priced(told, found.get(told.call.key)) for told in page]

    def _as_priced(self, told: Told, there: CallInBooks | None) -> Told:
        """Return a call whose line says no cost with the cost that it has, unless it grew."""
        if told.says_cost or there is None or not told.says_same(there.brought, self._axes):
            return told
        cost = there.brought.cost_micros_usd or there.usage.cost_micros_usd
        by_list = there.priced or self._calls.prices is not None
        return told.with_cost(cost) if by_list and cost else told

    def _is_newly_priced(self, told: Told, there: CallInBooks | None) -> bool:
        """Tell whether all that is new of a call is its price, which no import has charged yet."""
        return (
            there is not None
            and bool(told.call.usage.cost_micros_usd)
            and not (told.says_cost or there.brought.cost_micros_usd)
            and not there.usage.cost_micros_usd
            and told.says_same(there.brought, self._axes)
        )

    def _name_without_price(self, told: Told) -> None:
        if told.without_price is not None:
            self._without_price[told.without_price] += 1

    def _standing(self, page: Sequence[Told]) -> dict[str, CallInBooks]:
        keys = [told.call.key for told in page]
        return standing(self._book, self._budget.name, keys)

    def _result(self, *, is_dry_run: bool) -> Imported:
        if self._recorded and self._first is not None:
            self._leave_out(since=self._first - _DAY, dry_run=is_dry_run)
        bill, counts = self._calls.bill, self._counts
        return Imported(
            file=bill.file,
            sha256=bill.sha256,
            mapping=bill.mapping.name,
            pool=self._budget.name,
            axes=self._axes,
            is_dry_run=is_dry_run,
            lines=len(bill.lines),
            **{name: counts[name] for name in _COUNTED},
            assumed=self._assumed(),
            empty=bill.empty,
            not_selected=bill.not_selected,
            prices=self._prices,
            without_price=dict(self._without_price),
            unread_columns=bill.unread_columns,
            unread_lists=bill.unread_lists,
            first=self._first,
            last=self._last,
            told=Amounts(**self._told),
            left_out=Amounts(**self._left_out),
            journal=Amounts(**self._journal),
            rounded_up_micros_usd=self._rounded,
        )

    def _leave_out(self, *, since: datetime, dry_run: bool) -> None:
        """Count the calls that the store has, and settle those with an expired lease."""
        expired = ExpiredLeases(self._book, self._recorded, since=since)
        by = self._book.actor if self._actor is None else self._actor
        why = self._reason if by is None else f"{self._reason}, by {by}"
        for told in self._calls.told(self._now):
            if self._is_recorded(told.call):
                self._counts["recorded"] += 1
                self._name_without_price(told)
                _add(self._left_out, amounts_of(self._axes, told.call.usage))
                settled = expired.settle(told.call, why, dry_run=dry_run)
                self._counts["settled"] += settled

    def _assumed(self) -> dict[str, int]:
        """Count the calls in the file's time range that are charged assumed usage."""
        if self._first is None or self._last is None:
            return {}
        return assumed_between(self._book, self._named, self._first - _DAY, self._last)


_WRITTEN = ("new", "known", "corrected", "priced", "kept", "unpriced")
"""The figures that are counted before writing and again after it."""
_COUNTED = (
    *("calls", "new", "known", "corrected", "priced", "kept"),
    *("recorded", "settled", "unnamed", "recorded_then", "unpriced", "attributed_before"),
)


def _add(sums: dict[str, int], more: dict[str, int]) -> None:
    for name, amount in more.items():
        sums[name] += amount
