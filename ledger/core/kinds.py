"""The kinds of entries: one row each. Every group of kinds, in Python and SQL, derives from them.

A new kind is a name in `EntryKind`, a row in `KINDS`, an operation that writes it, and its place in
docs/journal.md; a test fails if one of these is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class EntryKind(StrEnum):
    """What an entry of the journal records."""

    OPENING = "opening"
    RESERVATION = "reservation"
    DENIAL = "denial"
    OBSERVATION = "observation"
    RENEWAL = "renewal"
    SETTLEMENT = "settlement"
    RELEASE = "release"
    EXPIRY = "expiry"
    ADJUSTMENT = "adjustment"
    CREDIT = "credit"
    CORRECTION = "correction"
    ROLLOVER = "rollover"
    THRESHOLD = "threshold"
    CLOSING = "closing"
    IMPORT = "import"


class LeasePhase(StrEnum):
    """The phase of a lease: its hold may expire before the lease ends."""

    OPEN = "open"
    EXPIRED = "expired"
    ENDED = "ended"


class Kind(NamedTuple):
    """The properties of a kind of entry.

    Attributes:
        has: Which of `policy`, `estimate`, `usage` and `lease` it always has. An entry with a lease
            is mirrored in every pool above that shares its capacity.
        may_have: Which of these it has in some cases.
        phase: The phase of its lease after it. A late observation or correction leaves the lease
            expired.
        asks: It answers a `reserve`: the rules decide it by `admit`.
        sets_expiry: It sets when a hold ends; other kinds repeat that time.
        ends_lease: It ends its lease; a lease has at most one such entry.
        is_whole: It is a whole lease by itself: one that is granted and settled at once.
        is_charged: Its usage is committed.
        can_be_corrected: It records the usage of one call, which a correction may change.
        is_difference: Its usage is a difference, and may be negative.
        gives_back: It may give capacity back, or set another policy, so waiting callers ask again.
        is_new: A closed pool does not take it.
        ends_window: It is written between the end of a window and the beginning of the next one.
        counted_as: The figure of reports that counts such entries.
        by_itself: No call leads to it, so it has no idempotency key.
        has_actor: Its detail names who asked for it, and on PostgreSQL a worker's role may not
            write it. Corrections that follow from another entry are an exception (`FOLLOWS_FROM`).
        details: The sets of fields that its detail may consist of.
    """

    has: frozenset[str] = frozenset()
    may_have: frozenset[str] = frozenset()
    phase: LeasePhase | None = None
    asks: bool = False
    sets_expiry: bool = False
    ends_lease: bool = False
    is_whole: bool = False
    is_charged: bool = False
    can_be_corrected: bool = False
    is_difference: bool = False
    gives_back: bool = False
    is_new: bool = False
    ends_window: bool = False
    counted_as: str | None = None
    by_itself: bool = False
    has_actor: bool = False
    details: tuple[frozenset[str], ...] = (frozenset(),)


def _details(*ways: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(way.split()) for way in ways)


_POLICY = frozenset({"policy"})
_ASKED = frozenset({"estimate"})
_GRANTED = frozenset({"estimate", "lease"})
_OF_LEASE = frozenset({"lease"})
_USAGE = frozenset({"usage", "lease"})
_CORRECTED = frozenset({"estimate", "usage", "lease"})

KINDS = {
    EntryKind.OPENING: Kind(
        _POLICY,
        gives_back=True,
        has_actor=True,
        details=_details(
            *(
                f"policy rules actor{parent}{why}"
                for parent in ("", " parent")
                for why in ("", " reason")
            ),
        ),
    ),
    EntryKind.RESERVATION: Kind(
        _GRANTED,
        phase=LeasePhase.OPEN,
        asks=True,
        sets_expiry=True,
        is_new=True,
        counted_as="requests",
        # `lost` marks the reservation of a lease that a restored store does not know.
        details=_details("", "carving", "lost"),
    ),
    EntryKind.DENIAL: Kind(
        _ASKED, asks=True, is_new=True, counted_as="denied", details=_details("denial")
    ),
    EntryKind.OBSERVATION: Kind(
        _USAGE,
        phase=LeasePhase.OPEN,
        is_charged=True,
        can_be_corrected=True,
        details=_details("", "report", "shortened", "report shortened"),
    ),
    EntryKind.RENEWAL: Kind(_OF_LEASE, phase=LeasePhase.OPEN, sets_expiry=True, is_new=True),
    EntryKind.SETTLEMENT: Kind(
        _USAGE,
        phase=LeasePhase.ENDED,
        ends_lease=True,
        is_charged=True,
        can_be_corrected=True,
        gives_back=True,
        details=_details(
            *("", "report", "shortened", "report shortened", "carving"),
            *("settlement", "settlement estimate"),
        ),
    ),
    EntryKind.RELEASE: Kind(
        _OF_LEASE,
        phase=LeasePhase.ENDED,
        ends_lease=True,
        gives_back=True,
        counted_as="releases",
        details=_details("", "settlement"),
    ),
    EntryKind.EXPIRY: Kind(
        _OF_LEASE,
        # It has the usage that is assumed of the call, unless the pool's policy gives the hold
        # back.
        may_have=frozenset({"usage"}),
        phase=LeasePhase.EXPIRED,
        is_charged=True,
        gives_back=True,
        ends_window=True,
        counted_as="expiries",
        by_itself=True,
        details=_details("settlement"),
    ),
    EntryKind.ADJUSTMENT: Kind(
        _POLICY,
        gives_back=True,
        is_new=True,
        has_actor=True,
        details=_details(
            # It repeats the credits of a pool that is prepaid, or was once.
            *("policy rules actor", "policy rules actor reason"),
            *("policy rules actor credits", "policy rules actor credits reason"),
        ),
    ),
    # It repeats the policy, so that `policy_seq` leads to the credits, too.
    EntryKind.CREDIT: Kind(
        _POLICY,
        gives_back=True,
        is_new=True,
        has_actor=True,
        details=_details("policy rules actor credits", "policy rules actor credits reason"),
    ),
    # Of an ended lease its usage is corrected, of an expired one the assumed usage.
    EntryKind.CORRECTION: Kind(
        _CORRECTED,
        phase=LeasePhase.ENDED,
        is_charged=True,
        is_difference=True,
        gives_back=True,
        counted_as="corrections",
        has_actor=True,
        details=_details(
            *(
                f"corrects from to reason {why}{window}"
                # No person asks for the last two: they follow from other entries.
                for why in ("actor", "carving", "late")
                for window in ("", " window")
            ),
        ),
    ),
    EntryKind.ROLLOVER: Kind(gives_back=True, details=_details("window"), by_itself=True),
    EntryKind.THRESHOLD: Kind(ends_window=True, details=_details("threshold"), by_itself=True),
    EntryKind.CLOSING: Kind(
        gives_back=True, is_new=True, has_actor=True, details=_details("actor", "actor reason")
    ),
    # A call of the past. A closed pool takes it: the call was made, and it is charged.
    EntryKind.IMPORT: Kind(
        _CORRECTED,
        phase=LeasePhase.ENDED,
        is_whole=True,
        is_charged=True,
        can_be_corrected=True,
        counted_as="imports",
        has_actor=True,
        details=_details(
            *("actor reason", "actor reason report"),
            *("actor reason window", "actor reason report window"),
        ),
    ),
}


def _those(trait: str) -> tuple[EntryKind, ...]:
    return tuple(kind for kind, row in KINDS.items() if getattr(row, trait))


PHASES = {kind: row.phase for kind, row in KINDS.items() if row.phase is not None}
LEAVES_OPEN = tuple(kind for kind, phase in PHASES.items() if phase is LeasePhase.OPEN)
"""The kinds after which a lease is open."""
SETS_EXPIRY = _those("sets_expiry")
ENDS_LEASE = _those("ends_lease")
FOLLOWS_UP = tuple(
    kind
    for kind, row in KINDS.items()
    if "lease" in row.has and not (row.asks or row.ends_lease or row.is_whole)
)
"""The kinds of entries that may come between a reservation and the end of its lease, or after the
end."""
BEGINS_LEASE = tuple(
    kind for kind, row in KINDS.items() if "lease" in row.has and (row.asks or row.is_whole)
)
"""The kinds of entries whose number is their lease's number."""
MAKES_CALL = tuple(
    kind
    for kind, row in KINDS.items()
    if row.is_charged and (row.ends_lease or row.is_whole or row.phase is LeasePhase.EXPIRED)
)
"""The kinds of entries each of which says that one call was made, with the last part of its
usage."""
ENDS_HOLD = tuple(
    kind for kind in FOLLOWS_UP if KINDS[kind].sets_expiry or PHASES[kind] is LeasePhase.EXPIRED
)
"""The kinds of entries that change when a lease's hold ends."""
MAY_BE_LATE = frozenset(kind for kind in FOLLOWS_UP if "usage" in KINDS[kind].has)
"""The kinds that leave their lease expired if they are flagged late."""
HAS_BUDGET = frozenset(kind for kind, row in KINDS.items() if row.has & {"estimate", "usage"})
"""The kinds that have the request's own budget, since an estimate or usage is compared with it."""
CHARGED = _those("is_charged")
CORRECTABLE = _those("can_be_corrected")
DIFFERENCES = _those("is_difference")
BY_ITSELF = _those("by_itself")
SAYS_WINDOW = frozenset(
    kind for kind, row in KINDS.items() if any("window" in way for way in row.details)
)
"""The kinds whose detail may say which window begins, or what changed in the present one."""
CHANGES_WINDOW = frozenset(kind for kind in SAYS_WINDOW if "lease" in KINDS[kind].has)
"""The kinds that may change the base of the present window, and begin no window."""
HAS_ACTOR = _those("has_actor")
FOLLOWS_FROM = ("carving", "late")
"""Fields in the detail of a correction that follows from another entry and has no actor."""
GIVES_BACK = frozenset(_those("gives_back"))
COUNTED_AS = {row.counted_as: kind for kind, row in KINDS.items() if row.counted_as is not None}
COUNTED_ALONE = tuple(kind for kind in COUNTED_AS.values() if "usage" not in KINDS[kind].has)
"""The kinds that reports count even if nothing is charged for them."""


def named(kinds: Iterable[EntryKind]) -> str:
    """Return kinds as a sentence says them: "an observation, a settlement or an import"."""
    *others, last = [f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in kinds]
    return f"{', '.join(others)} or {last}" if others else last


def sql(kinds: Iterable[EntryKind], column: str = "kind") -> str:
    """Return the condition that an entry is of one of these kinds.

    The kinds are written out as literals, since databases match only these to a partial index. For
    a list of three or more, SQLite would make a temporary table with every row that it inserts.
    """
    literals = [f"'{kind}'" for kind in kinds]
    if len(literals) == _LISTED_MAX:
        return f"{column} IN ({', '.join(literals)})"
    either = " OR ".join(f"{column} = {one}" for one in literals)
    return f"({either})" if len(literals) > 1 else either


_LISTED_MAX = 2
