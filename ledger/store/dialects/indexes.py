"""Comparison of indexes with their tables, by the means of each database.

A report may read only an index, and the hashes of entries do not show a damaged index.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger.store.schema import metadata

_MOST = 5
"""How many findings are reported; the search ends there."""

_CHECKABLE = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'amcheck'
  AND has_schema_privilege(n.oid, 'USAGE')
  AND has_function_privilege(
      (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = n.oid
       AND p.proname = 'bt_index_check' AND p.pronargs = 2), 'EXECUTE')
"""
"""The schema of amcheck, if it is installed and the current role may call it."""

_TREES = """
SELECT i.indexrelid, x.relname FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_am a ON a.oid = x.relam
JOIN pg_class r ON r.oid = coalesce(pg_partition_root(t.oid), t.oid)
WHERE r.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('entries'))
  AND r.relname IN ({tables}) AND x.relkind = 'i' AND a.amname = 'btree' AND i.indisvalid
ORDER BY x.relname
"""

_CORRUPTED = ("XX001", "XX002")
"""data_corrupted and index_corrupted."""


def is_damage(error: BaseException | None) -> bool:
    """Tell whether a driver's error says that what the database has stored is damaged."""
    driver = getattr(error, "orig", error)
    code = getattr(driver, "sqlite_errorcode", None) or 0
    return code & 0xFF == sqlite3.SQLITE_CORRUPT or getattr(driver, "sqlstate", None) in _CORRUPTED


def sqlite_index_damage(connection: Connection) -> str | None:
    """Return what SQLite finds in the pages and the indexes of a file."""
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({_MOST})").scalars().all()
    said = [" ".join(str(one).split()) for one in found if one != "ok"]
    if not said:
        return None
    return (
        f"SQLite's integrity_check finds: {'; '.join(said)}. Reports that read what is named may "
        "be wrong. Back the file up, run 'REINDEX' on it (sqlite3 FILE REINDEX), and verify it "
        "again; if this is still found, restore a backup"
    )


def postgresql_index_damage(connection: Connection) -> str | None:
    """Return what amcheck finds in a store's indexes; None also if it cannot be called."""
    schema = connection.exec_driver_sql(_CHECKABLE).scalar()
    if schema is None:
        return None
    quoted = connection.dialect.identifier_preparer.quote(schema)
    names = ", ".join(f"'{name}'" for name in metadata.tables)
    said: list[str] = []
    for index, name in connection.exec_driver_sql(_TREES.format(tables=names)).all():
        connection.exec_driver_sql("SAVEPOINT checked")
        try:
            connection.exec_driver_sql(f"SELECT {quoted}.bt_index_check({index}::regclass, true)")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _CORRUPTED:
                raise
            said.append(f"index {name}: {str(error.orig).partition(chr(10))[0]}")
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT checked")
        if len(said) == _MOST:
            break
    if not said:
        return None
    return (
        f"PostgreSQL's amcheck finds: {'; '.join(said)}. Reports that read what is named may be "
        "wrong. Back the database up, run REINDEX INDEX on each, and verify it again; if this is "
        "still found, restore a backup"
    )
