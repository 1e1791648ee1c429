"""`ledger db`: make, upgrade and check a store's schema."""

from __future__ import annotations

import typer

from ledger.cli.common import URL_DEFAULT, Url, stdout
from ledger.ledger import DEFAULT_TIMEOUT_S
from ledger.reports.render import printable
from ledger.store import migrate, schema
from ledger.store.database import Database

app = typer.Typer(help="Make, upgrade and check a store's schema.", no_args_is_help=True)


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
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False)
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
    database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=False)
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
