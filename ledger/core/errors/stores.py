"""Errors of the store: it failed, not the budget."""

from __future__ import annotations

from typing import Self

from ledger.core.errors.root import LedgerError


class StoreError(LedgerError):
    """The store failed, not the budget."""


class LedgerUnavailableError(StoreError):
    """The store cannot be reached, read or written; nothing was written by this call.

    Attributes:
        closed: Whether this `Ledger` was closed, so that no later call can succeed either.
    """

    def __init__(self, message: str, *more: object, closed: bool = False) -> None:
        super().__init__(message, *more)
        self.closed = closed


class NotPermittedError(LedgerUnavailableError):
    """The role of the database may not do this; nothing was written.

    Attributes:
        role: The role that the session logged in with, None if the server did not say.
        operation: What was asked for.
        reason: What the server said, None if it was not asked to do it.
    """

    def __init__(self, *, role: str | None, operation: str, reason: str | None = None) -> None:
        who = "this role" if role is None else f"role {role!r}"
        super().__init__(
            f"{who} may not {operation}"
            + ("" if reason is None else f" ({reason})")
            + ". Nothing was written. 'ledger db roles' shows what each role may do; ask the owner "
            "of the store for one that may do this"
        )
        self.role = role
        self.operation = operation
        self.reason = reason

    def of_call(self, operation: str) -> Self:
        """Return the same error for one of several calls."""
        return type(self)(role=self.role, operation=operation, reason=self.reason)


class ReadOnlyLedgerError(LedgerUnavailableError):
    """The ledger was opened to be read alone; nothing was written.

    Attributes:
        url: The store's address, without its password.
    """

    def __init__(self, *, url: str) -> None:
        super().__init__(
            f"the ledger at {url} was opened with read_only=True, so nothing was written. To "
            "write, open it without; for a standby, that is the primary's address"
        )
        self.url = url


class ContentionError(StoreError):
    """Other writers kept the pool busy until the deadline; nothing was written.

    Attributes:
        timeout_s: How long the call tried, in seconds.
        attempts: How many transactions it started.
        holder: Which process or session held the store, None if that is not known.
    """

    def __init__(self, *, timeout_s: float, attempts: int, holder: str | None = None) -> None:
        who = "other writers" if holder is None else holder
        tried = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(
            f"{who} kept the store busy for {timeout_s:g} s ({tried}). "
            "Nothing was written. Try again, or open the ledger with a longer timeout_s"
        )
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.holder = holder

    @classmethod
    def in_another_call(cls) -> Self:
        """Return the error of a call that a signal handler or a finaliser makes inside another.

        Such a call would wait for the end of the call that it interrupted.
        """
        return cls(
            timeout_s=0,
            attempts=0,
            holder="another call of this thread, which this call interrupted,",
        )


class OutcomeUnknownError(StoreError):
    """The connection died during COMMIT and the outcome could not be looked up in time.

    Attributes:
        idempotency_key: Repeat the call with this key: it then takes effect exactly once.
    """

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(
            "the connection was lost during COMMIT, so it is not known whether the call took "
            f"effect. Repeat the call with idempotency key {idempotency_key!r}: it then takes "
            "effect exactly once"
        )
        self.idempotency_key = idempotency_key


class RowsDiscardedError(StoreError):
    """The database discarded rows without an error of its own; nothing was committed."""

    def __init__(self) -> None:
        super().__init__(
            "the database discarded rows without an error, as a trigger on a table can. Nothing "
            "was committed. Run 'ledger db check' to find the trigger"
        )


class StoreWentBackWarning(UserWarning):
    """The store is in an earlier state than this process has seen: it was restored, or failed over.

    What was acknowledged behind that state is lost in this store. Leases of then raise
    `LostLeaseError`, and `record_lost` books what their calls used.

    Attributes:
        pool: The pool's name.
        seen: The entry that this process has seen, and that is missing or another one now.
        newest: The pool's newest entry now.
    """

    def __init__(self, pool: str, *, seen: int, newest: int) -> None:
        super().__init__(
            f"pool {pool!r} went back: entry {seen}, which this process has seen, is not in the "
            f"store any more; its newest is {newest}. A backup was restored, or a standby took "
            "over that lacked the newest entries. Book what was spent since then: calls with a "
            "lease of then raise LostLeaseError, and record_lost() takes it"
        )
        self.pool = pool
        self.seen = seen
        self.newest = newest


class SchemaVersionError(StoreError):
    """The store's schema is not the one this version of the library works with.

    Attributes:
        found: The revision of the store, None if it has no schema yet.
        expected: The revision this library works with.
    """

    def __init__(self, *, found: str | None, expected: str, url: str) -> None:
        # A password is never shown, so a URL with one cannot be pasted.
        upgrade = f"ledger db upgrade --url '{url}'" + (" (with your password)" * ("***" in url))
        if found is None:
            state, remedy = "the store has no schema yet", upgrade
        elif found < expected:
            state, remedy = f"the store's schema {found} is older", upgrade
        else:
            state = f"the store's schema {found} is newer"
            remedy = "pip install --upgrade budget-ledger"
        super().__init__(f"{state}; this library works with schema {expected}. Run: {remedy}")
        self.found = found
        self.expected = expected


class NotALedgerError(StoreError):
    """The file or database holds something else than a ledger; it was left untouched."""


class OtherStoreError(StoreError):
    """The entries were written in another store than the one whose schema they are in now.

    So it is if data alone is restored into a schema that has an identity of its own already.
    """

    def __init__(self, *, url: str) -> None:
        super().__init__(
            f"the pools at {url} were written in another store: no first hash of theirs fits its "
            "identity. A backup's data was restored into a schema that was made for a new store "
            "(or the first entry of the only pool was changed). Nothing was written. Restore the "
            "whole backup, with its schema, into an empty database; or make the tables by 'ledger "
            "db upgrade --for-restore', and restore the data into them. Until then this one can be "
            "read with read_only=True"
        )


class JournalDamagedError(StoreError):
    """The journal's rows contradict each other.

    Attributes:
        pool: The pool's name.
        seq: The first bad entry.
        reason: What is wrong with it.
    """

    def __init__(self, *, pool: str, seq: int, reason: str) -> None:
        super().__init__(f"pool {pool!r}, entry {seq}: {reason}. Run 'ledger verify'")
        self.pool = pool
        self.seq = seq
        self.reason = reason


LeftOut = list[JournalDamagedError]
"""The errors of the pools that an answer about many pools leaves out."""


class UnknownRulesError(StoreError):
    """A pool's policy was set under a newer version of the rules than this library has.

    Attributes:
        version: The version of the rules.
        since: The first version of the library that has it.
    """

    def __init__(self, *, version: int, since: str, known: int) -> None:
        super().__init__(
            f"the policy was set under version {version} of the rules; this library knows them up "
            f"to version {known}, and budget-ledger {since} or newer knows that one. "
            "Run: pip install --upgrade budget-ledger"
        )
        self.version = version
        self.since = since


class MissingExtraError(StoreError):
    """An optional package is not installed.

    Attributes:
        extra: The extra that brings it.
    """

    def __init__(self, *, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed. Run: pip install 'budget-ledger[{extra}]'")
        self.extra = extra
