"""Calls about a lease that no caller would repeat: they are kept while the store is unavailable.

A provider reports the usage once, to an adapter that must pass the answer on and cannot try again.
So the adapter's call returns as if it was done, and the queue tries it again.
"""

from __future__ import annotations

from contextvars import ContextVar

from ledger.core.contexts import Within
from ledger.core.tokens import is_proof, token_of
from ledger.core.values import Usage

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


def lease_named(lease_id: int | None, proof: bytes | None) -> str:
    """Return a lease's token, for the log; its number if it has none."""
    if lease_id is None or not is_proof(proof):
        return str(lease_id)
    return token_of(lease_id, proof)
