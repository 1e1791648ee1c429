"""Kept calls in the log: what they are about, and the command that does one by hand."""

from __future__ import annotations

from shlex import quote

from ledger.core.checks import from_micros
from ledger.core.extensions import Attribution
from ledger.core.kept_calls import lease_named
from ledger.core.usage_reports import Fitted
from ledger.core.values import USAGE_FIELDS, Usage
from ledger.engine.callers import Caller
from ledger.engine.operations import Record, RecordLost

_QUOTES = "\\'"
"""What has a meaning within such an escaped word."""
_OPTIONS = {
    "request_id": "request_id",
    "model": "model",
    "provider": "provider",
    "run_id": "run",
    "tenant": "tenant",
    "agent": "agent",
}
"""The options for fields of an attribution, some of which a report has, too."""


def named_in_log(caller: Caller) -> tuple[str, str, str]:
    """Return a call's name, its lease's token and its pool, for the log."""
    operation = caller.operation
    about = operation.lost if isinstance(operation, RecordLost) else operation
    lease = lease_named(operation.lease_id, getattr(about, "proof", None))
    return operation.name, lease, caller.pool.info.name


def command(caller: Caller) -> str:
    """Return the command that does what a call asks for, for the log; nothing where none does."""
    operation = caller.operation
    name, lease, pool = named_in_log(caller)
    words, asked = ["ledger leases", name, _word(pool), lease], Attribution()
    if isinstance(operation, RecordLost):
        words = ["ledger record", _word(pool), "--lease", lease, "--reason WHY"]
        asked = operation.asked
        operation = operation.record
    elif name not in {"settle", "abandon", "release"}:
        return ""
    if isinstance(operation, Record):
        words += _options(operation.usage, operation.report, asked)
    return f"; by hand: {' '.join(words)}"


def _options(usage: Usage, report: Fitted, asked: Attribution) -> list[str]:
    """Return what was spent, when and for whom, as the options of commands that record it by hand.

    Args:
        usage: What was spent.
        report: What is known of the call, which goes before what was asked for.
        asked: The attribution, where the command knows no reservation that has it.
    """
    micros = usage.cost_micros_usd
    said: dict[str, object] = {"total_tokens": usage.total_tokens}
    said |= {name: figure for name in USAGE_FIELDS if (figure := getattr(usage, name))}
    if said.pop("cost_micros_usd", 0):
        said["cost_usd"] = f"{micros // 10**6}.{micros % 10**6:06}"
    for name, option in _OPTIONS.items():
        text = getattr(report, name, None) or getattr(asked, name)
        if text is not None:
            said[option] = _word(text)
    if report.occurred_at is not None:
        said["at"] = from_micros(report.occurred_at).isoformat()
    return [f"--{name.replace('_', '-')} {value}" for name, value in said.items()]


def _word(text: str) -> str:
    """Return a text as a word of a shell's command, in one line of the log.

    Characters that are not printable are escaped, as bash and zsh read them.
    """
    if text.isprintable():
        return quote(text)
    plain = [one if one.isprintable() and one not in _QUOTES else _escaped(one) for one in text]
    return f"$'{''.join(plain)}'"


def _escaped(one: str) -> str:
    return f"\\U{ord(one):08x}"
