"""The attributions of a pool: each distinct one is stored once, and entries name it by number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Connection, bindparam, select

from ledger.core import hashing
from ledger.core.checks import I64_MAX
from ledger.core.entries import PoolInfo
from ledger.core.errors import JournalDamagedError
from ledger.core.extensions import ATTRIBUTION_TEXTS, Attribution
from ledger.store import rows
from ledger.store.columns import Columns
from ledger.store.dialects import dialect_named
from ledger.store.heads import Interned
from ledger.store.rows import Row
from ledger.store.schema import attributions
from ledger.store.statements import Prepared, rows_of_each

K = TypeVar("K")
V = TypeVar("V")

REMEMBERED = 4_096
"""How many leases, attributions or policies of one pool are kept in memory."""

NO_CONTENT = hashing.attribution_content(Attribution())
"""The content of an empty attribution, which is not stored."""

_POOL: BindParameter[int] = bindparam("pool_id")
CONTENT = tuple(attributions.c[name] for name in ("digest", "salt", *ATTRIBUTION_TEXTS, "tags"))
_CONTENT = Columns(attributions, [column.name for column in CONTENT])
_STORED = Columns(attributions, ["attribution_id", "digest"])
_ATTRIBUTION = Prepared(
    select(*CONTENT).where(
        attributions.c.pool_id == _POOL,
        attributions.c.attribution_id == bindparam("attribution_id"),
    )
)
_ATTRIBUTION_OF = Prepared(
    select(attributions.c.attribution_id, attributions.c.digest).where(
        attributions.c.pool_id == _POOL, attributions.c.content_key == bindparam("content_key")
    )
)
_NEWEST = Prepared(
    select(attributions.c.attribution_id)
    .where(attributions.c.pool_id == _POOL)
    .order_by(attributions.c.attribution_id.desc())
    .limit(1)
)


class Attributions:
    """One pool's attributions. They never change after COMMIT, so they are remembered."""

    def __init__(self, pool: PoolInfo) -> None:
        self._pool = pool
        self._by_content: dict[str, Interned] = {}
        self._by_number: dict[int, Interned] = {}
        self.ahead: dict[str, tuple[Sequence[Row], Sequence[Row]]] = {}
        """What this transaction has read of attributions that are not remembered."""

    def read(
        self, connection: Connection, attribution_id: int | None, *, seq: int
    ) -> Interned | None:
        """Return a stored attribution by its number, None for an entry without one.

        Args:
            connection: A transaction.
            attribution_id: Its number.
            seq: The entry that names it.

        Raises:
            JournalDamagedError: There is no attribution of this number.
        """
        if attribution_id is None:
            return None
        known = self._by_number.get(attribution_id)
        if known is None:
            parameters = {"pool_id": self._pool.pool_id, "attribution_id": attribution_id}
            found = _ATTRIBUTION.rows(connection, parameters)
            if not found:
                reason = f"attribution {attribution_id} is missing"
                raise JournalDamagedError(pool=self._pool.name, seq=seq, reason=reason)
            try:
                _CONTENT.check(found[0])
                value = rows.attribution_of(found[0])
            except rows.UNREADABLE as error:
                reason = f"attribution {attribution_id} cannot be read: {error}"
                raise JournalDamagedError(pool=self._pool.name, seq=seq, reason=reason) from error
            known = Interned(attribution_id, found[0]["digest"], value)
            remember(self._by_number, attribution_id, known)
        return known

    def unknown(self, contents: Iterable[str]) -> list[str]:
        """Return the contents that are not remembered, in order, for a transaction.

        What an earlier transaction has read ahead may be old, and is forgotten.
        """
        self.ahead = {}
        return sorted(set(contents) - self._by_content.keys() - {NO_CONTENT})

    def asked(self, content: str) -> tuple[Prepared, dict[str, Any]]:
        """Return the query, with its parameters, for the attribution of this content."""
        key = hashing.content_key(content)
        return _ATTRIBUTION_OF, {"pool_id": self._pool.pool_id, "content_key": key}

    def asked_newest(self) -> tuple[Prepared, dict[str, Any]]:
        """Return the query, with its parameters, for the newest number."""
        return _NEWEST, {"pool_id": self._pool.pool_id}

    def read_ahead(self, found: Mapping[str, Sequence[Row]], newest: Sequence[Row]) -> None:
        """Take over what a transaction has read, so that it is not read again.

        Args:
            found: The rows of `asked` for each content.
            newest: The rows of `asked_newest`.
        """
        self.ahead = {content: (stored, newest) for content, stored in found.items()}

    def intern(self, connection: Connection, content: str) -> Interned:
        """Return the stored form of an attribution, storing it if it is new to the pool.

        Args:
            connection: A writing transaction.
            content: The attribution's content, as `hashing.attribution_content` gives it.

        Raises:
            InvalidInputError: The content holds a value that an attribution may not have.
            JournalDamagedError: Its stored row cannot be read, or no number is left.
        """
        if content in self._by_content:
            return self._by_content[content]
        attribution = hashing.attribution_of(content)
        found, newest = self.ahead.get(content) or rows_of_each(
            connection, [self.asked(content), self.asked_newest()]
        )
        if found:
            try:
                _STORED.check(found[0])
            except ValueError as error:
                raise self._damaged(f"an attribution cannot be read: {error}") from error
            known = Interned(found[0]["attribution_id"], found[0]["digest"], attribution)
            # Only committed attributions are remembered, since this transaction may fail.
            remember(self._by_content, content, known)
            return known
        last = newest[0]["attribution_id"] if newest else 0
        if type(last) is not int or last >= I64_MAX:
            raise self._damaged(f"no number is left for an attribution behind {last!r:.40}")
        return self._add(connection, attribution, content, last + 1)

    def _damaged(self, reason: str) -> JournalDamagedError:
        return JournalDamagedError(pool=self._pool.name, seq=1, reason=reason)

    def _add(
        self, connection: Connection, attribution: Attribution, content: str, number: int
    ) -> Interned:
        self.ahead = {}  # the next new attribution gets another number
        salt = os.urandom(16)
        fresh = Interned(number, hashing.attribution_digest(content, salt=salt), attribution)
        row = {
            "pool_id": self._pool.pool_id,
            "attribution_id": fresh.attribution_id,
            "digest": fresh.digest,
            "salt": salt,
            "content_key": hashing.content_key(content),
            **{name: getattr(attribution, name) for name in ATTRIBUTION_TEXTS},
            "tags": hashing.tags_text(attribution),
        }
        dialect_named(connection.dialect.name).insert(
            connection, attributions.name, tuple(row), [tuple(row.values())]
        )
        return fresh


def remember(memory: dict[K, V], key: K, value: V) -> None:
    """Keep a value, and forget the oldest one if more than `REMEMBERED` would be kept."""
    if len(memory) >= REMEMBERED:
        memory.pop(next(iter(memory)), None)
    memory[key] = value
