"""The views that show the journal to people and to BI tools.

They are the same on every database, except for how it prints times, US dollars and identities.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ledger.core.axes import AXES, COST
from ledger.core.checks import to_micros
from ledger.core.kinds import CORRECTABLE, ENDS_LEASE, EntryKind, sql


class Readable(NamedTuple):
    """SQL that prints a column, `{0}` being the column.

    Attributes:
        time: Of a column in microseconds since 1970.
        day: The day in UTC of such a column.
        usd: US dollars of a column in millionths.
        identity: Of 16 bytes.
    """

    time: str
    day: str
    usd: str
    identity: str


def readable_time(shown: str) -> str:
    """Return SQL that prints a time, and NULL for a number that is none.

    Otherwise one damaged row fails a view as a whole.
    """
    return f"CASE WHEN {{0}} BETWEEN {_FIRST_US} AND {_LAST_US} THEN {shown} END"


# The years 1 to 9999 of every time zone: clients turn times into their own.
_FIRST_US = to_micros("day", datetime(1, 1, 2, tzinfo=UTC))
_LAST_US = to_micros("day", datetime(9999, 12, 31, tzinfo=UTC))


def views(readable: Readable) -> list[str]:
    """Return the DDL of all views."""
    return [_journal(readable), _spend_by_day(readable), _lease_summary(readable)]


def _of_axes(groups: Sequence[str], readable: Readable, alias: str) -> str:
    """Return the columns of groups such as `held`, in the unit in which people see each axis."""
    columns = [
        f"{alias}.{group}_{axis.name}" for axis in AXES if axis.scale == 1 for group in groups
    ]
    shown = [
        f"{readable.usd.format(f'{alias}.{group}_{COST.name}')} AS {group}_usd" for group in groups
    ]
    return ", ".join([*columns, *shown])


def _journal(readable: Readable) -> str:
    """Return the view that shows every entry."""
    time, usd = readable.time, readable.usd
    return f"""
CREATE VIEW journal AS
SELECT p.name AS pool, {readable.identity.format("p.identity")} AS pool_identity,
       e.seq, e.kind, e.flags,
       {time.format("e.recorded_at")} AS recorded, {time.format("e.occurred_at")} AS occurred,
       e.lease, a.run_id, a.parent_run_id, a.tenant, a.agent, a.operation, a.provider, a.model,
       a.tags, e.request_id, e.provenance,
       e.estimate_total_tokens, e.usage_input_tokens, e.usage_output_tokens, e.usage_total_tokens,
       {usd.format("e.estimate_cost_micros_usd")} AS estimate_usd,
       {usd.format("e.usage_cost_micros_usd")} AS usage_usd,
       {_of_axes(("held", "committed", "reserved"), readable, "e")},
       e.idempotency_key, e.detail
FROM entries e
JOIN pools p ON p.pool_id = e.pool_id
LEFT JOIN attributions a
       ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
"""


def _is(*kinds: EntryKind) -> str:
    return sql(kinds, "e.kind")


def _spend_by_day(readable: Readable) -> str:
    """Return the view that sums what was spent, by days and by attribution."""
    day, usd = readable.day, readable.usd
    return f"""
CREATE VIEW spend_by_day AS
SELECT pool, day, tenant, agent, operation, provider, model, requests, denied, attempts,
       input_tokens, output_tokens, total_tokens, {usd.format("cost_micros_usd")} AS usd
FROM (
    SELECT p.name AS pool, {day.format("COALESCE(e.occurred_at, e.recorded_at)")} AS day,
           a.tenant, a.agent, a.operation, a.provider, a.model,
           SUM(CASE WHEN {_is(EntryKind.RESERVATION)} THEN 1 ELSE 0 END) AS requests,
           SUM(CASE WHEN {_is(EntryKind.DENIAL)} THEN 1 ELSE 0 END) AS denied,
           SUM(CASE WHEN {_is(*CORRECTABLE)} THEN 1 ELSE 0 END) AS attempts,
           COALESCE(SUM(e.usage_input_tokens), 0) AS input_tokens,
           COALESCE(SUM(e.usage_output_tokens), 0) AS output_tokens,
           COALESCE(SUM(e.usage_total_tokens), 0) AS total_tokens,
           COALESCE(SUM(e.usage_cost_micros_usd), 0) AS cost_micros_usd
    FROM entries e
    JOIN pools p ON p.pool_id = e.pool_id
    LEFT JOIN attributions a
           ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
    WHERE e.origin_seq IS NULL
      AND ({_is(EntryKind.RESERVATION, EntryKind.DENIAL)} OR e.usage_total_tokens IS NOT NULL)
    GROUP BY 1, 2, 3, 4, 5, 6, 7
) AS days
"""


def _lease_summary(readable: Readable) -> str:
    """Return the view that shows each lease as it stands, without the mirrors."""
    time, usd = readable.time, readable.usd
    return f"""
CREATE VIEW lease_summary AS
SELECT p.name AS pool, r.seq AS lease,
       CASE WHEN d.seq IS NOT NULL THEN 'ended' WHEN x.seq IS NOT NULL THEN 'expired'
            ELSE 'open' END AS phase,
       {time.format("r.recorded_at")} AS reserved, {time.format("r.occurred_at")} AS occurred,
       {time.format("x.recorded_at")} AS expired, {time.format("d.recorded_at")} AS ended,
       a.run_id, a.parent_run_id, a.tenant, a.agent, a.operation, a.provider, a.model, a.tags,
       r.estimate_total_tokens, n.used_total_tokens,
       {usd.format("r.estimate_cost_micros_usd")} AS estimate_usd,
       {usd.format("n.used_cost_micros_usd")} AS used_usd,
       {_of_axes(("held",), readable, "n")}
FROM entries r
JOIN pools p ON p.pool_id = r.pool_id
JOIN entries n ON n.pool_id = r.pool_id AND n.seq = (
    SELECT MAX(l.seq) FROM entries l
    WHERE l.pool_id = r.pool_id AND l.lease IS NOT NULL AND l.lease = r.seq)
LEFT JOIN entries d
       ON d.pool_id = r.pool_id AND d.lease = r.seq AND {sql(ENDS_LEASE, "d.kind")}
LEFT JOIN entries x
       ON x.pool_id = r.pool_id AND x.lease = r.seq AND {sql([EntryKind.EXPIRY], "x.kind")}
LEFT JOIN attributions a ON a.pool_id = r.pool_id AND a.attribution_id = r.attribution_id
WHERE {sql([EntryKind.RESERVATION], "r.kind")} AND r.origin_seq IS NULL
"""
