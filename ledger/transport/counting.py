"""Blocks that count what is called inside them, so that no transport counts it once more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_counted: ContextVar[bool] = ContextVar("whether calls are counted by a block", default=False)


@contextmanager
def counted_here() -> Iterator[None]:
    """Let requests inside the block pass uncounted: the block counts them as one call."""
    token = _counted.set(True)
    try:
        yield
    finally:
        _counted.reset(token)


def is_counted() -> bool:
    """Tell whether a block around this request counts it."""
    return _counted.get()
