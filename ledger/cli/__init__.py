"""The command line: parse, call, print.

Each command's module is imported when the command runs, so that `ledger --version` and `--help`
import neither reports nor exports nor a database's driver.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

import ledger
from ledger.cli.exit_codes import ExitCode
from ledger.cli.once import OnceCommand
from ledger.core.errors import LedgerError


class _Command(NamedTuple):
    """A command, before it is imported."""

    place: str
    """Its place, as `module:name`."""
    help: str
    """The first paragraph of its help."""


_COMMANDS = {
    "simulate": _Command(
        "simulate:simulate",
        "Back-test a budget: reserve and settle each row of recorded traffic in a durable pool.",
    ),
    "remaining": _Command(
        "books:remaining",
        "Print what remains of a pool: on each axis the least of what it and the pools above have.",
    ),
    "leases": _Command(
        "leases:app",
        "List the leases of a pool, and end them.",
    ),
    "expire": _Command(
        "books:expire",
        "Expire the leases that are past their time to live. Every write to a pool does so, too.",
    ),
    "alerts": _Command(
        "alerts:alerts",
        "Print every threshold crossing behind a cursor: at least once, and none is lost.",
    ),
    "verify": _Command(
        "books:verify",
        "Check every entry: order, hashes, verdicts, totals, leases. Exit code 1 on damage.",
    ),
    "correct": _Command(
        "correct:correct",
        "Correct the usage of a settlement, observation, import or expiry.",
    ),
    "record": _Command(
        "importing:record",
        "Record one call that was billed and is not in the books, as after a restored backup.",
    ),
    "import": _Command(
        "importing:import_",
        "Import history into a pool: each call once, at its own time, with the totals proved.",
    ),
    "top": _Command(
        "top:top",
        "Follow pools, open leases and spend live. Keys: q quit, p pause, s sort, tab and arrows.",
    ),
    "metrics": _Command(
        "metrics:metrics",
        "Print where pools stand, and what happened in them, as a page for Prometheus.",
    ),
    "export": _Command(
        "export:export",
        "Export entries as CSV, JSON Lines, Parquet or XLSX; "
        "charges for FOCUS, beancount, hledger.",
    ),
    "verify-export": _Command(
        "export:verify_export",
        "Compare an export with the journal, cell by cell. The exit code is 1 if they differ.",
    ),
    "reconcile": _Command(
        "reconcile:reconcile",
        "Compare a provider's bill with the journal, by request id or by model and day.",
    ),
    "price": _Command("price:price", "Print what a call costs, and why."),
    "reprice": _Command(
        "prices:reprice",
        "Print what recorded calls would have cost by other prices, and which cannot be priced.",
    ),
    "prices": _Command("prices:app", "Sources of prices."),
    "pool": _Command(
        "pools:app",
        "Open, list, show, adjust and top up pools.",
    ),
    "report": _Command(
        "report:app",
        "Reports from the rows of the journal.",
    ),
    "db": _Command(
        "database:app",
        "Make, upgrade and check a store's schema, and make roles.",
    ),
}


@functools.cache  # a message about an option looks up its command again
def _load(name: str) -> Any:  # noqa: ANN401 - a command as the parser makes it
    module, _, attribute = _COMMANDS[name].place.partition(":")
    found = getattr(import_module(f"{__name__}.{module}"), attribute)
    lent = typer.Typer(add_completion=False)
    lent.callback()(lambda: None)  # a program of one command would have no names
    if isinstance(found, typer.Typer):
        for command in found.registered_commands:
            command.cls = OnceCommand
        lent.add_typer(found, name=name)
    else:
        lent.command(name, cls=OnceCommand)(found)
    commands: Mapping[str, Any] = typer.main.get_group(lent).commands
    return commands[name]


class _Loaded(Mapping[str, Any]):
    """The commands by name; one is imported when it is looked up."""

    @override
    def __getitem__(self, name: str) -> Any:
        return _load(name)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    @override
    def __len__(self) -> int:
        return len(_COMMANDS)


class _Lazy(TyperGroup):
    """A group that imports a command to run it, and not to list it."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as the group takes
        super().__init__(*args, **options)
        self.commands = _Loaded()  # type: ignore[assignment] # it is only read

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run a command; the parser would end it with 1 if the reader of the output has gone."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _end_unread()

    @override
    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the table's text for each command."""
        listed = copy.copy(self)
        listed.commands = {
            name: TyperCommand(name, help=command.help) for name, command in _COMMANDS.items()
        }
        super(_Lazy, listed).format_help(ctx, formatter)


app = typer.Typer(
    name="ledger",
    cls=_Lazy,
    epilog="The store is --url, or LEDGER_URL, or sqlite:///ledger.db in the current folder. "
    "Exit codes: 0 done, 1 damage or a difference found, 2 it could not be done, 3 a threshold was "
    "crossed, 130 interrupted, 141 output no longer read. "
    "Example: ledger simulate trace.csv --capacity-usd 50 --input-price 3 --output-price 15",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"budget-ledger {ledger.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spend money on language models without overspending, and prove where every cent went."""


_MISUSE: type[Exception] = typer.BadParameter.__mro__[2]
"""The parser's error: click's ClickException, which typer versions keep in different places."""


_THEIR_WORDS = (
    ("Value error, ", ""),
    ("Input should be a valid integer, unable to parse string as an integer", "not a whole number"),
)
"""Messages of the parser in terms of Python, and the same in plain words."""


def _end_unread() -> NoReturn:
    """End the program because the reader of its output has gone, which is no failure."""
    # Output that is flushed at exit is discarded.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(ExitCode.UNREAD)


def main() -> None:
    """Run the command line, and end the program by an `ExitCode`."""
    # A command makes many tuples and few cycles. Searching for cycles after every 700 objects takes
    # a twentieth of an export's time.
    gc.set_threshold(10_000)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()  # a full disk raises here, not when the interpreter exits
        sys.exit(code)
    except BrokenPipeError:
        _end_unread()
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except LedgerError as error:
        from ledger.cli.option_names import in_options  # noqa: PLC0415 - imported where it is used

        _fail(in_options(app, error))
    except _MISUSE as error:
        _fail_misused(error)
    except (typer.Abort, KeyboardInterrupt):
        from ledger.cli.common import stderr  # noqa: PLC0415 - imported where it is used

        stderr().print(
            "Interrupted. What was done is kept; 'ledger simulate --resume', "
            "'ledger reconcile --apply' and 'ledger import' go on.",
            soft_wrap=True,
        )
        sys.exit(ExitCode.INTERRUPTED)


def _fail_misused(error: Any) -> NoReturn:  # noqa: ANN401 - see _MISUSE
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        # With rich, making the error has printed the help already, and this is empty.
        sys.stderr.write(error.format_message())
        sys.exit(ExitCode.FAILED)
    said = error.format_message()
    for theirs, ours in _THEIR_WORDS:
        said = said.replace(theirs, ours)
    said += _placed(error)
    _fail(said + (f" ({context.command_path} --help)" if context else ""))


def _placed(error: Any) -> str:  # noqa: ANN401 - see _MISUSE
    """Return how to write an argument that was written as an option, empty if none was."""
    name = getattr(error, "option_name", "").lstrip("-")
    arguments = error.ctx.command.params if name and error.ctx else ()
    if not any(name == one.name and one.param_type_name == "argument" for one in arguments):
        return ""
    return f". Write {name.upper()} without --{name}: {error.ctx.command_path} {name.upper()}"


def _fail(reason: str) -> NoReturn:
    from ledger.cli.common import stderr  # noqa: PLC0415 - imported where they are used
    from ledger.reports.render import printable  # noqa: PLC0415
    from ledger.store.dialects.addresses import without_secrets  # noqa: PLC0415

    # A command line may hold an address where a name was expected.
    said = printable(without_secrets(" ".join(reason.split())))
    stderr().print(f"Error: {said}", markup=False, soft_wrap=True)
    sys.exit(ExitCode.FAILED)
