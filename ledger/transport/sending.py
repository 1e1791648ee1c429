"""The content of a request while it leaves: before it does, nothing was asked of a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any


class Body:
    """The content of one attempt's request, which notes that it was asked for, to be sent.

    Attributes:
        has_left: Whether it was, or may have been.
    """

    def __init__(self, content: Any, *, is_noted: bool) -> None:  # noqa: ANN401 - of httpx or httpx2
        """Begin to note.

        Args:
            content: What is sent.
            is_noted: Whether whoever sends it reads it here, and nowhere else.
        """
        self._content = content
        self.has_left = not is_noted

    def __iter__(self) -> Iterator[bytes]:
        self.has_left = True
        return iter(self._content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.has_left = True
        found: AsyncIterator[bytes] = self._content.__aiter__()
        return found
