"""What can be done to a pool.

An operation decides a draft from the pool's newest entry, by the rules; the draft becomes an
entry; and the entry alone gives the caller's answer, now or whenever the same idempotency key
comes again.
"""

from ledger.operations.adjust import Adjust, check_policy
from ledger.operations.base import Operation, new_key
from ledger.operations.perform import Outcome, perform
from ledger.operations.release import Release
from ledger.operations.reserve import Reserve
from ledger.operations.settle import Settle

__all__ = [
    "Adjust",
    "Operation",
    "Outcome",
    "Release",
    "Reserve",
    "Settle",
    "check_policy",
    "new_key",
    "perform",
]
