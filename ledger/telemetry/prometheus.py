"""The metrics for Prometheus: the state of pools, and what happened in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ledger.core.errors import LeftOut, MissingExtraError
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.telemetry.pools import METRICS, Pools

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


class PoolCollector:
    """Pools, for a registry of `prometheus_client`: `REGISTRY.register(PoolCollector(book))`.

    Each scrape reads the store once, and counts only the entries since the scrape before. If the
    store cannot be read, `ledger_store_available` is 0 and there are no pools.
    """

    def __init__(self, book: Ledger, where: Where = EVERYTHING) -> None:
        """Choose the store and the pools.

        Args:
            book: The store.
            where: Which pools, or the name of one.

        Raises:
            MissingExtraError: prometheus_client is not installed.
        """
        try:
            from prometheus_client import core  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(what="prometheus-client", extra="metrics") from error
        self._core = core
        self._pools = Pools(book, where)

    @property
    def left_out(self) -> LeftOut:
        """The errors of the damaged pools that the last scrape left out."""
        return self._pools.left_out

    def registry(self) -> CollectorRegistry:
        """Return a registry with only this collector."""
        found = self._core.CollectorRegistry()
        found.register(self)
        return found

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, for a registry; the store is not read.

        Without this method a registry would call `collect`, and read the store, at registration.
        """
        return [self._family(one.name, one.says, grows=one.grows) for one in METRICS]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all pools.

        Raises:
            UnknownPoolError: There is no pool of a name that was asked for.
        """
        found = self._pools.read()
        for name, says, value in (
            ("available", "Whether the store could be read.", int(self._pools.available)),
            ("pools_left_out", "Damaged pools that are left out.", len(self._pools.left_out)),
        ):
            yield self._core.GaugeMetricFamily(f"ledger_store_{name}", says, value=value)
        for metric in METRICS:
            family = self._family(metric.name, metric.says, grows=metric.grows)
            for one in found:
                amount = metric.value(one)
                if amount is not None:
                    family.add_metric([one.status.pool.name], amount)
            yield family

    def _family(
        self, name: str, says: str, *, grows: bool
    ) -> CounterMetricFamily | GaugeMetricFamily:
        kind = self._core.CounterMetricFamily if grows else self._core.GaugeMetricFamily
        return kind(name.replace(".", "_"), says, labels=["pool"])
