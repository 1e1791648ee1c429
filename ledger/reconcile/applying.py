"""`apply`: append the corrections that follow from a bill, each exactly once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, or_, select

from ledger.core.checks import I64_MAX, check_type
from ledger.core.errors import (
    EntryCorrectedError,
    IdempotencyConflictError,
    InvalidInputError,
    UncorrectableEntryError,
)
from ledger.core.kinds import CORRECTABLE, LeasePhase
from ledger.core.values import USAGE_FIELDS, Usage
from ledger.files.mapping import Identical
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.reconcile.values import Amounts, EntryRef, Match, Outcome, Reconciliation, Status
from ledger.store.corrections import spending
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.pools import store_identity
from ledger.store.schema import entries

BY_DAY = "matched by model and day: no single entry is known to be wrong"
CREDIT = "the bill comes to less than nothing, and no entry can say so"
TOO_MUCH = f"the bill says more than {I64_MAX:,}, the most that a store can hold"
OPEN = "lease {lease} is still open; settle it, and apply the bill again"
ASSUMED = (
    "its usage was assumed when its lease expired, and not recorded since; settle the lease with "
    "'ledger leases settle', or correct the expiry with 'ledger correct'"
)
UNNAMED = (
    "lease {lease} used something under no request id (entry {entry}), which may be a part of this "
    "request; correct it with 'ledger correct'"
)
CORRECTED_MEANWHILE = "others correct its entries at the same time; apply the bill again"
CORRECTED_SINCE = "this line was applied before, and the entry has been corrected otherwise since"


_TRIES = 100
"""How often a request is read again if another call corrected it between reading and writing.

Each try that fails means that another call went on, so that this is a bound, not a wait.
"""

_UNNAMED = (
    select(entries.c.seq)
    .where(
        entries.c.pool_id == bindparam("pool_id"),
        entries.c.lease.is_not(None),
        entries.c.lease == bindparam("lease"),
        entries.c.kind.in_(CORRECTABLE),
        entries.c.request_id.is_(None),
        or_(*(entries.c[f"usage_{name}"] > 0 for name in USAGE_FIELDS)),
    )
    .limit(1)
)


class _Now(NamedTuple):
    """A request as the journal has it now.

    Attributes:
        usages: The usage of each entry of the request, after all corrections.
        obstacle: Why a lease of the request prevents the correction, None if none does.
        applied: The axes on which the bill was applied to this request before.
    """

    usages: Sequence[Usage]
    obstacle: str | None
    applied: frozenset[str]


class _Pool(NamedTuple):
    """A pool to correct: its manager, for writing, and its journal, for reading in a snapshot."""

    budget: LedgerBudgetManager
    journal: PoolJournal


class _Step(NamedTuple):
    """One correction to append: an entry, the usage that it has, and the one it should have."""

    ref: EntryRef
    before: Usage
    usage: Usage


def apply(book: Ledger, found: Reconciliation) -> Reconciliation:
    """Append a correction for each request that differs, and return the outcome of each.

    The idempotency keys are made of the bill's hash, the request and the axes. So the same file
    changes nothing twice: if it is applied again, by another process at the same time, or after a
    crash half way. Applied by one axis, it can be applied by the others later.

    Raises:
        InvalidInputError: The reconciliation is `as_of` an earlier entry, or its bill has identical
            lines, of which it is not known whether each was billed; it cannot be applied.
        StoreError: The store failed. Corrections that were appended stay; the same call, repeated,
            appends the rest.
    """
    check_type("book", book, Ledger)
    check_type("found", found, Reconciliation)
    if found.as_of is not None:
        raise InvalidInputError("as_of", "the past is not corrected; apply without it")
    if found.identical is Identical.REFUSE and found.identical_lines:
        raise InvalidInputError(
            "identical",
            f"line {found.identical_lines[0]} repeats an earlier line in every cell, as where "
            "exports overlap; say 'once' if they are one line, 'add' if each was billed",
        )
    pools = {ref.pool for refs in found.correctable.values() for ref in refs}
    opened = _opened(book, pools)
    matches = [
        _applied(book, opened, found, match) if match.status is Status.DIFFERING else match
        for match in found.matches
    ]
    return replace(found, matches=matches)


def _opened(book: Ledger, names: Collection[str]) -> dict[str, _Pool]:
    found, _ = book.read(lambda connection: Directory(store_identity(connection)).all(connection))
    journals = {pool.info.name: pool for pool in found}
    return {name: _Pool(book.pool(name), journals[name]) for name in names}


def _applied(
    book: Ledger,
    pools: dict[str, _Pool],
    found: Reconciliation,
    match: Match,
) -> Match:
    try:
        outcome = _correct(book, pools, found, match)
    except UncorrectableEntryError as error:
        return _refused(match, str(error))
    return (
        replace(match, outcome=outcome)
        if isinstance(outcome, Outcome)
        else (_refused(match, outcome))
    )


def _refused(match: Match, reason: str) -> Match:
    return replace(match, outcome=Outcome.NOT_APPLIED, reason=reason)


def _correct(
    book: Ledger,
    pools: dict[str, _Pool],
    found: Reconciliation,
    match: Match,
) -> Outcome | str:
    """Correct a request; return the outcome, or the reason why nothing was written."""
    impossible = _impossible(found, match)
    if impossible is not None or match.request_id is None:
        return impossible or BY_DAY
    request = sha256(match.request_id.encode()).hexdigest()[:32]
    prefix = f"reconcile:{found.sha256}:{request}:"
    refs = found.correctable.get(match.request_id)
    if refs is None:
        return ASSUMED
    for _try in range(_TRIES):
        with suppress(EntryCorrectedError):
            return _corrected(book, pools, found, match, refs, prefix)
    return CORRECTED_MEANWHILE


def _corrected(
    book: Ledger,
    pools: dict[str, _Pool],
    found: Reconciliation,
    match: Match,
    refs: Sequence[EntryRef],
    prefix: str,
) -> Outcome | str:
    """Correct a request's entries from their present usage.

    Raises:
        EntryCorrectedError: An entry was corrected after it was read here.
    """
    # Read again, in one snapshot: other calls may have corrected these entries since `reconcile`.
    now = book.read(lambda connection: _now(connection, pools, refs, prefix))
    if now.obstacle is not None:
        return now.obstacle
    axes = [axis for axis in found.axes if axis not in now.applied]
    steps = [*_steps(refs, now.usages, match.billed, axes)]
    key = prefix + _code(axes)
    for step in steps:
        # The last correction has the request's own key. If that is in the journal, all are.
        own = key if step is steps[-1] else f"{key}:{step.ref.seq}"
        if not _write(pools[step.ref.pool].budget, step, _reason(found, match), own):
            return CORRECTED_SINCE
    if any(_rest(now.usages, match.billed, axis) for axis in now.applied & {*found.axes}):
        return CORRECTED_SINCE
    return Outcome.APPLIED if steps else Outcome.ALREADY_APPLIED


def _code(axes: Collection[str]) -> str:
    """Return a number for a set of axes: one bit each, in the order of the usage's fields."""
    return str(sum(1 << place for place, name in enumerate(USAGE_FIELDS) if name in axes))


_AXES_OF_CODE = {
    _code(axes): frozenset(axes)
    for count in range(1, len(USAGE_FIELDS) + 1)
    for axes in combinations(USAGE_FIELDS, count)
}


def _impossible(found: Reconciliation, match: Match) -> str | None:
    """Return why no entry can record the billed amounts, None if one can."""
    amounts = [getattr(match.billed, axis) for axis in found.axes]
    if min(amounts) < 0:
        return CREDIT
    return TOO_MUCH if max(amounts) > I64_MAX else None


def _now(
    connection: Connection,
    pools: dict[str, _Pool],
    refs: Sequence[EntryRef],
    prefix: str,
) -> _Now:
    journals = {ref.pool: pools[ref.pool].journal for ref in refs}
    usages, obstacle = [], None
    for ref in refs:
        pool = journals[ref.pool]
        usages.append(spending(connection, pool, ref.seq).usage)
        lease = pool.leases(connection, [ref.lease])[ref.lease]
        if lease.state.phase is not LeasePhase.ENDED:
            obstacle = OPEN.format(lease=ref.lease)
        parameters = {"pool_id": pool.info.pool_id, "lease": ref.lease}
        unnamed = connection.execute(_UNNAMED, parameters).scalar()
        if unnamed is not None:
            obstacle = obstacle or UNNAMED.format(lease=ref.lease, entry=unnamed)
    keys = [prefix + code for code in _AXES_OF_CODE]
    applied = [key for pool in journals.values() for key in pool.by_keys(connection, keys)]
    axes = [_AXES_OF_CODE[key.removeprefix(prefix)] for key in applied]
    return _Now(usages, obstacle, frozenset().union(*axes))


def _steps(
    refs: Sequence[EntryRef], usages: Sequence[Usage], billed: Amounts, axes: Sequence[str]
) -> Iterator[_Step]:
    """Yield the corrections after which the entries add up to the billed amounts.

    The last entry takes the difference. If that would take it below 0, the rest goes to the entry
    before it.
    """
    rest = {axis: _rest(usages, billed, axis) for axis in axes}
    for ref, usage in zip(reversed(refs), reversed(usages), strict=True):
        to = {}
        for axis in axes:
            before = getattr(usage, axis)
            to[axis] = max(before + rest[axis], 0)
            rest[axis] -= to[axis] - before
        after = replace(usage, **to)
        if after != usage:
            yield _Step(ref, usage, after)


def _rest(usages: Sequence[Usage], billed: Amounts, axis: str) -> int:
    """Return by how much the bill exceeds the entries."""
    return int(getattr(billed, axis) - sum(getattr(usage, axis) for usage in usages))


def _write(budget: LedgerBudgetManager, step: _Step, reason: str, key: str) -> bool:
    """Append a correction; return False if its key was used for another correction meanwhile."""
    try:
        budget.correct(step.ref.seq, step.usage, reason, idempotency_key=key, expected=step.before)
    except IdempotencyConflictError:
        return False
    return True


def _reason(found: Reconciliation, match: Match) -> str:
    more = f" and {match.lines - 1:,} more" if match.lines > 1 else ""
    return f"billed: {found.file}, SHA-256 {found.sha256}, line {match.line}{more}"
