"""Partitions of PostgreSQL: a store's large tables, divided by the hash of their pools."""

from __future__ import annotations

from sqlalchemy import Connection

from ledger.core.errors import InvalidInputError
from ledger.store.dialects.base import MakesTrigger

MAX_PARTITIONS = 1_000
"""The most partitions, since a report over all pools opens each, and names have three digits."""

_OF = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = to_regclass('{}') ORDER BY relname
"""


def make_partitions(table: str, count: int) -> list[str]:
    """Return DDL that makes the partitions of a table, with the guards that they do not inherit.

    Raises:
        InvalidInputError: The number is out of range.
    """
    if not 1 <= count <= MAX_PARTITIONS:
        raise InvalidInputError("partitions", f"must be 1 to {MAX_PARTITIONS:,}, not {count}")
    made = []
    for number in range(count):
        name = f"{table}_p{number:03}"
        part = f"MODULUS {count}, REMAINDER {number}"
        made += [
            f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES WITH ({part})",
            always(f"{table}_no_change", name),
            *refuse_truncate(name, table),
        ]
    return made


def refuse_truncate(name: str, table: str) -> list[str]:
    """Return DDL for a table's guard against TRUNCATE; each partition needs one of its own.

    Args:
        name: The table, or a partition of it, that is guarded.
        table: The table.
    """
    guard, do = f"{table}_no_truncate", f"EXECUTE FUNCTION {table}_append_only()"
    made = f"CREATE TRIGGER {guard} BEFORE TRUNCATE ON {name} FOR EACH STATEMENT {do}"
    return [MakesTrigger(made, trigger=guard, table=name), always(guard, name)]


def always(trigger: str, table: str) -> MakesTrigger:
    """Return DDL that lets a trigger fire in every session, that of a replica included."""
    enabled = f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"
    return MakesTrigger(enabled, trigger=trigger, table=table)


def partitions_of(connection: Connection, table: str) -> list[str]:
    """Return the names of a table's partitions; none if it is not partitioned."""
    found = connection.exec_driver_sql(_OF.format(table)).scalars()
    return [str(name) for name in found]
