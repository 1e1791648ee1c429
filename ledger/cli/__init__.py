"""The command line: parse, call, print."""

from __future__ import annotations

import sys

import typer

from ledger.cli import books, database, pools, report, simulate
from ledger.cli.common import stderr
from ledger.errors import LedgerError

app = typer.Typer(
    name="ledger",
    help="Spend money on language models without overspending, and prove where every cent went.",
    epilog="The store is --url, or LEDGER_URL, or sqlite:///ledger.db in the current folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("simulate")(simulate.simulate)
app.command("remaining")(books.remaining)
app.command("leases")(books.leases)
app.command("verify")(books.verify)
app.add_typer(pools.app, name="pool")
app.add_typer(report.app, name="report")
app.add_typer(database.app, name="db")


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 damage found, 2 it could not be done."""
    try:
        app()
    except LedgerError as error:
        stderr().print(f"Error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
