"""Listeners to the attempts of a budgeted client; the default ones do nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from ledger.core.extensions import Attribution
from ledger.core.values import UsageEstimate
from ledger.prices import Recording
from ledger.transport.requests import Asked


class AttemptListener:
    """A listener to one attempt. This one does nothing."""

    def sending(self) -> AbstractContextManager[object]:
        """Return a context in which the request is sent."""
        return nullcontext()

    def end(
        self,
        *,
        status: int | None = None,
        content: str | None = None,
        error: BaseException | None = None,
        recording: Recording | None = None,
        final: bool = False,
    ) -> None:
        """Take the end of the attempt.

        Args:
            status: The answer's status; None without an answer.
            content: How the answer's content ended: `complete`, `cut`, or `left` by the caller;
                None if none came.
            error: Why it was refused, or why no answer came.
            recording: What was used, and what it cost; None if the answer does not say so.
            final: Whether `recording` is all usage; otherwise the pool's policy decides what is
                charged.
        """


class CallListener:
    """A listener to all attempts. This one does nothing."""

    def begin(
        self,
        asked: Asked,  # noqa: ARG002 - others use it
        attribution: Attribution,  # noqa: ARG002
        estimate: UsageEstimate,  # noqa: ARG002
    ) -> AttemptListener:
        """Return the listener to an attempt that begins; nothing is reserved for it yet.

        Args:
            asked: The request.
            attribution: Whom and what it is for; its request id has the attempt's number.
            estimate: What will be reserved for it.
        """
        return NOTHING


NOTHING = AttemptListener()
"""The listener to attempts without another listener."""
NOBODY = CallListener()
