"""Errors of calls that cannot be done as they were made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ledger.core.errors.root import LedgerError


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


class BillingFileError(InvalidInputError):
    """A bill, a log or a trace, or one line of it, cannot be read; nothing was written.

    Attributes:
        line: The line's number in the file, the header being line 1; of a JSON document, the
            object's number, from 1. None if it is the file as a whole.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, *, line: int | None, reason: str) -> None:
        super().__init__(path if line is None else f"{path}, line {line}", reason)
        self.line = line
        self.reason = reason


class PriceTableError(InvalidInputError):
    """A table of prices, or one entry of it, cannot be used.

    Attributes:
        reason: What is wrong with it.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.reason = reason


class UnknownPoolError(LedgerError):
    """No pool of this name.

    Attributes:
        name: The name that was asked for.
    """

    def __init__(self, name: str) -> None:
        # It names no other pools: the message may reach a person who may know only one pool.
        super().__init__(
            f"there is no pool {name!r}. Make it with pool(name, options) or 'ledger pool open'; "
            "'ledger pool list' shows those that there are"
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
        current: Any,  # noqa: ANN401 - SharedPoolBudgetOptions, as above
        given: Any,  # noqa: ANN401 - SharedPoolBudgetOptions, as above
    ) -> None:
        names = (field.name for field in fields(given))
        differing = [name for name in names if getattr(given, name) != getattr(current, name)]
        super().__init__(
            f"pool {name!r} exists under another policy: {', '.join(differing)} as given is not as "
            "in force. Bring it to this policy with ensure(name, options) ('ledger pool ensure'), "
            "change some of it with 'ledger pool adjust', or open the pool without options. Opened "
            f"with {opening}; in force: {current}; given: {given}"
        )
        self.name = name
        self.opening = opening
        self.current = current
        self.given = given


class ParentConflictError(LedgerError):
    """The pool exists with another parent than was requested: a pool's parent never changes.

    Attributes:
        name: The pool.
        parent: The pool above it, None if there is none.
        carved: Whether it is carved out of that pool.
    """

    def __init__(self, name: str, *, parent: str | None, carved: bool) -> None:
        where = "has no parent"
        if parent is not None:
            where = f"is {'carved out of' if carved else 'below'} {parent!r}"
        super().__init__(
            f"pool {name!r} {where}, and a pool's parent never changes. Open the pool with that "
            "parent, or choose another name"
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
            f"pool {pool!r} has open leases ({open_leases:,}), so it cannot be closed yet. Settle "
            "or release them, or let them expire"
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
            f"entry {seq} of this pool has idempotency key {idempotency_key!r} from a call with "
            "other arguments. Use a new key for a new call"
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
        super().__init__(f"entry {seq} of this pool cannot be corrected: {reason}")
        self.seq = seq
        self.reason = reason


class EntryCorrectedError(LedgerError):
    """The entry's usage is not the one that the correction starts from; nothing was written.

    Attributes:
        seq: The entry that was to be corrected.
    """

    def __init__(self, seq: int) -> None:
        super().__init__(
            f"entry {seq} of this pool has been corrected meanwhile: read its usage again, and "
            "decide anew"
        )
        self.seq = seq


class TraceAlreadyRunError(LedgerError):
    """The trace was already run into this store.

    Attributes:
        path: The trace.
        pool: The pool that holds it.
    """

    def __init__(self, path: str, *, pool: str) -> None:
        super().__init__(
            f"{path} was already run into this store, in pool {pool!r}. Go on with an interrupted "
            "run there with resume (--resume), count the same traffic once more with again "
            "(--again), or choose another store"
        )
        self.path = path
        self.pool = pool


class ExportError(LedgerError):
    """A file that cannot be written, must not be replaced, or is no export.

    Attributes:
        path: The file.
        reason: What is wrong.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason
