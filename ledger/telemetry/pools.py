"""The metrics of pools: one table, for OpenTelemetry and for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ledger.core.axes import AXES, Axis
from ledger.core.errors import LedgerError, LeftOut, UnknownPoolError
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.meter import Meter, Reading

_log = logging.getLogger(__name__)


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: As OpenTelemetry has it; Prometheus has underscores.
        unit: Its unit by UCUM, in braces if UCUM has none.
        says: What it means.
        value: Returns it for a pool, None if the pool has no such value.
        grows: Whether it never decreases.
    """

    name: str
    unit: str
    says: str
    value: Callable[[Reading], int | None]
    grows: bool = False


def _on(axis: Axis) -> Iterator[Metric]:
    """Return the metrics of an axis. Without a limit there is no capacity and no remainder."""
    unit = "{" + axis.unit.replace("-", "_") + "}"
    spoken = "millionths of a US dollar" if axis.scale > 1 else axis.unit

    def shown(what: str, says: str, value: Callable[[Reading], int | None]) -> Metric:
        return Metric(f"ledger.pool.{what}.{axis.name}", unit, f"{says}, in {spoken}.", value)

    yield shown("capacity", "What may be spent", lambda one: axis.limit(one.status.policy))
    yield shown(
        "remaining", "What is left, here and above", lambda one: axis.left(one.status.reservable)
    )
    yield shown(
        "spent", "What was spent in the present window", lambda one: _of(one.status.spent, axis)
    )
    yield shown(
        "committed",
        "What was spent from the opening on; corrections may lower it",
        lambda one: _of(one.status.balance.committed, axis),
    )
    yield shown("held", "What open leases hold", lambda one: _of(one.status.balance.reserved, axis))


def _of(totals: object, axis: Axis) -> int:
    return int(getattr(totals, axis.name))


def _counted(name: str, counted: str, says: str) -> Metric:
    return Metric(
        f"ledger.pool.{name}", "{call}", says, lambda one: one.counted[counted], grows=True
    )


METRICS = (
    *(metric for axis in AXES for metric in _on(axis)),
    Metric(
        "ledger.pool.open_leases",
        "{lease}",
        "Leases that the pool granted and that hold something.",
        lambda one: one.open_leases,
    ),
    _counted("admitted", "requests", "Calls that the pool admitted."),
    _counted("denials", "denied", "Denials that the pool keeps in its journal."),
    _counted("releases", "releases", "Calls that ended unused."),
    _counted("expiries", "expiries", "Holds that ended by time-out."),
    _counted("late", "late", "Entries about leases whose hold had expired."),
    _counted("overruns", "overruns", "Entries by which a call used more than was reserved for it."),
    _counted("unpriced", "unpriced", "Entries that leave out a figure which the pool limits."),
    _counted("corrections", "corrections", "Corrections."),
)


class Pools:
    """Reads pools for the metrics. If that fails, it is logged, and there are then no pools."""

    def __init__(self, book: Ledger, where: Where = EVERYTHING) -> None:
        self._meter = Meter(book, where)
        self.available = False
        """Whether the last reading succeeded."""
        self.left_out: LeftOut = []
        """The errors of the damaged pools that the last reading left out."""

    def read(self) -> list[Reading]:
        """Return the present state of pools; none if the store cannot be read, which is logged.

        Raises:
            UnknownPoolError: There is no pool of a name that was asked for.
        """
        lost: LeftOut = []
        try:
            found = self._meter.read(left_out=lost)
        except UnknownPoolError:
            raise
        except LedgerError as error:
            _log.warning("pools cannot be read for metrics: %s", error)
            self.available, self.left_out = False, []
            return []
        self.available, self.left_out = True, lost
        return found
