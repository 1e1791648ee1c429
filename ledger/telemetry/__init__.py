"""Metrics and spans of calls and pools, for OpenTelemetry and Prometheus.

`Telemetry` makes a span and metrics of each attempt of a budgeted client, and reports the state of
pools; it needs the extra `otel`. `PoolCollector` reports the same of pools to `prometheus_client`,
which the extra `metrics` brings.
"""

from ledger.telemetry.calls import Telemetry
from ledger.telemetry.prometheus import PoolCollector

__all__ = ["PoolCollector", "Telemetry"]
