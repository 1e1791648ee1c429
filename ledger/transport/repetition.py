"""Which attempts belong to one call, since client libraries repeat requests silently."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class RepeatedCall:
    """A call, which may take several attempts.

    Attributes:
        id: A random id.
        asked: The request, which a repetition repeats.
        attempts: How many there were so far.
        succeeded: Whether the last attempt got a complete answer.
    """

    id: str
    asked: object
    attempts: int = 0
    succeeded: bool = False


_last: ContextVar[RepeatedCall | None] = ContextVar(
    "the last call of a thread or task", default=None
)


def call_of(asked: object, headers: Mapping[str, str]) -> RepeatedCall:
    """Return the call that an attempt belongs to.

    It is the previous call if that failed and had the same request, else a new one.

    Args:
        asked: What is asked for.
        headers: Of the request, in which some clients say how many attempts there were before.
    """
    last = _last.get()
    if (
        last is None
        or last.succeeded
        or headers.get("x-stainless-retry-count") == "0"
        or last.asked != asked
    ):
        last = RepeatedCall(os.urandom(8).hex(), asked)
        _last.set(last)
    last.attempts += 1
    return last
