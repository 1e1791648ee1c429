"""The errors that callers can catch.

::

    LedgerError
    |-- BudgetError                      a verdict of the budget, or of the lease
    |   |-- RequestBudgetExceededError   one request is over its own limit
    |   |-- ThresholdExceededError       the pool has not enough left
    |   |-- UnpricedCallError            the call leaves out what the pool limits
    |   |   `-- UnknownPriceError        no price is known for it
    |   |-- UnknownLeaseError            no such open lease here
    |   |   `-- LostLeaseError           the store went back behind its reservation
    |   |-- PoolClosedError              the pool takes nothing new
    |   `-- PoisonedError                the in-memory manager was broken into
    |-- InvalidInputError                a value that cannot be accepted (also a ValueError)
    |   |-- AmountOutOfRangeError        an amount outside the domain
    |   |-- InvalidUrlError              not the address of a store
    |   |-- PriceTableError              a table of prices that cannot be used
    |   `-- BillingFileError             a line of a provider's bill that cannot be read
    |-- UnknownPoolError                 no pool of that name
    |-- PoolConflictError                the pool exists under another policy
    |-- ParentConflictError              the pool exists below another pool
    |-- OpenLeasesError                  a pool with open leases cannot be closed
    |-- IdempotencyConflictError         the key was used for another call
    |-- UncorrectableEntryError          the entry records no usage that can be corrected
    |-- EntryCorrectedError              the entry's usage is not the expected one
    |-- TraceAlreadyRunError             the trace is in this store already
    |-- ExportError                      a file that cannot be written or replaced, or is none
    `-- StoreError                       the store, not the budget
        |-- LedgerUnavailableError       the store cannot be reached, read or written
        |   |-- NotPermittedError        the database's role may not do this
        |   `-- ReadOnlyLedgerError      the ledger was opened to be read alone
        |-- ContentionError              the deadline ran out; nothing was written
        |-- OutcomeUnknownError          the connection died in COMMIT; look the key up
        |-- RowsDiscardedError           the database dropped rows; nothing was written
        |-- SchemaVersionError           the schema is older or newer than this library
        |-- NotALedgerError              the database holds something else
        |-- OtherStoreError              data was restored into the schema of another store
        |-- JournalDamagedError          the rows contradict each other
        |-- UnknownRulesError            a pool goes by newer rules than this library has
        `-- MissingExtraError            an optional package is not installed

    UserWarning
    `-- StoreWentBackWarning             the store lost entries that this process has seen

Every error carries its figures as attributes and survives pickling, so that it can cross a
process boundary. The database driver's own error, where there is one, is in ``__cause__``.
"""

from ledger.core.errors.calls import (
    AmountOutOfRangeError,
    BillingFileError,
    EntryCorrectedError,
    ExportError,
    IdempotencyConflictError,
    InvalidInputError,
    InvalidUrlError,
    OpenLeasesError,
    ParentConflictError,
    PoolConflictError,
    PriceTableError,
    TraceAlreadyRunError,
    UncorrectableEntryError,
    UnknownPoolError,
)
from ledger.core.errors.root import (
    LedgerError,
)
from ledger.core.errors.stores import (
    ContentionError,
    JournalDamagedError,
    LedgerUnavailableError,
    LeftOut,
    MissingExtraError,
    NotALedgerError,
    NotPermittedError,
    OtherStoreError,
    OutcomeUnknownError,
    ReadOnlyLedgerError,
    RowsDiscardedError,
    SchemaVersionError,
    StoreError,
    StoreWentBackWarning,
    UnknownRulesError,
)
from ledger.core.errors.verdicts import (
    BudgetError,
    LostLeaseError,
    PoisonedError,
    PoolClosedError,
    RequestBudgetExceededError,
    ThresholdExceededError,
    UnknownLeaseError,
    UnknownPriceError,
    UnpricedCallError,
)

__all__ = [
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
    "LeftOut",
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
]
