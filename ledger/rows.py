"""Values into rows and back: how an entry is numbered, chained and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, NamedTuple

from ledger import proof
from ledger.checks import U64_MAX, Micros, canonical_json
from ledger.errors import LedgerError
from ledger.model import (
    ATTRIBUTION_TEXTS,
    ESTIMATE_FIELDS,
    USAGE_FIELDS,
    Attribution,
    RequestBudget,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)
from ledger.records import (
    Balance,
    Entry,
    EntryFlag,
    EntryKind,
    LeasePhase,
    LeaseState,
    PoolId,
    Seq,
    Totals,
)
from ledger.schema import entries

Row = Mapping[str, Any]
"""A stored entry by column name, with its attribution's columns where they were read."""

BUDGET_FIELDS = ("tokens", "cost_micros_usd")
_POLICY_FIELDS = tuple(part.name for part in fields(SharedPoolBudgetOptions))
_CAPACITIES = ("capacity_tokens", "capacity_cost_micros_usd")

COVERED = tuple(
    name
    for column in entries.columns
    if column.name not in {"hash_version", "hash"}
    for name in (
        (column.name, "attribution_digest") if column.name == "attribution_id" else (column.name,)
    )
)
"""What an entry's hash covers, in order: every column, and the digest of its attribution."""


class _Group:
    """The columns of one value, by their common prefix."""

    def __init__(self, prefix: str, names: tuple[str, ...]) -> None:
        self._names = names
        self._columns = tuple(f"{prefix}_{name}" for name in names)
        self._values = attrgetter(*names)
        self._absent: dict[str, None] = dict.fromkeys(self._columns)

    def put(self, row: dict[str, Any], value: object | None) -> None:
        """Write a value into its columns, or None into all of them."""
        row.update(
            self._absent if value is None else zip(self._columns, self._values(value), strict=True)
        )

    def of(self, row: Row) -> dict[str, Any]:
        """Read a value's fields from its columns."""
        return {name: row[column] for name, column in zip(self._names, self._columns, strict=True)}


_ESTIMATE = _Group("estimate", ESTIMATE_FIELDS)
_BUDGET = _Group("budget", BUDGET_FIELDS)
_USAGE = _Group("usage", USAGE_FIELDS)
_HELD = _Group("held", Totals._fields)
_USED = _Group("used", USAGE_FIELDS)
_COMMITTED = _Group("committed", Totals._fields)
_RESERVED = _Group("reserved", Totals._fields)

_PHASES = {
    EntryKind.SETTLEMENT: LeasePhase.ENDED,
    EntryKind.RELEASE: LeasePhase.ENDED,
    EntryKind.EXPIRY: LeasePhase.EXPIRED,
}


UNREADABLE = (LedgerError, ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What making a value of a damaged row may raise."""


class Interned(NamedTuple):
    """An attribution as it is stored: its number in the pool, and what entries cover of it."""

    attribution_id: int
    digest: bytes
    value: Attribution | None


class Head(NamedTuple):
    """A pool at its newest entry: all that the next one builds on."""

    seq: Seq
    policy: SharedPoolBudgetOptions
    policy_seq: Seq
    window_seq: Seq
    swept_until: Micros
    balance: Balance
    recorded_at: Micros
    hash: bytes


class LeaseRow(NamedTuple):
    """A lease's newest entry: its state, and what every entry of the lease carries."""

    state: LeaseState
    attribution: Interned | None
    request_id: str | None
    occurred_at: Micros | None


class Memo(NamedTuple):
    """What a committed batch leaves in memory: leases as they stand at the newest entry."""

    hash_before: bytes
    hash_after: bytes
    leases: Mapping[int, LeaseRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An entry that is decided, but not yet numbered, timed, chained and written."""

    kind: EntryKind
    balance: Balance
    flags: EntryFlag = EntryFlag.NONE
    detail: Mapping[str, Any] | None = None
    policy: SharedPoolBudgetOptions | None = None
    estimate: UsageEstimate | None = None
    request_budget: RequestBudget | None = None
    usage: Usage | None = None
    lease: LeaseState | None = None
    attribution: Interned | None = None
    request_id: str | None = None
    provenance: str | None = None
    occurred_at: Micros | None = None
    idempotency_key: str | None = None
    payload_digest: bytes | None = None


def to_row(
    draft: Draft, *, pool_id: PoolId, head: Head | None, genesis: bytes, now: Micros
) -> dict[str, Any]:
    """Number, time and chain a draft behind `head`; None makes it the pool's first entry."""
    seq = 1 if head is None else head.seq + 1
    recorded_at = now if head is None else max(now, head.recorded_at)
    detail = dict(draft.detail or {})
    if draft.policy is not None:
        detail["policy"] = policy_to_json(draft.policy)
    lease, attribution = draft.lease, draft.attribution
    row: dict[str, Any] = {
        "pool_id": pool_id,
        "seq": seq,
        "kind": str(draft.kind),
        "flags": int(draft.flags),
        "detail": canonical_json(detail) if detail else None,
    }
    _ESTIMATE.put(row, draft.estimate)
    _BUDGET.put(row, draft.request_budget)
    _USAGE.put(row, draft.usage)
    row["lease"] = None if lease is None else lease.lease
    _HELD.put(row, None if lease is None else lease.held)
    _USED.put(row, None if lease is None else lease.used)
    row["expires_at"] = None if lease is None else lease.expires_at
    _COMMITTED.put(row, draft.balance.committed)
    _RESERVED.put(row, draft.balance.reserved)
    row |= {
        "policy_seq": seq if head is None or draft.policy is not None else head.policy_seq,
        "window_seq": seq if head is None else head.window_seq,
        "swept_until": recorded_at if head is None else head.swept_until,
        "attribution_id": None if attribution is None else attribution.attribution_id,
        "request_id": draft.request_id,
        "provenance": draft.provenance,
        "recorded_at": recorded_at,
        "occurred_at": draft.occurred_at,
        "idempotency_key": draft.idempotency_key,
        "payload_digest": draft.payload_digest,
        "origin_pool_id": None,
        "origin_seq": None,
        "hash_version": proof.HASH_VERSION,
    }
    previous = genesis if head is None else head.hash
    row["hash"] = row_hash(previous, row, None if attribution is None else attribution.digest)
    return row


def row_hash(previous: bytes, row: Row, attribution_digest: bytes | None) -> bytes:
    """Return the hash that a row must carry behind `previous`."""
    covered = {**row, "attribution_digest": attribution_digest}
    return proof.chain(previous, map(covered.__getitem__, COVERED))


def head_of(row: Row, policy: SharedPoolBudgetOptions) -> Head:
    """Return the head that a row makes, under the policy its policy_seq names."""
    return Head(
        seq=row["seq"],
        policy=policy,
        policy_seq=row["policy_seq"],
        window_seq=row["window_seq"],
        swept_until=row["swept_until"],
        balance=_balance_of(row),
        recorded_at=row["recorded_at"],
        hash=row["hash"],
    )


def lease_of(row: Row) -> LeaseState | None:
    """Return the lease as a row leaves it, None where the row is about no lease."""
    if row["lease"] is None:
        return None
    return LeaseState(
        lease=row["lease"],
        estimate=UsageEstimate(**_ESTIMATE.of(row)),
        request_budget=request_budget_of(row),
        phase=_PHASES.get(row["kind"], LeasePhase.OPEN),
        held=Totals(**_HELD.of(row)),
        used=used_of(row),
        expires_at=row["expires_at"],
    )


def request_budget_of(row: Row) -> RequestBudget:
    """Return the request's own budget that a row about a lease or a denial repeats."""
    return RequestBudget(**_BUDGET.of(row))


def used_of(row: Row) -> Usage:
    """Return what the lease of a row has used so far."""
    return Usage(**_USED.of(row))


def detail_of(row: Row) -> dict[str, Any]:
    """Return a row's detail, empty where it has none."""
    detail: dict[str, Any] = json.loads(row["detail"] or "{}")
    return detail


def policy_of(row: Row) -> SharedPoolBudgetOptions | None:
    """Return the policy that a row sets, None where it sets none."""
    return _policy_from_json(detail_of(row).get("policy"))


def entry_of(row: Row, attribution: Attribution | None) -> Entry:
    """Return a row as the value that callers see."""
    detail = detail_of(row)
    estimated = row["estimate_total_tokens"] is not None
    return Entry(
        pool_id=row["pool_id"],
        seq=row["seq"],
        kind=row["kind"],
        flags=EntryFlag(row["flags"]),
        detail=detail,
        policy=_policy_from_json(detail.get("policy")),
        estimate=UsageEstimate(**_ESTIMATE.of(row)) if estimated else None,
        request_budget=request_budget_of(row) if estimated else None,
        usage=(None if row["usage_total_tokens"] is None else Usage(**_USAGE.of(row))),
        lease=lease_of(row),
        balance=_balance_of(row),
        policy_seq=row["policy_seq"],
        window_seq=row["window_seq"],
        swept_until=row["swept_until"],
        attribution=attribution,
        request_id=row["request_id"],
        provenance=row["provenance"],
        recorded_at=row["recorded_at"],
        occurred_at=row["occurred_at"],
        idempotency_key=row["idempotency_key"],
        payload_digest=row["payload_digest"],
        hash_version=row["hash_version"],
        hash=row["hash"],
    )


def attribution_of(row: Row) -> Attribution | None:
    """Return the attribution in a row, None where it is absent or redacted."""
    if row["salt"] is None:
        return None
    return Attribution(
        **{name: row[name] for name in ATTRIBUTION_TEXTS}, tags=json.loads(row["tags"] or "{}")
    )


def _balance_of(row: Row) -> Balance:
    return Balance(
        Totals(**_COMMITTED.of(row)),
        Totals(**_RESERVED.of(row)),
    )


def policy_to_json(policy: SharedPoolBudgetOptions) -> dict[str, int | None]:
    """Return a policy as it is stored: an unlimited capacity is null."""
    values = {name: getattr(policy, name) for name in _POLICY_FIELDS}
    return {
        name: None if name in _CAPACITIES and value == U64_MAX else value
        for name, value in values.items()
    }


def _policy_from_json(values: Mapping[str, int | None] | None) -> SharedPoolBudgetOptions | None:
    if values is None:
        return None
    return SharedPoolBudgetOptions(
        **{name: U64_MAX if value is None else value for name, value in values.items()}
    )
