"""The command line: parse, call, print."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any, NoReturn

import typer

import ledger
from ledger.cli import (
    books,
    correct,
    database,
    export,
    pools,
    prices,
    reconcile,
    report,
    simulate,
    top,
)
from ledger.cli.common import stderr, stdout
from ledger.errors import LedgerError
from ledger.reports.render import printable
from ledger.store.dialects.addresses import without_secrets

app = typer.Typer(
    name="ledger",
    epilog="The store is --url, or LEDGER_URL, or sqlite:///ledger.db in the current folder. "
    "Exit codes: 0 done, 1 damage found, 2 it could not be done, 130 interrupted. "
    "Example: ledger simulate trace.csv --capacity-usd 50",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        stdout().print(f"budget-ledger {ledger.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spend money on language models without overspending, and prove where every cent went."""


app.command("simulate")(simulate.simulate)
app.command("remaining")(books.remaining)
app.command("leases")(books.leases)
app.command("expire")(books.expire)
app.command("verify")(books.verify)
app.command("correct")(correct.correct)
app.command("top")(top.top)
app.command("export")(export.export)
app.command("verify-export")(export.verify_export)
app.command("reconcile")(reconcile.reconcile)
app.command("price")(prices.price)
app.command("reprice")(prices.reprice)
app.add_typer(prices.app, name="prices")
app.add_typer(pools.app, name="pool")
app.add_typer(report.app, name="report")
app.add_typer(database.app, name="db")


_MISUSE: type[Exception] = typer.BadParameter.__mro__[2]
"""The parser's error: click's ClickException, which typer versions keep in different places."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 damage or a difference found, 2 failed, 130 interrupted.
    """
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()  # a full disk raises here, not when the interpreter exits
        sys.exit(code)
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except LedgerError as error:
        _fail(str(error))
    except _MISUSE as error:
        _fail_misused(error)
    except (typer.Abort, KeyboardInterrupt):
        stderr().print(
            "Interrupted. What was done is kept; 'ledger simulate --resume' and "
            "'ledger reconcile --apply' go on.",
            soft_wrap=True,
        )
        sys.exit(130)


def _fail_misused(error: Any) -> NoReturn:  # noqa: ANN401 - see _MISUSE
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{context.get_help()}\n")
        sys.exit(2)
    _fail(error.format_message() + (f" ({context.command_path} --help)" if context else ""))


def _fail(reason: str) -> NoReturn:
    # A command line may hold an address where a name was expected.
    said = printable(without_secrets(" ".join(reason.split())))
    stderr().print(f"Error: {said}", markup=False, soft_wrap=True)
    sys.exit(2)
