"""Calls of a file whose leases expired: what the file says takes the place of what was assumed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, exists, select, text

from ledger.core import rules
from ledger.core.axes import AMOUNTS
from ledger.core.errors import RequestBudgetExceededError, UnknownLeaseError
from ledger.core.extensions import Attribution
from ledger.core.kinds import FOLLOWS_UP, EntryKind, sql
from ledger.core.past_calls import PastCall
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.tokens import token_of
from ledger.core.usage_reports import UsageReport
from ledger.files.rows import digest_of
from ledger.importing.books import KnownEntry
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.reports.figures import is_open
from ledger.reports.filters import Filter
from ledger.reports.scopes import Scope, snapshot
from ledger.store.schema import entries


class _Lease(NamedTuple):
    """A lease that has expired.

    Attributes:
        pool: The name of its pool.
        token: Its token.
        assumed: The amounts that its expiry charged, None for those that it has nothing of.
    """

    pool: str
    token: str
    assumed: Mapping[str, int | None]


class ExpiredLeases:
    """The leases, of calls that are in the books, that have expired without a record.

    Args:
        book: The store.
        recorded: An entry of each call, by the hash of its request id.
        since: Only leases of calls from this time on.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """

    def __init__(
        self, book: Ledger, recorded: Mapping[bytes, KnownEntry], *, since: datetime
    ) -> None:
        def query(connection: Connection, scope: Scope) -> dict[bytes, _Lease]:
            found = {}
            for row in connection.execute(_expired(scope)):
                digest, pool = digest_of(row.request_id), scope.pools[row.pool_id]
                of = recorded.get(digest)
                if of is not None and (of.pool, of.lease) == (pool, row.seq):
                    assumed = {amount: getattr(row, amount) for amount in AMOUNTS}
                    found[digest] = _Lease(pool, token_of(row.seq, row.hash), assumed)
            return found

        self._book = book
        self._leases = snapshot(book, Filter(since=since), query)
        """The leases by the hashes of the request ids."""
        self._policies: dict[str, list[SharedPoolBudgetOptions]] = {}

    def settle(self, call: PastCall, reason: str, *, dry_run: bool) -> bool:
        """Settle the lease of a call, if there is one, by what a file says of it; tell whether.

        If the file leaves out what was assumed or what the lease's pool limits, the call stays as
        it was assumed: a file that has all of it may follow.

        Args:
            call: The call.
            reason: Why, and by whom; kept with the settlement.
            dry_run: Whether only to tell.
        """
        lease = self._leases.get(digest_of(f"{call.request_id}"))
        if lease is None:
            return False
        assumed = (amount for amount, charged in lease.assumed.items() if charged)
        if not all(getattr(call.usage, amount) for amount in assumed):
            return False
        if lease.pool not in self._policies:
            self._policies[lease.pool] = sharing(self._book, lease.pool)
        if rules.unpriced_flag(self._policies[lease.pool], call.usage):
            return False
        try:
            if not dry_run:
                _settle(self._book.pool(lease.pool), lease.token, call, reason)
        except UnknownLeaseError:  # its program has recorded it meanwhile
            return False
        return True


def _expired(scope: Scope) -> Select[Any]:
    e, said, expiry = entries.c, entries.alias("said"), entries.alias("expiry")
    expired = (expiry.c.pool_id == e.pool_id) & (expiry.c.lease == e.seq)
    known = exists().where(
        said.c.pool_id == e.pool_id,
        said.c.lease == e.seq,
        text(sql(FOLLOWS_UP, "said.kind")),
        said.c.kind != EntryKind.EXPIRY,
        said.c.usage_total_tokens.is_not(None),
    )
    charged = (expiry.c[f"usage_{amount}"].label(amount) for amount in AMOUNTS)
    return (
        select(e.pool_id, e.seq, e.request_id, e.hash, *charged)
        .select_from(entries.join(expiry, expired))
        .where(
            *scope.conditions,
            e.request_id.is_not(None),
            is_open(None),
            text(sql([EntryKind.EXPIRY], "expiry.kind")),
            ~known,
        )
    )


def _settle(budget: LedgerBudgetManager, token: str, call: PastCall, reason: str) -> None:
    whom = call.attribution or Attribution()
    # As of a live call, whatever the store keeps of imports.
    exactly = {} if call.cost_usd is None else {"cost_usd": f"{call.cost_usd:f}"}
    report = UsageReport(
        provider=whom.provider,
        model=whom.model,
        provenance=call.provenance,
        occurred_at=call.occurred_at,
        detail={"reason": reason, **exactly},
    )
    with suppress(RequestBudgetExceededError):  # it is recorded all the same
        budget.record_used(budget.lease(token), call.usage, report=report)


def sharing(book: Ledger, pool: str) -> list[SharedPoolBudgetOptions]:
    """Return the policies of a pool, and of those above it that share its capacity."""
    found = book.pool(pool).status()
    policies = [found.policy]
    while found.parent is not None and found.pool.carved_lease is None:
        found = book.pool(found.parent).status()
        policies.append(found.policy)
    return policies
