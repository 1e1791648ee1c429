"""Whether a call comes from the garbage collector: then it must not wait.

A collection may begin wherever an object is made, in a thread that holds any lock: of the library,
of `logging`, of the program. What a finaliser waits for there may need that very lock.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import Any

_thread: int | None = None
"""The thread in which a collection runs; there is one collection at a time."""


def is_collecting() -> bool:
    """Tell whether this thread is in the middle of a collection."""
    here = threading.get_ident()
    if _thread != here:
        return False
    # An interrupt inside of `_note` may have left the note of a collection that is over. Inside of
    # a collection this does nothing; outside it collects, and so notes what is the case.
    gc.collect(0)
    return _thread == here


def _note(phase: str, _found: Mapping[str, Any]) -> None:
    global _thread  # noqa: PLW0603 - one for the process
    _thread = threading.get_ident() if phase == "start" else None


gc.callbacks.append(_note)
