"""The burn-down report: how a pool's balance moved, as a bounded number of points.

Every entry carries running totals, so each point is an exact balance from the journal. Only the
lines that a picture draws between two points are approximate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ledger.core import rules
from ledger.core.axes import AXES
from ledger.core.checks import Micros, check_amount, from_micros, to_micros
from ledger.core.entries import Balance, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.ledger import Ledger
from ledger.reports.filters import Filter, TimeBasis
from ledger.reports.position import SIDES, Position, asked_moment, unpriced_in
from ledger.reports.scopes import Scope, Shape, snapshot
from ledger.reports.standing import journals_in, own_in
from ledger.reports.stream import ends
from ledger.store.bounds import Bounds, credits_at
from ledger.store.history import StoredHistory
from ledger.store.policies import Terms
from ledger.store.rows import balance_of
from ledger.store.schema import entries
from ledger.store.statements import Prepared, rows_of_each
from ledger.store.statuses import ends_of, states_of

POINTS = 240
"""How many entries are read by default: about one for every three pixels of a picture."""
_POINTS_MAX = 10_000
"""The largest number of entries that may be asked for."""
_CHANGES = 32
"""How many changes without an entry, such as ends of windows, are computed in a row at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnPoint:
    """A pool after one of its entries, or as time changed it since.

    Attributes:
        seq: The newest entry at that time.
        at: Its time, never earlier than the time of the point before it.
        balance: What was committed and held.
        capacity_tokens: The capacity then, None if it had no limit.
        capacity_cost_micros_usd: The same in millionths of a US dollar.
        stop_threshold_tokens: How many tokens were kept back then.
        stop_threshold_cost_micros_usd: The same in millionths of a US dollar.
        remaining_tokens: The least that was left of the pool's own capacity, limits and credits;
            None if none of them limited it.
        remaining_cost_micros_usd: The same in millionths of a US dollar.
        capacity_requests: How many calls the pool took then, None if it had no limit.
        stop_threshold_requests: How many of them were kept back.
        remaining_requests: How many more calls it took, None if it had no limit.
    """

    seq: int
    at: datetime
    balance: Balance
    capacity_tokens: int | None
    capacity_cost_micros_usd: int | None
    stop_threshold_tokens: int
    stop_threshold_cost_micros_usd: int
    remaining_tokens: int | None
    remaining_cost_micros_usd: int | None
    capacity_requests: int | None
    stop_threshold_requests: int
    remaining_requests: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnDown:
    """How a pool was spent.

    Attributes:
        pool: The pool's name.
        basis: Which time of an entry counts.
        points: The points in the order of entries. The last is the pool at present, or after
            `as_of`.
        policy: The policy at the last point.
        opened_at: When the pool was opened. Calls that are dated before it have earlier points.
        unpriced: How many records of usage until then leave out a figure that the pool limits, and
            were not corrected by then: less is left in truth than stated.
    """

    pool: str
    basis: TimeBasis
    policy: SharedPoolBudgetOptions
    opened_at: datetime
    points: list[BurnPoint]
    unpriced: int = 0


def burn_down(
    book: Ledger,
    pool: str,
    *,
    points: int = POINTS,
    as_of: int | None = None,
    basis: TimeBasis = TimeBasis.OCCURRED,
) -> BurnDown:
    """Return how a pool's balance moved from its opening on, in a bounded number of points.

    Entries are read at even distances by number, so a long history costs no more than a short one,
    and busy times have more points than quiet ones. The entries that set the policy or began the
    window of one of them are points, too. Mirrors of other pools' entries have moved the balance
    and are included. If a window ended, a credit expired or less counted on a limit while nothing
    was written, extra points show what was left then. If leases are due, the last point shows what
    is left once they have expired.

    A balance exists only in the order in which entries were recorded. By `basis` a point has the
    time at which its call happened, but never a time earlier than the point before it. The
    opening has the earliest time of all points.

    Args:
        book: The store.
        pool: The pool's name.
        points: About how many entries are looked at: 2 to 10,000.
        as_of: The last entry that counts.
        basis: Which time of an entry counts.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: `as_of` is an entry that the pool does not have yet.
        AmountOutOfRangeError: So many points cannot be asked for.
        JournalDamagedError: The policy in force cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    check_amount("points", points, ceiling=_POINTS_MAX)
    where = Filter(pools=[pool], as_of=as_of, basis=basis)
    now = asked_moment(book, where, None)

    def query(connection: Connection, scope: Scope) -> BurnDown:
        found, last, opened = _points(connection, scope, max(2, points), _Bounds(connection, scope))
        if now is not None:
            found += _by_now(connection, scope, found[-1], last, now)
        unpriced = unpriced_in(connection, scope)
        return BurnDown(
            pool=pool,
            basis=basis,
            policy=last.policy,
            opened_at=from_micros(opened),
            points=found,
            unpriced=unpriced,
        )

    return snapshot(book, where, query, mirrors=True)


class _Bounds:
    """The limits and credits of a pool at its entries, which are asked for in order."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self._read = partial(rows_of_each, connection)
        self._pool = journals_in(scope)[scope.pool]
        self._history = StoredHistory(self._read, self._pool.info, upto=0)

    def by(self, stood: Position, at: Micros) -> Position:
        """Return a pool at a time at or after its newest entry, if nothing was written since."""
        self._history.upto = stood.seq
        policy = stood.policy
        credits = credits_at(self._read, self._pool, policy, stood.policy_seq, at, self._history)
        limits = rules.Limits(policy, at, self._history) if policy.limits else None
        return stood._replace(recorded_at=at, credits=credits, limits=limits)


def _points(
    connection: Connection, scope: Scope, count: int, bounds: _Bounds
) -> tuple[list[BurnPoint], Position, Micros]:
    """Return a point for each entry that was read, the pool at the last, and its opening."""
    newest = ends(connection, scope)[scope.pool]
    steps = min(count, newest) - 1
    seqs = {1 + (newest - 1) * step // steps for step in range(steps + 1)} if steps else {newest}
    seqs |= {min(2, newest)}  # the first call
    rows = _rows(connection, scope, seqs)
    # If the policy or window changed between two points, the later point names the entry that set
    # it. That entry and the one before it become points, so the change is shown where it happened.
    terms = Terms(scope.pool, scope.pools[scope.pool])
    named = {row[name] for row in rows for name in ("policy_seq", "window_seq")} - {None}
    # A window may be named by a correction that changed its base.
    windows = {row["window_seq"] for row in rows} - {None}
    named |= {terms.began(connection, seq) for seq in windows}
    missing = {seq for name in named for seq in (name - 1, name) if seq >= 1} - seqs
    rows = sorted(rows + _rows(connection, scope, missing), key=lambda row: int(row["seq"]))
    latest = min(row["at"] for row in rows)
    found: list[BurnPoint] = []
    before: Position | None = None
    for row in rows:
        stood = bounds.by(_position(row, *terms.of(connection, row)[:2]), row["recorded_at"])
        # The opening is not a call, so its point takes the earliest time of all points.
        at = max(latest, row["at"]) if row["seq"] > 1 else latest
        # Between two entries that are not neighbours, others may have changed what is freed.
        if before is not None and before.seq + 1 == row["seq"]:
            for changed in _between(before, stood, bounds):
                latest = min(max(latest, changed.recorded_at), at)
                found.append(_point(changed, latest))
        found.append(_point(stood, at))
        latest, before = at, stood
    assert before is not None  # noqa: S101 - a pool has its opening
    return found, before, Micros(rows[0]["recorded_at"])


def _between(before: Position, stood: Position, bounds: _Bounds) -> Iterator[Position]:
    """Yield the changes of a pool between two neighbouring entries.

    Between two windows these are the end of the first, and then changes in the next one.
    """
    now = before
    for _ in range(_CHANGES):
        now = bounds.by(now, now.recorded_at)
        said = Bounds(now.limits, now.credits)
        ends = ends_of(now, said, states_of(now, said))
        over = _is_over(now, stood)
        later = (end for end in ends if now.window is None or over or end != now.window.end)
        end = min((end for end in later if now.recorded_at < end), default=None)
        if end is None or end > stood.recorded_at:
            return
        window = now.window
        if window is not None and over:
            at = now.policy, window, now.balance, end
            window = rules.current_window(*at, recorded_at=end)
        changed = bounds.by(now._replace(window=window), end)
        if changed.remaining != now.remaining:
            yield changed
        now = changed


def _is_over(before: Position, after: Position) -> bool:
    """Tell whether a window ended and another one began."""
    ended, window = before.window, after.window
    return ended is not None and window is not None and ended[:2] != window[:2]


def _by_now(
    connection: Connection, scope: Scope, last: BurnPoint, newest: Position, now: Micros
) -> Iterator[BurnPoint]:
    """Yield the changes of a pool since its newest entry."""
    moment, refilled = newest.recorded_at, False
    for step in range(_CHANGES + 1):
        head, bounds = own_in(connection, scope, moment)
        own = newest._replace(balance=head.balance, window=head.window)
        own = own._replace(credits=bounds.credits, limits=bounds.limits)
        point = _point(own, max(moment, to_micros("at", last.at)))
        if replace(point, at=last.at) != last:
            yield point
            last = point
        if moment >= now:
            return
        ends = ends_of(head, bounds, states_of(head, bounds))
        # Of windows that ended without an entry only the first is computed, since each reads the
        # pool.
        window_end = None if head.window is None else head.window.end
        later = (
            end for end in ends if moment < end <= now and not (refilled and end == window_end)
        )
        moment = min(later, default=now) if step < _CHANGES - 1 else now
        refilled = refilled or moment == window_end


@cache
def _row(basis: TimeBasis) -> Prepared:
    e, at = entries.c, Shape(asked=frozenset(), basis=basis, mirrors=True).at
    columns = (e.seq, e.recorded_at, e.policy_seq, e.window_seq, *(e[name] for name in SIDES))
    return Prepared(
        select(at.label("at"), *columns).where(
            e.pool_id == bindparam("pool_id"), e.seq == bindparam("seq")
        )
    )


def _rows(connection: Connection, scope: Scope, seqs: set[int]) -> list[dict[str, Any]]:
    query = _row(scope.where.basis)
    asked = [(query, {"pool_id": scope.pool, "seq": seq}) for seq in sorted(seqs)]
    return [row for rows in rows_of_each(connection, asked) for row in rows]


def _position(
    row: dict[str, Any], policy: SharedPoolBudgetOptions, window: WindowState | None
) -> Position:
    balance = balance_of(row)
    return Position(
        seq=row["seq"],
        recorded_at=row["recorded_at"],
        balance=balance,
        policy=policy,
        # Between two sessions it is the session that a call would begin.
        window=rules.begin_session(policy, window, balance, row["recorded_at"]) or window,
        policy_seq=row["policy_seq"],
    )


def _point(stood: Position, at: int) -> BurnPoint:
    left, policy = stood.remaining, stood.policy
    of_axes: dict[str, Any] = {}
    for axis in AXES:
        of_axes[axis.capacity] = axis.limit(policy)
        of_axes[axis.stop_threshold] = getattr(policy, axis.stop_threshold)
        of_axes[f"remaining_{axis.name}"] = axis.left(left)
    return BurnPoint(seq=stood.seq, at=from_micros(at), balance=stood.balance, **of_axes)
