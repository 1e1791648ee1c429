"""`ledger db`: make, upgrade and check a store's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.cli.common import URL_DEFAULT, Url, show, stdout
from ledger.ledger import DEFAULT_TIMEOUT_S
from ledger.reports.render import Column, Sheet, printable
from ledger.store import migrate, schema
from ledger.store.database import Database
from ledger.store.dialects.roles import ROLES, check_prefix

app = typer.Typer(
    help="Make, upgrade and check a store's schema, and make roles.", no_args_is_help=True
)


@app.command("upgrade")
def upgrade(url: Url = URL_DEFAULT) -> None:
    """Bring a store's schema up to date, making it if there is none.

    Example: ledger db upgrade --url postgresql://user@host/database
    """
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=True)
    try:
        migrate.upgrade(database)
        said = printable(f"{database.url} is at {migrate.current(database)}")
        stdout().print(said, markup=False, soft_wrap=True)
    finally:
        database.close()


@app.command("current")
def current(url: Url = URL_DEFAULT) -> None:
    """Print the schema's revision, and the one this version of ledger works with.

    Example: ledger db current
    """
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False, read_only=True)
    try:
        found = migrate.current(database)
    finally:
        database.close()
    stdout().print(f"store {found or 'has no schema'}, this version works with {schema.REVISION}")


@app.command("check")
def check(url: Url = URL_DEFAULT) -> None:
    """Compare a store's tables and guards with what this version expects; exit code 1 if not.

    Example: ledger db check
    """
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False, read_only=True)
    try:
        migrate.require_current(database, create=False)
        differences = migrate.differences(database)
    finally:
        database.close()
    out = stdout()
    for difference in differences:
        out.print(printable(difference), markup=False, soft_wrap=True)
    if differences:
        raise typer.Exit(1)
    out.print(printable(f"{database.url} is as it should be"), markup=False, soft_wrap=True)


@app.command("roles")
def roles(
    url: Url = URL_DEFAULT,
    prefix: Annotated[
        str, typer.Option(help="What the names of the roles begin with.")
    ] = "ledger_",
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
