"""Catalogues: the definition of every part of a schema, as each database keeps it.

A definition is identified by its relation and by a label for people. Two stores have the same
schema if their definitions are equal, whatever the schema's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection

from ledger.store.schema import metadata

Definitions = Mapping[tuple[str, str], str]
"""The definition of each part of a schema, by its relation and its label."""

_POSTGRESQL = {
    "": """
SELECT c.relname, CASE WHEN c.relkind = 'v' THEN 'view ' ELSE 'table ' END || c.relname,
       concat_ws(' ', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'r' THEN 'table'
                 WHEN 'p' THEN 'partitioned table' ELSE 'kind ' || c.relkind::text END,
                 CASE c.relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' END,
                 CASE WHEN c.relrowsecurity THEN 'with row-level security' END,
                 CASE WHEN c.relforcerowsecurity THEN 'forced' END,
                 CASE WHEN c.relkind = 'p' THEN 'BY ' || pg_get_partkeydef(c.oid) END,
                 pg_get_expr(c.relpartbound, c.oid),
                 CASE WHEN c.relkind = 'v' THEN concat_ws(' ', array_to_string(c.reloptions, ' '),
                      pg_get_viewdef(c.oid)) END)
FROM pg_class c WHERE c.relnamespace = {0} AND c.relkind NOT IN ('i', 'I', 'c', 't')
""",
    "column ": """
SELECT c.relname, c.relname || '.' || a.attname,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod),
                 CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
                 'IDENTITY ' || nullif(a.attidentity::text, ''),
                 'GENERATED ' || nullif(a.attgenerated::text, ''),
                 CASE WHEN a.attcollation <> t.typcollation
                      THEN 'COLLATE ' || a.attcollation::regcollation END)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = {0} AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
""",
    "constraint ": """
SELECT c.relname, o.conname || ' of ' || c.relname, pg_get_constraintdef(o.oid)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace = {0} AND o.contype <> 'n'
""",
    "index ": """
SELECT c.relname, x.relname,
       regexp_replace(pg_get_indexdef(i.indexrelid), ' ON (ONLY )?[^ ]+ USING ', ' USING ')
       || CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN '' ELSE ' INVALID' END
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = {0}
  AND NOT EXISTS (SELECT 1 FROM pg_constraint o WHERE o.conindid = i.indexrelid)
""",
    "trigger ": """
SELECT c.relname, t.tgname || ' of ' || c.relname,
       concat_ws(' ', pg_get_triggerdef(t.oid, true),
                 CASE t.tgenabled WHEN 'A' THEN 'ENABLED ALWAYS' WHEN 'D' THEN 'DISABLED'
                 ELSE 'enabled, but not ALWAYS' END)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = {0} AND NOT t.tgisinternal
""",
    "function ": """
SELECT p.proname, p.proname,
       concat_ws(' ', pg_get_function_identity_arguments(p.oid), format_type(p.prorettype, NULL),
                 l.lanname, CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' END,
                 array_to_string(p.proconfig, ' '), p.prosrc)
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = {0}
""",
    "rule ": """
SELECT c.relname, r.rulename || ' of ' || c.relname,
       concat_ws(' ', pg_get_ruledef(r.oid), 'state ' || r.ev_enabled::text)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
WHERE c.relnamespace = {0} AND NOT (c.relkind = 'v' AND r.ev_type = '1')
""",
    "policy ": """
SELECT c.relname, y.polname || ' of ' || c.relname,
       concat_ws(' ', y.polcmd, pg_get_expr(y.polqual, y.polrelid),
                 pg_get_expr(y.polwithcheck, y.polrelid))
FROM pg_policy y JOIN pg_class c ON c.oid = y.polrelid WHERE c.relnamespace = {0}
""",
}
"""The query for each kind of part of the current schema: its relation, label and definition."""


def postgresql_definitions(connection: Connection) -> Definitions:
    """Return the definitions in the schema in which the search path finds a store."""
    schema = "(SELECT relnamespace FROM pg_class WHERE oid = to_regclass('entries'))"
    return {
        (str(relation), f"{what}{label}"): str(definition)
        for what, query in _POSTGRESQL.items()
        for relation, label, definition in connection.exec_driver_sql(query.format(schema)).all()
    }


def hidden_tables(connection: Connection) -> list[str]:
    """Return the journal's tables of which PostgreSQL may hide rows from the current role."""
    names = ", ".join(f"'{name}'" for name in metadata.tables)
    active = f"SELECT name FROM unnest(ARRAY[{names}]) AS name WHERE row_security_active(name)"
    return [str(name) for name in connection.exec_driver_sql(active).scalars()]


def sqlite_definitions(connection: Connection) -> Definitions:
    """Return the definitions in an SQLite file; those of tables by columns and constraints."""
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    found = {("", "journal mode"): str(mode)}
    statements = connection.exec_driver_sql(
        "SELECT type, tbl_name, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    )
    for kind, table, name, statement in statements.all():
        if kind == "table":
            found |= dict(_parts(table, statement))
        else:
            found[table, f"{kind} {name}"] = _spaced(statement)
    return found


def _parts(table: str, statement: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the parts of a CREATE TABLE; their order means nothing."""
    head, _, rest = _spaced(statement).partition("(")
    body, _, options = rest.rpartition(")")
    yield (table, f"table {table}"), f"{head.strip()} {options.strip()}"
    depth, part = 0, ""
    for character in f"{body},":
        depth += (character == "(") - (character == ")")
        if character != "," or depth:
            part += character
            continue
        words = part.split()
        named = words[0].upper() == "CONSTRAINT"
        label = f"constraint {words[1]} of {table}" if named else f"column {table}.{words[0]}"
        yield (table, label), " ".join(words)
        part = ""


def _spaced(statement: str) -> str:
    return re.sub(r"\s+", " ", statement).replace("( ", "(").replace(" )", ")")
