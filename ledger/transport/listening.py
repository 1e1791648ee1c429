"""What listens to the attempts of a budgeted client; by default nothing does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from ledger.core.extensions import Attribution
from ledger.core.values import UsageEstimate
from ledger.prices import Recording
from ledger.transport.requests import Asked


class AttemptListener:
    """What is told of one attempt; this one does nothing with it."""

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
        """Take how the attempt ended.

        Args:
            status: Of the answer; None if none came.
            content: How the answer's content ended: `complete`, `cut`, or `left` by the caller;
                None if none came.
            error: Why it was refused, or why no answer came.
            recording: What was used, and what it cost; None if the answer does not say so.
            final: Whether that is all: without it, the pool's policy decides what is charged.
        """


class CallListener:
    """What is told of all attempts; this one does nothing with them."""

    def begin(
        self,
        asked: Asked,  # noqa: ARG002 - others use it
        attribution: Attribution,  # noqa: ARG002
        estimate: UsageEstimate,  # noqa: ARG002
    ) -> AttemptListener:
        """Return what is told of an attempt that begins: it has not been reserved yet.

        Args:
            asked: The request.
            attribution: Whom and what it is for; its request id has the attempt's number.
            estimate: What will be reserved for it.
        """
        return NOTHING


NOTHING = AttemptListener()
"""What an attempt is told to that nobody listens to."""
NOBODY = CallListener()
