"""The policy of a pool: capacities, thresholds, and how its leases end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

from ledger.core.axes import AXES, CAPACITIES, STOP_THRESHOLDS, Axis, shown
from ledger.core.calendar import Window, check_storable_window, window_from_json, window_to_json
from ledger.core.checks import I64_MAX, U64_MAX, check_amount, check_text, check_type
from ledger.core.credits import check_prepaid
from ledger.core.errors import InvalidInputError
from ledger.core.limits import (
    Limit,
    check_limits,
    check_storable_limit,
    limit_from_json,
    limit_to_json,
)

LEASE_TTL_MAX = timedelta(days=3_650)
THRESHOLDS_MAX = 8
"""How many thresholds a pool has at most. One entry may cross all of them, and each crossing is an
entry."""
THRESHOLD_NAME_MAX_CHARS = 64

_MICROSECOND = timedelta(microseconds=1)


class SettlementPolicy(StrEnum):
    """How a lease is ended if its usage was not recorded.

    Its hold ended by time-out, or its `with` block was left without a record.
    """

    ESTIMATED = "estimated"
    """The larger of the observed and the estimated usage is charged."""
    OBSERVED = "observed"
    """The observed usage is charged, and the lease counts as a call that was made."""
    RELEASE = "release"
    """What the lease holds is given back; observed usage stays committed."""


class Unpriced(StrEnum):
    """How a call is treated that uses something on a limited axis, although it says 0 there.

    In a policy it applies to all calls of the pool. In the `RequestExtensions` it applies to one
    reservation, in place of what the policies say.
    """

    REFUSE = "refuse"
    """The reservation raises `UnpricedCallError`."""
    FLAG = "flag"
    """The reservation is made as given, and its entries are flagged."""


class Thresholds(Mapping[str, int]):
    """Named percentages of a capacity, lowest first; immutable."""

    __slots__ = ("_percents",)

    def __init__(self, percents: Mapping[str, int]) -> None:
        self._percents = dict(sorted(percents.items(), key=lambda item: (item[1], item[0])))

    def __getitem__(self, name: str) -> int:
        return self._percents[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._percents)

    def __len__(self) -> int:
        return len(self._percents)

    def __hash__(self) -> int:
        return hash(tuple(self._percents.items()))

    def __repr__(self) -> str:
        return repr(self._percents)

    def __reduce__(self) -> tuple[type[Thresholds], tuple[dict[str, int]]]:
        # The older protocols of pickle do not support slots.
        return Thresholds, (self._percents,)

    def __str__(self) -> str:
        return ", ".join(f"{name} {percent} %" for name, percent in self._percents.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPoolBudgetOptions:
    """A pool's policy.

    A reservation is denied if it would leave less than a stop threshold on any of the three axes:
    tokens, cost and requests.

    Attributes:
        capacity_tokens: 0 .. 2^64-1, like all amounts here; `U64_MAX` is unlimited.
        capacity_cost_micros_usd: In millionths of a US dollar; `U64_MAX` is unlimited.
        stop_threshold_tokens: How many tokens are kept back.
        stop_threshold_cost_micros_usd: How much is kept back, in millionths of a US dollar.
        capacity_requests: How many calls may be open or settled; `U64_MAX` is unlimited.
        stop_threshold_requests: How many of them are kept back.
        strict: Deny every reservation, one of nothing included, while what remains is at or below
            a stop threshold.
        lease_ttl: How long a lease holds its estimate unless it is renewed: above 0 and at most ten
            years; None is for ever.
        settlement: How a lease is ended if its usage was not recorded, because its hold expired or
            its `with` block was left.
        thresholds: Named percentages (1 to 100, at most eight) of a capacity that is committed or
            reserved. They deny nothing: crossing one is reported.
        window: How often the capacities are restored; None is never.
        unpriced: How a reservation is treated that gives tokens without a cost, or parts without a
            total, if the pool limits the missing amount.
        limits: At most eight more limits, each with a period of its own. A reservation must fit
            into all of them.
        prepaid: The axes (`tokens`, `cost_micros_usd`, `requests`) on which the pool may spend no
            more than its credits, beside its capacity and its limits; see `Ledger.credit`.
    """

    capacity_tokens: int = U64_MAX
    capacity_cost_micros_usd: int = U64_MAX
    stop_threshold_tokens: int = 0
    stop_threshold_cost_micros_usd: int = 0
    capacity_requests: int = U64_MAX
    stop_threshold_requests: int = 0
    strict: bool = False
    lease_ttl: timedelta | None = None
    settlement: SettlementPolicy = SettlementPolicy.ESTIMATED
    thresholds: Mapping[str, int] = Thresholds({})
    window: Window | None = None
    unpriced: Unpriced = Unpriced.REFUSE
    limits: Sequence[Limit] = ()
    prepaid: Collection[str] = ()
    __repr__ = shown

    def __post_init__(self) -> None:
        for name in (*CAPACITIES, *STOP_THRESHOLDS):
            check_amount(name, getattr(self, name))
        check_type("strict", self.strict, bool)
        if self.lease_ttl is not None:
            check_ttl("lease_ttl", self.lease_ttl)
        for name, choices in (("settlement", SettlementPolicy), ("unpriced", Unpriced)):
            chosen = getattr(self, name)
            if chosen not in list(choices):
                raise InvalidInputError(name, f"must be one of {', '.join(choices)}")
            object.__setattr__(self, name, choices(chosen))
        object.__setattr__(self, "thresholds", _check_thresholds(self.thresholds))
        if self.window is not None:
            check_type("window", self.window, Window)
        object.__setattr__(self, "limits", check_limits(self.limits))
        object.__setattr__(self, "prepaid", check_prepaid(self.prepaid))

    def __str__(self) -> str:
        limits = [
            f"{' and '.join(self._limit(axis) for axis in axes)}, keeping back "
            f"{' and '.join(self._kept(axis) for axis in axes)}"
            for axes in (
                [axis for axis in AXES if not axis.only_if_limited],
                *(
                    [axis]
                    for axis in AXES
                    if axis.only_if_limited
                    and not (axis.is_unlimited(self) and getattr(self, axis.stop_threshold) == 0)
                ),
            )
        ]
        text = ", ".join(limits)
        if self.strict:
            text += ", strict"
        if self.lease_ttl is not None:
            text += f", leases expiring after {self.lease_ttl}"
        if self.settlement is not SettlementPolicy.ESTIMATED:
            text += f", unrecorded leases {self.settlement}"
        if self.unpriced is not Unpriced.REFUSE:
            text += ", unpriced calls flagged"
        if self.thresholds:
            text += f", reporting {self.thresholds}"
        if self.window is not None:
            text += f", in windows of {self.window}"
        for limit in self.limits:
            text += f", with limit {limit}"
        if self.prepaid:
            text += f", spending credits of {' and '.join(self.prepaid)}"
        return text

    def is_unlimited(self, axis: Axis) -> bool:
        """Tell whether neither the capacity nor credits limit an axis; other limits may."""
        return axis.is_unlimited(self) and axis.name not in self.prepaid

    def _limit(self, axis: Axis) -> str:
        limit = "unlimited" if axis.is_unlimited(self) else f"{getattr(self, axis.capacity):,}"
        return f"{limit} {axis.unit}"

    def _kept(self, axis: Axis) -> str:
        return f"{getattr(self, axis.stop_threshold):,} {axis.unit}"


_ALWAYS = {
    name
    for axis in AXES
    if not axis.only_if_limited
    for name in (axis.capacity, axis.stop_threshold)
}
"""The fields that a stored policy always has; others are stored only if not the default."""


def _check_thresholds(thresholds: object) -> Thresholds:
    if not isinstance(thresholds, Mapping) or len(thresholds) > THRESHOLDS_MAX:
        raise InvalidInputError(
            "thresholds", f"must be a mapping of at most {THRESHOLDS_MAX} names to percentages"
        )
    for name, percent in thresholds.items():
        check_text("threshold", name, max_chars=THRESHOLD_NAME_MAX_CHARS)
        if isinstance(percent, bool) or not isinstance(percent, int) or not 1 <= percent <= 100:  # noqa: PLR2004 - a percentage
            raise InvalidInputError(f"threshold {name!r}", "must be a whole number from 1 to 100")
    return Thresholds(thresholds)


def check_ttl(name: str, ttl: object) -> int:
    """Return a time to live in microseconds.

    Raises:
        InvalidInputError: It is no timedelta, or not above 0 and at most ten years.
    """
    if not isinstance(ttl, timedelta):
        raise InvalidInputError(name, f"must be a timedelta, not {type(ttl).__name__}")
    if not timedelta(0) < ttl <= LEASE_TTL_MAX:
        raise InvalidInputError(name, f"must be above 0 and at most {LEASE_TTL_MAX.days} days")
    return ttl // _MICROSECOND


def check_storable_policy(options: SharedPoolBudgetOptions) -> None:
    """Refuse a policy that a store cannot hold.

    Raises:
        AmountOutOfRangeError: An amount is above 2^63-1 and not an unlimited capacity.
    """
    for name in CAPACITIES:
        if getattr(options, name) != U64_MAX:
            check_amount(name, getattr(options, name), ceiling=I64_MAX)
    for name in STOP_THRESHOLDS:
        check_amount(name, getattr(options, name), ceiling=I64_MAX)
    if options.window is not None:
        check_storable_window(options.window)
    for limit in options.limits:
        check_storable_limit(limit)


def check_carved(options: SharedPoolBudgetOptions) -> None:
    """Refuse a policy that would let a carved pool spend more than was set aside for it.

    Raises:
        InvalidInputError: It has a window, so its capacity would be restored.
    """
    if options.window is not None:
        raise InvalidInputError(
            "window", "a carved pool has none: its capacity is set aside once and for all"
        )


def policy_to_json(policy: SharedPoolBudgetOptions) -> dict[str, Any]:
    """Return a policy as it is stored: an unlimited capacity is null, times in microseconds."""
    return {
        name: to_json(value) if to_json else value
        for name, value, default, to_json in (
            (part.name, getattr(policy, part.name), part.default, _TO_JSON.get(part.name))
            for part in fields(policy)
        )
        if name in _ALWAYS or value != default
    }


def policy_from_json(values: Mapping[str, Any]) -> SharedPoolBudgetOptions:
    """Return a policy from its stored form.

    Raises:
        InvalidInputError: A value that a policy cannot have.
        TypeError: A field that policies do not have.
    """
    return SharedPoolBudgetOptions(
        **{
            name: _FROM_JSON[name](value) if name in _FROM_JSON else value
            for name, value in values.items()
        }
    )


def _capacity_to_json(capacity: int) -> int | None:
    return None if capacity == U64_MAX else capacity


def _capacity_from_json(capacity: int | None) -> int:
    return U64_MAX if capacity is None else capacity


_TO_JSON: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(CAPACITIES, _capacity_to_json),
    "lease_ttl": lambda ttl: ttl // _MICROSECOND,
    "thresholds": dict,
    "window": window_to_json,
    "limits": lambda limits: [limit_to_json(one) for one in limits],
    "prepaid": list,
}
_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(CAPACITIES, _capacity_from_json),
    "lease_ttl": lambda ttl_us: ttl_us * _MICROSECOND,
    "window": window_from_json,
    "limits": lambda limits: [limit_from_json(one) for one in limits],
}
