"""The options that make a pool's policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import typer

from ledger.cli.filters import length_s
from ledger.cli.gathered import gathered
from ledger.cli.limits import LimitsOption
from ledger.cli.limits import changed as changed_limits
from ledger.cli.windows import (
    AnchorOption,
    CarryCapRequests,
    CarryCapTokens,
    CarryCapUsd,
    CarryOver,
    DeductOverage,
    TimeZone,
    WindowLength,
    amounts,
    window,
)
from ledger.core.axes import AXES, CAPACITIES, STOP_THRESHOLDS
from ledger.core.errors import InvalidInputError
from ledger.core.policy import (
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Unpriced,
    check_storable_policy,
)
from ledger.simulate import parse_count

CapacityTokens = Annotated[
    str | None, typer.Option(help="Capacity in tokens, or 'unlimited'.", show_default=False)
]
CapacityUsd = Annotated[
    str | None, typer.Option(help="Capacity in US dollars, or 'unlimited'.", show_default=False)
]
StopTokens = Annotated[
    str | None,
    typer.Option(
        "--stop-threshold-tokens",
        help="Stop threshold: tokens that are never granted.",
        show_default=False,
    ),
]
StopUsd = Annotated[
    str | None,
    typer.Option(
        "--stop-threshold-usd",
        help="Stop threshold: US dollars that are never granted.",
        show_default=False,
    ),
]
ThresholdsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="NAME=PERCENT",
        help="A named threshold: record when this percentage of a capacity is in use; NAME=off "
        "removes it. May be given again.",
        show_default=False,
    ),
]
CapacityRequests = Annotated[
    str | None, typer.Option(help="Capacity in calls, or 'unlimited'.", show_default=False)
]
StopRequests = Annotated[
    str | None,
    typer.Option(
        "--stop-threshold-requests",
        help="Stop threshold: calls that are never granted.",
        show_default=False,
    ),
]
LeaseTtlOption = Annotated[
    str | None,
    typer.Option(
        help="How long a lease holds its estimate: 90s, 5m, 1h, or 'none' for no limit.",
        show_default=False,
    ),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--lax",
        help="Strict: deny every call while the pool is at or below a stop threshold. Lax: deny "
        "only calls that would take it below.",
        show_default=False,
    ),
]
Settlement = Annotated[
    SettlementPolicy | None,
    typer.Option(
        metavar="POLICY",
        help="How a lease is ended whose usage was not recorded: settled as 'estimated' or as "
        "'observed', or 'release' gives it back.",
        show_default=False,
    ),
]

UnpricedCalls = Annotated[
    Unpriced | None,
    typer.Option(
        "--unpriced",
        metavar="POLICY",
        help="Whether to refuse a call that leaves out a figure which the pool limits, or to "
        "reserve and flag it: refuse, flag.",
        show_default=False,
    ),
]

Prepaid = Annotated[
    list[str] | None,
    typer.Option(
        "--prepaid",
        metavar="AXIS",
        help="The pool spends no more on this axis than 'pool credit' gave it: tokens, usd or "
        "requests; 'none' for no axis. May be given again.",
        show_default=False,
    ),
]


def policy(
    base: SharedPoolBudgetOptions,
    capacities: Sequence[str | None],
    stop_thresholds: Sequence[str | None],
    thresholds: Sequence[str] | None = None,
    lease_ttl: str | None = None,
    strict: bool | None = None,
    settlement: SettlementPolicy | None = None,
    unpriced: Unpriced | None = None,
) -> SharedPoolBudgetOptions:
    """Return `base` with the changes of a command's options, except those of its window and limits.

    Capacities and stop thresholds are the options of each axis, in the order of the axes.

    Raises:
        InvalidInputError: An option is no amount, percentage or length of time.
    """
    named = {"strict": strict, "settlement": settlement, "unpriced": unpriced}
    changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if lease_ttl is not None:
        changes["lease_ttl"] = None if lease_ttl == "none" else _length("lease_ttl", lease_ttl)
    changes |= amounts(CAPACITIES, capacities)
    changes |= amounts(STOP_THRESHOLDS, stop_thresholds, limits=False)
    if thresholds:
        changes["thresholds"] = _changed(base.thresholds, thresholds)
    return replace(base, **changes)


Changes = Callable[[SharedPoolBudgetOptions], SharedPoolBudgetOptions]
"""Returns a policy with the changes of a command's options."""


def changes(
    capacity_tokens: CapacityTokens = None,
    capacity_usd: CapacityUsd = None,
    stop_tokens: StopTokens = None,
    stop_usd: StopUsd = None,
    threshold: ThresholdsOption = None,
    capacity_requests: CapacityRequests = None,
    stop_requests: StopRequests = None,
    lease_ttl: LeaseTtlOption = None,
    strict: Strict = None,
    settlement: Settlement = None,
    unpriced: UnpricedCalls = None,
    length: WindowLength = None,
    time_zone: TimeZone = None,
    anchor: AnchorOption = None,
    carry_over: CarryOver = None,
    carry_cap_tokens: CarryCapTokens = None,
    carry_cap_usd: CarryCapUsd = None,
    carry_cap_requests: CarryCapRequests = None,
    deduct_overage: DeductOverage = None,
    limit: LimitsOption = None,
    prepaid: Prepaid = None,
) -> Changes:
    """Return what a command's options change in a policy, its window and limits included."""

    def changed(base: SharedPoolBudgetOptions) -> SharedPoolBudgetOptions:
        alone = policy(
            base,
            (capacity_tokens, capacity_usd, capacity_requests),
            (stop_tokens, stop_usd, stop_requests),
            threshold,
            lease_ttl=lease_ttl,
            strict=strict,
            settlement=settlement,
            unpriced=unpriced,
        )
        caps = (carry_cap_tokens, carry_cap_usd, carry_cap_requests)
        windowed = window(base.window, length, time_zone, anchor, carry_over, caps, deduct_overage)
        limits = changed_limits(base.limits, limit or ())
        credited = base.prepaid if prepaid is None else _prepaid(prepaid)
        whole = replace(alone, window=windowed, limits=limits, prepaid=credited)
        check_storable_policy(whole)  # before a store is made for it
        return whole

    return changed


changing = gathered("changed", changes)
"""Gives a command the options of a policy; the command gets their changes as `changed`."""


def _changed(base: Mapping[str, int], given: Sequence[str]) -> dict[str, int]:
    """Return thresholds after options have set or removed some."""
    thresholds = dict(base)
    for option in given:
        name, equals, percent = option.rpartition("=")
        if not equals:
            raise InvalidInputError("threshold", f"{option!r} is not NAME=PERCENT")
        if percent == "off":
            thresholds.pop(name, None)
        else:
            thresholds[name] = parse_count(f"threshold {name!r}", percent)
    return thresholds


def _prepaid(given: Sequence[str]) -> list[str]:
    """Return the axes that options name."""
    if list(given) == ["none"]:
        return []
    known = {axis.shown.lower(): axis.name for axis in AXES}
    for option in given:
        if option.lower() not in known:
            raise InvalidInputError(
                "prepaid", f"{option!r} is none of {', '.join(known)}; or write none"
            )
    return [known[option.lower()] for option in given]


def _length(name: str, text: str) -> timedelta:
    return timedelta(seconds=length_s(name, text))
