"""A manager for asyncio, called as if it were one for threads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any


class Awaited:
    """A wrapper of an object: calls of its coroutine functions block, and return the result.

    Args:
        of: The object, for example an `AsyncBudgetManager`.
        run: Runs a coroutine and returns its result, for example `asyncio.Runner().run`.
    """

    def __init__(self, of: object, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._of = of
        self._run = run

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        """Return an attribute; a method that returns a coroutine runs it and returns its result."""
        found = getattr(self._of, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **words: Any) -> Any:  # noqa: ANN401 - passed on
            answer = found(*arguments, **words)
            return self._run(answer) if inspect.iscoroutine(answer) else answer

        return call
