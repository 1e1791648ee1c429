"""The budget manager that works on one pool of a store."""

from __future__ import annotations

import time
from uuid import UUID

from ledger import rules
from ledger.budget import (
    RequestExtensions,
    check_lease,
    check_lease_id,
    check_record,
    check_reserve,
)
from ledger.checks import I64_MAX, check_seconds, check_type
from ledger.commit import Writer
from ledger.errors import UnknownLeaseError
from ledger.journal import PoolJournal
from ledger.model import (
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.operations import Release, Reserve, Settle
from ledger.records import LeasePhase, PoolStatus
from ledger.rows import LeaseRow


class LedgerBudgetManager:
    """The budget of one pool, durable and shared by every process that opens the store.

    Every method is one serializable transaction; any number of threads may call it at once. All
    of them may raise `ContentionError` (others kept the store busy until the deadline),
    `LedgerUnavailableError` (the store cannot be reached; nothing was written) and, when they
    write, `OutcomeUnknownError` (the connection died in COMMIT; repeat with the error's key).
    """

    def __init__(self, writer: Writer, journal: PoolJournal, *, record_denials: bool) -> None:
        self.writer = writer
        self.journal = journal
        self._record_denials = record_denials
        self._seen: tuple[float, Remaining | None] = (0.0, None)

    def __repr__(self) -> str:
        return f"<LedgerBudgetManager of pool {self.name!r} in {self.writer.database.url}>"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.journal.info.name

    @property
    def identity(self) -> UUID:
        """The pool's identity, which its leases carry."""
        return self.journal.info.identity

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
        return self.writer.run(self.journal, self.reserving(extensions, estimate, request_budget))

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
        self.writer.run(self.journal, self.settling(lease, usage, report))

    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close a lease unused: what it held goes back to the pool.

        The same idempotency key with the same lease releases once, and repeats without an error.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        self.writer.run(self.journal, self.releasing(lease, idempotency_key))

    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left: capacity minus what is committed and reserved.

        Args:
            extensions: What the request carries.
            max_age_s: How old the answer may be, in seconds. With 0, the default, the newest entry
                is read; otherwise an answer that this object read so lately is given again.

        Raises:
            InvalidInputError: An argument of another type.
        """
        check_type("extensions", extensions, RequestExtensions)
        check_seconds("max_age_s", max_age_s)
        read_at_s, seen = self._seen
        if seen is None or time.monotonic() - read_at_s >= max_age_s:
            seen = self.status().remaining
        return seen

    def status(self) -> PoolStatus:
        """Return the pool at its newest entry: policy, balance and what remains."""
        asked_at_s = time.monotonic()
        head = self.journal.head_alone(self.writer.database)
        remaining = rules.remaining(head.policy, head.balance)
        self._seen = asked_at_s, remaining
        return PoolStatus(
            pool=self.journal.info,
            seq=head.seq,
            policy=head.policy,
            balance=head.balance,
            remaining=remaining,
        )

    def lease(self, lease_id: int) -> BudgetLease:
        """Return an open lease by its id, whichever process was granted it.

        Raises:
            InvalidInputError: The id is no whole number.
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        check_lease_id(lease_id)
        found = None
        if 0 < lease_id <= I64_MAX:
            found = self.writer.database.read(
                lambda connection: self.journal.leases(connection, [lease_id]).get(lease_id)
            )
        if found is None or found.state.phase is LeasePhase.ENDED:
            raise UnknownLeaseError(lease_id)
        return lease_of(found, self.identity)

    def reserving(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
    ) -> Reserve:
        """Return what `reserve` asks the queue for, or raise what is wrong with its arguments."""
        check_reserve(extensions, estimate, request_budget)
        return Reserve.of(extensions, estimate, request_budget, keep_denial=self._record_denials)

    def settling(self, lease: BudgetLease, usage: Usage, report: UsageReport | None) -> Settle:
        """Return what `record_used` asks the queue for."""
        check_record(lease, usage)
        if report is not None:
            check_type("report", report, UsageReport)
        self._require_own(lease)
        return Settle.of(lease, usage, report)

    def releasing(self, lease: BudgetLease, idempotency_key: str | None) -> Release:
        """Return what `release` asks the queue for."""
        check_lease(lease)
        self._require_own(lease)
        return Release.of(lease, idempotency_key)

    def _require_own(self, lease: BudgetLease) -> None:
        if lease.pool != self.identity or not 0 < lease.id <= I64_MAX:
            raise UnknownLeaseError(lease.id)


def lease_of(found: LeaseRow, pool: UUID) -> BudgetLease:
    """Return a stored lease as the grant that a caller holds."""
    state = found.state
    return BudgetLease(
        id=state.lease, reserved=state.estimate, request_budget=state.request_budget, pool=pool
    )
