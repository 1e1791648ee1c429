"""Which attempts are of one call: a client library repeats a request without a word."""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class RepeatedCall:
    """A call, which may take several attempts.

    Attributes:
        id: Random.
        asked: What was asked for: a repetition asks for the same.
        attempts: How many there were so far.
        succeeded: Whether the last one brought a complete answer.
    """

    id: str
    asked: object
    attempts: int = 0
    succeeded: bool = False


_last: ContextVar[RepeatedCall | None] = ContextVar(
    "the last call of a thread or task", default=None
)


def call_of(asked: object, retries: str | None) -> RepeatedCall:
    """Return the call that an attempt belongs to.

    It is the call before, if that failed and asked for the same.

    Args:
        asked: What is asked for.
        retries: How many attempts the client says there were before; None if it does not say.
    """
    last = _last.get()
    if last is None or last.succeeded or retries == "0" or last.asked != asked:
        last = RepeatedCall(os.urandom(8).hex(), asked)
        _last.set(last)
    last.attempts += 1
    return last
