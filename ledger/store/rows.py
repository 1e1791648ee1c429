"""Conversion between values and rows: an entry's columns, its hash, and reading it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX, Micros, check_amount
from ledger.core.credit_book import CreditBook, book_from_json
from ledger.core.entries import (
    Balance,
    Entry,
    EntryFlag,
    LeaseAfter,
    LeaseState,
    Totals,
    WindowState,
)
from ledger.core.errors import LedgerError
from ledger.core.extensions import ATTRIBUTION_TEXTS, Attribution
from ledger.core.kinds import (
    CHANGES_WINDOW,
    DIFFERENCES,
    HAS_BUDGET,
    MAY_BE_LATE,
    PHASES,
    SAYS_WINDOW,
    EntryKind,
    LeasePhase,
)
from ledger.core.policy import SharedPoolBudgetOptions, policy_from_json
from ledger.core.values import NOTHING_USED, RequestBudget, Usage, UsageDifference, UsageEstimate
from ledger.store.amounts import BUDGET, ESTIMATE, HELD, NO_HELD, USAGE, USED, Group, held_by_kind
from ledger.store.columns import check_entry
from ledger.store.schema import entries

Row = Mapping[str, Any]
"""A stored entry by column name, with its attribution's columns if these were read."""


BEGINNING = (
    *("seq", "kind", "detail", "recorded_at"),
    *(f"committed_{name}" for name in Totals._fields),
)
"""The columns that show which policy an entry sets, and which window it begins."""

COVERED = tuple(
    name
    for column in entries.columns
    if column.name not in {"hash_version", "hash"}
    for name in (
        (column.name, "attribution_digest") if column.name == "attribution_id" else (column.name,)
    )
)
"""The values that an entry's hash covers, in order: all columns, and its attribution's digest."""

COLUMNS = tuple(name for name in COVERED if name != "attribution_digest")
"""The columns that an entry's hash covers, in order."""

_in_columns: Callable[[Row], tuple[Any, ...]] = itemgetter(*COLUMNS)
_FIRST = COLUMNS.index("committed_tokens")
_TOTALS = slice(_FIRST, _FIRST + 2 * len(Totals._fields))
_DIGEST = COVERED.index("attribution_digest")


_COMMITTED = Group("committed", Totals._fields)
_RESERVED = Group("reserved", Totals._fields)


UNREADABLE = (
    *(LedgerError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    RecursionError,
)
"""The errors that turning a damaged row into a value may raise."""


def window_json(window: WindowState, *, since: int | None = None) -> dict[str, Any]:
    """Return the window part of an entry's detail.

    Args:
        window: The window that a rollover begins, or that a correction or an import changes.
        since: The entry that began the window, for a correction or an import. The base is then
            stored, too; for a rollover the base is in the entry itself.
    """
    start, end, base, carried, skipped, _begun = window
    said = {"start": start, "end": end, "carried": carried._asdict(), "skipped": skipped}
    return said if since is None else {**said, "base": base._asdict(), "since": since}


def row_hash(previous: bytes, row: Row, attribution_digest: bytes | None) -> bytes:
    """Return the hash that a row must have after the hash `previous`."""
    values = _in_columns(row)
    after = (*values[_TOTALS.stop : _DIGEST], attribution_digest, *values[_DIGEST:])
    return hashing.entry_hash(previous, values[:_FIRST], values[_TOTALS], after)


def lease_after(row: Row) -> LeaseAfter:
    """Return the lease part of a row.

    It raises one of `UNREADABLE` if a part is missing.
    """
    return LeaseAfter(row["lease"], _phase_of(row), held_of(row), used_of(row), row["expires_at"])


def held_of(row: Row) -> Totals:
    """Return what the lease of a row still holds.

    It raises one of `UNREADABLE` where the row does not say it.
    """
    held = HELD.stored(row)
    return held_in(row["kind"], held, ESTIMATE.stored(row) if held == NO_HELD else held)


def held_in(kind: str, held: Sequence[Any], estimate: Sequence[int | None]) -> Totals:
    """Return what a lease still holds, by the stored amounts of an entry and its estimate.

    It raises one of `UNREADABLE` where they do not say it.
    """
    if held == NO_HELD:
        held = held_by_kind(kind, (*estimate,))
    if None in held:
        raise ValueError("what the lease still holds is missing")
    return Totals(*held)


def lease_of(row: Row) -> LeaseState:
    """Return the lease after its newest row, which was read with columns of its reservation.

    It raises one of `UNREADABLE` if a part is missing.
    """
    lease, phase, held, used, expires_at = lease_after(row)
    estimate = UsageEstimate(**ESTIMATE.of(row))
    return LeaseState(lease, estimate, request_budget_of(row), phase, held, used, expires_at)


def _phase_of(row: Row) -> LeasePhase:
    # Usage that is observed after the hold expired does not restore the hold, and a correction of
    # the assumed usage does not end the lease.
    if row["kind"] in MAY_BE_LATE and row["flags"] & EntryFlag.LATE:
        return LeasePhase.EXPIRED
    return PHASES.get(row["kind"], LeasePhase.OPEN)


def request_budget_of(row: Row) -> RequestBudget:
    """Return the request's own budget in a row."""
    return RequestBudget(**BUDGET.of(row))


def used_of(row: Row) -> Usage:
    """Return what the lease of a row has used so far.

    It raises one of `UNREADABLE` where the row does not say it.
    """
    if row["used_total_tokens"] is not None:
        return Usage(**USED.of(row))
    usage = usage_of(row)
    if isinstance(usage, UsageDifference):
        raise ValueError("what the lease has used is missing")  # noqa: TRY004 - of what is stored
    return usage or NOTHING_USED


def usage_of(row: Row) -> Usage | UsageDifference | None:
    """Return the usage that a row records, None if it records none."""
    if row["usage_total_tokens"] is None:
        return None
    kind = UsageDifference if row["kind"] in DIFFERENCES else Usage
    return kind(**USAGE.of(row))


def detail_of(row: Row) -> dict[str, Any]:
    """Return a row's detail, empty if it has none."""
    stored = row["detail"]
    detail: dict[str, Any] = {} if stored is None else json.loads(stored)
    if not isinstance(detail, dict):
        raise ValueError("detail is no object")  # noqa: TRY004 - of what is stored, no argument
    return detail


class Ruled(NamedTuple):
    """A policy, the version of the rules under which it was set, and its credits."""

    policy: SharedPoolBudgetOptions
    rules_version: int
    book: CreditBook | None
    """None if the pool was never prepaid."""


def ruled_of(row: Row) -> Ruled | None:
    """Return the policy that a row sets, with its version of the rules; None if it sets none.

    Raises:
        UnknownRulesError: This version of the library does not have these rules.
    """
    policy, detail = _policy_and_detail(row["detail"])
    if policy is None:
        return None
    return Ruled(policy, rules.version_in(detail), _book_in(row, detail, policy))


# Cached, since many pools have the same policy text, and parsing it takes ten times as long as
# reading a pool's newest entry.
@lru_cache(maxsize=128)
def _policy_and_detail(stored: object) -> tuple[SharedPoolBudgetOptions | None, Mapping[str, Any]]:
    detail = detail_of({"detail": stored})
    return _policy_in(detail), detail


def policy_of(row: Row) -> SharedPoolBudgetOptions | None:
    """Return the policy that a row sets, None if it sets none."""
    return _policy_in(detail_of(row))


def book_of(row: Row) -> CreditBook | None:
    """Return the credits of a pool after a row that sets its policy.

    None if the pool was never prepaid. It raises one of `UNREADABLE` where the row is damaged.
    """
    found = ruled_of(row)
    return None if found is None else found.book


def _book_in(
    row: Row, detail: Mapping[str, Any], policy: SharedPoolBudgetOptions
) -> CreditBook | None:
    stored = detail.get("credits")
    if stored is not None:
        return book_from_json(stored)
    if not policy.prepaid:
        return None
    if row["kind"] != EntryKind.OPENING:
        raise ValueError("the pool is prepaid, and its credits are missing")
    return CreditBook(row["seq"], row["recorded_at"], Totals())


def entry_of(row: Row, attribution: Attribution | None) -> Entry:
    """Return a row as the value that callers see; a damaged row raises one of `UNREADABLE`."""
    check_entry(row)
    detail = detail_of(row)
    estimated = row["estimate_total_tokens"] is not None
    has_budget = row["kind"] in HAS_BUDGET
    return Entry(
        pool_id=row["pool_id"],
        seq=row["seq"],
        kind=row["kind"],
        flags=EntryFlag(row["flags"]),
        detail=detail,
        policy=_policy_in(detail),
        window=window_of(row) if row["kind"] in SAYS_WINDOW else None,
        estimate=UsageEstimate(**ESTIMATE.of(row)) if estimated else None,
        request_budget=request_budget_of(row) if has_budget else None,
        usage=usage_of(row),
        lease=None if row["lease"] is None else lease_after(row),
        balance=balance_of(row),
        policy_seq=row["policy_seq"],
        window_seq=row["window_seq"],
        swept_until=row["swept_until"],
        attribution=attribution,
        request_id=row["request_id"],
        provenance=row["provenance"],
        recorded_at=row["recorded_at"],
        occurred_at=row["occurred_at"],
        idempotency_key=row["idempotency_key"],
        payload_digest=row["payload_digest"],
        origin=None if row["origin_seq"] is None else (row["origin_pool_id"], row["origin_seq"]),
        hash_version=row["hash_version"],
        hash=row["hash"],
    )


def window_of(row: Row) -> WindowState | None:
    """Return the window that a row begins or changes, None if it does neither."""
    committed = Totals(**_COMMITTED.of(row))
    if row["kind"] not in SAYS_WINDOW:
        policy = policy_of(row) or SharedPoolBudgetOptions()
        return rules.begin_window(policy, row["recorded_at"], committed)
    stored = detail_of(row).get("window")
    if stored is None:
        return None
    start, end = (check_amount(name, stored[name]) for name in ("start", "end"))
    skipped = check_amount("skipped", stored["skipped"])
    base = committed if row["kind"] == EntryKind.ROLLOVER else _totals(stored["base"])
    carried = _totals(stored["carried"])
    return WindowState(Micros(start), Micros(end), base, carried, skipped)


def window_began(row: Row) -> int:
    """Return the number of the entry that began the window that a row begins or changes."""
    if row["kind"] not in CHANGES_WINDOW:
        return int(row["seq"])
    return check_amount("since", detail_of(row)["window"]["since"])


def _totals(stored: Mapping[str, object]) -> Totals:
    return Totals(**{name: _signed(name, stored[name]) for name in Totals._fields})


def _signed(name: str, amount: object) -> int:
    """Return an amount that may be below 0."""
    if isinstance(amount, int) and amount < 0:
        return -check_amount(name, -amount, ceiling=I64_MAX)
    return check_amount(name, amount)


def attribution_of(row: Row) -> Attribution | None:
    """Return the attribution in a row, None if it is absent or redacted."""
    if row["salt"] is None:
        return None
    tags = {} if row["tags"] is None else json.loads(row["tags"])
    return Attribution(**{name: row[name] for name in ATTRIBUTION_TEXTS}, tags=tags)


def balance_of(row: Row) -> Balance:
    """Return the pool's balance after a row."""
    return Balance(Totals(*_COMMITTED.stored(row)), Totals(*_RESERVED.stored(row)))


def _policy_in(detail: Mapping[str, Any]) -> SharedPoolBudgetOptions | None:
    stored = detail.get("policy")
    return None if stored is None else policy_from_json(stored)
