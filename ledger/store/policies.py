"""Terms: the policy and the window under which a pool's entries are decided.

An earlier entry began each of them. They never change after COMMIT, so they are remembered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, bindparam, select

from ledger.core.credit_book import CreditBook
from ledger.core.entries import PoolId, WindowState
from ledger.core.errors import JournalDamagedError, UnknownRulesError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.store import rows
from ledger.store.attributions import remember
from ledger.store.columns import Columns
from ledger.store.rows import Row, Ruled
from ledger.store.schema import entries
from ledger.store.statements import Prepared, ReadEach, rows_of_each

T = TypeVar("T")


class InForce(NamedTuple):
    """The policy, window and rules that an entry is decided under.

    Attributes:
        policy: The policy in force.
        window: The window that the pool is in, None without windows.
        rules_version: The version of the rules that the policy was set under.
    """

    policy: SharedPoolBudgetOptions
    window: WindowState | None
    rules_version: int


_BEGINNING = Prepared(
    select(*(entries.c[name] for name in rows.BEGINNING)).where(
        entries.c.pool_id == bindparam("pool_id"), entries.c.seq == bindparam("seq")
    )
)

_CHECKED = Columns(entries, rows.BEGINNING)

_POLICY = "its policy cannot be read", "it should set a policy, and does not"
_WINDOW = "its window cannot be read", "it should begin a window, and does not"
"""The reasons that errors give for an entry that cannot be read, or is not as it should be."""


def _beginning_in(found: Sequence[Row]) -> Row | None:
    """Return the entry that was found, None if there is none.

    Raises:
        ValueError: A column holds a value that it may not hold.
    """
    if not found:
        return None
    _CHECKED.check(found[0])
    return found[0]


class Terms:
    """The policies and windows of one pool, by the entries that began them."""

    def __init__(self, pool_id: PoolId, name: str) -> None:
        self._pool_id = pool_id
        self._name = name
        self._policies: dict[int, Ruled] = {}
        self._windows: dict[int, WindowState] = {}
        self._began: dict[int, int] = {}

    def of(self, connection: Connection, row: Row) -> InForce:
        """Return the terms that an entry names. Terms that are not remembered are read.

        Raises:
            JournalDamagedError: Its policy or its window cannot be read.
            UnknownRulesError: The policy was set under rules that this library does not have.
        """
        policy, version, _ = self._ruled(connection, row["policy_seq"])
        window = None
        if policy.window is not None:
            # A damaged entry without a window's number, which `verify` reports, must not stop the
            # pool.
            window = self.window(connection, row["window_seq"] or row["policy_seq"])
        return InForce(policy, window, version)

    def known(self, row: Row) -> InForce | None:
        """Return the terms that an entry names, None if they are not known yet."""
        known = self._policies.get(row["policy_seq"])
        if known is None:
            return None
        policy, version, _ = known
        if policy.window is None:
            return InForce(policy, None, version)
        window = self._windows.get(row["window_seq"])
        return None if window is None else InForce(policy, window, version)

    def knows(self, seq: int) -> bool:
        """Tell whether the policy that entry `seq` set is remembered."""
        return seq in self._policies

    def asked(self, seq: int) -> tuple[Prepared, dict[str, int]]:
        """Return the query, with its parameters, for the terms that entry `seq` began."""
        return _BEGINNING, {"pool_id": self._pool_id, "seq": seq}

    def unread(self, row: Row) -> set[int]:
        """Return the numbers of the entries that began an entry's terms, if these are unknown."""
        unknown = set()
        if row["policy_seq"] not in self._policies:
            unknown.add(row["policy_seq"])
        if row["window_seq"] is not None and row["window_seq"] not in self._windows:
            unknown.add(row["window_seq"])
        return unknown

    def learn(self, seq: int, found: Sequence[Row]) -> None:
        """Remember terms that were read. An unreadable one raises when it is needed."""
        with contextlib.suppress(*rows.UNREADABLE):
            row = _beginning_in(found)
            ruled = rows.ruled_of(row) if row else None
            if ruled is not None:
                remember(self._policies, seq, ruled)
            if row and (ruled is None or ruled.policy.window is not None):
                window = rows.window_of(row)
                if window is not None:
                    remember(self._windows, seq, window)

    def policy(self, connection: Connection, seq: int) -> SharedPoolBudgetOptions:
        """Return the policy that entry `seq` set.

        Raises:
            JournalDamagedError: The entry set no policy, or it cannot be read.
            UnknownRulesError: It was set under rules that this library does not have.
        """
        return self._ruled(connection, seq).policy

    def _ruled(self, connection: Connection, seq: int) -> Ruled:
        read = partial(rows_of_each, connection)
        return self._begun(read, seq, self._policies, rows.ruled_of, _POLICY)

    def window(self, connection: Connection, seq: int) -> WindowState:
        """Return the window that entry `seq` began.

        Raises:
            JournalDamagedError: The entry began no window.
        """
        read = partial(rows_of_each, connection)
        return self._begun(read, seq, self._windows, rows.window_of, _WINDOW)

    def began(self, connection: Connection, seq: int) -> int:
        """Return the number of the entry that began the window which entry `seq` began or changed.

        Raises:
            JournalDamagedError: The entry did neither.
        """
        read = partial(rows_of_each, connection)
        return self._begun(read, seq, self._began, rows.window_began, _WINDOW)

    def book(self, read: ReadEach, seq: int) -> CreditBook | None:
        """Return the credits after entry `seq`, which set a policy; None if never prepaid.

        Raises:
            JournalDamagedError: They cannot be read.
            UnknownRulesError: The policy was set under rules that this library does not have.
        """
        return self._begun(read, seq, self._policies, rows.ruled_of, _POLICY).book

    def _begun(
        self,
        read: ReadEach,
        seq: int,
        known: dict[int, T],
        made: Callable[[Row], T | None],
        said: tuple[str, str],
    ) -> T:
        begun = known.get(seq)
        if begun is None:
            unreadable, missing = said
            (found,) = read([self.asked(seq)])
            try:
                row = _beginning_in(found)
                begun = made(row) if row else None
            except UnknownRulesError:
                raise
            except rows.UNREADABLE as error:
                raise self._damaged(seq, f"{unreadable}: {error}") from error
            if begun is None:
                raise self._damaged(seq, missing)
            remember(known, seq, begun)
        return begun

    def _damaged(self, seq: int, reason: str) -> JournalDamagedError:
        return JournalDamagedError(pool=self._name, seq=seq, reason=reason)
