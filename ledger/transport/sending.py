"""The content of a request while it leaves: before it does, nothing was asked of a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import FunctionType, MethodType
from typing import Any


class Body:
    """The content of one attempt's request, which notes that it was asked for, to be sent.

    Attributes:
        has_left: Whether it was.
    """

    def __init__(self, content: Any) -> None:  # noqa: ANN401 - of httpx or httpx2
        self._content = content
        self.has_left = False

    def __iter__(self) -> Iterator[bytes]:
        self.has_left = True
        return iter(self._content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.has_left = True
        found: AsyncIterator[bytes] = self._content.__aiter__()
        return found


def is_of(http: Any, send: object) -> bool:  # noqa: ANN401 - a module
    """Tell whether a transport's method is the module's own, which reads a request's `Body` alone.

    A recorder, signer or proxy may stand in its place, in the class or in one transport, and send
    the content that it finds in the request: nothing is known of what has left there. It may name
    itself like what it wraps, but it has the globals of where it was written.

    Args:
        http: The module, `httpx` or `httpx2`.
        send: The method by which a request was sent.
    """
    written = send.__func__ if isinstance(send, MethodType) else None
    return (
        type(written) is FunctionType
        and written.__globals__["__name__"] == f"{http.__name__}._transports.default"
    )
