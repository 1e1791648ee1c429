"""The output of past calls, as an estimate for the next one of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from ledger.core.checks import check_amount
from ledger.core.errors import InvalidInputError, LeftOut
from ledger.core.kinds import EntryKind
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.leases import with_newest_of_lease
from ledger.reports.ranks import percentile
from ledger.reports.scopes import Scope, snapshot
from ledger.store.schema import entries

_ALL = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputHistory:
    """How much output settled calls have had.

    Attributes:
        calls: How many calls.
        percent: The percentage of calls that had at most `output_tokens`.
        output_tokens: The output of an actual call; None without calls.
    """

    calls: int
    percent: int
    output_tokens: int | None


def output_history(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    percent: int = 95,
    left_out: LeftOut | None = None,
) -> OutputHistory:
    """Return a percentile of the output of settled calls, by the nearest rank.

    Args:
        book: The store.
        where: Which calls: `Filter(model=..., operation=...)` for those of a kind.
        percent: 1 to 100; 100 is the largest output.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        InvalidInputError: The percentile is not 1 to 100; or `as_of` is an entry that the pool does
            not have yet.
        LedgerUnavailableError: The store cannot be read.
    """
    if not check_amount("percent", percent, ceiling=_ALL):
        raise InvalidInputError("percent", f"must be 1 to {_ALL}")

    def query(connection: Connection, scope: Scope) -> list[int]:
        # A corrected call counts with its corrected usage.
        last, joined = with_newest_of_lease(entries.c.lease, scope.where.as_of)
        output = func.coalesce(last.c.used_output_tokens, last.c.usage_output_tokens)
        found = select(output).select_from(joined)
        settled = found.where(*scope.conditions, entries.c.kind == EntryKind.SETTLEMENT)
        return [int(row[0]) for row in connection.execute(settled.order_by(output))]

    ascending = snapshot(book, where, query, left_out=left_out)
    return OutputHistory(
        calls=len(ascending),
        percent=percent,
        output_tokens=percentile(ascending, percent) if ascending else None,
    )
