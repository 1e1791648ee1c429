"""The tables, as SQLAlchemy sees them; docs/journal.md says what each column is for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

from ledger.core import kinds
from ledger.core.axes import AXES
from ledger.core.checks import DETAIL_MAX_CHARS, NAME_MAX_CHARS
from ledger.core.entries import DATED_FLAGS, EntryFlag, Totals
from ledger.core.extensions import ATTRIBUTION_TEXTS, TAGS_MAX_CHARS
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS

REVISION = "0001"
"""The newest revision under migrations/; revisions sort as text."""

FORMAT_VERSION = 1
"""The format of entries, which a store names in its one row."""

VERSION_TABLE = "ledger_version"
"""Alembic's own table, named so that a program's own migrations can share the database."""

DIVIDED = ("attributions", "entries")
"""The tables that are divided in a store with partitions."""

metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# STRICT tables accept only INTEGER, TEXT and BLOB. WITHOUT ROWID leaves no hidden key by which an
# INSERT OR REPLACE could replace a row, and stores a pool's entries side by side.
_SQLITE: dict[str, Any] = {"sqlite_strict": True, "sqlite_with_rowid": False}


def _int64() -> TypeEngine[int]:
    return BigInteger().with_variant(Integer(), "sqlite")


def _integers(*names: str, nullable: bool = False) -> list[Column[int]]:
    return [Column(name, _int64(), nullable=nullable) for name in names]


def _where(condition: TextClause) -> dict[str, Any]:
    """Return the options of an index that holds only the rows of a condition."""
    return {"sqlite_where": condition, "postgresql_where": condition}


def _length(name: str, maximum: int, minimum: int = 1) -> CheckConstraint:
    bounds = f"= {maximum}" if minimum == maximum else f"BETWEEN {minimum} AND {maximum}"
    return CheckConstraint(f"length({name}) {bounds}", name=f"{name}_length")


store = Table(
    "store",
    metadata,
    Column("store_id", _int64(), nullable=False, autoincrement=False),
    Column("identity", LargeBinary, nullable=False),
    Column("format_version", _int64(), nullable=False),
    PrimaryKeyConstraint("store_id"),
    CheckConstraint("store_id = 1", name="one_row"),
    _length("identity", 16, 16),
    **_SQLITE,
)

pools = Table(
    "pools",
    metadata,
    Column("pool_id", _int64(), nullable=False, autoincrement=False),
    Column("identity", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("parent_id", _int64()),
    # The lease in the parent that funds this pool; NULL if it shares the parent's capacity.
    Column("carved_lease", _int64()),
    PrimaryKeyConstraint("pool_id"),
    UniqueConstraint("identity"),
    UniqueConstraint("name"),
    Index("ix_pools_parent_id", "parent_id"),
    CheckConstraint("pool_id > 0", name="pool_id_positive"),
    # A parent is made first and has a lower number, so no pool can be above itself.
    CheckConstraint("parent_id < pool_id", name="parent_id_before"),
    CheckConstraint("carved_lease IS NULL OR parent_id IS NOT NULL", name="carved_lease_parent"),
    _length("identity", 16, 16),
    _length("name", NAME_MAX_CHARS),
    **_SQLITE,
)

attributions = Table(
    "attributions",
    metadata,
    Column("pool_id", _int64(), nullable=False, autoincrement=False),
    Column("attribution_id", _int64(), nullable=False, autoincrement=False),
    Column("digest", LargeBinary, nullable=False),
    # Redaction removes salt, content key and content. The digest stays, so the hash chain stays
    # valid.
    Column("salt", LargeBinary),
    Column("content_key", LargeBinary),
    *(Column(name, Text) for name in ATTRIBUTION_TEXTS),
    Column("tags", Text),
    PrimaryKeyConstraint("pool_id", "attribution_id"),
    UniqueConstraint("pool_id", "content_key"),
    Index("ix_attributions_run_id", "run_id"),
    CheckConstraint("attribution_id > 0", name="attribution_id_positive"),
    _length("digest", 32, 32),
    _length("salt", 16, 16),
    _length("content_key", 32, 32),
    *(_length(name, NAME_MAX_CHARS) for name in ATTRIBUTION_TEXTS),
    _length("tags", TAGS_MAX_CHARS, 2),
    **_SQLITE,
)

_FOLLOWS_UP = text(kinds.sql(kinds.FOLLOWS_UP))
_ENDS = text(kinds.sql(kinds.ENDS_LEASE))
_EXPIRES = text(kinds.sql([kinds.EntryKind.EXPIRY]))
EXPIRY_SET = text(
    f"{kinds.sql(kinds.SETS_EXPIRY)} AND expires_at IS NOT NULL AND origin_seq IS NULL"
)
"""The condition for entries that set when a hold ends; other entries repeat it."""
REPORTS_THRESHOLD = text(kinds.sql([kinds.EntryKind.THRESHOLD]))
"""The condition for entries that report a crossed threshold."""
REFUSES = text(kinds.sql([kinds.EntryKind.DENIAL]))
"""The condition for denials."""
_CORRECTS = text(kinds.sql([kinds.EntryKind.CORRECTION]))
IS_DATED = text(f"(flags & {int(DATED_FLAGS)}) <> 0")
"""The condition for entries that count at another time than when they are recorded."""
IS_UNPRICED = text(f"(flags & {int(EntryFlag.UNPRICED)}) <> 0")
"""The condition for entries that leave out a figure which their pool limits."""
DATED_AT = "coalesce(expires_at, occurred_at)"
"""SQL for when dated entries count: when the hold ended, or for an import when the call was
made."""
_KEYED = text("payload_digest IS NOT NULL")
"""The condition for entries under a key that the caller gave."""
_MIRRORS = text("origin_seq IS NOT NULL")

NOT_NEGATIVE = (
    "flags",
    *(f"{side}_{name}" for side in ("committed", "reserved") for name in Totals._fields),
)
"""The columns of which none may be NULL or negative."""

entries = Table(
    "entries",
    metadata,
    # what
    Column("pool_id", _int64(), nullable=False, autoincrement=False),
    Column("seq", _int64(), nullable=False, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("flags", _int64(), nullable=False),
    Column("detail", Text),
    # amounts
    *_integers(*(f"estimate_{name}" for name in ESTIMATE_FIELDS), nullable=True),
    *_integers(*(f"budget_{axis.name}" for axis in AXES if axis.amount), nullable=True),
    *_integers(*(f"usage_{name}" for name in USAGE_FIELDS), nullable=True),
    # the lease after it
    Column("lease", _int64()),
    *_integers(*(f"held_{name}" for name in Totals._fields), nullable=True),
    *_integers(*(f"used_{name}" for name in USAGE_FIELDS), nullable=True),
    Column("expires_at", _int64()),
    # the pool after it
    *_integers(*(f"committed_{name}" for name in Totals._fields)),
    *_integers(*(f"reserved_{name}" for name in Totals._fields)),
    # under what rules
    *_integers("policy_seq"),
    *_integers("window_seq", "swept_until", nullable=True),
    # who and when
    Column("attribution_id", _int64()),
    Column("request_id", Text),
    Column("provenance", Text),
    Column("recorded_at", _int64(), nullable=False),
    Column("occurred_at", _int64()),
    # once
    Column("idempotency_key", Text),
    Column("payload_digest", LargeBinary),
    # nesting
    Column("origin_pool_id", _int64()),
    Column("origin_seq", _int64()),
    # proof
    Column("hash_version", _int64(), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("pool_id", "seq"),
    Index(
        "uq_entries_idempotency_key",
        "pool_id",
        "idempotency_key",
        unique=True,
        **_where(_KEYED),
    ),
    Index(
        "uq_entries_origin",
        "pool_id",
        "origin_pool_id",
        "origin_seq",
        unique=True,
        **_where(_MIRRORS),
    ),
    Index(
        "uq_entries_lease_end",
        "pool_id",
        "lease",
        unique=True,
        **_where(_ENDS),
    ),
    Index(
        "uq_entries_lease_expiry",
        "pool_id",
        "lease",
        unique=True,
        **_where(_EXPIRES),
    ),
    # Most leases have only a reservation and an end, which have other indexes.
    Index(
        "ix_entries_lease",
        "pool_id",
        "lease",
        "seq",
        **_where(_FOLLOWS_UP),
    ),
    Index(
        "ix_entries_expires_at",
        "pool_id",
        "expires_at",
        "lease",
        **_where(EXPIRY_SET),
    ),
    Index(
        "ix_entries_threshold",
        "pool_id",
        "seq",
        **_where(REPORTS_THRESHOLD),
    ),
    Index(
        "ix_entries_denial",
        "pool_id",
        "seq",
        **_where(REFUSES),
    ),
    # For limits: corrections change totals committed before them, and dated entries count at a time
    # of their own.
    Index(
        "ix_entries_correction",
        "pool_id",
        "seq",
        **_where(_CORRECTS),
    ),
    Index(
        "ix_entries_dated",
        "pool_id",
        "seq",
        **_where(IS_DATED),
    ),
    Index(
        "ix_entries_dated_at",
        "pool_id",
        text(DATED_AT),
        **_where(IS_DATED),
    ),
    # For reports: counts of some kinds, the entries of one run, and entries by time.
    Index(
        "ix_entries_unpriced",
        "pool_id",
        "seq",
        **_where(IS_UNPRICED),
    ),
    Index("ix_entries_attribution_id", "pool_id", "attribution_id"),
    Index("ix_entries_at", "pool_id", text("coalesce(occurred_at, recorded_at)")),
    # PostgreSQL reads and plans each CHECK again for every INSERT, so there are few.
    CheckConstraint("lease BETWEEN 1 AND seq", name="lease_before"),
    CheckConstraint("policy_seq BETWEEN 1 AND seq", name="policy_seq_before"),
    CheckConstraint("window_seq BETWEEN 1 AND seq", name="window_seq_before"),
    # One negative number makes the whole negative.
    CheckConstraint(f"({' | '.join(NOT_NEGATIVE)}) >= 0", name="not_negative"),
    _length("kind", 32),
    _length("detail", DETAIL_MAX_CHARS, 2),
    _length("request_id", NAME_MAX_CHARS),
    _length("provenance", 32),
    _length("idempotency_key", NAME_MAX_CHARS),
    _length("payload_digest", 32, 32),
    _length("hash", 32, 32),
    **_SQLITE,
)

HEAD_NAMES = (
    *("seq", "flags", "policy_seq", "window_seq", "swept_until", "recorded_at", "hash"),
    *(column.name for column in entries.c if column.name.startswith(("committed_", "reserved_"))),
)
"""The columns of an entry that make up the state of its pool after it."""

IS_OF_ENTRY = (attributions.c.pool_id == entries.c.pool_id) & (
    attributions.c.attribution_id == entries.c.attribution_id
)
"""The condition that joins an entry with its attribution."""
