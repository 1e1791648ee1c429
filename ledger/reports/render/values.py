"""How single figures, times and names are shown to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction

from rich.text import Text

from ledger.core.axes import AXES, Axis
from ledger.core.entries import Totals
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.status import Standby
from ledger.reports.due import DueLeases
from ledger.reports.render.text_formats import printable

_MICROS = 1_000_000
_BARS = "▁▂▃▄▅▆▇█"


def usd(micros: int) -> str:
    """Return millionths of a US dollar as dollars, every digit kept: `1,234.567890`."""
    sign, amount = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{amount // _MICROS:,}.{amount % _MICROS:06d}"


def figure(axis: Axis, amount: int | None) -> str:
    """Return an amount on an axis as people see it, `unlimited` where it is None."""
    if amount is None:
        return "unlimited"
    return f"{amount:,}" if axis.scale == 1 else usd(amount)


def capacity(axis: Axis, policy: SharedPoolBudgetOptions) -> str:
    """Return the capacity that a policy gives an axis as people see it.

    Without one it is what bounds the axis all the same: credits, or limits.
    """
    if axis.is_unlimited(policy):
        if axis.name in policy.prepaid:
            return "prepaid"
        if policy.limits and _is_limited(axis, policy):
            return "by limits"
    return figure(axis, axis.limit(policy))


def figures(axes: Iterable[Axis], amounts: Totals) -> list[str]:
    """Return amounts on some axes as people see them."""
    return [figure(axis, getattr(amounts, axis.name)) for axis in axes]


def in_words(axes: Iterable[Axis], amounts: Iterable[int | None]) -> str:
    """Return amounts on some axes in a sentence: `5 tokens, 1.000000 USD and 2 requests`."""
    parts = [
        f"{figure(axis, amount)} {axis.shown}" for axis, amount in zip(axes, amounts, strict=True)
    ]
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def shown_axes(policies: Iterable[SharedPoolBudgetOptions]) -> list[Axis]:
    """Return the axes that people are shown of pools under these policies."""
    limited = list(policies)
    return [
        axis
        for axis in AXES
        if not axis.only_if_limited
        or any(
            not policy.is_unlimited(axis) or (policy.limits and _is_limited(axis, policy))
            for policy in limited
        )
    ]


def _is_limited(axis: Axis, policy: SharedPoolBudgetOptions) -> bool:
    """Tell whether a limit beside the capacity bounds an axis."""
    return not all(axis.is_unlimited(limit) for limit in policy.limits)


def moment(at: datetime | None) -> str:
    """Return a time in UTC to the second, as ISO 8601 writes it; nothing if there is none."""
    return "" if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def behind(standby: Standby | None) -> str:
    """Return in words how far behind a standby is, an empty text if the store is none."""
    if standby is None:
        return ""
    until = standby.replayed_until
    if until is None:
        return "Read from a standby that has replayed nothing since it started"
    seconds = max(0, int((standby.at - until).total_seconds()))
    return (
        f"Read from a standby that has what was committed until {moment(until)}, "
        f"{duration(seconds)} ago"
    )


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 entry`, `2 entries`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def not_yet_charged(found: DueLeases) -> list[str]:
    """Return in words which leases are due and not charged yet, and what charges them."""
    if not any(found.charged):
        return []
    axes = [axis for axis in AXES if axis.amount is not None]
    amounts = in_words(axes, [getattr(found.charged, axis.name) for axis in axes])
    are = "lease is" if found.leases == 1 else "leases are"
    return [f"{found.leases:,} {are} due and not yet charged with {amounts}: run 'ledger expire'"]


def decimal(value: Fraction, places: int) -> str:
    """Return a fraction with so many decimal places, rounded half to even."""
    scaled = round(value * 10**places)
    sign, amount = ("-", -scaled) if scaled < 0 else ("", scaled)
    whole, part = divmod(amount, 10**places)
    return f"{sign}{whole:,}.{part:0{places}d}" if places else f"{sign}{whole:,}"


def duration(seconds: int) -> str:
    """Return a length of time in its two largest units: `3d 4h`, `59s`."""
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count:,}{unit}")
    return " ".join(parts[:2]) or "0s"


def sparkline(amounts: Sequence[int], *, width: int = 60) -> str:
    """Return amounts as a line of bars; only the last `width` of them if there are more.

    The largest amount has the highest bar; 0 and negative amounts have the lowest one.
    """
    shown = amounts[-width:]
    top = max([*shown, 0])
    steps = len(_BARS) - 1
    # Rounded up, so that only 0 and less look like 0.
    return "".join(_BARS[-(-max(0, amount) * steps // top) if top else 0] for amount in shown)


def text(value: str | None) -> Text:
    """Return a name as text: square brackets in it are not rich's markup."""
    return Text("(none)", style="dim") if value is None else Text(printable(value))
