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
    """Nobody reads the output any more; a shell reports a program that SIGPIPE has ended by it."""
