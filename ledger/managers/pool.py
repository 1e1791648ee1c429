"""The budget manager of one pool of a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from typing_extensions import override

from ledger.contract import (
    Budget,
    check_abandon,
    check_lease,
    check_lost,
    check_record,
    check_reserve,
)
from ledger.core.checks import (
    I64_MAX,
    REASON_MAX_CHARS,
    check_seconds,
    check_several,
    check_text,
    check_type,
)
from ledger.core.entries import Entry
from ledger.core.errors import (
    IdempotencyConflictError,
    LedgerError,
    LostLeaseError,
    UnknownLeaseError,
)
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.kinds import LeasePhase
from ledger.core.past_calls import ImportedCall, PastCall
from ledger.core.status import PoolStatus
from ledger.core.tokens import is_proof, parse_token
from ledger.core.usage_reports import UsageReport
from ledger.core.values import (
    BudgetLease,
    Remaining,
    RequestBudget,
    Usage,
    UsageDifference,
    UsageEstimate,
)
from ledger.engine.group_commit import BATCH_MAX, Writer
from ledger.engine.operations import (
    Abandon,
    Correct,
    Import,
    Operation,
    Record,
    RecordLost,
    Release,
    Renew,
    Reserve,
)
from ledger.engine.replaying import Known, checked, reserve_and_settle
from ledger.engine.waiting import WaitingReservations
from ledger.lease import LeaseBlock, PoolLeases, leasing
from ledger.store import actors, standing, statuses
from ledger.store.corrections import seq_of, spending
from ledger.store.database import Reads
from ledger.store.journal import PoolJournal
from ledger.store.leases import lease_of

T = TypeVar("T")


class LedgerBudgetManager(PoolLeases[BudgetLease, LeaseBlock], Budget[LeaseBlock]):
    """The budget of one pool, durable and shared by every process that opens the store.

    `Budget` says what each call promises. Every call is one serializable transaction; any number of
    threads may call it at once.
    """

    # Each call checks its arguments and returns the answer of _reserve, _do or _read. Only these
    # three block the calling thread. `tasks` overrides them, so that each call returns an
    # awaitable instead.

    def __init__(
        self,
        writer: Writer,
        journal: PoolJournal,
        waiting: WaitingReservations,
        *,
        record_denials: bool,
        exact_costs: bool,
        actor: str | None,
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._waiting = waiting
        self._record_denials = record_denials
        self._exact_costs = exact_costs
        self._actor = actor
        # The newest answer of `remaining` and when it was asked for, for calls with `max_age_s`.
        self._seen: tuple[float, Remaining | None] = (0.0, None)

    def __repr__(self) -> str:
        return f"<LedgerBudgetManager of pool {self.name!r} in {self._writer.database.url}>"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._journal.info.name

    @property
    def identity(self) -> UUID:
        """The pool's identity, which its leases carry."""
        return self._journal.info.identity

    @override
    def reserve(
        self,
        extensions: RequestExtensions,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        *,
        wait_s: float = 0,
    ) -> BudgetLease:
        check_reserve(extensions, estimate, request_budget, wait_s)
        operation = Reserve.of(
            extensions, estimate, request_budget, keep_denial=self._record_denials
        )
        return self._do(operation) if wait_s == 0 else self._reserve(operation, wait_s)

    @override
    def record_used(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        return self._record(lease, usage, report, closes=True)

    @override
    def observe(
        self, lease: BudgetLease, usage: Usage, *, report: UsageReport | None = None
    ) -> None:
        return self._record(lease, usage, report, closes=False)

    @override
    def renew(
        self, lease: BudgetLease, ttl: timedelta, *, idempotency_key: str | None = None
    ) -> datetime:
        self._check_own(lease)
        return self._do(Renew.of(lease, ttl, idempotency_key))

    @override
    def release(self, lease: BudgetLease, *, idempotency_key: str | None = None) -> None:
        self._check_own(lease)
        return self._do(Release.of(lease, idempotency_key))

    @override
    def abandon(
        self,
        lease: BudgetLease,
        *,
        estimate: UsageEstimate | None = None,
        report: UsageReport | None = None,
    ) -> None:
        check_abandon(lease, estimate, report)
        self._check_granted(lease)
        return self._do(Abandon.by_policy(lease, estimate, report))

    @override
    def record_lost(
        self,
        lease: BudgetLease | str,
        usage: Usage,
        *,
        estimate: UsageEstimate | None = None,
        attribution: Attribution | None = None,
        report: UsageReport | None = None,
    ) -> None:
        lost = check_lost(lease, usage, estimate, attribution, report)
        return self._do(RecordLost.of(lost, usage, estimate, attribution, report))

    @override
    def remaining(self, extensions: RequestExtensions, *, max_age_s: float = 0) -> Remaining:
        check_type("extensions", extensions, RequestExtensions)
        check_seconds("max_age_s", max_age_s)
        return self._read(lambda: self._remaining(max_age_s))

    def correct(
        self,
        entry: Entry | int,
        usage: Usage,
        reason: str,
        *,
        idempotency_key: str | None = None,
        expected: Usage | None = None,
        actor: str | None = None,
    ) -> UsageDifference:
        """Correct the usage of an earlier entry, and return the difference.

        The difference is appended as a new entry; the earlier entry stays as it was written. The
        correction counts under the entry's attribution and time. A second correction of the same
        entry starts from the corrected usage.

        Args:
            entry: A settlement, an observation or an import of this pool, or its number; or an
                expiry, for what it assumed.
            usage: The whole usage that the entry should have recorded.
            reason: Why, 1 to 2,000 characters; kept in the journal.
            idempotency_key: The caller's name for this correction: repeating it changes nothing.
            expected: The usage that the entry must have before the correction; by default any.
            actor: Who corrects, 1 to 255 characters; by default the `actor` of `Ledger.open`.

        Raises:
            InvalidInputError: An argument of another type, or the entry has this usage already.
            AmountOutOfRangeError: An amount is above 2^63-1.
            EntryCorrectedError: The entry has another usage than `expected`.
            UncorrectableEntryError: No such entry in this pool, or one of another kind, or its
                lease has not ended. Of an expiry: its lease has ended, so that recorded usage has
                replaced the assumed usage; or it assumed nothing.
            IdempotencyConflictError: The key was used with other arguments.
        """
        check_type("usage", usage, Usage)
        if expected is not None:
            check_type("expected", expected, Usage)
        seq, actor = seq_of(entry, self._journal), self._actor if actor is None else actor
        return self._do(Correct.of(seq, usage, reason, idempotency_key, actor, expected))

    def import_calls(
        self, calls: Sequence[PastCall], reason: str, *, actor: str | None = None
    ) -> list[ImportedCall]:
        """Record calls of the past that this store does not have; return the result of each.

        Each becomes an entry of kind import, once under its key, whatever the pool has left. It
        counts at the time of the call: in the window and in the limits of that time, not in those
        of today. 256 calls share a transaction; each of them is written or not.

        Calls that the pool recorded live are not searched here: `ledger.importing` does that.

        Args:
            calls: The calls.
            reason: Why, 1 to 2,000 characters; each entry keeps it.
            actor: Who imports, 1 to 255 characters; by default the `actor` of `Ledger.open`.

        Raises:
            InvalidInputError: An argument of another type, or a call is dated more than a day ahead
                of the store's clock. Other calls of its transaction, and of those before it, were
                imported.
            AmountOutOfRangeError: An amount is above 2^63-1. Nothing was written.
        """
        check_several("calls", calls)
        for call in calls:
            check_type("calls", call, PastCall)
        check_text("reason", reason, max_chars=REASON_MAX_CHARS)
        by = actors.named(self._actor if actor is None else actor)
        asked = [Import.of(call, reason, by, exact_costs=self._exact_costs) for call in calls]
        return self._read(lambda: self._import(asked))

    def reserve_and_settle(
        self, calls: Sequence[Known], *, at_once: int = 1
    ) -> list[BudgetLease | None]:
        """Reserve and settle calls whose usage is known, as a back-test does.

        Each call leads to the entries of a `reserve` and a `record_used`, in the order of the
        calls, and once under its key. 128 calls share a transaction. If a key is that of another
        call, nothing of its transaction is written.

        Args:
            calls: The calls. A denial is kept in the journal.
            at_once: How many leases are held at the same time, 1 to 128. A lease is settled when
                this many are held, and at the end of each transaction.

        Returns:
            The lease of each call, None if it was denied.

        Raises:
            InvalidInputError: An argument of another type or out of range, a call without an
                idempotency key, or one dated more than a day ahead of the store's clock.
            IdempotencyConflictError: A key was used for another call. The calls of earlier
                transactions were recorded.
            BudgetError: A call is refused for another reason than what is left. Other calls of its
                transaction, and of earlier ones, were recorded.
            AmountOutOfRangeError: An amount is above 2^63-1. Nothing was written.
        """
        asked = checked(calls, at_once)
        return self._read(
            lambda: [*reserve_and_settle(self._writer, self._journal, asked, at_once)]
        )

    def usage_of(self, entry: Entry | int) -> Usage:
        """Return the usage of a settlement, observation or import after all its corrections.

        Raises:
            InvalidInputError: `entry` is neither an entry nor a number.
            UncorrectableEntryError: No such entry in this pool, or one of another kind.
        """
        seq = seq_of(entry, self._journal)
        return self._read(
            lambda: self._writer.database.read(
                lambda connection: spending(connection, self._journal, seq).usage
            )
        )

    def status(self) -> PoolStatus:
        """Return the pool's status: policy, balance, window and what is left here."""
        return self._read(self._status)

    _block = leasing(LeaseBlock)

    @override
    def _open_lease(self, lease: str) -> BudgetLease:
        lease_id, proof = parse_token(lease)
        return self._read(lambda: self._find(lease_id, proof))

    def _reserve(self, operation: Reserve, wait_s: float) -> BudgetLease:
        """Make a reservation, which waits for capacity if need be."""
        return self._waiting.reserve(self._journal, operation, wait_s)

    def _do(self, operation: Operation[T]) -> T:
        """Do an operation, and return its answer once it is durable."""
        return self._writer.run(self._journal, operation)

    def _read(self, read: Callable[[], T]) -> T:
        """Run a call that only reads, and return its answer."""
        return read()

    def _record(
        self, lease: BudgetLease, usage: Usage, report: UsageReport | None, *, closes: bool
    ) -> None:
        check_record(lease, usage, report)
        self._check_granted(lease)
        return self._do(Record.of(lease, usage, report, closes=closes))

    def _remaining(self, max_age_s: float) -> Remaining:
        read_at_s, seen = self._seen
        if seen is None or time.monotonic() - read_at_s >= max_age_s:
            asked_at_s = time.monotonic()  # before the read: the answer is never older than it says
            seen = standing.left(self._present(self._writer.database.reads()))
            self._seen = asked_at_s, seen
        return seen

    def _status(self) -> PoolStatus:
        reads = self._writer.database.reads()
        found = self._present(reads)
        lineage = zip(self._journal.lineage, found, strict=True)
        holds = statuses.hold_ends(reads.read_each, lineage, self._writer.now())
        return statuses.status_of(self._journal, found, holds)

    def _present(self, reads: Reads) -> list[standing.Present]:
        return standing.present(reads, self._journal, self._writer.now())

    def _find(self, lease: int, proof: bytes) -> BudgetLease:
        found = None
        if lease <= I64_MAX:
            found = self._writer.database.read(
                lambda connection: self._journal.leases(connection, [lease]).get(lease)
            )
        if found is None or not found.is_proved(proof):
            raise LostLeaseError(lease, pool=self.name)
        if found.origin_pool_id is not None:  # a mirror: a child pool granted the lease
            raise UnknownLeaseError(lease, "elsewhere")
        if found.state.phase is LeasePhase.ENDED:
            raise UnknownLeaseError(lease, "ended")
        return lease_of(found, self.identity)

    def _import(self, calls: Sequence[Import]) -> list[ImportedCall]:
        found = []
        for begin in range(0, len(calls), BATCH_MAX):
            batch = calls[begin : begin + BATCH_MAX]
            for call, outcome in zip(
                batch, self._writer.run_all(self._journal, batch), strict=True
            ):
                if isinstance(outcome, IdempotencyConflictError):
                    found.append(ImportedCall(outcome.seq, is_new=False, is_changed=True))
                elif isinstance(outcome, LedgerError):
                    raise outcome
                else:
                    is_new = call.made(outcome)
                    found.append(ImportedCall(outcome["seq"], is_new=is_new, is_changed=False))
        return found

    def _check_own(self, lease: BudgetLease) -> None:
        check_lease(lease)
        self._check_granted(lease)

    def _check_granted(self, lease: BudgetLease) -> None:
        """Refuse a lease of another pool or without proof, and an id that no store holds."""
        if lease.pool != self._journal.info.identity:
            raise UnknownLeaseError(lease.id, "elsewhere")
        if not 0 < lease.id <= I64_MAX or not is_proof(lease.proof):
            raise UnknownLeaseError(lease.id)
