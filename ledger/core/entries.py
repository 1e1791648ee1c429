"""Entries of the journal, and the states of a pool and of a lease after an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntFlag, StrEnum
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple, NewType
from uuid import UUID

from ledger.core.axes import AMOUNTS, NAMES
from ledger.core.checks import Micros, from_micros
from ledger.core.extensions import Attribution
from ledger.core.kinds import ENDS_LEASE, MAKES_CALL, EntryKind, LeasePhase
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import (
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)

make = tuple.__new__
"""Makes a named tuple from a tuple of its fields, in a third of the time that calling its class
takes."""

PoolId = NewType("PoolId", int)
Seq = NewType("Seq", int)


class Totals(NamedTuple):
    """One amount on each axis that a pool counts."""

    tokens: int = 0
    cost_micros_usd: int = 0
    requests: int = 0

    @classmethod
    def of(cls, amounts: UsageEstimate | Usage | UsageDifference, *, requests: int) -> Totals:
        """Return the totals that the amounts of `requests` calls add up to."""
        tokens, cost = _amounts(amounts)
        return make(cls, (tokens, cost, requests))

    @classmethod
    def on_axes(cls, amounts: object) -> Totals:
        """Return the amounts of an object with fields named like the axes: a credit."""
        return make(cls, _on_axes(amounts))

    @classmethod
    def sum(cls, found: Iterable[Totals], start: Totals | None = None) -> Totals:
        """Return the sum of many totals on each axis, added to a first one."""
        return reduce(Totals.plus, found, start or cls())

    def plus(self, other: Totals) -> Totals:
        """Return the sum on each axis."""
        # Unrolled, like all arithmetic on the write path: a loop over the axes takes twice as long.
        tokens, cost, requests = self
        more_tokens, more_cost, more_requests = other
        return make(Totals, (tokens + more_tokens, cost + more_cost, requests + more_requests))

    def minus(self, other: Totals) -> Totals:
        """Return the difference on each axis."""
        tokens, cost, requests = self
        less_tokens, less_cost, less_requests = other
        return make(Totals, (tokens - less_tokens, cost - less_cost, requests - less_requests))


_amounts: Callable[[object], tuple[int, ...]] = attrgetter(*AMOUNTS)
_on_axes: Callable[[object], tuple[int, ...]] = attrgetter(*NAMES)


class Balance(NamedTuple):
    """What a pool has committed, and what its open leases hold."""

    committed: Totals = Totals()
    reserved: Totals = Totals()


class WindowState(NamedTuple):
    """A window that a pool is in.

    Attributes:
        start: When it began. If an opening or an adjustment began it, when that entry was recorded.
        end: When it ends, and the next one begins.
        base: The committed totals at its start. Only what is committed above them counts in this
            window.
        carried: What was left of the window before, which adds to this window's capacity. It is
            below 0 for overage that is deducted.
        skipped: How many windows before it were over without an entry.
        begun: Whether it has begun; False for a session that the next call would begin.
    """

    start: Micros
    end: Micros
    base: Totals
    carried: Totals = Totals()
    skipped: int = 0
    begun: bool = True


class EntryFlag(IntFlag):
    """Special circumstances of an entry."""

    NONE = 0
    OVERRUN = 1
    LATE = 2
    SATURATED = 4
    IMPORTED = 8
    """The call was made in the past, and counts at its own time. Corrections of imports are
    flagged, too."""
    UNPRICED = 16
    """It says 0 on an axis on which it plainly uses something, and which the pool, or one that
    shares its capacity, limits."""
    SHORTENED = 128
    """Some of its report was shortened or left out; the detail names the fields."""
    EXPIRED = 64
    """The hold ended by time-out before usage was recorded, so the usage is assumed."""
    AT_EXPIRY = 256
    """On limits and credits it counts at the time when the hold of its lease ended. Expiries have
    it, usage that came after the hold ended (whether the expiry was written or not), and
    corrections of both."""
    CLOSED = 32
    """The pool is closed: set on its closing, and on every later entry."""


DATED_FLAGS = EntryFlag.IMPORTED | EntryFlag.AT_EXPIRY
"""The flags of entries that count on limits and credits at another time than when they were
recorded."""
REPEATED_FLAGS = EntryFlag.UNPRICED | EntryFlag.SHORTENED | EntryFlag.AT_EXPIRY
"""The flags that a mirror takes over from the entry that it repeats."""


class Direction(StrEnum):
    """Which way a named threshold was crossed."""

    REACHED = "reached"
    """At least the threshold's share of a capacity is now in use."""
    LEFT = "left"
    """Less than that share is in use again."""


class LeaseState(NamedTuple):
    """A lease as an entry left it: what it still holds and what it has used so far."""

    lease: int
    estimate: UsageEstimate
    request_budget: RequestBudget
    phase: LeasePhase
    held: Totals
    used: Usage
    expires_at: Micros | None = None


class LeaseAfter(NamedTuple):
    """What an entry says of its lease; the lease's estimate and budget are in its reservation.

    Attributes:
        lease: The lease: the number of its reservation.
        phase: Where it stands after the entry.
        held: What it still holds.
        used: What it has used so far.
        expires_at: When its hold ends by time-out, None for never. After the lease's end only
            entries flagged `AT_EXPIRY` have it.
    """

    lease: int
    phase: LeasePhase
    held: Totals
    used: Usage
    expires_at: Micros | None

    @classmethod
    def of(cls, state: LeaseState, flags: EntryFlag = EntryFlag.NONE) -> LeaseAfter:
        """Return the lease part of an entry with these flags, for a lease in this state."""
        lease, _, _, phase, held, used, expires_at = state
        ended = phase is LeasePhase.ENDED and not flags & EntryFlag.AT_EXPIRY
        return cls(lease, phase, held, used, None if ended else expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who opened, adjusted, topped up or closed a pool, corrected an entry, or imported a call.

    Attributes:
        name: The name that the caller gave, None without one.
        role: The role that the session logged in to the database with, None on SQLite.
        user: The operating system's user of the process.
    """

    name: str | None = None
    role: str | None = None
    user: str

    def __str__(self) -> str:
        told = f"user {self.user}" if self.role is None else f"role {self.role}, user {self.user}"
        return told if self.name is None else f"{self.name} ({told})"


def actor_in(detail: Mapping[str, Any]) -> Actor | None:
    """Return the actor that an entry's detail names, None if it names none."""
    said = detail.get("actor")
    return None if said is None else Actor(**said)


def reason_in(detail: Mapping[str, Any]) -> str | None:
    """Return the reason that an entry's detail gives, or the report in it; None without one."""
    reported = detail.get("report")
    said = reported.get("reason") if isinstance(reported, Mapping) else None
    found: str | None = detail.get("reason", said if isinstance(said, str) else None)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One immutable row of the journal; docs/journal.md describes every column.

    Times are microseconds since 1970 (`from_micros` turns them into datetimes). The usage of a
    correction is a difference, all other usage is what was used. Reservations, denials and
    corrections have an estimate; these, settlements and observations have a request budget.
    `window_seq` is None without windows. `swept_until` is None until the pool grants a lease that
    can expire. `window` is the window that a rollover begins, or that another entry changes.
    """

    pool_id: PoolId
    seq: Seq
    kind: str
    flags: EntryFlag
    detail: Mapping[str, Any] = field(hash=False)
    estimate: UsageEstimate | None
    request_budget: RequestBudget | None
    usage: Usage | UsageDifference | None
    lease: LeaseAfter | None
    balance: Balance
    policy: SharedPoolBudgetOptions | None
    policy_seq: Seq
    window_seq: Seq | None
    swept_until: Micros | None
    attribution: Attribution | None
    request_id: str | None
    provenance: str | None
    recorded_at: Micros
    occurred_at: Micros | None
    idempotency_key: str | None
    payload_digest: bytes | None
    origin: tuple[PoolId, Seq] | None
    """The pool and number of the entry that this one mirrors; None for an original."""
    hash_version: int
    hash: bytes
    window: WindowState | None = None

    @property
    def actor(self) -> Actor | None:
        """Who asked for it; None on an entry of a kind that no person asks for."""
        return actor_in(self.detail)

    @property
    def at(self) -> datetime:
        """When the call happened, or else when the entry was recorded."""
        return from_micros(self.recorded_at if self.occurred_at is None else self.occurred_at)


def requests_of(detail: Mapping[str, Any] | None, *, otherwise: int = 1) -> int:
    """Return how many calls an entry of a funding lease counts, `otherwise` for other entries."""
    carving = (detail or {}).get("carving")
    return otherwise if carving is None else int(carving["requests"])


def funds_pool(detail: Mapping[str, Any] | None) -> bool:
    """Tell whether an entry is about a lease that funds a carved pool."""
    return "carving" in (detail or {})


def requests_made(kind: str, detail: Mapping[str, Any] | None) -> int:
    """Return how many calls an entry that records usage adds to the committed requests.

    A correction adds none, unless its detail says so, since the call was made whatever it used. A
    correction that takes back an assumed charge also takes back its call if the next entry ends the
    lease: that entry counts the call, or says that there was none.
    """
    if kind != EntryKind.CORRECTION:
        return 1 if kind in MAKES_CALL else 0
    late = late_in(detail)
    if late is not None:
        return -1 if late in ENDS_LEASE else 0
    return requests_of(detail, otherwise=0)


def late_in(detail: Mapping[str, Any] | None) -> str | None:
    """Return the kind of the late entry for which a correction takes back what an expiry assumed.

    None for every other entry.
    """
    return (detail or {}).get("late")


def lost_in(detail: Mapping[str, Any] | None) -> str | None:
    """Return the token of the lost lease that a reservation replaces, None for other entries."""
    return (detail or {}).get("lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolInfo:
    """A pool as the store knows it: its name and parent never change.

    Attributes:
        pool_id: Its number.
        identity: Its random identity, which its leases carry.
        name: Its name.
        parent_id: The pool above it.
        carved_lease: The lease in the parent that funds it; None if it has no parent or shares the
            parent's capacity.
    """

    pool_id: PoolId
    identity: UUID
    name: str
    parent_id: PoolId | None = None
    carved_lease: int | None = None
