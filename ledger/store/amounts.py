"""Columns of amounts: how an entry stores an estimate, a usage, and what its lease holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, itemgetter
from typing import Any, cast

from ledger.core.axes import AXES
from ledger.core.checks import I64_MAX
from ledger.core.entries import EntryFlag, LeaseAfter, LeaseState, Totals
from ledger.core.errors import AmountOutOfRangeError
from ledger.core.kinds import DIFFERENCES, EntryKind, LeasePhase
from ledger.core.values import (
    ESTIMATE_FIELDS,
    NOTHING_USED,
    USAGE_FIELDS,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)
from ledger.store.schema import entries

BUDGET_FIELDS = tuple(axis.name for axis in AXES if axis.amount is not None)
_Row = Mapping[str, Any]
Optionals = tuple[int | None, ...]
AmountGroups = tuple[Optionals, Optionals, Optionals, int | None, Optionals, Optionals, int | None]
"""The estimate, the request budget and the usage of an entry; and the number of its lease, what the
lease holds, what it has used, and when it expires."""

# Before Python 3.12, looking up an enum's member is a function call.
_RESERVATION, _ENDED = EntryKind.RESERVATION, LeasePhase.ENDED


_greatest = cast("Callable[[Optionals], int]", max)


class Group:
    """The columns of one value, by their common prefix."""

    def __init__(self, prefix: str, names: tuple[str, ...]) -> None:
        self._names = names
        self.present: Callable[[object], tuple[int | None, ...]] = attrgetter(*names)
        """Returns the values of the columns of a value, which is not None."""
        self._absent = (None,) * len(names)
        self.stored: Callable[[_Row], tuple[Any, ...]] = itemgetter(
            *(f"{prefix}_{name}" for name in names)
        )

    def values(self, value: object | None) -> tuple[int | None, ...]:
        """Return the values of the columns: the value's fields, or NULLs for None."""
        return self._absent if value is None else self.present(value)

    def check_storable(self, what: str, value: object) -> None:
        """Refuse a value with an amount that no column holds.

        Raises:
            AmountOutOfRangeError: One of them is above 2^63-1.
        """
        amounts = self.present(value)
        if amounts == self._absent:
            return
        try:
            fits = _greatest(amounts) <= I64_MAX
        except TypeError:  # an absent amount
            fits = False
        if fits:  # most values do
            return
        for name, amount in zip(self._names, amounts, strict=True):
            if amount is not None and amount > I64_MAX:
                raise AmountOutOfRangeError(f"{what}.{name}", value=amount, ceiling=I64_MAX)

    def absent_in(self, row: _Row) -> bool:
        """Tell whether the columns are NULL."""
        return self.stored(row) == self._absent

    def of(self, row: _Row) -> dict[str, Any]:
        """Read a value's fields from its columns."""
        return dict(zip(self._names, self.stored(row), strict=True))


class UsageGroup(Group):
    """The columns of a usage. An amount that is included in another one is NULL if it is 0."""

    def values(self, value: object | None) -> tuple[int | None, ...]:
        """Return the values of the columns."""
        if value is None:
            return self._absent
        # Unrolled, as on all of the write path. A new amount would fail here at once.
        tokens_in, tokens_out, tokens, cost, created, read, reasoned = self.present(value)
        return tokens_in, tokens_out, tokens, cost, created or None, read or None, reasoned or None

    def stored_as(self, *amounts: int) -> tuple[int | None, ...]:
        """Return the values of the columns of a usage's amounts."""
        given = len(ESTIMATE_FIELDS)
        return (*amounts[:given], *(amount or None for amount in amounts[given:]))

    def of(self, row: _Row) -> dict[str, Any]:
        """Read a usage's fields from its columns."""
        found = super().of(row)
        for name in INCLUDED:
            if found[name] is None:
                found[name] = 0
        return found


INCLUDED = USAGE_FIELDS[len(ESTIMATE_FIELDS) :]
"""The amounts of a usage that are included in other ones; NULL stands for 0 in their columns."""

ESTIMATE = Group("estimate", ESTIMATE_FIELDS)
BUDGET = Group("budget", BUDGET_FIELDS)
USAGE = UsageGroup("usage", USAGE_FIELDS)
HELD = Group("held", Totals._fields)
USED = UsageGroup("used", USAGE_FIELDS)
_AT_EXPIRY = int(EntryFlag.AT_EXPIRY)
NO_HELD = HELD.values(None)
_NO_USED = USED.values(None)
_ZERO = USAGE.values(NOTHING_USED)


def amount_groups(
    kind: str,
    estimate: UsageEstimate | None,
    request_budget: RequestBudget | None,
    usage: Usage | UsageDifference | None,
    lease: LeaseState | LeaseAfter | None,
    flags: int,
) -> AmountGroups:
    """Return the values of the columns `AMOUNT_COLUMNS`, group by group.

    What a lease holds and has used is stored only if it does not follow from the entry's kind,
    estimate and usage. By default a reservation holds its estimate and one request, other entries
    leave nothing held, and the usage of the entry is all that the lease has used.
    """
    estimated, budget = ESTIMATE.values(estimate), BUDGET.values(request_budget)
    spent = _NO_USED if usage is None else USAGE.values(usage)
    if lease is None:
        return estimated, budget, spent, None, NO_HELD, _NO_USED, None
    held: Optionals = lease.held
    if held == held_by_kind(kind, estimated):
        held = NO_HELD
    used, expires_at = _NO_USED, lease.expires_at
    if lease.used is not (NOTHING_USED if usage is None else usage) or kind in DIFFERENCES:
        used = USED.values(lease.used)
        if used == (_ZERO if usage is None else spent) and kind not in DIFFERENCES:
            used = _NO_USED
    if expires_at is not None and lease.phase is _ENDED and not flags & _AT_EXPIRY:
        expires_at = None
    return estimated, budget, spent, lease.lease, held, used, expires_at


def amount_values(groups: AmountGroups) -> Optionals:
    """Return the values of the columns `AMOUNT_COLUMNS` one after the other."""
    estimated, budget, spent, number, held, used, expires_at = groups
    return (*estimated, *budget, *spent, number, *held, *used, expires_at)


_NAMES = [column.name for column in entries.columns]
AMOUNT_COLUMNS = tuple(
    _NAMES[_NAMES.index("estimate_input_tokens") : _NAMES.index("expires_at") + 1]
)
"""The columns of an entry's own amounts and of its lease."""

amounts_in: Callable[[_Row], tuple[int | None, ...]] = itemgetter(*AMOUNT_COLUMNS)
"""Returns the stored values of the columns `AMOUNT_COLUMNS`."""


def held_by_kind(kind: str, estimated: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return what a lease holds after an entry of a kind, by its kind and estimate alone."""
    if kind == _RESERVATION:
        return (*estimated[-2:], 1)
    return _NOTHING


_NOTHING = Totals()
