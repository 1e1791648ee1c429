"""The operations on a pool.

An operation decides a draft from the pool's newest entry, by the rules. The draft becomes an entry.
The caller's answer is made from this entry and nothing else, so a later call under the same
idempotency key gets the same answer.
"""

from ledger.engine.operations.adjust import Adjust, Ensure, InForceError
from ledger.engine.operations.base import Operation
from ledger.engine.operations.closing import ClosePool
from ledger.engine.operations.correct import Correct
from ledger.engine.operations.credit import TopUp
from ledger.engine.operations.imported import Import
from ledger.engine.operations.lost import RecordLost
from ledger.engine.operations.record import Record
from ledger.engine.operations.release import Abandon, Release
from ledger.engine.operations.renew import Renew
from ledger.engine.operations.replayed import (
    NotReservedError,
    OtherCallError,
    Replayed,
)
from ledger.engine.operations.reserve import NotYetError, Reserve

__all__ = [
    "Abandon",
    "Adjust",
    "ClosePool",
    "Correct",
    "Ensure",
    "Import",
    "InForceError",
    "NotReservedError",
    "NotYetError",
    "Operation",
    "OtherCallError",
    "Record",
    "RecordLost",
    "Release",
    "Renew",
    "Replayed",
    "Reserve",
    "TopUp",
]
