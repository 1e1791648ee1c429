"""Metrics of pools: what is read again and again, for OpenTelemetry and for Prometheus."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, text

from ledger import (
    JournalDamagedError,
    LeaseTtl,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Unpriced,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.reports.meter import METERED, Meter
from ledger.store.statements import rows_of_each
from ledger.telemetry import PoolCollector, Telemetry
from ledger.telemetry.pools import METRICS

Page = Mapping[tuple[str, str], float]
CENT = UsageEstimate(total_tokens=100, cost_micros_usd=10_000)
DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana_dashboard.json"


def page(url: str) -> Page:
    """Return the values of a served page, by metric and pool."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - of the loopback
        served = answer.read().decode()
    return values(served)


def values(served: str) -> Page:
    """Return the values of a page, by metric and pool, as Prometheus reads them."""
    return {
        (sample.name, sample.labels.get("pool", "")): sample.value
        for family in text_string_to_metric_families(served)
        for sample in family.samples
    }


@pytest.fixture
def served() -> Iterator[Callable[[PoolCollector], str]]:
    """Return a function that serves a page, and gives its address."""
    servers = []

    def serve(collector: PoolCollector) -> str:
        server, thread = start_http_server(0, "127.0.0.1", collector.registry())
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_reading_agrees_with_the_reports(busy: Ledger) -> None:
    """Each pool stands where `standing` says, and what is counted is what reports count."""
    meter = Meter(busy)
    for _ in range(2):  # nothing came between: nothing is counted twice
        found = {one.status.pool.name: one for one in meter.read()}
        assert ["team", "other"] == list(found)
        for name, one in found.items():
            (row,) = reports.spend(busy, name).rows
            for counted in ("requests", "denied", "releases", "expiries", "corrections", "late"):
                assert getattr(row, counted) == one.counted[counted], (name, counted)
            assert row.open_leases == one.open_leases
            assert reports.standing(busy, name) == [one.status]
    assert (1, 1) == (found["team"].counted["denied"], found["team"].open_leases)
    assert 1 == found["team"].counted["overruns"]


def test_each_reading_counts_what_is_new(busy: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the entries behind the reading before are looked at, in pools that have any."""
    meter = Meter(busy)
    before = {one.status.pool.name: one for one in meter.read()}
    asked: list[dict[str, int]] = []

    def noted(connection: Connection, selects: Any) -> list[list[dict[str, Any]]]:  # noqa: ANN401 - statements and their parameters
        asked.extend(given for _, given in selects)
        return rows_of_each(connection, selects)

    monkeypatch.setattr("ledger.reports.meter.rows_of_each", noted)
    team = busy.pool("team")
    flagged = RequestExtensions(Unpriced.FLAG)
    lease = team.reserve(flagged, CENT, RequestBudget.unlimited())
    team.record_used(lease, Usage(input_tokens=3))
    after = {one.status.pool.name: one for one in meter.read()}
    assert before["other"] == after["other"]
    changed = {name: after["team"].counted[name] - before["team"].counted[name] for name in METERED}
    assert {"requests": 1, "unpriced": 1} == {k: v for k, v in changed.items() if v}
    (only,) = asked
    assert before["team"].status.seq == only["after"]


def test_a_lease_that_expired_does_not_keep_a_reading_long(busy: Ledger) -> None:
    """No call settles it; what comes behind it is not searched again and again."""
    ttl = timedelta(milliseconds=1)
    short = busy.pool("short", SharedPoolBudgetOptions(lease_ttl=ttl))
    meter = Meter(busy, "short")
    lease = short.reserve(RequestExtensions(), CENT, RequestBudget.unlimited())
    while not busy.expire_due("short"):
        pass
    for _ in range(3):
        later = RequestExtensions(LeaseTtl(timedelta(hours=1)))
        done = short.reserve(later, CENT, RequestBudget.unlimited())
        short.record_used(done, Usage(total_tokens=1, cost_micros_usd=1))
    (found,) = meter.read()
    (known,) = meter._known.values()
    assert (0, 1) == (found.open_leases, found.counted["expiries"])
    assert lease.id < found.status.seq < known.oldest


def test_the_page_says_what_the_pools_say(
    busy: Ledger, served: Callable[[PoolCollector], str]
) -> None:
    """As Prometheus reads it; a capacity without a limit is not there."""
    url = served(PoolCollector(busy))
    found = page(url)
    (team,) = reports.standing(busy, "team")
    assert team.remaining.tokens == found["ledger_pool_remaining_tokens", "team"]
    assert team.spent.cost_micros_usd == found["ledger_pool_spent_cost_micros_usd", "team"]
    assert team.balance.reserved.tokens == found["ledger_pool_held_tokens", "team"]
    assert 5_000 == found["ledger_pool_capacity_tokens", "team"]
    assert ("ledger_pool_capacity_tokens", "other") not in found
    assert ("ledger_pool_remaining_cost_micros_usd", "team") not in found
    assert 1 == found["ledger_pool_denials_total", "team"]
    assert 1 == found["ledger_store_available", ""]
    busy.pool("team").reserve(RequestExtensions(), CENT, RequestBudget.unlimited())
    assert (
        100
        == found["ledger_pool_remaining_tokens", "team"]
        - (page(url)["ledger_pool_remaining_tokens", "team"])
    )


@pytest.mark.parametrize("named", [(), ("team", "other")])
def test_a_damaged_pool_hides_no_other(busy: Ledger, named: tuple[str, ...]) -> None:
    """It is left out, also if it is named beside others, and the page says how many are."""
    with busy._database.engine.connect() as connection:
        guards = connection.dialect.name == "sqlite"
        if guards:
            connection.execute(text("DROP TRIGGER entries_no_update"))
        else:
            connection.execute(text("ALTER TABLE entries DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE entries SET detail = '{}' WHERE pool_id = 1 AND seq = 1"))
        connection.commit()
    with Ledger.open(busy.url, create=False) as book:
        found = list(PoolCollector(book, reports.Filter(pools=named)).collect())
        with pytest.raises(JournalDamagedError):  # a report about it says so
            reports.standing(book, "team", left_out=[])
    by_name = {family.name: family.samples for family in found}
    assert [1] == [sample.value for sample in by_name["ledger_store_pools_left_out"]]
    names = {sample.labels["pool"] for sample in by_name["ledger_pool_held_tokens"]}
    assert {"other"} == names


def test_a_pool_that_is_not_there_fails_the_page(busy: Ledger) -> None:
    """A name that is wrong is no store that is away."""
    with pytest.raises(UnknownPoolError):
        list(PoolCollector(busy, "unknown").collect())


def test_a_store_that_is_away_fails_no_page(busy: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """The page of a program has other metrics, too: there are no pools, and it is logged."""
    collector = PoolCollector(busy)
    busy.close()
    by_name = {family.name: family.samples for family in collector.collect()}
    assert [0] == [sample.value for sample in by_name["ledger_store_available"]]
    assert [] == by_name["ledger_pool_held_tokens"]
    assert "pools cannot be read for metrics" in caplog.text


def test_opentelemetry_gets_the_same(busy: Ledger) -> None:
    """Gauges and counters by pool, read once for each collection."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    Telemetry(meter_provider=meters).watch(busy)
    for denied in (1, 2):
        points = {
            (metric.name, point.attributes["ledger.pool"]): point.value
            for of_resource in reader.get_metrics_data().resource_metrics
            for scope in of_resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
        (team,) = reports.standing(busy, "team")
        assert team.remaining.tokens == points["ledger.pool.remaining.tokens", "team"]
        assert denied == points["ledger.pool.denials", "team"]
        assert {metric.name for metric in METRICS} >= {name for name, _ in points}
        with pytest.raises(Exception, match="cannot grant"):
            busy.pool("team").reserve(
                RequestExtensions(),
                UsageEstimate(total_tokens=9_999, cost_micros_usd=1),
                RequestBudget.unlimited(),
            )
    meters.shutdown()


def test_the_dashboard_asks_for_what_there_is() -> None:
    """Each query of the example is of metrics on the page, and every panel has one."""
    names = {metric.name.replace(".", "_") + "_total" * metric.grows for metric in METRICS} | {
        "ledger_store_available",
        "ledger_store_pools_left_out",
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert all(panel["targets"] for panel in panels)
    for expression in asked:
        found = re.findall(r"ledger_\w+", expression)
        assert found
        assert set(found) <= names, expression
