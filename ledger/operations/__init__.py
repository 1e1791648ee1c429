"""What can be done to a pool.

An operation decides a draft from the pool's newest entry, by the rules; the draft becomes an
entry; and the entry alone gives the caller's answer, now or whenever the same idempotency key
comes again.
"""

from ledger.operations.adjust import Adjust
from ledger.operations.base import Operation, new_key
from ledger.operations.closing import ClosePool
from ledger.operations.correct import Correct
from ledger.operations.opening import Opening
from ledger.operations.perform import Call, Done, Outcome, perform
from ledger.operations.record import Record
from ledger.operations.release import Close, Release
from ledger.operations.renew import Renew
from ledger.operations.reserve import NotYetError, Reserve
from ledger.operations.table import MorePoolsError

__all__ = [
    "Adjust",
    "Call",
    "Close",
    "ClosePool",
    "Correct",
    "Done",
    "MorePoolsError",
    "NotYetError",
    "Opening",
    "Operation",
    "Outcome",
    "Record",
    "Release",
    "Renew",
    "Reserve",
    "new_key",
    "perform",
]
