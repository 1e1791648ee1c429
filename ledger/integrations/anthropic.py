"""anthropic: a middleware that raises the budget's own error in place of the client's."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from ledger.core.errors import MissingExtraError
from ledger.transport.refusals import denial_of

try:
    from anthropic import Middleware
except ImportError as error:
    raise MissingExtraError(what="anthropic", extra="anthropic") from error


class Denials(Middleware):
    """Raises why the budget refused a call, such as `ThresholdExceededError`, as it is.

    Without it the client raises its error for status 402, in which `denial_of` finds it:

        client = budgeted(Anthropic(middleware=[Denials()]), pool=team)
    """

    @override
    def handle(self, request: Any, call_next: Any) -> Any:
        return _passed(call_next(request))

    @override
    async def handle_async(self, request: Any, call_next: Any) -> Any:
        return _passed(await call_next(request))


def _passed(answer: Any) -> Any:
    denial = denial_of(answer.http_response)
    if denial is not None:
        raise denial
    return answer
