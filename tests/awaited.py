"""The asyncio face, called as if it were the other one."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any


class Awaited:
    """An object whose coroutines are awaited on a loop; what it returns at once, it returns."""

    def __init__(self, of: object, runner: asyncio.Runner) -> None:
        self._of = of
        self._runner = runner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        """Return an attribute; a method answers when what it returns was awaited."""
        found = getattr(self._of, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **words: Any) -> Any:  # noqa: ANN401 - passed on
            answer = found(*arguments, **words)
            return self._runner.run(answer) if inspect.iscoroutine(answer) else answer

        return call
