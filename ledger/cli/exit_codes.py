"""The exit codes of the command line, as docs/command-line.md explains them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FOUND = 1
    """Damage, or a difference."""
    FAILED = 2
    CROSSED = 3
    INTERRUPTED = 130
    UNREAD = 141
    """The reader of the output has gone. Shells report a program that SIGPIPE ended by this
    code."""
