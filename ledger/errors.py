"""What callers can catch.

::

    LedgerError
    |-- BudgetError                      a verdict of the budget, or of the lease
    |   |-- RequestBudgetExceededError   one request is over its own limit
    |   |-- ThresholdExceededError       the pool has not enough left
    |   |-- UnknownLeaseError            no such open lease here
    |   |-- PoolClosedError              the pool takes nothing new
    |   `-- PoisonedError                the in-memory manager was broken into
    |-- InvalidInputError                a value that cannot be accepted (also a ValueError)
    |   |-- AmountOutOfRangeError        an amount outside the domain
    |   |-- InvalidUrlError              not the address of a store
    |   |-- TraceError                   a line of a trace that cannot be read
    |   `-- BillingFileError             a line of a provider's bill that cannot be read
    |-- UnknownPoolError                 no pool of that name
    |-- PoolConflictError                the pool exists under another policy
    |-- ParentConflictError              the pool exists below another pool
    |-- OpenLeasesError                  a pool with open leases cannot be closed
    |-- IdempotencyConflictError         the key was used for another call
    |-- UncorrectableEntryError          the entry records no usage that can be corrected
    |-- TraceAlreadyRunError             the trace is in this store already
    `-- StoreError                       the store, not the budget
        |-- LedgerUnavailableError       the store cannot be reached, read or written
        |-- ContentionError              the deadline ran out; nothing was written
        |-- OutcomeUnknownError          the connection died in COMMIT; look the key up
        |-- SchemaVersionError           the schema is older or newer than this library
        |-- NotALedgerError              the database holds something else
        |-- JournalDamagedError          the rows contradict each other
        `-- MissingExtraError            an optional package is not installed

Every error carries its figures as attributes and survives pickling, so that it can cross a
process boundary. The database driver's own error, where there is one, is in ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def _limit(value: int | None) -> str:
    # What is left of an unlimited capacity is a number of no meaning to anybody.
    return "unlimited" if value is None or value >= 2**63 else f"{value:,}"


def _rebuild(cls: type[LedgerError], args: tuple[Any, ...], state: dict[str, Any]) -> LedgerError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LedgerError(Exception):
    """Root of everything this library raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls __init__ with the message alone, which keyword-only
        # constructors cannot take.
        return _rebuild, (type(self), self.args, self.__dict__)


class BudgetError(LedgerError):
    """A verdict of the budget, or about a lease."""


class RequestBudgetExceededError(BudgetError):
    """One request is over its own limit.

    From ``reserve`` nothing was reserved. From ``record_used`` the usage *is* recorded and the
    lease is closed: real spend is never refused.

    Attributes:
        requested_tokens: What was asked for, or really used.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        budget_tokens: The request's own limit, None for unlimited.
        budget_cost_micros_usd: The same in millionths of a US dollar.
    """

    def __init__(
        self,
        *,
        requested_tokens: int,
        requested_cost_micros_usd: int,
        budget_tokens: int | None,
        budget_cost_micros_usd: int | None,
    ) -> None:
        super().__init__(
            f"over the request's own budget: {requested_tokens:,} tokens and "
            f"{requested_cost_micros_usd:,} micro-USD against a limit of "
            f"{_limit(budget_tokens)} tokens and {_limit(budget_cost_micros_usd)} micro-USD"
        )
        self.requested_tokens = requested_tokens
        self.requested_cost_micros_usd = requested_cost_micros_usd
        self.budget_tokens = budget_tokens
        self.budget_cost_micros_usd = budget_cost_micros_usd


class ThresholdExceededError(BudgetError):
    """The pool has not enough left, or would fall below its stop threshold.

    Attributes:
        requested_tokens: What was asked for.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        remaining_tokens: What remained before this request.
        remaining_cost_micros_usd: The same in millionths of a US dollar.
        remaining_requests: How many more calls the pool would have admitted.
        pool: The name of the pool that refused: the one that was asked, or one above it. None in
            memory, where pools have no names.
    """

    def __init__(
        self,
        *,
        requested_tokens: int,
        requested_cost_micros_usd: int,
        remaining_tokens: int,
        remaining_cost_micros_usd: int,
        remaining_requests: int = 2**64 - 1,
        pool: str | None = None,
    ) -> None:
        calls = "" if remaining_requests >= 2**63 else f" and {remaining_requests:,} requests"
        who = "the pool" if pool is None else f"pool {pool!r}"
        super().__init__(
            f"{who} cannot grant {requested_tokens:,} tokens and "
            f"{requested_cost_micros_usd:,} micro-USD: {_limit(remaining_tokens)} tokens and "
            f"{_limit(remaining_cost_micros_usd)} micro-USD{calls} remain, less what its stop "
            "threshold keeps back; ask for less, settle open leases, or raise the capacity with "
            "adjust()"
        )
        self.requested_tokens = requested_tokens
        self.requested_cost_micros_usd = requested_cost_micros_usd
        self.remaining_tokens = remaining_tokens
        self.remaining_cost_micros_usd = remaining_cost_micros_usd
        self.remaining_requests = remaining_requests
        self.pool = pool

    def of_pool(self, name: str) -> ThresholdExceededError:
        """Return the same refusal with the name of the pool that refused."""
        return ThresholdExceededError(
            requested_tokens=self.requested_tokens,
            requested_cost_micros_usd=self.requested_cost_micros_usd,
            remaining_tokens=self.remaining_tokens,
            remaining_cost_micros_usd=self.remaining_cost_micros_usd,
            remaining_requests=self.remaining_requests,
            pool=name,
        )


class UnknownLeaseError(BudgetError):
    """No open lease of this id in this pool: never granted here, or already ended.

    Attributes:
        lease_id: The id that was asked for.
    """

    def __init__(self, lease_id: int) -> None:
        super().__init__(
            f"no open lease {lease_id} in this pool: it was never granted here, or it has already "
            "been settled or released"
        )
        self.lease_id = lease_id


class PoolClosedError(BudgetError):
    """The pool, or one above it, is closed: it takes settlements and releases, and nothing new.

    Attributes:
        pool: The pool that is closed.
    """

    def __init__(self, pool: str) -> None:
        super().__init__(
            f"pool {pool!r} is closed: leases that are open there can be settled or released, and "
            "nothing new begins; use another pool"
        )
        self.pool = pool


class PoisonedError(BudgetError):
    """An exception broke into a state change of the in-memory manager; its figures are void."""

    def __init__(self) -> None:
        super().__init__(
            "an exception broke into a state change of this in-memory manager, so its figures "
            "cannot be trusted; make a new manager"
        )


class InvalidInputError(LedgerError, ValueError):
    """A value that cannot be accepted; nothing was written.

    Attributes:
        field: Which value.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class AmountOutOfRangeError(InvalidInputError):
    """An amount, or a running total it would lead to, outside the domain.

    Attributes:
        field: Which amount.
        value: The amount that was given or would be reached.
        ceiling: The largest amount that can be held here.
    """

    def __init__(self, field: str, *, value: int, ceiling: int) -> None:
        super().__init__(field, f"{value} is outside 0 .. {ceiling}")
        self.value = value
        self.ceiling = ceiling


class InvalidUrlError(InvalidInputError):
    """The text is not the address of a store this library can open."""


class TraceError(InvalidInputError):
    """A trace, or one line of it, cannot be read.

    Attributes:
        line: The line's number in the file, the header being line 1.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, *, line: int, reason: str) -> None:
        super().__init__(f"{path}, line {line}", reason)
        self.line = line
        self.reason = reason


class BillingFileError(InvalidInputError):
    """A provider's bill, or one line of it, cannot be read; nothing was written.

    Attributes:
        line: The line's number in the file, the header being line 1; of a JSON document, the
            object's number, from 1. None where it is the file as a whole.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, *, line: int | None, reason: str) -> None:
        super().__init__(path if line is None else f"{path}, line {line}", reason)
        self.line = line
        self.reason = reason


class UnknownPoolError(LedgerError):
    """No pool of this name.

    Attributes:
        name: The name that was asked for.
    """

    def __init__(self, name: str, *, known: Iterable[str] = ()) -> None:
        names = ", ".join(repr(other) for other in known)
        super().__init__(
            f"no pool {name!r}: open it first, with options (or 'ledger pool open')"
            + (f", or name one that exists: {names}" if names else "")
        )
        self.name = name


class PoolConflictError(LedgerError):
    """The pool exists, and neither its opening nor its current policy is the one given.

    Attributes:
        name: The pool.
        opening: The policy it was opened with, a `SharedPoolBudgetOptions` like the next two.
        current: The policy in force.
        given: The policy asked for.
    """

    def __init__(
        self,
        name: str,
        *,
        opening: Any,  # noqa: ANN401 - SharedPoolBudgetOptions; this module imports nothing
        current: Any,  # noqa: ANN401 - likewise
        given: Any,  # noqa: ANN401 - likewise
    ) -> None:
        super().__init__(
            f"pool {name!r} exists under another policy; change it with adjust ('ledger pool "
            f"adjust'), or open it without options. Opened with {opening}; in force: {current}; "
            f"given: {given}"
        )
        self.name = name
        self.opening = opening
        self.current = current
        self.given = given


class ParentConflictError(LedgerError):
    """The pool exists, and is not where it was asked to be: a pool's parent never changes.

    Attributes:
        name: The pool.
        parent: The pool above it, None where there is none.
        carved: Whether it is carved out of that pool.
    """

    def __init__(self, name: str, *, parent: str | None, carved: bool) -> None:
        where = "has no parent"
        if parent is not None:
            where = f"is {'carved out of' if carved else 'below'} {parent!r}"
        super().__init__(
            f"pool {name!r} {where}, which never changes; open it as it is, or choose another name"
        )
        self.name = name
        self.parent = parent
        self.carved = carved


class OpenLeasesError(LedgerError):
    """A carved pool cannot be closed while leases in it are open; nothing was written.

    Attributes:
        pool: The pool.
        open_leases: How many leases hold something.
    """

    def __init__(self, pool: str, *, open_leases: int) -> None:
        super().__init__(
            f"pool {pool!r} has open leases ({open_leases:,}): settle or release them, or let them "
            "expire, before the pool is closed and its rest goes back"
        )
        self.pool = pool
        self.open_leases = open_leases


class IdempotencyConflictError(LedgerError):
    """The idempotency key belongs to an earlier call with other arguments.

    Attributes:
        idempotency_key: The key.
        seq: The entry that holds it.
    """

    def __init__(self, idempotency_key: str, *, seq: int) -> None:
        super().__init__(
            f"idempotency key {idempotency_key!r} was already used, with other arguments, by "
            f"entry {seq} of this pool; use a new key for a new call"
        )
        self.idempotency_key = idempotency_key
        self.seq = seq


class UncorrectableEntryError(LedgerError):
    """The entry records no usage that can be corrected; nothing was written.

    Attributes:
        seq: The entry that was to be corrected.
        reason: Why it cannot be.
    """

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(
            f"entry {seq} of this pool cannot be corrected: {reason}; name a settlement or an "
            "observation of a lease that has ended"
        )
        self.seq = seq
        self.reason = reason


class TraceAlreadyRunError(LedgerError):
    """The trace was already run into this store.

    Attributes:
        path: The trace.
        pool: The pool that holds it.
    """

    def __init__(self, path: str, *, pool: str) -> None:
        super().__init__(
            f"{path} was already run into this store, in pool {pool!r}. Pass --resume to go on "
            "with a run that was interrupted there, --again to count the same traffic once more, "
            "or choose another store"
        )
        self.path = path
        self.pool = pool


class StoreError(LedgerError):
    """The store failed, not the budget."""


class LedgerUnavailableError(StoreError):
    """The store cannot be reached, read or written; nothing was written by this call."""


class ContentionError(StoreError):
    """Other writers kept the pool busy until the deadline; nothing was written.

    Attributes:
        timeout_s: How long the call tried, in seconds.
        attempts: How many transactions it started.
    """

    def __init__(self, *, timeout_s: float, attempts: int) -> None:
        super().__init__(
            f"other writers kept the store busy for {timeout_s:g} s ({attempts} attempts); "
            "nothing was written. Try again, or open the ledger with a longer timeout_s"
        )
        self.timeout_s = timeout_s
        self.attempts = attempts


class OutcomeUnknownError(StoreError):
    """The connection died during COMMIT and the outcome could not be looked up in time.

    Attributes:
        idempotency_key: Repeat the call with this key: it then takes effect exactly once.
    """

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(
            "the connection was lost during COMMIT, and whether the call took effect could not be "
            f"looked up; repeat it with idempotency key {idempotency_key!r} and it takes effect "
            "exactly once"
        )
        self.idempotency_key = idempotency_key


class SchemaVersionError(StoreError):
    """The store's schema is not the one this version of the library works with.

    Attributes:
        found: The revision of the store, None where it has no schema yet.
        expected: The revision this library works with.
    """

    def __init__(self, *, found: str | None, expected: str, url: str) -> None:
        # A password is never shown, so a URL with one cannot be pasted.
        upgrade = f"ledger db upgrade --url '{url}'" + (" (with your password)" * ("***" in url))
        if found is None:
            state, remedy = "the store has no schema yet", upgrade
        elif found < expected:
            state, remedy = f"schema {found} is older", upgrade
        else:
            state, remedy = f"schema {found} is newer", "pip install --upgrade budget-ledger"
        super().__init__(f"{state}; this library works with {expected}. Run: {remedy}")
        self.found = found
        self.expected = expected


class NotALedgerError(StoreError):
    """The file or database holds something else than a ledger; it was left untouched."""


class JournalDamagedError(StoreError):
    """The journal's rows contradict each other.

    Attributes:
        pool: The pool's name.
        seq: The first bad entry.
        reason: What is wrong with it.
    """

    def __init__(self, *, pool: str, seq: int, reason: str) -> None:
        super().__init__(f"pool {pool!r}, entry {seq}: {reason}; run 'ledger verify'")
        self.pool = pool
        self.seq = seq
        self.reason = reason


class MissingExtraError(StoreError):
    """An optional package is not installed.

    Attributes:
        extra: The extra that brings it.
    """

    def __init__(self, *, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed. Run: pip install 'budget-ledger[{extra}]'")
        self.extra = extra
