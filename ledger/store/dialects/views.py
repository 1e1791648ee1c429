"""The views that show the journal to people and to BI tools.

They are the same on every database, except for how it prints times and identities. Money is in
whole micro-USD, integers that every tool can compare, sort and add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ledger.core.axes import AMOUNTS, AXES, Axis
from ledger.core.checks import to_micros
from ledger.core.entries import EntryFlag
from ledger.core.kinds import CORRECTABLE, ENDS_LEASE, FOLLOWS_UP, LEAVES_OPEN, EntryKind, sql

_UNPRICED = int(EntryFlag.UNPRICED)


class Readable(NamedTuple):
    """SQL that prints a column, `{0}` being the column.

    Attributes:
        time: For a time in microseconds since 1970.
        day: For the UTC day of such a time.
        identity: For an identity of 16 bytes.
        options: SQL that follows the name of each view.
    """

    time: str
    day: str
    identity: str
    options: str = ""


def readable_time(shown: str) -> str:
    """Return SQL that prints a time, and NULL for a number that is no valid time.

    Otherwise one damaged row would make the whole view fail.
    """
    return f"CASE WHEN {{0}} BETWEEN {_FIRST_US} AND {_LAST_US} THEN {shown} END"


# The years 1 to 9999 in every time zone, since clients convert times to their own.
_FIRST_US = to_micros("day", datetime(1, 1, 2, tzinfo=UTC))
_LAST_US = to_micros("day", datetime(9999, 12, 31, tzinfo=UTC))


VIEWS = ("journal", "spend_by_day", "lease_summary")
"""The names of all views."""


def views(readable: Readable) -> list[str]:
    """Return the DDL of all views."""
    return [_journal(readable), _spend_by_day(readable), _lease_summary(readable)]


def _of_axes(groups: Mapping[str, Callable[[Axis], str]]) -> str:
    """Return the columns of groups such as `held`, on every axis.

    Args:
        groups: By the group's name, a function that returns the SQL of its amount on an axis.
    """
    return ", ".join(
        f"{amount(axis)} AS {group}_{axis.name}"
        for axis in AXES
        for group, amount in groups.items()
    )


def _held_by(alias: str, axis: Axis) -> str:
    """Return SQL for what an entry's lease holds: the stored amount, or else that of its kind."""
    at_first = "1" if axis.amount is None else f"{alias}.estimate_{axis.amount}"
    return (
        f"COALESCE({alias}.held_{axis.name}, CASE "
        f"WHEN {sql([EntryKind.RESERVATION], f'{alias}.kind')} THEN {at_first} "
        f"WHEN {alias}.lease IS NOT NULL THEN 0 END)"
    )


def _used_by(alias: str, name: str) -> str:
    """Return SQL for what an entry's lease has used: as stored, or else the entry's usage."""
    return f"COALESCE({alias}.used_{name}, {alias}.usage_{name}, 0)"


def _journal(readable: Readable) -> str:
    """Return the view that shows every entry."""
    time = readable.time
    groups: dict[str, Callable[[Axis], str]] = {
        "held": partial(_held_by, "e"),
        "committed": lambda axis: f"e.committed_{axis.name}",
        "reserved": lambda axis: f"e.reserved_{axis.name}",
    }
    return f"""
CREATE VIEW journal{readable.options} AS
SELECT p.name AS pool, {readable.identity.format("p.identity")} AS pool_identity,
       e.seq, e.kind, e.flags,
       {time.format("e.recorded_at")} AS recorded, {time.format("e.occurred_at")} AS occurred,
       e.lease, a.run_id, a.parent_run_id, a.tenant, a.agent, a.operation, a.provider, a.model,
       a.tags, e.request_id, e.provenance,
       e.estimate_total_tokens, e.usage_input_tokens, e.usage_output_tokens, e.usage_total_tokens,
       e.estimate_cost_micros_usd, e.usage_cost_micros_usd,
       {_of_axes(groups)},
       e.origin_seq, e.idempotency_key, e.detail
FROM entries e
JOIN pools p ON p.pool_id = e.pool_id
LEFT JOIN attributions a
       ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
"""


def _is(*kinds: EntryKind) -> str:
    return sql(kinds, "e.kind")


def _spend_by_day(readable: Readable) -> str:
    """Return the view that sums usage by day and attribution.

    A call that has ended counts under the attribution of its end, as in the report. The cost is
    NULL if nothing was used, as on a day on which all calls were denied.
    """
    day = readable.day
    return f"""
CREATE VIEW spend_by_day{readable.options} AS
SELECT p.name AS pool, {day.format("COALESCE(e.occurred_at, e.recorded_at)")} AS day,
       a.tenant, a.agent, a.operation, a.provider, a.model,
       SUM(CASE WHEN {_is(EntryKind.RESERVATION)} THEN 1 ELSE 0 END) AS requests,
       SUM(CASE WHEN {_is(EntryKind.DENIAL)} THEN 1 ELSE 0 END) AS denied,
       SUM(CASE WHEN {_is(*CORRECTABLE)} THEN 1 ELSE 0 END) AS attempts,
       SUM(CASE WHEN e.usage_total_tokens IS NOT NULL AND (e.flags & {_UNPRICED}) <> 0
           THEN 1 ELSE 0 END) AS unpriced,
       COALESCE(SUM(e.usage_input_tokens), 0) AS input_tokens,
       COALESCE(SUM(e.usage_output_tokens), 0) AS output_tokens,
       COALESCE(SUM(e.usage_total_tokens), 0) AS total_tokens,
       SUM(e.usage_cost_micros_usd) AS cost_micros_usd
FROM entries e
JOIN pools p ON p.pool_id = e.pool_id
LEFT JOIN entries d
       ON {_is(*LEAVES_OPEN)}
      AND d.pool_id = e.pool_id AND d.lease = e.lease
      AND {sql(ENDS_LEASE, "d.kind")}
LEFT JOIN attributions a
       ON a.pool_id = e.pool_id
      AND a.attribution_id = CASE WHEN d.seq IS NULL THEN e.attribution_id ELSE d.attribution_id END
WHERE e.origin_seq IS NULL
  AND ({_is(EntryKind.RESERVATION, EntryKind.DENIAL)} OR e.usage_total_tokens IS NOT NULL)
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


def _lease_summary(readable: Readable) -> str:
    """Return the view that shows the present state of each lease, without mirrors."""
    time = readable.time
    # The end of an ended lease says what was used, unless a correction follows it.
    used = {
        name: f"CASE WHEN d.seq > COALESCE(f.seq, 0) THEN {_used_by('d', name)}"
        f" ELSE {_used_by('f', name)} END"
        for name in AMOUNTS
    }

    def held(axis: Axis) -> str:
        return (
            f"CASE WHEN d.seq IS NOT NULL THEN 0 WHEN f.seq IS NOT NULL THEN {_held_by('f', axis)}"
            f" ELSE {_held_by('r', axis)} END"
        )

    return f"""
CREATE VIEW lease_summary{readable.options} AS
SELECT p.name AS pool, r.seq AS lease,
       CASE WHEN d.seq IS NOT NULL THEN 'ended' WHEN x.seq IS NOT NULL THEN 'expired'
            ELSE 'open' END AS phase,
       {time.format("r.recorded_at")} AS reserved, {time.format("r.occurred_at")} AS occurred,
       {time.format("x.recorded_at")} AS expired, {time.format("d.recorded_at")} AS ended,
       a.run_id, a.parent_run_id, a.tenant, a.agent, a.operation, a.provider, a.model, a.tags,
       r.estimate_total_tokens, {used["total_tokens"]} AS used_total_tokens,
       r.estimate_cost_micros_usd, {used["cost_micros_usd"]} AS used_cost_micros_usd,
       {_of_axes({"held": held})}
FROM entries r
JOIN pools p ON p.pool_id = r.pool_id
LEFT JOIN entries f ON f.pool_id = r.pool_id AND f.seq = (
    SELECT MAX(l.seq) FROM entries l
    WHERE l.pool_id = r.pool_id AND l.lease = r.seq AND {sql(FOLLOWS_UP, "l.kind")})
LEFT JOIN entries d
       ON d.pool_id = r.pool_id AND d.lease = r.seq AND {sql(ENDS_LEASE, "d.kind")}
LEFT JOIN entries x
       ON x.pool_id = r.pool_id AND x.lease = r.seq AND {sql([EntryKind.EXPIRY], "x.kind")}
LEFT JOIN attributions a ON a.pool_id = r.pool_id AND a.attribution_id = r.attribution_id
WHERE {sql([EntryKind.RESERVATION], "r.kind")} AND r.origin_seq IS NULL
"""
