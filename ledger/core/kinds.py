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
    """Where a lease stands: its hold may expire before it ends."""

    OPEN = "open"
    EXPIRED = "expired"
    ENDED = "ended"


class Kind(NamedTuple):
    """The properties of a kind of entry.

    Attributes:
        has: Which of `policy`, `estimate`, `usage` and `lease` it has; it has no other. One with a
            lease is repeated in every pool above that shares its capacity.
        may_have: Which of them it has in some cases only.
        phase: Where it leaves its lease; an observation or correction that is late leaves it
            expired.
        asks: It is the answer to a reservation: the rules decide it by `admit`.
        sets_expiry: It says when a hold ends; others repeat that.
        ends_lease: There is at most one such entry a lease.
        is_whole: It is a whole lease by itself: granted, settled and ended at once.
        is_charged: The usage that it records is spent.
        can_be_corrected: It records what one call used, and a correction may say otherwise.
        is_difference: Its usage is a difference, and may be negative.
        gives_back: It may give capacity back, or set another policy: waiting callers ask again.
        is_new: A closed pool does not take it.
        ends_window: It is written when a window has ended, and before the next one begins.
        counted_as: The figure of reports that counts such entries.
        by_itself: No call leads to it, so that it has no key.
        has_actor: Its detail says who asked for it, and on PostgreSQL a worker's role may not write
            it. Corrections that follow from what is recorded are an exception.
        details: What its detail consists of, each way in which it may.
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
        # Behind `lost` comes the spend of a lease that a restored store does not know.
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
        # It assumes what the call used, unless the pool's policy is to give the hold back.
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
            # Where the pool is prepaid, or was so once, its credits are carried on.
            *("policy rules actor", "policy rules actor reason"),
            *("policy rules actor credits", "policy rules actor credits reason"),
        ),
    ),
    # It repeats the policy, so that `policy_seq` leads to the credits as well.
    EntryKind.CREDIT: Kind(
        _POLICY,
        gives_back=True,
        is_new=True,
        has_actor=True,
        details=_details("policy rules actor credits", "policy rules actor credits reason"),
    ),
    # Leases that have ended are corrected; of one that has expired, what the expiry assumed.
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
                # The last two follow from what was recorded: nobody asked for them.
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
"""The kinds of what may come between a reservation and the end of its lease, or behind the end."""
BEGINS_LEASE = tuple(
    kind for kind, row in KINDS.items() if "lease" in row.has and (row.asks or row.is_whole)
)
"""The kinds of the entry whose number is the lease's."""
MAKES_CALL = tuple(
    kind
    for kind, row in KINDS.items()
    if row.is_charged and (row.ends_lease or row.is_whole or row.phase is LeasePhase.EXPIRED)
)
"""The kinds of which each entry says that a call was made, and what it used last."""
ENDS_HOLD = tuple(
    kind for kind in FOLLOWS_UP if KINDS[kind].sets_expiry or PHASES[kind] is LeasePhase.EXPIRED
)
"""The kinds after which a lease does not hold until the time that was said before."""
MAY_BE_LATE = frozenset(kind for kind in FOLLOWS_UP if "usage" in KINDS[kind].has)
"""The kinds that leave their lease expired if they are flagged late."""
HAS_BUDGET = frozenset(kind for kind, row in KINDS.items() if row.has & {"estimate", "usage"})
"""The kinds that say the request's own budget: it was asked for, or usage is held to it."""
CHARGED = _those("is_charged")
CORRECTABLE = _those("can_be_corrected")
DIFFERENCES = _those("is_difference")
BY_ITSELF = _those("by_itself")
SAYS_WINDOW = frozenset(
    kind for kind, row in KINDS.items() if any("window" in way for way in row.details)
)
"""The kinds whose detail may say which window begins, or what changed in the present one."""
CHANGES_WINDOW = frozenset(kind for kind in SAYS_WINDOW if "lease" in KINDS[kind].has)
"""The kinds that may change what the present window counts from, and begin none."""
HAS_ACTOR = _those("has_actor")
FOLLOWS_FROM = ("carving", "late")
"""Parts of the detail of a correction that follows from what is recorded, so that none asked."""
GIVES_BACK = frozenset(_those("gives_back"))
COUNTED_AS = {row.counted_as: kind for kind, row in KINDS.items() if row.counted_as is not None}
COUNTED_ALONE = tuple(kind for kind in COUNTED_AS.values() if "usage" not in KINDS[kind].has)
"""Kinds that reports count although nothing may be charged for them."""


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
