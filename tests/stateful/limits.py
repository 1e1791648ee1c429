"""Limits by plain sums over all entries: slow, and short enough to be seen to be right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ledger import (
    Balance,
    Limit,
    LimitStatus,
    Remaining,
    Rolling,
    SharedPoolBudgetOptions,
    Totals,
    UsageEstimate,
    from_micros,
)
from ledger.core import calendar, rules
from ledger.core.axes import AXES, U64_MAX
from ledger.core.checks import Micros
from ledger.core.rules.limits import Refusal


class PlainLimits(rules.Limits):
    """The limits of a policy at one time; no search, no history that is kept in order."""

    def __init__(
        self,
        policy: SharedPoolBudgetOptions,
        at: Micros,
        points: Sequence[rules.Point],
        moves: Sequence[rules.Move],
    ) -> None:
        self.policy = policy
        self.at = at
        self.points = points
        self.moves = [one for one in moves if isinstance(one, rules.Moved)]
        self.dated = [one for one in moves if isinstance(one, rules.Dated)]

    def counted(self, limit: Limit, balance: Balance, at: Micros) -> Totals:
        """Return what counts at a time: what was committed since it began, and what is held."""
        since = rules.since(limit, at)
        before = [one for one in self.points if one.at < since]
        newest = before[-1].seq if before else 0
        spent = balance.committed.minus(before[-1].committed if before else Totals())
        for of in {one.of for one in self.moves if one.of <= newest}:
            sums = [Totals()]
            for one in self.moves:
                if one.of == of and one.seq > newest:
                    sums.append(sums[-1].plus(one.by))
            spent = spent.minus(Totals(*map(min, zip(*sums, strict=True))))
        for late in self.dated:
            if late.seq > newest and late.at < since:
                spent = spent.minus(late.by)
        return spent.plus(balance.reserved)

    def states(self, balance: Balance) -> Iterator[LimitStatus]:
        """Yield how far each limit is used."""
        for limit in self.policy.limits:
            counted = self.counted(limit, balance, self.at)
            left = self.left(limit, counted)
            yield LimitStatus(
                limit=limit,
                since=from_micros(rules.since(limit, self.at)),
                until=None
                if isinstance(limit.period, Rolling)
                else calendar.begins(limit.period, calendar.number(limit.period, self.at) + 1),
                counted=counted,
                remaining=Remaining(
                    left.tokens,
                    left.cost_micros_usd,
                    0 in left,
                    left.requests,
                    frozenset(axis.name for axis in AXES if axis.is_unlimited(limit)),
                ),
            )

    def left(self, limit: Limit, counted: Totals) -> Totals:
        """Return what is left of a limit, where so much counts."""
        found = [
            min(max(0, getattr(limit, axis.capacity) - used), U64_MAX)
            for axis, used in zip(AXES, counted, strict=True)
        ]
        if limit.capacity_requests == U64_MAX:
            found[2] = U64_MAX
        return Totals(*found)

    def refusals(
        self, balance: Balance, estimate: UsageEstimate, requests: int
    ) -> Iterator[Refusal]:
        """Yield each limit that refuses a reservation."""
        for limit in self.policy.limits:

            def admits(counted: Totals, limit: Limit = limit) -> bool:
                asked = Totals.of(estimate, requests=requests)
                left = self.left(limit, counted)
                limited = [axis for axis in AXES if not axis.is_unlimited(limit)]
                over = any(
                    getattr(counted, axis.name) > getattr(limit, axis.capacity) for axis in limited
                )
                uses = estimate != UsageEstimate.zero()
                used_up = self.policy.strict and 0 in left
                return min(left.minus(asked)) >= 0 and not used_up and not (over and uses)

            counted = self.counted(limit, balance, self.at)
            if admits(counted):
                continue
            length = limit.period
            if isinstance(length, Rolling):
                moments = sorted({one.at for one in (*self.points, *self.dated)})
                times = [Micros(at + length.length_us) for at in moments]
                times.append(Micros(self.at + length.length_us))
            else:
                times = [calendar.begins(length, calendar.number(length, self.at) + 1)]
            frees_at = None
            if admits(balance.reserved):
                frees_at = next(
                    then
                    for then in times
                    if then > self.at and admits(self.counted(limit, balance, then))
                )
            never = not admits(Totals())
            over = {
                axis.name: amount - whole
                for axis, amount in zip(AXES, counted, strict=True)
                if (whole := axis.limit(limit)) is not None and amount > whole
            }
            yield Refusal(limit, self.left(limit, counted), frees_at, never, over)
