"""Turns: threads that come right back are woken one behind the other, each as the last one sleeps.

A thread that is woken while another one runs waits for the interpreter's lock, and gives up its
processor once more; the other, when it lets go of the lock, wakes it again. So a thread whose call
is done keeps its turn while it runs in the program, and passes it on when it is back in the queue
and about to sleep. With 64 threads on two idle processors that is 1.1 switches an operation, and
2.9 in chains.

Threads that do not come back, or do something else first, would keep the others waiting. So turns
are taken only while the callers of each batch come right back for the next one, and the leader goes
last: it looks whether the turns go on, and quickly enough, and if not wakes all that are left.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

if sys.platform != "win32":
    from resource import RUSAGE_SELF, getrusage

from ledger.engine.callers import Caller, Executor, ThreadCaller, chain

_STALLED_S = 0.005
"""After how many seconds without a next turn all threads are woken.

A turn takes 0.05 ms. A look costs several switches, since the leader has to get the interpreter's
lock; with one every 0.5 ms, 64 threads switched 1.9 times an operation.
"""

_THREADS_MIN = 5
"""The fewest threads that take turns: fewer are all woken at once, or nearly so."""

_TURN_S = 0.0002
"""How many seconds a turn may take, on average over those of a batch.

A program that waits 1.5 ms between its calls comes right back, too: in turns, 64 threads of it had
a third of the rate that they have in chains.
"""

_AFTER_TURNS = 32
"""After turns that brought nothing, from how many batches in a row most must come right back.

Turns bring nothing where a thread stays away, where they take too long, and on busy processors.
"""


def _preempted() -> int:
    """Return how often a thread of this process had to leave its processor to another one."""
    return 0 if sys.platform == "win32" else getrusage(RUSAGE_SELF).ru_nivcsw


class Turns:
    """The threads whose outcomes are there, and which are to be woken."""

    def __init__(self) -> None:
        # No lock guards it: each change is one step of the interpreter.
        self._left: deque[ThreadCaller] = deque()
        self._woken: frozenset[int] = frozenset()
        """The threads of the last batch."""
        self._steady = 0
        """From how many batches in a row most came right back; below 0 for a while."""
        self._until_s = 0.0
        """By when all turns must have been taken, on the clock of `time.monotonic`."""

    def note(self, waiting: Sequence[Caller]) -> None:
        """Note who of the last batch came right back, now that the next one begins."""
        back = sum(1 for one in waiting if one.thread in self._woken)
        self._steady = self._steady + 1 if 2 * back > len(self._woken) else min(self._steady, 0)

    def begin(
        self, threads: Sequence[ThreadCaller], leader: ThreadCaller | Executor | None
    ) -> Sequence[ThreadCaller]:
        """Return the threads that a leader wakes itself; these see to it that all others wake."""
        self._woken = frozenset([one.thread for one in threads])
        if self._steady <= 0 or len(threads) < _THREADS_MIN or not isinstance(leader, ThreadCaller):
            return chain(threads)
        self._until_s = time.monotonic() + _STALLED_S + _TURN_S * len(threads)
        self._left.extend((*threads[1:], leader))
        return threads[:1]

    def sleep(self, caller: ThreadCaller, timeout_s: float) -> None:
        """Let a thread sleep until it is woken, or for so long; the next one has its turn."""
        thread = self._next()
        if thread is None:
            caller.wait(timeout_s)
        else:
            caller.wait_behind(thread, timeout_s)

    def pass_on(self) -> None:
        """Wake the next thread."""
        thread = self._next()
        if thread is not None:
            thread.wake()

    def _next(self) -> ThreadCaller | None:
        left = self._left
        while left:
            try:
                thread = left.popleft()
            except IndexError:  # another thread was quicker
                break
            if thread.alive:  # else it has looked for itself, and left
                return thread
        return None

    def leave(self, caller: Caller) -> None:
        """Let the others go on behind a thread that its program's error takes elsewhere."""
        if caller in self._left:
            self._end()
        else:
            self.pass_on()

    def wait_for(self, leader: ThreadCaller) -> None:
        """Let a leader sleep until its own turn, at once if it has none."""
        turns = len(self._left)
        if turns == 0:
            return
        preempted = _preempted()
        while leader in self._left:
            self.go_on(leader.wait)
        # On busy processors a thread that is woken takes the place of its waker, which holds the
        # interpreter's lock: both switch once more, and chains are quicker.
        if 2 * (_preempted() - preempted) > turns:
            self._steady = -_AFTER_TURNS

    def go_on(self, wait: Callable[[float], object]) -> bool:
        """Wait for a next turn, or for something else; return False at once if there is none.

        Args:
            wait: Sleeps for so many seconds, or until it is woken.
        """
        try:
            first = self._left[0]
        except IndexError:
            return False
        now_s = time.monotonic()
        until_s = max(now_s, min(now_s + _STALLED_S, self._until_s))
        wait(until_s - now_s)
        now_s = time.monotonic()
        stalled = now_s >= until_s and self._left and self._left[0] is first
        if stalled or now_s >= self._until_s:
            self._steady = -_AFTER_TURNS
            self._end()
        return True

    def _end(self) -> None:
        while self._left:
            self.pass_on()
