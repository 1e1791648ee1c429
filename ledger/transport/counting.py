"""Blocks that count the calls inside them, so that no transport counts them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class _Block:
    """A block, and whether it is still open, since tasks that were made in it keep it."""

    is_open = True

    def __init__(self, outer: _Block | None) -> None:
        self.outer = outer


_block: ContextVar[_Block | None] = ContextVar("the block that counts calls", default=None)


@contextmanager
def counted_here() -> Iterator[None]:
    """Let requests inside the block pass uncounted, since the block counts them as one call."""
    outer = _block.get()
    block = _Block(outer)
    _block.set(block)
    try:
        yield
    finally:
        block.is_open = False
        if _block.get() is block:  # the block may be left in another context
            _block.set(outer)


def is_counted() -> bool:
    """Tell whether a block around this request counts it."""
    block = _block.get()
    while block is not None and not block.is_open:
        block = block.outer
    return block is not None
