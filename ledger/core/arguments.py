"""Arguments of calls about leases: refused where they are of another type."""

from __future__ import annotations

from uuid import UUID

from ledger.core.checks import check_seconds, check_type
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.tokens import parse_token, token_of
from ledger.core.usage_reports import UsageReport
from ledger.core.values import BudgetLease, RequestBudget, Usage, UsageEstimate


def check_record(lease: object, usage: object, report: object = None) -> None:
    """Refuse arguments of `record_used` and `observe` that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_lease(lease)
    if usage.__class__ is not Usage or report is not None:
        check_record_of(usage, report)


def check_abandon(lease: object, estimate: object, report: object = None) -> None:
    """Refuse arguments of `abandon` that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_lease(lease)
    if estimate is not None:
        check_type("estimate", estimate, UsageEstimate)
    if report is not None:
        check_type("report", report, UsageReport)


def check_record_of(usage: object, report: object = None) -> None:
    """Refuse a usage and a report that are of another type.

    Raises:
        InvalidInputError: One of them is something else.
    """
    check_type("usage", usage, Usage)
    if report is not None:
        check_type("report", report, UsageReport)


def check_lost(
    lease: BudgetLease | str,
    usage: object,
    estimate: object,
    attribution: object,
    report: object,
) -> BudgetLease:
    """Return the lease of a call of `record_lost`, as far as it is known.

    Raises:
        InvalidInputError: An argument is of another type, or the lease has no proof.
    """
    check_record_of(usage, report)
    if estimate is not None:
        check_type("estimate", estimate, UsageEstimate)
    if attribution is not None:
        check_type("attribution", attribution, Attribution)
    if isinstance(lease, str):
        lease_id, proof = parse_token(lease)
        return BudgetLease(
            id=lease_id,
            reserved=UsageEstimate.zero(),
            request_budget=RequestBudget.unlimited(),
            proof=proof,
        )
    check_lease(lease)
    if lease.pool is not None:
        check_type("lease.pool", lease.pool, UUID)
    token_of(lease.id, lease.proof)
    return lease


def not_lost(lease: BudgetLease) -> InvalidInputError:
    """Return the error of `record_lost` for a lease that this store or manager has."""
    return InvalidInputError("lease", f"{lease.token} is not lost; record_used() settles it")


def check_lease(lease: object) -> None:
    """Refuse a value that is no lease.

    Raises:
        InvalidInputError: The value is no `BudgetLease`, or its id is no whole number.
    """
    if not isinstance(lease, BudgetLease):
        # A lease block has its BudgetLease as `.lease`. Before it is entered, that property raises
        # an InvalidInputError of its own.
        if isinstance(getattr(lease, "lease", None), BudgetLease):
            raise InvalidInputError(
                "lease",
                f"must be a BudgetLease, not {type(lease).__name__}; call record(), observe(), "
                "renew() or release() of the block itself, or pass its .lease",
            )
        check_type("lease", lease, BudgetLease)
    lease_id = getattr(lease, "id", None)
    if lease_id.__class__ is not int:
        check_lease_id(lease_id)


def check_lease_id(lease_id: object) -> None:
    """Refuse an id that is no whole number.

    Raises:
        InvalidInputError: The id is no `int`.
    """
    if isinstance(lease_id, bool) or not isinstance(lease_id, int):
        raise InvalidInputError("lease.id", f"must be an int, not {type(lease_id).__name__}")


def check_reserve(
    extensions: object, estimate: object, request_budget: object, wait_s: object = 0
) -> None:
    """Refuse arguments of `reserve` that are of another type.

    Raises:
        InvalidInputError: One of them is something else, or `wait_s` is below 0.
    """
    # Most calls check nothing more than the classes.
    if extensions.__class__ is not RequestExtensions:
        check_type("extensions", extensions, RequestExtensions)
    if estimate.__class__ is not UsageEstimate:
        check_type("estimate", estimate, UsageEstimate)
    if request_budget.__class__ is not RequestBudget:
        check_type("request_budget", request_budget, RequestBudget)
    if wait_s != 0 or wait_s.__class__ is bool:
        check_seconds("wait_s", wait_s)
