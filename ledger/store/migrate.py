"""The schema's history: the only module that knows alembic.

Alembic is imported when a schema is made, upgraded or compared. To open a store with a current
schema takes one query.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, inspect

from ledger.core.checks import check_seconds, check_type
from ledger.core.errors import (
    ContentionError,
    InvalidInputError,
    NotALedgerError,
    SchemaVersionError,
)
from ledger.store import schema
from ledger.store.database import Database
from ledger.store.dialects import NoReferenceError
from ledger.store.dialects.base import MakesTrigger
from ledger.store.dialects.catalogue import Definitions

if TYPE_CHECKING:
    from alembic.config import Config

_log = logging.getLogger(__name__)

# Alembic keeps its context in module globals, so only one thread may use it at a time. Between
# processes, the dialect's begin_migration locks.
_ALEMBIC = threading.RLock()
_ALEMBIC_MIN_S = 60.0
"""The shortest wait, in seconds, for other threads' migrations, since there may be many."""

_TIMEOUT_MAX_S = 86_400

MIGRATION_TIMEOUT_S = 30.0
"""How long a migration waits for the store, in seconds. Calls have a shorter time-out."""


def current(database: Database) -> str | None:
    """Return the store's revision, None for a database without tables.

    Raises:
        NotALedgerError: The database holds tables, but none of a ledger, or tables without their
            data.
        LedgerUnavailableError: It cannot be read.
    """

    def read(connection: Connection) -> str | None:
        found = _revision(database, connection)
        tables = inspect(connection).get_table_names() if found is None else ()
        if tables:
            raise NotALedgerError(
                f"{database.url} holds other tables ({', '.join(sorted(tables)[:5])}), and no "
                "ledger; name another database, or run 'ledger db upgrade' to add one beside them"
            )
        return found

    return database.read(read, serializable=False)


def _revision(database: Database, connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    found = connection.exec_driver_sql(
        f"SELECT version_num FROM {schema.VERSION_TABLE}"  # noqa: S608 - a constant
    ).scalar()
    if found is None:
        raise NotALedgerError(
            f"{database.url} has the tables of a ledger and not its data: {schema.VERSION_TABLE} "
            "is empty. They were made by 'ledger db upgrade --for-restore'; restore a dump's data "
            "into them, of all tables"
        )
    return str(found)


def open_current(url: str, timeout_s: float, *, create: bool, read_only: bool) -> Database:
    """Return a store's database, whose `until_s` is `timeout_s` from now.

    Raises:
        InvalidInputError: An option of another type, or a time out of range.
        InvalidUrlError: Not the address of a store.
        SchemaVersionError: Its schema is not current, and `create` does not allow to make one.
        NotALedgerError: The database holds something else.
        LedgerUnavailableError: It cannot be reached, read or written.
    """
    check_type("url", url, str)
    check_seconds("timeout_s", timeout_s, maximum=_TIMEOUT_MAX_S)
    if timeout_s == 0:
        raise InvalidInputError("timeout_s", "must be above 0 seconds")
    database = Database(url, timeout_s=timeout_s, create=create, read_only=read_only)
    database.until_s = database.reads().began_s + timeout_s
    try:
        require_current(database, create=create and not read_only)
        if not read_only:
            database.mend()
    except BaseException:
        database.close()
        raise
    return database


def require_current(database: Database, *, create: bool) -> None:
    """Make sure that the schema is the one this library works with; make one if there is none.

    Raises:
        SchemaVersionError: It is older or newer, or missing and `create` is false.
        NotALedgerError: The database holds something else.
        LedgerUnavailableError: It cannot be read or written.
    """
    found = current(database)
    if found is None and create:
        upgrade(database)
        found = current(database)
    if found != schema.REVISION:
        raise SchemaVersionError(found=found, expected=schema.REVISION, url=database.url)


def upgrade(
    database: Database,
    *,
    identity: bytes | None = None,
    partitions: int | None = None,
    for_restore: bool = False,
) -> None:
    """Bring the schema up to date, in one transaction.

    Args:
        database: The store.
        identity: The identity of a store that is made, 16 bytes; by default a random one.
        partitions: The number of partitions, 1 to 1,000, by which a new store is divided by pool;
            by default it is not divided.
        for_restore: Whether to make only the tables, without any row, since the identity and the
            revision come with the restored data.

    Raises:
        InvalidInputError: The database has no partitions, or the store has another number of them;
            or a store exists, so none can be restored into it.
        NotALedgerError: The tables are without their data.
        SchemaVersionError: It is newer than this library.
        ContentionError: Another migration did not end in time.
        LedgerUnavailableError: It cannot be written.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring
    from alembic.util import CommandError  # noqa: PLC0415

    if partitions is not None:
        database.dialect.partitions(schema.entries.name, partitions)  # refuses before any writing
    told = {"identity": identity, "partitions": partitions, "for_restore": for_restore}
    try:
        with _alembic(database), _transaction(database) as connection:
            there = _revision(database, connection)
            if for_restore and there is not None:
                raise InvalidInputError(
                    "for_restore",
                    f"{database.url} is a store already, at {there}; name an empty database",
                )
            command.upgrade(_config(connection, **told), "head")
            if for_restore:
                connection.exec_driver_sql(f"DELETE FROM {schema.VERSION_TABLE}")  # noqa: S608 - a constant
            if partitions is not None:
                _require_partitions(database, connection, partitions)
        _log.info("schema of %s is at revision %s", database.url, schema.REVISION)
    except CommandError as error:
        raise SchemaVersionError(
            found=current(database), expected=schema.REVISION, url=database.url
        ) from error


def _require_partitions(database: Database, connection: Connection, partitions: int) -> None:
    found = database.dialect.partition_count(connection)
    if partitions != found:
        raise InvalidInputError(
            "partitions",
            f"{database.url} is a store with {found} partitions, and cannot be divided now: make "
            f"an empty database, and run 'ledger db copy --partitions {partitions}' from this one "
            "to that",
        )


def roles(database: Database, prefix: str, *, apply: bool) -> list[str]:
    """Return the statements that make the roles of a store, in their order.

    Args:
        database: The store.
        prefix: What the roles' names begin with.
        apply: Whether to run them, too, in one transaction.

    Raises:
        InvalidInputError: The database has no roles, or the prefix is not allowed.
        NotPermittedError: The current role may not make roles.
        LedgerUnavailableError: The store cannot be reached.
    """
    require_current(database, create=False)
    with _transaction(database) as connection:
        statements = database.dialect.roles(connection, prefix)
        for statement in statements if apply else ():
            connection.exec_driver_sql(statement)
        return statements


def differences(database: Database, refused: list[str]) -> list[str]:
    """Return how the store's schema differs from the one that the migrations make.

    A schema is made by the migrations beside the store, compared, and removed. If the database
    refuses to make it, only what is missing is told: columns, indexes, functions and guards.

    Args:
        database: The store.
        refused: Gets why the database refused to make the schema, if it did.

    Raises:
        LedgerUnavailableError: It cannot be read.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    def make(connection: Connection) -> None:
        command.upgrade(_config(connection, partitions=partitions), "head")

    found = database.read(database.dialect.definitions, serializable=False)
    partitions = database.read(database.dialect.partition_count, serializable=False)
    with _alembic(database), database.named_errors(), database.connect() as connection:
        connection.rollback()  # it may be the connection that was read on
        try:
            expected = database.dialect.fresh_definitions(connection, make)
        except NoReferenceError as error:
            refused.append(f"{error}")
            return _missing(database, found, partitions)
    ours = {relation for relation, _ in expected}
    return [
        difference
        for part in sorted(expected.keys() | found.keys())
        if part[0] in ours
        and (difference := _difference(part[1], found.get(part), expected.get(part))) is not None
    ]


def _difference(label: str, found: str | None, expected: str | None) -> str | None:
    if found == expected:
        return None
    if found is None:
        return f"{label} is missing"
    if expected is None:
        return f"{label} is none of the library's: {found}"
    return f"{label} is {found!r}, and should be {expected!r}"


def _missing(database: Database, found: Definitions, partitions: int) -> list[str]:
    """Return the columns, indexes, functions and guards that a store lacks, compared by name."""
    labels = {label for _, label in found}
    functions = [ddl.split("(", 1)[0].split()[-1] for ddl in database.dialect.functions()]
    named = [
        *(f"function {name}" for name in functions),
        *(f"column {column}" for table in _tables() for column in table.columns),
        *(f"index {index.name}" for table in _tables() for index in table.indexes),
        *_guards(database, partitions),
    ]
    return [f"{name} is missing" for name in named if name not in labels]


@contextmanager
def transaction_at(url: str) -> Iterator[Connection]:
    """Open the store at `url` for one migration, and commit at the end."""
    database = Database(url, timeout_s=MIGRATION_TIMEOUT_S, create=True)
    try:
        with _transaction(database) as connection:
            yield connection
    finally:
        database.close()


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Tell alembic which tables to compare, since a program's own may share the database."""
    return kind != "table" or name in schema.metadata.tables


@contextmanager
def _alembic(database: Database) -> Iterator[None]:
    """Hold the lock that keeps other threads from using alembic.

    Raises:
        ContentionError: Another thread used it until the deadline.
    """
    timeout_s = max(database.timeout_s, _ALEMBIC_MIN_S)
    try:
        if not _ALEMBIC.acquire(timeout=timeout_s):
            raise ContentionError(
                timeout_s=timeout_s, attempts=0, holder="another migration of this process"
            )
        yield
    finally:
        with suppress(RuntimeError):  # it was not this thread's turn
            _ALEMBIC.release()


@contextmanager
def _transaction(database: Database) -> Iterator[Connection]:
    with database.named_errors(), database.connect() as connection:
        database.dialect.prepare(connection)
        connection.commit()
        # Alembic does not begin or end a transaction if SQLAlchemy says that one is open.
        connection.begin()
        database.dialect.begin_migration(connection)
        try:
            yield connection
            database.dialect.commit(connection)
        finally:
            database.dialect.rollback(connection)
            database.dialect.end()


def _config(connection: Connection, **attributes: object) -> Config:
    """Return alembic's configuration, with what the migrations are told."""
    from alembic.config import Config  # noqa: PLC0415

    package = Path(__file__).parent.parent
    folders: tuple[Any, ...] = (package / "migrations", package.parent / "migrations")
    config = Config()
    config.set_main_option("script_location", str(next(filter(Path.is_dir, folders))))
    config.attributes.update(attributes, connection=connection)
    return config


def _tables() -> Iterable[Table]:
    return schema.metadata.tables.values()


def _guards(database: Database, partitions: int) -> list[str]:
    """Return the labels of all triggers, those of partitions included."""
    dialect = database.dialect
    statements = [
        one for name in schema.metadata.tables for one in dialect.guards(name, [("seq",)])
    ]
    statements += dialect.rights()
    for name in schema.DIVIDED if partitions else ():
        statements += dialect.partitions(name, partitions)
    guards = [one for one in statements if isinstance(one, MakesTrigger)]
    return sorted({dialect.trigger_label(one.trigger, one.table) for one in guards})
