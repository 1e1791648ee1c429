"""The journal: store, pools, attributions, entries, their guards, and views for people.

Revision ID: 0001
Revises:
"""

import os

import sqlalchemy as sa
from alembic import context, op

from ledger.store.dialects import dialect_named
from ledger.store.dialects.views import views

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ESTIMATE = ("input_tokens", "output_tokens", "total_tokens", "cost_micros_usd")
USAGE = (*ESTIMATE, "cache_creation_tokens", "cache_read_tokens", "reasoning_tokens")
TOTALS = ("tokens", "cost_micros_usd", "requests")
TEXTS = ("run_id", "parent_run_id", "tenant", "agent", "operation", "provider", "model")
STRICT = {"sqlite_strict": True, "sqlite_with_rowid": False}
POOL_LOCKS = 16
PARTITIONED = ("attributions", "entries")

# Statistics of a store with one long pool, as SQLite's ANALYZE writes them: the number of rows,
# then how many rows have the same first column, the same first two columns, and so on.
LONG_POOL = {
    "entries": {
        "entries": "1000000 1000000 1",
        "uq_entries_idempotency_key": "5000 5000 1",
        "uq_entries_origin": "500000 500000 100000 1",
        "uq_entries_lease_end": "500000 500000 1",
        "uq_entries_lease_expiry": "5000 5000 1",
        "ix_entries_lease": "5000 5000 2 1",
        "ix_entries_expires_at": "500000 500000 25 1",
        "ix_entries_threshold": "1000 1000 1",
        "ix_entries_denial": "1000 1000 1",
        "ix_entries_correction": "1000 1000 1",
        "ix_entries_dated": "1000 1000 1",
        "ix_entries_dated_at": "1000 1000 2",
        "ix_entries_unpriced": "1000 1000 1",
        "ix_entries_attribution_id": "1000000 1000000 10",
        "ix_entries_at": "1000000 1000000 100",
    },
    "attributions": {
        "attributions": "100000 100000 1",
        "sqlite_autoindex_attributions_2": "100000 100000 1",
        "ix_attributions_run_id": "100000 4",
    },
}

ENDS = "kind IN ('settlement', 'release')"
EXPIRES = "kind = 'expiry'"
KEYED = "payload_digest IS NOT NULL"
FOLLOWS_UP = "(kind = 'observation' OR kind = 'renewal' OR kind = 'expiry' OR kind = 'correction')"

GUARDED = {
    "store": [("store_id",)],
    "pools": [("pool_id",), ("identity",), ("name",)],
    "attributions": [("pool_id", "attribution_id"), ("pool_id", "content_key")],
    "entries": [
        ("pool_id", "seq"),
        ("pool_id", "idempotency_key", KEYED),
        ("pool_id", "origin_pool_id", "origin_seq", "origin_seq IS NOT NULL"),
        ("pool_id", "lease", ENDS),
        ("pool_id", "lease", EXPIRES),
    ],
}


def int64() -> sa.types.TypeEngine[int]:
    """Return the 64-bit integer of either database."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def key(name: str) -> sa.Column[int]:
    """Return a column of a primary key."""
    return sa.Column(name, int64(), nullable=False, autoincrement=False)


def integers(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    """Return integer columns."""
    return [sa.Column(name, int64(), nullable=nullable) for name in names]


def prefixed(prefix: str, names: tuple[str, ...]) -> list[str]:
    """Return the names with a prefix."""
    return [f"{prefix}_{name}" for name in names]


def check(condition: str, name: str, table: str) -> sa.CheckConstraint:
    """Return a named CHECK."""
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def length(name: str, table: str, maximum: int, minimum: int = 1) -> sa.CheckConstraint:
    """Return a named CHECK of a length."""
    bounds = f"= {maximum}" if minimum == maximum else f"BETWEEN {minimum} AND {maximum}"
    return check(f"length({name}) {bounds}", f"{name}_length", table)


def index(name: str, columns: list[str], where: str, *, unique: bool) -> None:
    """Create a partial index on entries."""
    condition = sa.text(where)
    op.create_index(
        name,
        "entries",
        columns,
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def upgrade() -> None:
    """Create everything, and give the store its identity."""
    bind = op.get_bind()
    told = context.config.attributes
    partitions = told.get("partitions") or 0
    by_pool = {"postgresql_partition_by": "HASH (pool_id)"} if partitions else {}
    create_dimensions(by_pool)
    create_entries(by_pool)
    dialect = dialect_named(bind.dialect.name)
    for table, keys in GUARDED.items():
        for statement in dialect.guards(table, keys):
            bind.exec_driver_sql(statement)
    for statement in (*dialect.rights(), *dialect.functions()):
        bind.exec_driver_sql(statement)
    # After all else of their tables, which the server then gives to each of them.
    for table in PARTITIONED if partitions else ():
        for statement in dialect.partitions(table, partitions):
            bind.exec_driver_sql(statement)
    for view in views(dialect.readable):
        bind.exec_driver_sql(view)
    if bind.dialect.name == "postgresql":
        for number in range(POOL_LOCKS):
            op.create_table(f"pool_lock_{number:02}", sa.Column("nothing", sa.Integer()))
    else:
        # A store is never analyzed later. Without statistics SQLite expects ten entries in a pool,
        # and reads all of a million instead of looking up those of one run. ANALYZE sqlite_master
        # makes the table of statistics without counting any rows, not even another program's. The
        # second one below makes this connection, which stays in use, read the statistics.
        bind.exec_driver_sql("ANALYZE sqlite_master")
        op.bulk_insert(
            sa.table("sqlite_stat1", *map(sa.column, ("tbl", "idx", "stat"))),
            [
                {"tbl": table, "idx": name, "stat": stat}
                for table, indexes in LONG_POOL.items()
                for name, stat in indexes.items()
            ],
        )
        bind.exec_driver_sql("ANALYZE sqlite_master")
    if told.get("for_restore"):
        return
    store = sa.table("store", *map(sa.column, ("store_id", "identity", "format_version")))
    # A copy of a store has that store's identity.
    identity = told.get("identity") or os.urandom(16)
    op.bulk_insert(store, [{"store_id": 1, "identity": identity, "format_version": 1}])


def create_dimensions(by_pool: dict[str, str]) -> None:
    """Create the tables that entries point to."""
    op.create_table(
        "store",
        key("store_id"),
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("format_version", int64(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", name=op.f("pk_store")),
        check("store_id = 1", "one_row", "store"),
        length("identity", "store", 16, 16),
        **STRICT,
    )
    op.create_table(
        "pools",
        key("pool_id"),
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent_id", int64()),
        sa.Column("carved_lease", int64()),
        sa.PrimaryKeyConstraint("pool_id", name=op.f("pk_pools")),
        sa.UniqueConstraint("identity", name=op.f("uq_pools_identity")),
        sa.UniqueConstraint("name", name=op.f("uq_pools_name")),
        check("pool_id > 0", "pool_id_positive", "pools"),
        check("parent_id < pool_id", "parent_id_before", "pools"),
        check("carved_lease IS NULL OR parent_id IS NOT NULL", "carved_lease_parent", "pools"),
        length("identity", "pools", 16, 16),
        length("name", "pools", 255),
        **STRICT,
    )
    op.create_index(op.f("ix_pools_parent_id"), "pools", ["parent_id"])
    op.create_table(
        "attributions",
        key("pool_id"),
        key("attribution_id"),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary()),
        sa.Column("content_key", sa.LargeBinary()),
        *(sa.Column(name, sa.Text()) for name in TEXTS),
        sa.Column("tags", sa.Text()),
        sa.PrimaryKeyConstraint("pool_id", "attribution_id", name=op.f("pk_attributions")),
        sa.UniqueConstraint(
            "pool_id", "content_key", name=op.f("uq_attributions_pool_id_content_key")
        ),
        check("attribution_id > 0", "attribution_id_positive", "attributions"),
        length("digest", "attributions", 32, 32),
        length("salt", "attributions", 16, 16),
        length("content_key", "attributions", 32, 32),
        *(length(name, "attributions", 255) for name in TEXTS),
        length("tags", "attributions", 40_000, 2),
        **STRICT,
        **by_pool,
    )
    op.create_index(op.f("ix_attributions_run_id"), "attributions", ["run_id"])


def create_entries(by_pool: dict[str, str]) -> None:
    """Create the journal and its indexes."""
    not_negative = ["flags", *prefixed("committed", TOTALS), *prefixed("reserved", TOTALS)]
    op.create_table(
        "entries",
        key("pool_id"),
        key("seq"),
        sa.Column("kind", sa.Text(), nullable=False),
        *integers("flags"),
        sa.Column("detail", sa.Text()),
        *integers(*prefixed("estimate", ESTIMATE), nullable=True),
        *integers("budget_tokens", "budget_cost_micros_usd", nullable=True),
        *integers(*prefixed("usage", USAGE), nullable=True),
        *integers("lease", *prefixed("held", TOTALS), nullable=True),
        *integers(*prefixed("used", USAGE), "expires_at", nullable=True),
        *integers(*prefixed("committed", TOTALS), *prefixed("reserved", TOTALS)),
        *integers("policy_seq"),
        *integers("window_seq", "swept_until", nullable=True),
        *integers("attribution_id", nullable=True),
        sa.Column("request_id", sa.Text()),
        sa.Column("provenance", sa.Text()),
        *integers("recorded_at"),
        *integers("occurred_at", nullable=True),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("payload_digest", sa.LargeBinary()),
        *integers("origin_pool_id", "origin_seq", nullable=True),
        *integers("hash_version"),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "seq", name=op.f("pk_entries")),
        check("lease BETWEEN 1 AND seq", "lease_before", "entries"),
        check("policy_seq BETWEEN 1 AND seq", "policy_seq_before", "entries"),
        check("window_seq BETWEEN 1 AND seq", "window_seq_before", "entries"),
        check(f"({' | '.join(not_negative)}) >= 0", "not_negative", "entries"),
        length("kind", "entries", 32),
        length("detail", "entries", 65_536, 2),
        length("request_id", "entries", 255),
        length("provenance", "entries", 32),
        length("idempotency_key", "entries", 255),
        length("payload_digest", "entries", 32, 32),
        length("hash", "entries", 32, 32),
        **STRICT,
        **by_pool,
    )
    index(
        "uq_entries_idempotency_key",
        ["pool_id", "idempotency_key"],
        KEYED,
        unique=True,
    )
    index(
        "uq_entries_origin",
        ["pool_id", "origin_pool_id", "origin_seq"],
        "origin_seq IS NOT NULL",
        unique=True,
    )
    index("uq_entries_lease_end", ["pool_id", "lease"], ENDS, unique=True)
    index("uq_entries_lease_expiry", ["pool_id", "lease"], EXPIRES, unique=True)
    index("ix_entries_lease", ["pool_id", "lease", "seq"], FOLLOWS_UP, unique=False)
    index(
        "ix_entries_expires_at",
        ["pool_id", "expires_at", "lease"],
        "kind IN ('reservation', 'renewal') AND expires_at IS NOT NULL AND origin_seq IS NULL",
        unique=False,
    )
    index("ix_entries_threshold", ["pool_id", "seq"], "kind = 'threshold'", unique=False)
    index("ix_entries_denial", ["pool_id", "seq"], "kind = 'denial'", unique=False)
    index("ix_entries_correction", ["pool_id", "seq"], "kind = 'correction'", unique=False)
    dated_at = sa.text("coalesce(expires_at, occurred_at)")
    index("ix_entries_dated", ["pool_id", "seq"], "(flags & 264) <> 0", unique=False)
    index("ix_entries_dated_at", ["pool_id", dated_at], "(flags & 264) <> 0", unique=False)
    index("ix_entries_unpriced", ["pool_id", "seq"], "(flags & 16) <> 0", unique=False)
    op.create_index("ix_entries_attribution_id", "entries", ["pool_id", "attribution_id"])
    at = sa.text("coalesce(occurred_at, recorded_at)")
    op.create_index("ix_entries_at", "entries", ["pool_id", at])


def downgrade() -> None:
    """Refuse: a store is never downgraded; restore a backup instead."""
    raise NotImplementedError("books are never moved backwards; restore a backup instead")
