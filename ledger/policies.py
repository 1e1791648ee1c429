"""The policies of a pool: each is what one entry set, and none ever changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ledger import rows
from ledger.attributions import remember
from ledger.errors import JournalDamagedError
from ledger.policy import SharedPoolBudgetOptions
from ledger.prepared import Prepared
from ledger.records import PoolInfo
from ledger.rows import Row
from ledger.schema import entries

_DETAIL = Prepared(
    select(entries.c.detail).where(
        entries.c.pool_id == bindparam("pool_id"), entries.c.seq == bindparam("seq")
    )
)


class Policies:
    """One pool's policies. They are immutable once committed, so they are remembered."""

    def __init__(self, pool: PoolInfo) -> None:
        self._pool = pool
        self._by_seq: dict[int, SharedPoolBudgetOptions] = {}

    def known(self, seq: int) -> SharedPoolBudgetOptions | None:
        """Return the policy that entry `seq` set, if it is remembered."""
        return self._by_seq.get(seq)

    def read(self, connection: Connection, seq: int) -> SharedPoolBudgetOptions:
        """Return the policy that entry `seq` set.

        Raises:
            JournalDamagedError: It set none.
        """
        policy = self.known(seq)
        if policy is None:
            statement, parameters = self.asked(seq)
            policy = self._learned(seq, statement.rows(connection, parameters))
        return policy

    def asked(self, seq: int) -> tuple[Prepared, Mapping[str, Any]]:
        """Return what asks the store for the entry that set a policy."""
        return _DETAIL, {"pool_id": self._pool.pool_id, "seq": seq}

    def learn(self, seq: int, found: Sequence[Row]) -> None:
        """Remember what was asked for; whoever needs one that is damaged will meet it."""
        with suppress(JournalDamagedError):
            self._learned(seq, found)

    def _learned(self, seq: int, found: Sequence[Row]) -> SharedPoolBudgetOptions:
        try:
            policy = rows.policy_of(found[0]) if found else None
        except rows.UNREADABLE as error:
            raise self._damaged(seq, f"its policy cannot be read: {error}") from error
        if policy is None:
            raise self._damaged(seq, "it should set a policy, and does not")
        remember(self._by_seq, seq, policy)
        return policy

    def _damaged(self, seq: int, reason: str) -> JournalDamagedError:
        return JournalDamagedError(pool=self._pool.name, seq=seq, reason=reason)
