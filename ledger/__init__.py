"""Spend money on language models without overspending, and prove where every cent went.

Open a store with `Ledger.open`, get a pool's budget with `Ledger.pool`, then `reserve` before
each call, `record_used` after it, and ask `remaining` at any time.
"""

from ledger.aio import AsyncLedger, AsyncLedgerBudgetManager
from ledger.book import Ledger
from ledger.budget import AsyncBudgetManager, BudgetManager, RequestExtensions
from ledger.checks import I64_MAX, U64_MAX, from_micros
from ledger.errors import (
    AmountOutOfRangeError,
    BudgetError,
    ContentionError,
    ExportError,
    IdempotencyConflictError,
    InvalidInputError,
    InvalidUrlError,
    JournalDamagedError,
    LedgerError,
    LedgerUnavailableError,
    MissingExtraError,
    NotALedgerError,
    OutcomeUnknownError,
    PoisonedError,
    PoolConflictError,
    RequestBudgetExceededError,
    SchemaVersionError,
    StoreError,
    ThresholdExceededError,
    TraceAlreadyRunError,
    TraceError,
    UnknownLeaseError,
    UnknownPoolError,
)
from ledger.manager import LedgerBudgetManager
from ledger.memory import SharedPoolBudgetManager
from ledger.model import (
    Attribution,
    BudgetLease,
    IdempotencyKey,
    LeaseTtl,
    OccurredAt,
    Provenance,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.policy import SettlementPolicy, SharedPoolBudgetOptions
from ledger.records import (
    Balance,
    Entry,
    EntryFlag,
    EntryKind,
    LeasePhase,
    LeaseState,
    OpenLease,
    PoolInfo,
    PoolStatus,
    Totals,
)
from ledger.replay import Damage, Verification

__version__ = "0.1.0"

__all__ = [
    "I64_MAX",
    "U64_MAX",
    "AmountOutOfRangeError",
    "AsyncBudgetManager",
    "AsyncLedger",
    "AsyncLedgerBudgetManager",
    "Attribution",
    "Balance",
    "BudgetError",
    "BudgetLease",
    "BudgetManager",
    "ContentionError",
    "Damage",
    "Entry",
    "EntryFlag",
    "EntryKind",
    "ExportError",
    "IdempotencyConflictError",
    "IdempotencyKey",
    "InvalidInputError",
    "InvalidUrlError",
    "JournalDamagedError",
    "LeasePhase",
    "LeaseState",
    "LeaseTtl",
    "Ledger",
    "LedgerBudgetManager",
    "LedgerError",
    "LedgerUnavailableError",
    "MissingExtraError",
    "NotALedgerError",
    "OccurredAt",
    "OpenLease",
    "OutcomeUnknownError",
    "PoisonedError",
    "PoolConflictError",
    "PoolInfo",
    "PoolStatus",
    "Provenance",
    "Remaining",
    "RequestBudget",
    "RequestBudgetExceededError",
    "RequestExtensions",
    "SchemaVersionError",
    "SettlementPolicy",
    "SharedPoolBudgetManager",
    "SharedPoolBudgetOptions",
    "StoreError",
    "ThresholdExceededError",
    "Totals",
    "TraceAlreadyRunError",
    "TraceError",
    "UnknownLeaseError",
    "UnknownPoolError",
    "Usage",
    "UsageEstimate",
    "UsageReport",
    "Verification",
    "from_micros",
]
