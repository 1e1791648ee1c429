"""The root class of all errors that callers can catch."""

from __future__ import annotations

from typing import Any


def _rebuild(cls: type[LedgerError], args: tuple[Any, ...], state: dict[str, Any]) -> LedgerError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LedgerError(Exception):
    """Root of everything this library raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls __init__ with the message alone, which keyword-only
        # constructors cannot take.
        return _rebuild, (type(self), self.args, self.__dict__)
