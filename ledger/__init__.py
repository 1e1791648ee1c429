"""Spend money on language models without overspending, and prove where every cent went.

Open a store with `Ledger.open`, get a pool's budget with `Ledger.pool`, then `reserve` before
each call, `record_used` after it, and ask `remaining` at any time.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from ledger.aio import AsyncLedger
    from ledger.contract import AsyncBudgetManager, BudgetManager
    from ledger.core.alerts import Alert
    from ledger.core.calendar import Period, Window
    from ledger.core.checks import I64_MAX, U64_MAX, from_micros, usd
    from ledger.core.credits import Credit
    from ledger.core.entries import (
        Actor,
        Balance,
        Direction,
        Entry,
        EntryFlag,
        LeaseAfter,
        LeaseState,
        PoolInfo,
        Totals,
        WindowState,
    )
    from ledger.core.errors import (
        AmountOutOfRangeError,
        BillingFileError,
        BudgetError,
        ContentionError,
        EntryCorrectedError,
        ExportError,
        IdempotencyConflictError,
        InvalidInputError,
        InvalidUrlError,
        JournalDamagedError,
        LedgerError,
        LedgerUnavailableError,
        LostLeaseError,
        MissingExtraError,
        NotALedgerError,
        NotPermittedError,
        OpenLeasesError,
        OtherStoreError,
        OutcomeUnknownError,
        ParentConflictError,
        PoisonedError,
        PoolClosedError,
        PoolConflictError,
        PriceTableError,
        ReadOnlyLedgerError,
        RequestBudgetExceededError,
        RowsDiscardedError,
        SchemaVersionError,
        StoreError,
        StoreWentBackWarning,
        ThresholdExceededError,
        TraceAlreadyRunError,
        UncorrectableEntryError,
        UnknownLeaseError,
        UnknownPoolError,
        UnknownPriceError,
        UnknownRulesError,
        UnpricedCallError,
    )
    from ledger.core.extensions import (
        Attribution,
        IdempotencyKey,
        LeaseTtl,
        OccurredAt,
        RequestExtensions,
    )
    from ledger.core.kinds import EntryKind, LeasePhase
    from ledger.core.limits import Limit, Rolling
    from ledger.core.past_calls import ImportedCall, PastCall
    from ledger.core.policy import SettlementPolicy, SharedPoolBudgetOptions, Unpriced
    from ledger.core.status import (
        CreditStatus,
        LimitStatus,
        OpenLease,
        PoolStatus,
        Standby,
        ThresholdCrossing,
    )
    from ledger.core.unbilled import is_unbilled, register_unbilled
    from ledger.core.usage_reports import UsageReport
    from ledger.core.values import (
        BudgetLease,
        Counting,
        Provenance,
        Remaining,
        RequestBudget,
        Usage,
        UsageDifference,
        UsageEstimate,
    )
    from ledger.ledger import Ledger
    from ledger.managers.memory import SharedPoolBudgetManager
    from ledger.managers.pool import LedgerBudgetManager
    from ledger.managers.router import BudgetRouter
    from ledger.managers.tasks import AsyncBudgetRouter, AsyncLedgerBudgetManager
    from ledger.store.anchors import Anchor
    from ledger.store.verifications import Damage, Verification

__version__ = "0.1.0"

__all__ = [
    "I64_MAX",
    "U64_MAX",
    "Actor",
    "Alert",
    "AmountOutOfRangeError",
    "Anchor",
    "AsyncBudgetManager",
    "AsyncBudgetRouter",
    "AsyncLedger",
    "AsyncLedgerBudgetManager",
    "Attribution",
    "Balance",
    "BillingFileError",
    "BudgetError",
    "BudgetLease",
    "BudgetManager",
    "BudgetRouter",
    "ContentionError",
    "Counting",
    "Credit",
    "CreditStatus",
    "Damage",
    "Direction",
    "Entry",
    "EntryCorrectedError",
    "EntryFlag",
    "EntryKind",
    "ExportError",
    "IdempotencyConflictError",
    "IdempotencyKey",
    "ImportedCall",
    "InvalidInputError",
    "InvalidUrlError",
    "JournalDamagedError",
    "LeaseAfter",
    "LeasePhase",
    "LeaseState",
    "LeaseTtl",
    "Ledger",
    "LedgerBudgetManager",
    "LedgerError",
    "LedgerUnavailableError",
    "Limit",
    "LimitStatus",
    "LostLeaseError",
    "MissingExtraError",
    "NotALedgerError",
    "NotPermittedError",
    "OccurredAt",
    "OpenLease",
    "OpenLeasesError",
    "OtherStoreError",
    "OutcomeUnknownError",
    "ParentConflictError",
    "PastCall",
    "Period",
    "PoisonedError",
    "PoolClosedError",
    "PoolConflictError",
    "PoolInfo",
    "PoolStatus",
    "PriceTableError",
    "Provenance",
    "ReadOnlyLedgerError",
    "Remaining",
    "RequestBudget",
    "RequestBudgetExceededError",
    "RequestExtensions",
    "Rolling",
    "RowsDiscardedError",
    "SchemaVersionError",
    "SettlementPolicy",
    "SharedPoolBudgetManager",
    "SharedPoolBudgetOptions",
    "Standby",
    "StoreError",
    "StoreWentBackWarning",
    "ThresholdCrossing",
    "ThresholdExceededError",
    "Totals",
    "TraceAlreadyRunError",
    "UncorrectableEntryError",
    "UnknownLeaseError",
    "UnknownPoolError",
    "UnknownPriceError",
    "UnknownRulesError",
    "Unpriced",
    "UnpricedCallError",
    "Usage",
    "UsageDifference",
    "UsageEstimate",
    "UsageReport",
    "Verification",
    "Window",
    "WindowState",
    "from_micros",
    "is_unbilled",
    "register_unbilled",
    "usd",
]

# The same again, by module: a name is imported when it is first used. Half a second of processor
# time is saved where a program needs the budget in memory or the version, and no database.
_NAMES = {
    "aio": ("AsyncLedger",),
    "contract": (
        "AsyncBudgetManager",
        "BudgetManager",
    ),
    "core.alerts": ("Alert",),
    "core.calendar": (
        "Period",
        "Window",
    ),
    "core.checks": (
        "I64_MAX",
        "U64_MAX",
        "from_micros",
        "usd",
    ),
    "core.credits": ("Credit",),
    "core.entries": (
        "Actor",
        "Balance",
        "Direction",
        "Entry",
        "EntryFlag",
        "LeaseAfter",
        "LeaseState",
        "PoolInfo",
        "Totals",
        "WindowState",
    ),
    "core.extensions": (
        "Attribution",
        "IdempotencyKey",
        "LeaseTtl",
        "OccurredAt",
        "RequestExtensions",
    ),
    "core.kinds": (
        "EntryKind",
        "LeasePhase",
    ),
    "core.limits": (
        "Limit",
        "Rolling",
    ),
    "core.past_calls": (
        "ImportedCall",
        "PastCall",
    ),
    "core.policy": (
        "SettlementPolicy",
        "SharedPoolBudgetOptions",
        "Unpriced",
    ),
    "core.unbilled": (
        "is_unbilled",
        "register_unbilled",
    ),
    "core.status": (
        "CreditStatus",
        "LimitStatus",
        "OpenLease",
        "PoolStatus",
        "Standby",
        "ThresholdCrossing",
    ),
    "core.usage_reports": ("UsageReport",),
    "core.values": (
        "BudgetLease",
        "Counting",
        "Provenance",
        "Remaining",
        "RequestBudget",
        "Usage",
        "UsageDifference",
        "UsageEstimate",
    ),
    "core.errors": (
        "AmountOutOfRangeError",
        "BillingFileError",
        "BudgetError",
        "ContentionError",
        "EntryCorrectedError",
        "ExportError",
        "IdempotencyConflictError",
        "InvalidInputError",
        "InvalidUrlError",
        "JournalDamagedError",
        "LedgerError",
        "LedgerUnavailableError",
        "LostLeaseError",
        "MissingExtraError",
        "NotALedgerError",
        "NotPermittedError",
        "OpenLeasesError",
        "OtherStoreError",
        "OutcomeUnknownError",
        "ParentConflictError",
        "PoisonedError",
        "PoolClosedError",
        "PoolConflictError",
        "PriceTableError",
        "ReadOnlyLedgerError",
        "RequestBudgetExceededError",
        "RowsDiscardedError",
        "SchemaVersionError",
        "StoreError",
        "StoreWentBackWarning",
        "ThresholdExceededError",
        "TraceAlreadyRunError",
        "UncorrectableEntryError",
        "UnknownLeaseError",
        "UnknownPoolError",
        "UnknownPriceError",
        "UnknownRulesError",
        "UnpricedCallError",
    ),
    "ledger": ("Ledger",),
    "managers.pool": ("LedgerBudgetManager",),
    "managers.memory": ("SharedPoolBudgetManager",),
    "managers.router": ("BudgetRouter",),
    "managers.tasks": (
        "AsyncBudgetRouter",
        "AsyncLedgerBudgetManager",
    ),
    "store.anchors": ("Anchor",),
    "store.verifications": (
        "Damage",
        "Verification",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __dir__() -> list[str]:
    """Return every public name, those that are not imported yet included."""
    return sorted({*globals(), *__all__})


if not typing.TYPE_CHECKING:  # else type checkers would take any name for one of this module

    def __getattr__(name: str) -> typing.Any:  # noqa: ANN401 - whatever the name stands for
        """Import a public name from its module."""
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return value
