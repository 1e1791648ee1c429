"""SQL written by hand for the questions that the reports answer, to compare the reports with.

It may overflow, and it knows the number of its one pool. It leaves out what needs more than one
pass (what each percentile of an estimate would have held) and time zones.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS
from ledger.reports.position import SIDES
from ledger.reports.ranks import PERCENTS

_AT = "coalesce(e.occurred_at, e.recorded_at)"


def _counted(condition: str) -> str:
    return f"count(CASE WHEN {condition} THEN 1 END)"


_FIGURES = ",\n".join(
    [
        *(_counted(f"e.kind = '{kind}'") for kind in ("reservation", "denial", "release")),
        *(_counted(f"e.kind = '{kind}'") for kind in ("expiry", "correction")),
        _counted("e.kind IN ('settlement', 'observation')"),
        _counted("e.kind IN ('settlement', 'observation') AND e.flags & 2 <> 0"),
        _counted(
            "e.kind = 'reservation' AND NOT EXISTS (SELECT 1 FROM entries d WHERE"
            " d.pool_id = e.pool_id AND d.lease = e.seq AND d.kind IN ('settlement', 'release'))"
        ),
        *(f"sum(e.usage_{name})" for name in USAGE_FIELDS),
        *(
            f"sum(CASE WHEN e.kind = 'reservation' THEN e.estimate_{name} END)"
            for name in ESTIMATE_FIELDS
        ),
        *(
            f"sum(CASE WHEN e.provenance = '{provenance}' THEN e.usage_{name} END)"
            for provenance in ("reported", "recovered", "estimated")
            for name in ("total_tokens", "cost_micros_usd")
        ),
        f"min({_AT})",
        f"max({_AT})",
    ]
)
_ATTRIBUTED = (
    "FROM entries e LEFT JOIN attributions a"
    " ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id"
)
_ORIGINAL = "WHERE e.origin_seq IS NULL"
_OF_A_DAY = f"AND e.pool_id = 1 AND {_AT} >= :begin AND {_AT} < :end"


def _figures(*by: str, joined: str = _ATTRIBUTED, more: str = "") -> str:
    groups = ", ".join(str(place) for place in range(1, len(by) + 1))
    return f"SELECT {', '.join(by)}, {_FIGURES} {joined} {_ORIGINAL} {more} GROUP BY {groups}"


_NEWEST = """JOIN entries l ON l.pool_id = e.pool_id AND l.seq = coalesce((
     SELECT max(n.seq) FROM entries n WHERE n.pool_id = e.pool_id AND n.lease = {lease}
     AND n.seq > e.seq AND n.kind IN ('observation', 'renewal', 'expiry', 'correction')), e.seq)"""
_GRANTED = "JOIN entries g ON g.pool_id = e.pool_id AND g.seq = e.lease"
_MOVED = ", ".join(f"sum(e.{side} - coalesce(b.{side}, 0))" for side in SIDES)
_MOVEMENTS = f"""
SELECT e.kind, count(*), {_MOVED} FROM entries e
LEFT JOIN entries b ON b.pool_id = e.pool_id AND b.seq = e.seq - 1
WHERE e.pool_id = 1 AND e.seq <= :newest GROUP BY 1 ORDER BY min(e.seq)"""
_BALANCE = f"SELECT {', '.join(SIDES)} FROM entries WHERE pool_id = 1 AND seq = :newest"


def _estimates(axis: str) -> str:
    """Return percentiles of what calls used, and of its ratio to the estimate, by window."""
    groups = "PARTITION BY a.model, a.operation ORDER BY"
    used = f"coalesce(l.used_{axis}, l.usage_{axis})"
    at_rank = ", ".join(
        f"max(CASE WHEN by_{what} = ({percent} * calls + 99) / 100 THEN {value} END)"
        for what, value in (("used", "used"), ("ratio", "ratio"))
        for percent in PERCENTS.values()
    )
    return f"""
SELECT model, operation, max(calls), sum(estimate), sum(used),
       {_counted("used > estimate")}, sum(CASE WHEN used > estimate THEN used - estimate END),
       sum(CASE WHEN used <= estimate THEN estimate - used END), {at_rank}
FROM (
    SELECT a.model, a.operation, g.estimate_{axis} AS estimate, {used} AS used,
           1.0 * {used} / g.estimate_{axis} AS ratio,
           count(*) OVER (PARTITION BY a.model, a.operation) AS calls,
           row_number() OVER ({groups} {used}) AS by_used,
           row_number() OVER ({groups} 1.0 * {used} / g.estimate_{axis}) AS by_ratio
    {_ATTRIBUTED} {_GRANTED} {_NEWEST.format(lease="e.lease")} {_ORIGINAL}
    AND e.kind = 'settlement' AND g.estimate_{axis} > 0
) AS ranked GROUP BY 1, 2"""


_OPEN = f"""
SELECT e.seq, {_AT}, a.run_id, a.agent, a.model,
       coalesce(l.held_tokens, CASE WHEN l.seq = e.seq THEN e.estimate_total_tokens ELSE 0 END),
       coalesce(l.held_cost_micros_usd,
                CASE WHEN l.seq = e.seq THEN e.estimate_cost_micros_usd ELSE 0 END),
       coalesce(l.held_requests, CASE WHEN l.seq = e.seq THEN 1 ELSE 0 END),
       EXISTS (SELECT 1 FROM entries x WHERE x.pool_id = e.pool_id
       AND x.lease = e.seq AND x.kind = 'expiry')
FROM entries e
{_NEWEST.format(lease="e.seq")}
LEFT JOIN attributions a ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
WHERE e.kind = 'reservation' AND e.origin_seq IS NULL AND NOT EXISTS (
      SELECT 1 FROM entries d WHERE d.pool_id = e.pool_id AND d.lease = e.seq
      AND d.kind IN ('settlement', 'release'))
ORDER BY 2"""

_LATE = """
SELECT e.seq, e.lease, e.recorded_at, x.recorded_at, a.run_id, e.usage_total_tokens,
       e.usage_cost_micros_usd
FROM entries x
JOIN entries e ON e.pool_id = x.pool_id AND e.lease = x.lease AND e.seq > x.seq
LEFT JOIN attributions a ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
WHERE x.kind = 'expiry' AND e.flags & 2 <> 0 AND e.usage_total_tokens IS NOT NULL"""

_SHORT = {
    axis: f"e.committed_{axis} + e.reserved_{axis} + e.estimate_{name}"
    for axis, name in (("tokens", "total_tokens"), ("cost_micros_usd", "cost_micros_usd"))
}


def _denied(*, sqlite: bool) -> str:
    """Return the denials by reason, with ranks and running sums of what the pool was short of."""
    reason, above = (
        f"json_extract(e.detail, '$.denial.{name}')"
        if sqlite
        else f"CAST(e.detail AS json) -> 'denial' ->> '{name}'"
        for name in ("reason", "pool")
    )
    window = "OVER (PARTITION BY agent ORDER BY"
    ranked = ", ".join(
        f"row_number() {window} short_{axis}) AS by_{axis}, "
        f"short_{axis} + sum(asked_{axis}) {window} seq) - asked_{axis} AS all_{axis}"
        for axis in _SHORT
    )
    at_rank = ", ".join(
        f"max(CASE WHEN by_{axis} = ({percent} * short + 99) / 100 THEN short_{axis} END)"
        for axis in _SHORT
        for percent in (50, 90, 100)
    )
    return f"""
WITH denied AS (
    SELECT a.agent, e.seq, {_AT} AS at, e.estimate_total_tokens AS asked_tokens,
           e.estimate_cost_micros_usd AS asked_cost_micros_usd,
           {reason} AS reason, {above} AS above,
           {", ".join(f"{short} AS short_{axis}" for axis, short in _SHORT.items())}
    {_ATTRIBUTED} WHERE e.kind = 'denial' AND e.origin_seq IS NULL
), ranked AS (
    SELECT agent, count(*) OVER (PARTITION BY agent) AS short,
           {", ".join(f"short_{axis}" for axis in _SHORT)}, {ranked}
    FROM denied WHERE reason = 'threshold' AND above IS NULL
), increases AS (
    SELECT agent, {at_rank}, {", ".join(f"max(all_{axis})" for axis in _SHORT)}
    FROM ranked GROUP BY 1
)
SELECT * FROM (
    SELECT agent, count(*), {_counted("reason <> 'threshold'")}, count(above),
           {", ".join(f"sum(asked_{axis})" for axis in _SHORT)}, min(at), max(at)
    FROM denied GROUP BY 1
) AS counted LEFT JOIN increases ON increases.agent = counted.agent"""


_SPENT = f"""
SELECT sum(e.usage_total_tokens), sum(e.usage_cost_micros_usd) FROM entries e
WHERE e.pool_id = 1 AND {_AT} >= :begin AND {_AT} < :end"""

_POINTS = f"""
SELECT e.seq, {_AT}, e.policy_seq, e.window_seq, {", ".join(f"e.{side}" for side in SIDES)}
FROM entries e WHERE e.pool_id = 1 AND e.seq IN ({{points}}) ORDER BY e.seq"""


def queries(newest: int, points: int, *, sqlite: bool) -> dict[str, Sequence[str]]:
    """Return the statements for each question, for a pool with this number of entries."""
    seqs = sorted({1 + (newest - 1) * step // (points - 1) for step in range(points)})
    return {
        "runs": [_figures("a.run_id", "a.parent_run_id")],
        "runs, one": [
            _figures(
                "a.run_id",
                "a.parent_run_id",
                joined=_ATTRIBUTED.replace("LEFT JOIN", "JOIN"),
                more="AND a.run_id = :run",
            )
        ],
        "runs, a day's": [_figures("a.run_id", "a.parent_run_id", more=_OF_A_DAY)],
        "spend by day and model": [_figures(f"{_AT} / 86400000000", "a.model")],
        "spend by model": [_figures("a.model")],
        "spend of a day by hour": [_figures(f"{_AT} / 3600000000", more=_OF_A_DAY)],
        "statement": [
            _MOVEMENTS,
            _BALANCE,
        ],
        "estimates": [_estimates("total_tokens"), _estimates("cost_micros_usd")],
        "leases": [_OPEN, _LATE],
        "denials by agent": [_denied(sqlite=sqlite)],
        "forecast": [_SPENT, _BALANCE],
        "burn-down": [_POINTS.format(points=", ".join(map(str, seqs)))],
        "standing": [_BALANCE],
    }
