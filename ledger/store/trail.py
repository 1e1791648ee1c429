"""The trail: verification of the parts of a pool's entries that no balance depends on.

The replay decides amounts again. The trail checks the rest of each entry against the entries before
it: keys, times, attribution, the provider's id of the call, and how far due leases have expired.
"""

from __future__ import annotations

import heapq
from datetime import timedelta
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import I64_MAX, NAME_MAX_CHARS, canonical_json
from ledger.core.entries import Entry, EntryFlag, LeaseAfter, LeaseState, PoolId, late_in
from ledger.core.errors import InvalidInputError
from ledger.core.fold import Replay
from ledger.core.kinds import (
    BY_ITSELF,
    CHANGES_WINDOW,
    CORRECTABLE,
    KINDS,
    SETS_EXPIRY,
    EntryKind,
)
from ledger.core.past_calls import exact_cost_in
from ledger.core.policy import LEASE_TTL_MAX, policy_to_json
from ledger.core.usage_reports import REPORTED
from ledger.core.values import Provenance, UsageEstimate
from ledger.store.amounts import amount_groups, amount_values, amounts_in
from ledger.store.rows import Row, window_json

_KEPT = ("run_id", "parent_run_id", "tenant", "agent", "operation")
"""The fields of a lease's attribution that a usage report cannot change."""

_MICROSECOND = timedelta(microseconds=1)

_CALLERS = ("attribution_id", "request_id", "occurred_at")
"""Columns that are NULL in an entry that is about no call."""


class _Carried(NamedTuple):
    """The values that each entry of a lease repeats from its reservation, and what it has used."""

    attribution_id: int | None
    kept: tuple[str | None, ...] | None
    """None if the attribution is absent or redacted."""
    request_id: str | None
    occurred_at: int | None
    origin_pool_id: PoolId | None
    state: LeaseState


class Trail:
    """The state of the entries so far with which the next must agree; of leases only open ones."""

    def __init__(self) -> None:
        self.recorded_at: int | None = None
        """When the newest entry was recorded."""
        self.granted: int | None = None
        """The newest entry about a lease that this pool granted; pools above mirror that entry."""
        self._swept_until: int | None = None
        self._leases: dict[int, _Carried] = {}
        self._ends: list[tuple[int, int]] = []
        """A heap of when leases granted here are due; some of them have ended since."""
        self._origins: dict[int, int] = {}
        """The last entry of each other pool that this pool repeated."""

    def problem(self, row: Row, entry: Entry, state: Replay) -> str | None:
        """Return what is wrong with the next entry; if nothing is, take it over and return None.

        Args:
            row: The entry as it is stored.
            entry: The same, read.
            state: The pool after it.
        """
        reason = (
            _shape_problem(row, entry, state)
            or self._order_problem(row)
            or self._lease_problem(row, entry, state)
            or self._sweep_problem(row, entry, state)
        )
        self.recorded_at, self._swept_until = row["recorded_at"], row["swept_until"]
        if entry.lease is not None and entry.origin is None:
            self.granted = entry.seq
        return reason

    def _order_problem(self, row: Row) -> str | None:
        """Check that entries of another pool are repeated in their order, so each at most once."""
        pool_id, seq = row["origin_pool_id"], row["origin_seq"]
        if seq is None:
            return None
        if seq <= self._origins.get(pool_id, 0):
            return f"it repeats entry {seq} of pool {pool_id} again, or out of order"
        self._origins[pool_id] = seq
        return None

    def _lease_problem(self, row: Row, entry: Entry, state: Replay) -> str | None:
        lease = entry.lease
        if lease is None or entry.kind == EntryKind.CORRECTION:
            return None  # the entry that it corrects is looked up
        reason = _expiry_problem(entry, lease, state)
        before = self._leases.get(lease.lease)
        if before is not None and reason is None:
            reason = _carried_problem(row, entry, before) or _abandoned_problem(
                entry, before, state
            )
        after = state.leases.get(lease.lease)
        if after is None:
            self._leases.pop(lease.lease, None)
        elif before is not None:
            self._leases[lease.lease] = before._replace(state=after)
        else:
            self._leases[lease.lease] = _Carried(
                row["attribution_id"],
                _kept(row),
                row["request_id"],
                row["occurred_at"],
                row["origin_pool_id"],
                after,
            )
        return reason

    def _sweep_problem(self, row: Row, entry: Entry, state: Replay) -> str | None:
        """Check that no lease granted here and due by the swept time still holds anything."""
        recorded_at, swept_until = row["recorded_at"], row["swept_until"]
        if entry.kind == EntryKind.THRESHOLD and recorded_at != self.recorded_at:
            return "it is not recorded at the time of the entry whose crossing it reports"
        lease = entry.lease
        if lease is not None and lease.expires_at is not None and _sets_expiry(entry):
            heapq.heappush(self._ends, (lease.expires_at, lease.lease))
        least, most = self._swept_until, recorded_at
        if least is None:  # nothing to sweep until a lease is granted that can expire
            least = most = recorded_at if self._ends else None
        elif entry.kind == EntryKind.THRESHOLD:
            most = least
        if swept_until is None or least is None:
            if swept_until == least:
                return None
            return f"swept_until should be {least}, but is {swept_until}"
        if not least <= swept_until <= most:
            return f"swept_until should be from {least} to {most}, but is {swept_until}"
        while self._ends and self._ends[0][0] <= swept_until:
            expires_at, lease_id = heapq.heappop(self._ends)
            still = state.leases.get(lease_id)
            renewed = still is not None and still.expires_at != expires_at
            if still is not None and not renewed and rules.due(still, swept_until):
                return f"swept_until is {swept_until}, but lease {lease_id} is due and still holds"
        return None


def _shape_problem(row: Row, entry: Entry, state: Replay) -> str | None:
    """Check that an entry holds what its kind must, and nothing else."""
    if (row["origin_pool_id"] is None) != (row["origin_seq"] is None):
        return "it names half an entry that it repeats"
    kind, detail = entry.kind, entry.detail
    # A correction that takes back an assumed charge belongs to the call of the next entry, which
    # has the key.
    called = entry.origin is None and kind not in BY_ITSELF and late_in(detail) is None
    needed = {"idempotency_key"} if called else set()
    needed.update(("payload_digest",) if called and kind == EntryKind.IMPORT else ())
    charged = kind in CORRECTABLE or (kind == EntryKind.EXPIRY and entry.usage is not None)
    if charged and "carving" not in detail:
        needed.add("provenance")
    refused = {"idempotency_key", "payload_digest", "provenance"} - needed
    if called:
        refused.discard("payload_digest")  # if the caller gave the key
    if kind == EntryKind.CORRECTION:
        refused.discard("provenance")  # it is that of the corrected entry
    if entry.lease is None:
        refused.add("origin_seq")
        refused.update(() if entry.estimate is not None else _CALLERS)
    for name in sorted(needed | refused):
        if (row[name] is not None) != (name in needed):
            return f"{kind} {'without' if name in needed else 'with'} {name}"
    if row["provenance"] not in {None, *Provenance}:
        return f"provenance {row['provenance']!r} is none that there is"
    said = entry.estimate, entry.request_budget, entry.usage, entry.lease
    amounts = amount_values(amount_groups(kind, *said, entry.flags))
    if amounts_in(row) != amounts:
        return f"{kind} whose amounts are not as they are written"
    return _detail_problem(row, entry, state)


def _detail_problem(row: Row, entry: Entry, state: Replay) -> str | None:
    kind, detail = entry.kind, entry.detail
    if row["detail"] != (canonical_json(detail) if detail else None):
        return "its detail is not canonical JSON"
    if set(detail) not in KINDS[EntryKind(kind)].details or (
        entry.origin is None and "carving" in detail
    ):
        return f"{kind} whose detail holds {', '.join(sorted(detail)) or 'nothing'}"
    if kind == EntryKind.IMPORT and "report" in detail and not _is_cost(entry):
        return f"{kind} whose exact cost is not what it charged"
    return _said_problem(entry, state)


def _said_problem(entry: Entry, state: Replay) -> str | None:
    """Check the parts of a detail that can be written in only one way."""
    kind, detail = entry.kind, entry.detail
    if entry.policy is not None and detail["policy"] != policy_to_json(entry.policy):
        return f"{kind} whose policy is not as it is written"
    since = state.window_began if kind in CHANGES_WINDOW else None
    if entry.window is not None and detail["window"] != window_json(entry.window, since=since):
        return f"{kind} whose window is not as it is written"
    for name in ("reason", "lost"):
        if not isinstance(detail.get(name, ""), str):
            return f"{kind} whose {name} is no text"
    if "actor" in detail and not _is_actor(detail["actor"]):
        return f"{kind} that does not say who asked for it"
    if "shortened" in detail and not _names_fields(detail["shortened"]):
        return f"{kind} that does not say what of its report was shortened"
    return None


def _is_cost(entry: Entry) -> bool:
    """Tell whether an import's report has only its exact cost, which rounds up to the charge."""
    said = entry.detail["report"]
    micros = -1 if entry.usage is None else entry.usage.cost_micros_usd
    return (
        isinstance(said, dict)
        and set(said) == {"cost_usd"}
        and exact_cost_in(said["cost_usd"], micros) is not None
    )


def _is_actor(said: object) -> bool:
    """Tell whether these are the fields of an actor: texts, with at least the system's user."""
    return (
        isinstance(said, dict)
        and {"user"} <= set(said) <= {"name", "role", "user"}
        and all(
            isinstance(part, str) and 1 <= len(part) <= NAME_MAX_CHARS for part in said.values()
        )
    )


def _names_fields(shortened: object) -> bool:
    """Tell whether these are fields of a report, each once and in order."""
    return bool(shortened) and shortened == [
        name for name in REPORTED if isinstance(shortened, list) and name in shortened
    ]


def _expiry_problem(entry: Entry, lease: LeaseAfter, state: Replay) -> str | None:
    """Check when a lease that is granted or renewed here ends by itself."""
    if not _sets_expiry(entry):
        return None
    expires_at = lease.expires_at
    if expires_at is None:
        # A caller can ask for another time, but not for no end.
        return None if state.policy.lease_ttl is None else "lease without an end"
    if not 0 < expires_at - entry.recorded_at <= LEASE_TTL_MAX // _MICROSECOND:
        return f"lease that is to hold from {entry.recorded_at} until {expires_at}"
    return None


def _sets_expiry(entry: Entry) -> bool:
    """Tell whether an entry says when a hold ends; the others repeat it."""
    return entry.origin is None and entry.kind in SETS_EXPIRY


def _carried_problem(row: Row, entry: Entry, before: _Carried) -> str | None:
    """Compare an entry with the reservation of its lease."""
    if row["origin_pool_id"] != before.origin_pool_id:
        return f"lease {row['lease']} is of pool {before.origin_pool_id or row['pool_id']}"
    if row["origin_pool_id"] is not None:
        return None  # compared with what it repeats
    # A caller that abandons a lease may know the model and the id of the answer; an expiry does
    # not.
    by_policy = "settlement" in entry.detail
    reported = row["kind"] in CORRECTABLE
    if by_policy:
        reported = row["kind"] == EntryKind.SETTLEMENT
    for name in ("request_id", "occurred_at"):
        value, earlier = row[name], getattr(before, name)
        may_differ = reported and value is not None and (name == "request_id" or not by_policy)
        if value != earlier and not may_differ:
            return f"{name} should be {earlier!r} as its lease was granted, but is {value!r}"
    if row["attribution_id"] == before.attribution_id:
        return None
    kept = _kept(row)
    if reported and row["attribution_id"] is not None:
        none = (None,) * len(_KEPT)
        earlier_kept = none if before.attribution_id is None else before.kept
        if kept is None or earlier_kept is None or kept == earlier_kept:
            return None
    return f"attribution should be {before.attribution_id} as its lease was granted"


def _abandoned_problem(entry: Entry, before: _Carried, state: Replay) -> str | None:
    """Check the end of a hold without recorded usage, whose charge the policy determines."""
    said = entry.detail.get("settlement")
    if said is None or entry.origin is not None:
        return None
    policy, lease = state.policy.settlement, before.state
    if said != policy:
        return f"settlement should be {str(policy)!r}, but is {said!r}"
    if entry.flags & EntryFlag.LATE:
        return "it ends a lease by policy whose hold had ended so before"
    try:
        assumed = rules.assumed(policy, _restated(entry, lease))
    except (TypeError, InvalidInputError):
        return "the estimate that it goes by cannot be read, or leaves out a part of the total"
    usage, provenance = (None, None) if assumed is None else assumed
    if (entry.usage, entry.provenance) != (usage, provenance):
        return f"a lease abandoned under policy {said!r} should be settled at {usage}, {provenance}"
    return None


def _restated(entry: Entry, lease: LeaseState) -> LeaseState:
    """Return the lease with the estimate that a settlement by policy states, if it states one.

    Raises:
        TypeError: The estimate has no amounts.
        InvalidInputError: An amount is not valid, or the total is too low.
    """
    if entry.kind != EntryKind.SETTLEMENT or "estimate" not in entry.detail:
        return lease
    known = UsageEstimate(**entry.detail["estimate"])
    if rules.restated(lease, known, ceiling=I64_MAX) != known:
        raise InvalidInputError("estimate", "leaves out a part of the total")
    return lease._replace(estimate=known)


def _kept(row: Row) -> tuple[str | None, ...] | None:
    return None if row["salt"] is None else tuple(row[name] for name in _KEPT)


def correction_problem(row: Row, corrected: Row) -> str | None:
    """Check that a correction counts at the time of the corrected entry.

    A correction that is no mirror must also have the attribution of that entry.
    """
    if (row["flags"] ^ corrected["flags"]) & EntryFlag.AT_EXPIRY:
        return f"correction that counts at another time than entry {corrected['seq']}"
    if row["origin_seq"] is not None:
        return None
    at = corrected["recorded_at"] if corrected["occurred_at"] is None else corrected["occurred_at"]
    expected = {
        **{name: corrected[name] for name in ("attribution_id", "request_id", "provenance")},
        "occurred_at": at,
    }
    for name, value in expected.items():
        if row[name] != value:
            return f"{name} should be {value!r}, but is {row[name]!r}"
    return None
