"""The budget manager that works on one pool of a store."""

from __future__ import annotations

from uuid import UUID

from ledger import rules
from ledger.budget import RequestExtensions, check_record, check_reserve
from ledger.checks import I64_MAX, check_type
from ledger.commit import Writer
from ledger.errors import UnknownLeaseError
from ledger.journal import LeaseRow, PoolJournal
from ledger.model import (
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.operations import Reserve, Settle
from ledger.records import LeasePhase, PoolStatus


class LedgerBudgetManager:
    """The budget of one pool, durable and shared by every process that opens the store.

    Every method is one serializable transaction; any number of threads may call it at once. All
    of them may raise `ContentionError` (others kept the store busy until the deadline),
    `LedgerUnavailableError` (the store cannot be reached; nothing was written) and, when they
    write, `OutcomeUnknownError` (the connection died in COMMIT; repeat with the error's key).
    """

    def __init__(self, writer: Writer, pool: PoolJournal, *, record_denials: bool) -> None:
        self._writer = writer
        self._pool = pool
        self._record_denials = record_denials

    def __repr__(self) -> str:
        return f"<LedgerBudgetManager of pool {self.name!r} in {self._writer.database.url}>"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._pool.info.name

    @property
    def identity(self) -> UUID:
        """The pool's identity, which its leases carry."""
        return self._pool.info.identity

    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
    ) -> BudgetLease:
        """Hold `estimate` in the pool until the lease is settled.

        An `Attribution`, an `OccurredAt` and an `IdempotencyKey` in the extensions are kept with
        the reservation. The same key with the same arguments gives the first answer again.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount, or the total held, is above 2^63-1.
            RequestBudgetExceededError: The estimate is over the request's own budget.
            ThresholdExceededError: The pool has not enough left.
            IdempotencyConflictError: The key was used with other arguments.
        """
        check_reserve(extensions, estimate, request_budget)
        operation = Reserve.of(
            extensions, estimate, request_budget, keep_denial=self._record_denials
        )
        return self._writer.run(self._pool, operation)

    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Return the lease's reservation and commit the actual usage, whatever it is.

        Args:
            lease: The grant; only its id and pool matter, the stored values win.
            usage: What the call really used.
            report: What is known only now: the model that answered, the provider's request id.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount is above 2^63-1.
            UnknownLeaseError: No such lease in this pool, or already ended.
            RequestBudgetExceededError: Over the lease's request budget; recorded all the same.
            IdempotencyConflictError: The key was used with other arguments.
        """
        check_record(lease, usage)
        if report is not None:
            check_type("report", report, UsageReport)
        if lease.pool != self.identity or not 0 < lease.id <= I64_MAX:
            raise UnknownLeaseError(lease.id)
        self._writer.run(self._pool, Settle.of(lease, usage, report))

    def remaining(self, extensions: RequestExtensions) -> Remaining:  # noqa: ARG002 - the contract's
        """Return what is left: capacity minus what is committed and reserved."""
        return self.status().remaining

    def status(self) -> PoolStatus:
        """Return the pool at its newest entry: policy, balance and what remains."""
        head = self._pool.head_alone(self._writer.database)
        return PoolStatus(
            pool=self._pool.info,
            seq=head.seq,
            policy=head.policy,
            balance=head.balance,
            remaining=rules.remaining(head.policy, head.balance),
        )

    def lease(self, lease_id: int) -> BudgetLease:
        """Return an open lease by its id, whichever process was granted it.

        Raises:
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        check_type("lease_id", lease_id, int)
        found = None
        if 0 < lease_id <= I64_MAX:
            found = self._writer.database.read(
                lambda connection: self._pool.leases(connection, [lease_id]).get(lease_id)
            )
        if found is None or found.state.phase is LeasePhase.ENDED:
            raise UnknownLeaseError(lease_id)
        return lease_of(found, self.identity)


def lease_of(found: LeaseRow, pool: UUID) -> BudgetLease:
    """Return a stored lease as the grant that a caller holds."""
    state = found.state
    return BudgetLease(
        id=state.lease, reserved=state.estimate, request_budget=state.request_budget, pool=pool
    )
