"""What the limits and credits of one pool count inside one transaction, staged entries included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.credit_book import CreditBook, book_from_json
from ledger.store.drafts import Draft, Staged
from ledger.store.heads import Head
from ledger.store.history import StagedHistory
from ledger.store.journal import PoolJournal
from ledger.store.rows import book_of
from ledger.store.statements import rows_of_each


class PoolCounts:
    """What was committed at a pool's entries, read only for its limits and credits."""

    def __init__(
        self,
        connection: Connection,
        journal: PoolJournal,
        *,
        upto: int,
        staged: Sequence[Staged],
    ) -> None:
        """Read nothing yet.

        Args:
            connection: The transaction.
            journal: The pool.
            upto: Its newest entry that is written.
            staged: The staged entries after it; more may be added to this list.
        """
        self._journal = journal
        self._upto = upto
        self._staged = staged
        self._read = partial(rows_of_each, connection)
        self._history: StagedHistory | None = None

    def limits(self, head: Head, at: Micros, due: Sequence[rules.Charge] = ()) -> rules.Limits:
        """Return the limits of the pool's policy.

        Args:
            head: The pool's newest entry.
            at: The time.
            due: What leases that are due will be charged, as if they had expired.

        Raises:
            JournalDamagedError: An entry that one of them counts from cannot be read.
        """
        return rules.Limits(head.policy, at, self._committed(due))

    def book(self, head: Head) -> CreditBook | None:
        """Return the credits that the pool lists, None if it was never prepaid.

        Raises:
            JournalDamagedError: They cannot be read.
        """
        number = head.policy_seq - self._upto
        if number > 0:
            return book_of(self._staged[number - 1])
        return self._journal.terms.book(self._read, head.policy_seq)

    def credits(
        self,
        head: Head,
        at: Micros,
        draft: Draft | None = None,
        *,
        always: bool = False,
        due: Sequence[rules.Charge] = (),
    ) -> rules.Credits | None:
        """Return the pool's credits, None if it is not prepaid.

        Args:
            head: The pool's newest entry.
            at: The time.
            draft: A decided entry that counts as staged; by default none.
            always: Whether to return the credits of a pool that is no longer prepaid, too.
            due: What leases that are due will be charged, as if they had expired.

        Raises:
            JournalDamagedError: The credits, or an entry from which they count, cannot be read.
        """
        policy, book, more = head.policy, None, list[rules.Move]()
        if draft is not None and draft.policy is not None:
            policy, said = draft.policy, (draft.detail or {}).get("credits")
            book = None if said is None else book_from_json(said)
        elif policy.prepaid or always:
            book = self.book(head)
        if draft is not None and draft.usage is not None:
            dates = draft.occurred_at, None if draft.lease is None else draft.lease.expires_at
            said = draft.kind, draft.flags, draft.detail or {}, draft.usage
            move = rules.move_of(head.seq + 1, *said, dates)
            more = [] if move is None else [move]
        if book is None:
            return None
        return rules.Credits(policy, book, at, self._committed(due), more)

    def _committed(self, due: Sequence[rules.Charge] = ()) -> rules.History:
        if self._history is None:
            self._history = StagedHistory(
                self._read,
                self._journal.info,
                upto=self._upto,
                staged=self._staged,
                counted=self._journal.counted,
            )
        return self._history.with_due(due)
