"""Whether a call is made by the garbage collector; such a call must not wait.

A collection may begin wherever an object is made, in a thread that holds any lock: of the library,
of `logging` or of the program. If a finaliser waited there, it might wait for a thread that needs
that lock.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import Any

_thread: int | None = None
"""The thread in which a collection runs, None if none does; only one runs at a time."""


def is_collecting() -> bool:
    """Tell whether this thread is in the middle of a collection."""
    here = threading.get_ident()
    if _thread != here:
        return False
    # An interrupt inside `_note` may have left a note of a collection that has ended. Inside a
    # collection `gc.collect` does nothing. Outside it collects, and so corrects the note.
    gc.collect(0)
    return _thread == here


def _note(phase: str, _found: Mapping[str, Any]) -> None:
    global _thread  # noqa: PLW0603 - one for the process
    _thread = threading.get_ident() if phase == "start" else None


gc.callbacks.append(_note)
