"""The budget manager that works on one pool of a store."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import overload
from uuid import UUID

from ledger.contract import (
    RequestExtensions,
    check_lease,
    check_lease_id,
    check_record,
    check_reserve,
)
from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros, check_seconds, check_type
from ledger.core.entries import Entry, LeasePhase, PoolStatus, WindowState
from ledger.core.values import (
    Attribution,
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
    UsageReport,
)
from ledger.engine.group_commit import Writer
from ledger.engine.operations import Close, Correct, Record, Release, Renew, Reserve
from ledger.engine.waiting import WaitingReservations
from ledger.errors import UnknownLeaseError
from ledger.lease import HeldLease
from ledger.store import journal
from ledger.store.corrections import seq_of, spending
from ledger.store.journal import PoolJournal
from ledger.store.leases import lease_of
from ledger.store.rows import Head


class LedgerBudgetManager:
    """The budget of one pool, durable and shared by every process that opens the store.

    Every method is one serializable transaction; any number of threads may call it at once. All
    of them may raise `ContentionError` (others kept the store busy until the deadline),
    `LedgerUnavailableError` (the store cannot be reached; nothing was written) and, when they
    write, `OutcomeUnknownError` (the connection died in COMMIT; repeat with the error's key).
    """

    def __init__(
        self,
        writer: Writer,
        journal: PoolJournal,
        waiting: WaitingReservations,
        *,
        record_denials: bool,
    ) -> None:
        self.writer = writer
        self.journal = journal
        self.waiting = waiting
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
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        """Hold `estimate` in the pool until the lease is settled.

        An `Attribution`, an `OccurredAt` and an `IdempotencyKey` in the extensions are kept with
        the reservation. The same key with the same arguments gives the first answer again.

        Args:
            extensions: What the request carries.
            estimate: What the call is expected to use at most.
            request_budget: The request's own limit.
            wait_s: How long to wait for capacity, in seconds, first come first served among those
                who wait in this process. With 0, the default, the answer comes at once, whoever
                waits.

        Raises:
            InvalidInputError: An argument of another type, or a negative time.
            AmountOutOfRangeError: An amount, or the total held, is above 2^63-1.
            RequestBudgetExceededError: The estimate is over the request's own budget.
            ThresholdExceededError: The pool has not enough left, or had not until the end.
            IdempotencyConflictError: The key was used with other arguments.
        """
        operation = self.reserving(extensions, estimate, request_budget)
        check_seconds("wait_s", wait_s)
        return self.waiting.reserve(self.journal, operation, wait_s)

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
        self.writer.run(self.journal, self.recording(lease, usage, report, closes=True))

    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        """Commit a part of a lease's usage while it stays open: a streamed chunk, an attempt.

        The lease holds as much less, down to nothing; `record_used` adds the last part and closes.
        Each part is an entry of its own, with its own provider request id.

        Args:
            lease: The grant; only its id and pool matter.
            usage: What was used since the last time.
            report: What is known of this part.

        Raises:
            InvalidInputError: An argument of another type.
            AmountOutOfRangeError: An amount is above 2^63-1.
            UnknownLeaseError: No such lease in this pool, or already ended.
            RequestBudgetExceededError: All parts together are over the lease's request budget;
                this one is recorded all the same, and the lease stays open.
            IdempotencyConflictError: The key was used with other arguments.
        """
        self.writer.run(self.journal, self.recording(lease, usage, report, closes=False))

    def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        """Let a lease hold what it holds until `ttl` from now, and return when that is.

        Raises:
            InvalidInputError: An argument of another type, or a time not above 0 and at most ten
                years.
            UnknownLeaseError: No such lease in this pool, or ended, or expired.
            IdempotencyConflictError: The key was used with other arguments.
        """
        return self.writer.run(self.journal, self.renewing(lease, ttl, idempotency_key))

    def abandon(self, lease: BudgetLease) -> None:
        """End a lease whose usage nobody recorded, as the pool's settlement policy says.

        By default it is settled at the larger of what was observed and what was estimated, and
        marked as estimated: spend is rather counted too high than not at all.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        self.writer.run(self.journal, self.abandoning(lease))

    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        """Close a lease unused: what it held goes back to the pool.

        The same idempotency key with the same lease releases once, and repeats without an error.

        Raises:
            InvalidInputError: An argument of another type.
            UnknownLeaseError: No such lease in this pool, or already ended.
        """
        self.writer.run(self.journal, self.releasing(lease, idempotency_key))

    def correct(
        self,
        entry: Entry | int,
        usage: Usage,
        reason: str,
        *,
        idempotency_key: str | None = None,
    ) -> UsageDifference:
        """Say what an earlier entry's usage really was, and return by how much it was wrong.

        The difference is appended; the entry stays as it was written. It is counted for whom and
        when the entry is counted. To correct an entry again starts from what it says by now.

        Args:
            entry: A settlement or an observation of this pool, or its number.
            usage: All of what that entry should have said.
            reason: Why, 1 to 2,000 characters; kept in the journal.
            idempotency_key: The caller's name for this correction: repeating it changes nothing.

        Raises:
            InvalidInputError: An argument of another type, or the entry says so already.
            AmountOutOfRangeError: An amount is above 2^63-1.
            UncorrectableEntryError: No such entry in this pool, or one of another kind, or its
                lease has not ended.
            IdempotencyConflictError: The key was used with other arguments.
        """
        return self.writer.run(self.journal, self.correcting(entry, usage, reason, idempotency_key))

    def usage_of(self, entry: Entry | int) -> Usage:
        """Return what a settlement or an observation says by now, after all its corrections.

        Raises:
            InvalidInputError: Neither an entry nor a number.
            UncorrectableEntryError: No such entry in this pool, or one of another kind.
        """
        seq = seq_of(entry, self.journal)
        return self.writer.database.read(
            lambda connection: spending(connection, self.journal, seq).usage
        )

    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        """Return what is left: capacity minus what is committed and reserved.

        Below other pools it is the least, on each axis, of what this one and those above have left.

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
            asked_at_s = time.monotonic()
            seen = rules.least(
                rules.remaining(head.policy, head.balance, self._window(head))
                for head in self.journal.heads_alone(self.writer.database)
            )
            self._seen = asked_at_s, seen
        return seen

    def status(self) -> PoolStatus:
        """Return the pool at its newest entry: policy, balance, window and what remains of its own.

        The window is the one that it is by now, also where nothing was written in it yet.
        """
        head = self.journal.head_alone(self.writer.database)
        window = self._window(head)
        return PoolStatus(
            pool=self.journal.info,
            seq=head.seq,
            policy=head.policy,
            balance=head.balance,
            remaining=rules.remaining(head.policy, head.balance, window),
            closed=head.closed,
            parent=None if self.journal.parent is None else self.journal.parent.info.name,
            window=window,
        )

    def _window(self, head: Head) -> WindowState | None:
        """Return the window that it is by now, which nobody may have begun yet."""
        if head.window is None:
            return None
        return rules.roll_over(head.policy, head.window, head.balance, self._now()) or head.window

    def _now(self) -> Micros:
        now = self.writer.now()
        if now is None:
            now = self.writer.database.read(lambda connection: journal.clock(connection, None))
        return now

    @overload
    def lease(self, lease: int) -> BudgetLease: ...

    @overload
    def lease(
        self,
        lease: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> HeldLease: ...

    def lease(
        self,
        lease: int | UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> BudgetLease | HeldLease:
        """Return an open lease by its id, or one to be held for the length of a `with` block.

        An estimate gives a context manager: it reserves on entry and has `observe`, `record`,
        `renew` and `release`. Left without a record, by return, exception, cancellation or the
        closing of a generator, it follows the pool's settlement policy, as `abandon` does.

        Args:
            lease: The id of a lease, whichever process was granted it; or an estimate.
            request_budget: The request's own limit; unlimited without it.
            attribution: Whom and what the call is for.
            extensions: What else the request carries; the attribution above wins.
            wait_s: How long to wait for capacity on entry, in seconds; as `reserve`.

        Raises:
            InvalidInputError: Neither an id nor an estimate.
            UnknownLeaseError: No lease of this id in this pool, or already ended.
        """
        if isinstance(lease, UsageEstimate):
            return HeldLease(
                self,
                lease,
                request_budget=request_budget,
                attribution=attribution,
                extensions=extensions,
                wait_s=wait_s,
            )
        check_lease_id(lease)
        found = None
        if 0 < lease <= I64_MAX:
            found = self.writer.database.read(
                lambda connection: self.journal.leases(connection, [lease]).get(lease)
            )
        if (
            found is None
            or found.state.phase is LeasePhase.ENDED
            or found.origin_pool_id is not None  # granted by a pool below
        ):
            raise UnknownLeaseError(lease)
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

    def recording(
        self, lease: BudgetLease, usage: Usage, report: UsageReport | None, *, closes: bool
    ) -> Record:
        """Return what `record_used` and `observe` ask the queue for."""
        check_record(lease, usage)
        if report is not None:
            check_type("report", report, UsageReport)
        self._require_own(lease)
        return Record.of(lease, usage, report, closes=closes)

    def renewing(self, lease: BudgetLease, ttl: timedelta, idempotency_key: str | None) -> Renew:
        """Return what `renew` asks the queue for."""
        check_lease(lease)
        self._require_own(lease)
        return Renew.of(lease, ttl, idempotency_key)

    def releasing(self, lease: BudgetLease, idempotency_key: str | None) -> Release:
        """Return what `release` asks the queue for."""
        check_lease(lease)
        self._require_own(lease)
        return Release.of(lease, idempotency_key)

    def abandoning(self, lease: BudgetLease) -> Close:
        """Return what `abandon` asks the queue for."""
        check_lease(lease)
        self._require_own(lease)
        return Close(lease=lease.id)

    def correcting(
        self, entry: Entry | int, usage: Usage, reason: str, idempotency_key: str | None
    ) -> Correct:
        """Return what `correct` asks the queue for."""
        check_type("usage", usage, Usage)
        return Correct.of(seq_of(entry, self.journal), usage, reason, idempotency_key)

    def _require_own(self, lease: BudgetLease) -> None:
        if lease.pool != self.identity or not 0 < lease.id <= I64_MAX:
            raise UnknownLeaseError(lease.id)
