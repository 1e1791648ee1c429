"""Roles of PostgreSQL: what each may do with a store, and the SQL that makes and grants it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ledger.core import kinds
from ledger.core.errors import InvalidInputError
from ledger.store.dialects.base import MakesTrigger
from ledger.store.dialects.functions import SIGNATURES
from ledger.store.dialects.locks import LOCKS
from ledger.store.dialects.views import VIEWS
from ledger.store.schema import VERSION_TABLE, metadata

_PREFIX = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,49}")
"""The allowed prefixes of roles' names. The server cuts names to 63 bytes."""


class Role(NamedTuple):
    """A role: its name, without the prefix, and what it may do."""

    name: str
    may: str


AUDITOR = Role("auditor", "read everything: statements, reports, exports, verify, alerts")
WORKER = Role(
    "worker",
    "what an auditor may; reserve, renew, observe, record, release, abandon and expire leases",
)
HOLDER = Role(
    "holder",
    "what a worker may; open, adjust, top up and close pools, correct entries, and import calls",
)
OWNER = Role("owner", "everything; it owns the tables, upgrades the schema and makes these roles")
ROLES = (AUDITOR, WORKER, HOLDER, OWNER)


_TABLES = (*metadata.tables, VERSION_TABLE)

RIGHTS = "entries_rights"
"""The function and trigger that refuse entries to roles that may not write them."""

_FUNCTIONS = (
    *(f"{name}()" for name in (*(f"{table}_append_only" for table in metadata.tables), RIGHTS)),
    *SIGNATURES,
)


def check_prefix(prefix: str) -> str:
    """Return a prefix that roles' names may have.

    Raises:
        InvalidInputError: It is no such prefix.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InvalidInputError(
            "prefix",
            "must be 1 to 50 of a-z, 0-9 and _, begin with no digit, and not with pg_",
        )
    return prefix


def make_roles(prefix: str, *, schema: str, database: str, partitions: Sequence[str]) -> list[str]:
    """Return the statements that make the roles of a store, and give them what they may do.

    They may be run again. Each role then has exactly the rights listed here on these tables.

    Args:
        prefix: What the roles' names begin with.
        schema: The schema that the store is in.
        database: The database.
        partitions: The names of the partitions of its tables.
    """
    auditor, worker, holder, owner = (prefix + role.name for role in ROLES)
    everybody, writers = f"{auditor}, {worker}, {holder}", f"{worker}, {holder}"
    where, whole = _quoted(schema), _quoted(database)
    readable = ", ".join((*_TABLES, *VIEWS))
    locks = ", ".join(LOCKS)
    join = (
        f"IF NOT pg_has_role(current_user, '{owner}', 'MEMBER') THEN GRANT {owner} TO CURRENT_USER"
    )
    return [
        *(
            f"DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{name}')"
            f" THEN CREATE ROLE {name} NOLOGIN; END IF; END$$"
            for name in (auditor, worker, holder, owner)
        ),
        # Only a member of a role can make it the owner of tables.
        f"DO $$BEGIN {join}; END IF; END$$",
        f"GRANT CREATE ON DATABASE {whole} TO {owner}",
        f"GRANT USAGE, CREATE ON SCHEMA {where} TO {owner}",
        f"GRANT USAGE ON SCHEMA {where} TO {everybody}",
        f"REVOKE ALL ON {', '.join((readable, locks, *partitions))} FROM {everybody}",
        f"GRANT SELECT ON {readable} TO {everybody}",
        f"GRANT INSERT ON attributions, entries TO {writers}",
        f"GRANT INSERT ON pools TO {holder}",
        # LOCK TABLE asks for UPDATE; these tables are empty.
        f"GRANT UPDATE ON {locks} TO {writers}",
        *(f"ALTER TABLE {name} OWNER TO {owner}" for name in (*_TABLES, *LOCKS, *partitions)),
        *(f"ALTER VIEW {name} OWNER TO {owner}" for name in VIEWS),
        f"GRANT EXECUTE ON FUNCTION {', '.join(SIGNATURES)} TO {everybody}",
        *(f"ALTER FUNCTION {one} OWNER TO {owner}" for one in _FUNCTIONS),
    ]


def rights_guard() -> list[str]:
    """Return DDL that refuses entries that set a policy, close or correct from most roles.

    Roles that may insert pools may write such entries. The trigger runs after the insert, since a
    trigger before it would make COPY insert row by row. It fires only for such entries.
    """
    guarded = kinds.sql(kinds.HAS_ACTOR, "NEW.kind")
    follows = ", ".join(f"'{part}'" for part in kinds.FOLLOWS_FROM)
    corrects = kinds.EntryKind.CORRECTION
    return [
        f"""
CREATE FUNCTION {RIGHTS}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  said jsonb;
BEGIN
  -- The owner could drop this trigger, and brings back what a backup holds.
  IF pg_has_role(current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID),
                 'USAGE') THEN
    RETURN NULL;
  END IF;
  said := CAST(NEW.detail AS jsonb);
  -- These follow from what is recorded, which is a worker's business.
  IF NEW.kind = '{corrects}' AND NEW.policy_seq <> NEW.seq AND said ?| ARRAY[{follows}] THEN
    RETURN NULL;
  END IF;
  IF NOT has_table_privilege(current_user, quote_ident(TG_TABLE_SCHEMA) || '.pools', 'INSERT') THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE =
      'role ' || current_user || ' may not write an entry of kind ' || NEW.kind;
  END IF;
  IF said #>> '{{actor,role}}' IS DISTINCT FROM CAST(session_user AS text) THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE =
      'this entry does not say that role ' || session_user || ' asked for it';
  END IF;
  RETURN NULL;
END$$
""",
        MakesTrigger(
            f"""
CREATE TRIGGER {RIGHTS} AFTER INSERT ON entries FOR EACH ROW
WHEN ({guarded} OR NEW.policy_seq = NEW.seq) EXECUTE FUNCTION {RIGHTS}()
""",
            trigger=RIGHTS,
            table="entries",
        ),
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
