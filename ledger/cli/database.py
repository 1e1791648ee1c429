"""`ledger db`: make, upgrade and check a store's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.cli.books import print_verified
from ledger.cli.common import URL_DEFAULT, Url, progress_bar, show, stderr, stdout
from ledger.cli.exit_codes import ExitCode
from ledger.core.errors import SchemaVersionError
from ledger.ledger import DEFAULT_TIMEOUT_S
from ledger.reports.render import Column, Sheet, counted, printable
from ledger.store import migrate, schema
from ledger.store.copying import copy
from ledger.store.database import Database
from ledger.store.dialects.roles import ROLES, check_prefix

app = typer.Typer(
    help="Make, upgrade and check a store's schema, and make roles.", no_args_is_help=True
)


_Partitions = Annotated[
    int | None,
    typer.Option(help="Divide the tables of a new store into so many parts (PostgreSQL)."),
]


@app.command("upgrade")
def upgrade(
    url: Url = URL_DEFAULT,
    partitions: _Partitions = None,
    for_restore: Annotated[
        bool,
        typer.Option("--for-restore", help="Make only the tables, for a dump's data or a replica."),
    ] = False,
) -> None:
    """Bring a store's schema up to date, making it if there is none.

    Example: ledger db upgrade --url postgresql://user@host/database
    """
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=True)
    try:
        migrate.upgrade(database, partitions=partitions, for_restore=for_restore)
        state = "waits for its data" if for_restore else f"is at {migrate.current(database)}"
        said = printable(f"{database.url} {state}")
        stdout().print(said, markup=False, soft_wrap=True)
    finally:
        database.close()


@app.command("current")
def current(url: Url = URL_DEFAULT) -> None:
    """Print the schema's revision, and the one this version of ledger works with.

    Exit code 2 if the store has no schema.

    Example: ledger db current
    """
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False, read_only=True)
    try:
        found = migrate.current(database)
    finally:
        database.close()
    if found is None:
        raise SchemaVersionError(found=None, expected=schema.REVISION, url=database.url)
    stdout().print(f"store {found}, this version works with {schema.REVISION}")


@app.command("check")
def check(url: Url = URL_DEFAULT) -> None:
    """Compare a store's tables and guards with what this version expects; exit code 1 if not.

    If the role may make no schema to compare with, only what is missing is found: exit code 2. The
    database also holds its indexes to its tables, as far as it can.

    Example: ledger db check
    """
    refused: list[str] = []
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False, read_only=True)
    try:
        migrate.require_current(database, create=False)
        differences = migrate.differences(database, refused)
        damage = database.read(database.dialect.index_damage, serializable=False)
    finally:
        database.close()
    differences += [] if damage is None else [damage]
    out = stdout()
    for difference in differences:
        out.print(printable(difference), markup=False, soft_wrap=True)
    for reason in refused:
        said = f"Error: definitions were not compared, only whether parts are missing: {reason}"
        stderr().print(printable(said), markup=False, soft_wrap=True)
    if differences or refused:
        raise typer.Exit(ExitCode.FOUND if differences else ExitCode.FAILED)
    out.print(printable(f"{database.url} is as it should be"), markup=False, soft_wrap=True)


@app.command("copy")
def copy_store(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The URL of the store.")],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="The URL of an empty database, or of a copy.")
    ],
    partitions: _Partitions = None,
) -> None:
    """Copy a store into another database, of either kind, and verify the copy.

    Writers on the source may go on. Run it again to copy what they wrote since; to move a store,
    stop them, run it once more, and start them with the new URL. Exit code 1 on damage.

    Example: ledger db copy sqlite:///ledger.db postgresql://user@host/database
    """
    origin = Database(source, timeout_s=DEFAULT_TIMEOUT_S, create=False, read_only=True)
    made = Database(target, timeout_s=DEFAULT_TIMEOUT_S, create=True)
    try:
        with progress_bar() as bar:
            task = bar.add_task("Copying", total=None)
            found = copy(
                origin,
                made,
                partitions=partitions,
                progress=lambda count: bar.advance(task, count),
            )
    finally:
        made.close()
        origin.close()
    entries = counted(found.entries, "entry", "entries")
    said = f"{entries} of {counted(found.pools, 'pool')} copied to {made.url}"
    stdout().print(printable(said), markup=False, soft_wrap=True)
    if found.pools:
        print_verified(target, expect=found.anchors)


@app.command("roles")
def roles(
    url: Url = URL_DEFAULT,
    prefix: Annotated[str, typer.Option(help="The prefix of the roles' names.")] = "ledger_",
    apply_: Annotated[
        bool, typer.Option("--apply", help="Make the roles, in place of printing the statements.")
    ] = False,
) -> None:
    """Print the SQL that makes roles for a store on PostgreSQL, and what each of them may do.

    The statements may be run again. Then grant the roles: GRANT ledger_worker TO my_program.

    Example: ledger db roles --url postgresql://admin@host/database --apply
    """
    check_prefix(prefix)
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False)
    try:
        statements = migrate.roles(database, prefix, apply=apply_)
    finally:
        database.close()
    if apply_:
        sheet = Sheet(columns=[Column(heading="Role"), Column(heading="May", left=True)])
        for role in ROLES:
            sheet.add(prefix + role.name, role.may)
        show(sheet)
        return
    told = [f"-- {prefix}{role.name}: {role.may}" for role in ROLES]
    for line in (*told, "BEGIN;", *(f"{one};" for one in statements), "COMMIT;"):
        stdout().print(line, markup=False, soft_wrap=True)
