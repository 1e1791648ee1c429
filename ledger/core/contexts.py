"""Context variables that have a value inside a block, for the thread or task that runs it."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Generic, TypeVar

T = TypeVar("T")


class Within(Generic[T]):
    """A block in which a context variable has a value; a generator would be slower."""

    __slots__ = ("_before", "_value", "_variable")

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._before: Token[T] = self._variable.set(self._value)

    def __exit__(self, *error: object) -> bool | None:
        with suppress(ValueError):  # a coroutine that is thrown away may end in another context
            self._variable.reset(self._before)
        return None
