"""Calls about a lease that no caller would repeat: they are kept while the store is unavailable.

A provider reports the usage once, to an adapter that must pass the answer on and cannot try again.
So the adapter's call returns as if it was done, and the queue tries it again.
"""

from __future__ import annotations

from contextvars import ContextVar
from shlex import quote

from ledger.core.checks import from_micros
from ledger.core.contexts import Within
from ledger.core.extensions import Attribution
from ledger.core.tokens import is_proof, token_of
from ledger.core.usage_reports import Fitted
from ledger.core.values import USAGE_FIELDS, Usage

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

_kept: ContextVar[bool] = ContextVar("calls about leases are kept", default=False)


class Keeping(Within[bool]):
    """A block in which calls about leases are kept if the store cannot do them now."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_kept, True)


def is_kept() -> bool:
    """Tell whether a call that is made now is kept if the store cannot do it."""
    return _kept.get()


def shown(usage: Usage, request_id: str | None) -> str:
    """Return what was spent, for the log: figures that are not 0, and the provider's id."""
    figures = {name: getattr(usage, name) for name in Usage.__dataclass_fields__}
    said = [f"{name} {figure}" for name, figure in figures.items() if figure] or ["usage 0"]
    if request_id is not None:
        said.append(f"request {request_id!r}")
    return ", ".join(said)


def options(usage: Usage, report: Fitted, asked: Attribution) -> list[str]:
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
            said[option] = word(text)
    if report.occurred_at is not None:
        said["at"] = from_micros(report.occurred_at).isoformat()
    return [f"--{name.replace('_', '-')} {value}" for name, value in said.items()]


def word(text: str) -> str:
    """Return a text as a word of a shell's command, in one line of the log.

    Characters that are not printable are escaped, as bash and zsh read them.
    """
    if text.isprintable():
        return quote(text)
    plain = [one if one.isprintable() and one not in _QUOTES else _escaped(one) for one in text]
    return f"$'{''.join(plain)}'"


def _escaped(one: str) -> str:
    return f"\\U{ord(one):08x}"


def lease_named(lease_id: int | None, proof: bytes | None) -> str:
    """Return a lease's token, for the log; its number if it has none."""
    if lease_id is None or not is_proof(proof):
        return str(lease_id)
    return token_of(lease_id, proof)
