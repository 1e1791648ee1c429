"""`ledger leases`: list the leases that have not ended, and end them from the command line."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from ledger.cli import books
from ledger.cli.common import URL_DEFAULT, PoolName, Url, existing, stdout
from ledger.cli.filters import moment_in
from ledger.cli.usage import usage_of, used
from ledger.core.calendar import zone_named
from ledger.core.checks import I64_MAX
from ledger.core.errors import InvalidInputError, RequestBudgetExceededError, UnknownLeaseError
from ledger.core.kinds import EntryKind
from ledger.core.tokens import parse_token
from ledger.core.usage_reports import UsageReport
from ledger.core.values import BudgetLease, Provenance, RequestBudget, UsageEstimate
from ledger.ledger import Ledger
from ledger.managers.pool import LedgerBudgetManager
from ledger.reports.render import usd

LeaseId = Annotated[
    str, typer.Argument(help="The lease's number, or its token.", show_default=False)
]
Key = Annotated[
    str | None, typer.Option(help="An idempotency key: it happens once.", show_default=False)
]


class _ListByDefault(TyperGroup):
    """`ledger leases POOL` is `ledger leases list POOL`."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help", "-h"}:
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault, no_args_is_help=True, help="List the leases of a pool, and end them."
)
app.command("list")(books.leases)


@app.command("settle")
@used
def settle(
    pool: PoolName,
    lease: LeaseId,
    *,
    url: Url = URL_DEFAULT,
    used: dict[str, int],
    provenance: Annotated[
        Provenance, typer.Option(help="Where the figures are from.")
    ] = Provenance.RECOVERED,
    request_id: Annotated[
        str | None,
        typer.Option(
            help="The provider's id of the call: a bill is matched by it.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that answered.", show_default=False)
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Who served the call.", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="When the call ended, such as 2024-02-29T12:00:00Z; now without it.",
            show_default=False,
        ),
    ] = None,
    key: Key = None,
) -> None:
    """Record what a lease used, beyond what was observed, and end it.

    The usage of a lease that has expired takes the place of what was assumed then. What is not said
    of the call is as its reservation says.

    Example: ledger leases settle team 42 --total-tokens 1180 --cost-usd 0.0042
    """
    usage = usage_of(used)
    report = UsageReport(
        provider=provider,
        model=model,
        request_id=request_id,
        provenance=provenance,
        occurred_at=moment_in("at", at, zone_named("UTC")),
        idempotency_key=key,
    )
    over = ""
    with existing(url, writes=True) as book:
        budget = book.pool(pool)
        try:
            budget.record_used(_lease(book, budget, lease), usage, report=report)
        except RequestBudgetExceededError:  # it is recorded all the same
            over = "  (over the request's own budget)"
    _say(
        lease,
        f"settled  tokens {usage.total_tokens:,}  USD {usd(usage.cost_micros_usd)}{over}",
    )


@app.command("abandon")
def abandon(pool: PoolName, lease: LeaseId, url: Url = URL_DEFAULT) -> None:
    """End a lease whose usage is not known, as the pool's settlement policy says.

    To a lease that has expired it was applied then: settle or release that one.

    Example: ledger leases abandon team 42
    """
    with existing(url, writes=True) as book:
        budget = book.pool(pool)
        budget.abandon(_lease(book, budget, lease))
        policy = budget.status().policy.settlement
    _say(lease, f"abandoned  ({policy})")


@app.command("release")
def release(pool: PoolName, lease: LeaseId, url: Url = URL_DEFAULT, key: Key = None) -> None:
    """End a lease that used nothing more; what it holds, or was assumed of it, goes back.

    Example: ledger leases release team 42
    """
    with existing(url, writes=True) as book:
        budget = book.pool(pool)
        budget.release(_lease(book, budget, lease), idempotency_key=key)
    _say(lease, "released")


def _lease(book: Ledger, budget: LedgerBudgetManager, lease: str) -> BudgetLease:
    """Return a lease by its token, or by its number in this store as it is now.

    A repeated call, under its key, is about one that has ended.
    """
    if not lease.removeprefix("-").isdecimal():
        try:
            lease_id, proof = parse_token(lease)
        except InvalidInputError:
            raise InvalidInputError(
                "lease",
                "must be a lease's number (17) or its token (17-3fa9c0d1e2b3a495), not "
                f"{lease!r:.40}. 'ledger leases list' shows the numbers, and with --format json "
                "the tokens",
            ) from None
    else:
        lease_id = int(lease)
        if not 0 < lease_id <= I64_MAX:
            raise UnknownLeaseError(lease_id)
        found = next(book.entries(budget.name, after=lease_id - 1), None)
        if found is None or (found.seq, found.kind) != (lease_id, EntryKind.RESERVATION):
            raise UnknownLeaseError(lease_id)
        proof = found.hash
    return BudgetLease(
        id=lease_id,
        reserved=UsageEstimate.zero(),
        request_budget=RequestBudget.unlimited(),
        pool=budget.identity,
        proof=proof,
    )


def _say(lease: str, outcome: str) -> None:
    stdout().print(f"lease {lease}  {outcome}", markup=False, soft_wrap=True)
