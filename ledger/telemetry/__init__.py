"""What the books and the calls tell OpenTelemetry and Prometheus.

`Telemetry` makes a span and metrics of each attempt of a budgeted client, and reports where pools
stand; it needs the extra `otel`. `PoolCollector` is the same report for `prometheus_client`, which
the extra `metrics` brings.
"""

from ledger.telemetry.calls import Telemetry
from ledger.telemetry.prometheus import PoolCollector

__all__ = ["PoolCollector", "Telemetry"]
